"""`imgsearch info --settings`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
from click.testing import Result

from imgsearch.cli import main
from imgsearch.cli.config import commands_of

Invoke = Callable[..., Result]
Row = dict[str, Any]


def settings(
    invoke: Invoke, *before: str, after: tuple[str, ...] = (), env: Mapping[str, str] | None = None
) -> dict[tuple[str, str], Row]:
    ended = invoke(*before, "info", "--settings", "--json", *after, env=env)
    assert (ended.exit_code, ended.stderr) == (0, "")
    rows = json.loads(ended.stdout)["settings"]
    return {(row.pop("command"), row.pop("option")): row for row in rows}


def test_every_option_of_every_command_is_there_without_a_collection(invoke: Invoke) -> None:
    expected = {
        (name, max(option.opts, key=len).lstrip("-"))
        for name, command in commands_of(main).items()
        for option in command.params
        if isinstance(option, click.Option)
    }
    rows = settings(invoke)
    assert expected == rows.keys() - {("main", "config")}
    assert rows["query", "k"] == {"value": 10, "source": "default", "where": None}
    assert rows["query", "recall"]["value"] is None
    assert rows["query", "unlike"]["value"] == []


def test_each_value_tells_where_it_comes_from(invoke: Invoke) -> None:
    Path("my.toml").write_text(
        "[query]\nk = 7\nnprobe = 3\ncrop = [0, 0, 0.5, 1]\n[index]\nstrict = true\n"
    )
    rows = settings(
        invoke,
        *("--config", "my.toml"),
        after=("--device", "cpu"),
        env={"IMGSEARCH_K": "5", "IMGSEARCH_UNLIKE": "a.jpg:b.jpg"},
    )
    here = str(Path("my.toml").absolute())
    assert rows["query", "k"] == {"value": 5, "source": "variable", "where": "IMGSEARCH_K"}
    assert rows["query", "nprobe"] == {"value": 3, "source": "file", "where": here}
    assert rows["query", "crop"]["value"] == [0, 0, 0.5, 1]
    assert rows["query", "unlike"]["value"] == ["a.jpg", "b.jpg"]
    assert rows["index", "strict"] == {"value": True, "source": "file", "where": here}
    assert rows["index", "device"] == {"value": "auto", "source": "default", "where": None}
    assert rows["info", "device"] == {"value": "cpu", "source": "flag", "where": "--device"}
    assert rows["main", "config"] == {"value": "my.toml", "source": "flag", "where": "--config"}


def test_the_collection_is_that_which_the_command_would_take(invoke: Invoke) -> None:
    here = os.getcwd()
    by_default = {"value": f"{here}/.imgsearch", "source": "default", "where": None}
    assert settings(invoke)["query", "collection"] == by_default
    flag = {"value": "a", "source": "flag", "where": "--collection"}
    rows = settings(invoke, "-c", "a", env={"IMGSEARCH_COLLECTION": "b"})
    assert rows["query", "collection"] == rows["info", "collection"] == flag
    rows = settings(invoke, "-c", "b", after=("-c", "a"))
    assert rows["info", "collection"] == flag
    assert rows["query", "collection"]["value"] == "b"
    Path("my.toml").write_text('collection = "c"\n')
    from_file = {"value": "c", "source": "file", "where": f"{here}/my.toml"}
    for rows in (
        settings(invoke, "--config", "my.toml"),
        settings(invoke, env={"IMGSEARCH_CONFIG": "my.toml"}),
    ):
        assert rows["index", "collection"] == from_file


def test_settings_are_a_table_for_people(invoke: Invoke) -> None:
    ended = invoke(
        "info", "--settings", env={"IMGSEARCH_EXACT": "yes", "IMGSEARCH_HTML": "\x1b.html"}
    )
    lines = ended.stdout.splitlines()
    assert lines[0].split() == ["command", "option", "value", "from"]
    assert ["query", "exact", "true", "IMGSEARCH_EXACT"] in [line.split() for line in lines]
    assert ["query", "html", "\\x1b.html", "IMGSEARCH_HTML"] in [line.split() for line in lines]
    assert ["index", "recall", "-", "default"] in [line.split() for line in lines]
    assert ["index", "time-limit", "60", "default"] in [line.split() for line in lines]


def test_a_value_that_makes_no_sense_is_named_with_its_place(invoke: Invoke) -> None:
    ended = invoke("info", "--settings", env={"IMGSEARCH_NLIST": "few"})
    assert ended.exit_code == 2
    assert "Invalid value for IMGSEARCH_NLIST: 'few' is not a valid integer" in ended.stderr
