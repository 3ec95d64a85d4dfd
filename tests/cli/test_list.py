"""`imgsearch list`, the other names of commands, and the completion of a shell."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import Result

from imgsearch.collection import Collection
from imgsearch.embedding.models import MODELS, ONNX, OPEN_CLIP, TIMM, TORCHVISION

Invoke = Callable[..., Result]


def test_paths_are_listed_relative_to_the_current_folder(
    invoke: Invoke, collection: Collection, empty: Path, tree: Path, tmp_path: Path
) -> None:
    (tree / "below" / "0008.jpg").rename(tree / "-odd name.jpg")
    collection.index(tree)
    files = [str(path.relative_to(tmp_path)) for path in tree.rglob("*") if path.is_file()]
    expected = sorted(files, key=os.path.split)
    listed = invoke("list", "-c", empty)
    assert (listed.exit_code, listed.stderr) == (0, "")
    assert listed.stdout.splitlines() == expected
    absolute = invoke("list", "-c", empty, "--absolute", "-0").stdout
    assert absolute.rstrip("\0").split("\0") == [str(tmp_path / path) for path in expected]
    assert invoke("ls", "-c", empty, "-n", "2", "--reverse").stdout.splitlines() == expected[:-3:-1]
    inside = invoke("list", "-c", empty, tree / "below", "--sort", "added").stdout.splitlines()
    assert inside == [path for path in expected if "below" in path]
    rows = [json.loads(line) for line in invoke("list", "-c", empty, "--json").stdout.splitlines()]
    assert [row["path"] for row in rows] == [str(tmp_path / path) for path in expected]
    assert rows[0].keys() >= {"id", "path", "size", "mtime", "digest", "width", "height"}
    os.chdir(tree)
    assert invoke("list", "-c", empty, "--name", "odd").stdout == "./-odd name.jpg\n"


def test_hits_are_shown_relative_to_the_current_folder(
    invoke: Invoke, collection: Collection, empty: Path, tree: Path
) -> None:
    collection.index(tree)
    query = ("query", "-c", empty, tree / "0000.jpg", "-n", "11")
    rows = invoke(*query).stdout.splitlines()[2:]
    assert {row.split()[-1] for row in rows} >= {"tree/0001.png", "tree/below/0009.png"}
    rows = invoke(*query, "--absolute", "--distance").stdout.splitlines()[1:]
    assert rows[0].split() == ["#", "similarity", "distance", "path"]
    assert all(row.split()[-1].startswith(str(tree)) for row in rows[1:])
    assert set(invoke(*query, "--paths").stdout.split()) == {row.split()[-1] for row in rows[1:]}


def test_files_that_failed_are_listed_with_the_reason(
    invoke: Invoke, collection: Collection, empty: Path, tree: Path
) -> None:
    collection.index(tree)
    nothing = invoke("list", "-c", empty, "--failed")
    assert (nothing.exit_code, nothing.stdout) == (1, "")
    assert "the collection holds no failed file" in nothing.stderr
    (tree / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no JPEG")
    (tree / "below" / "empty.png").touch()
    collection.index()
    lines = invoke("list", "-c", empty, "--failed").stdout.splitlines()
    paths = [line.partition(": ")[0] for line in lines]
    assert paths == ["tree/below/empty.png", "tree/broken.jpg"]
    assert lines[0].endswith("is named like an image but is empty")
    row = invoke("list", "-c", empty, "--failed", "--json", "--name", "broken").stdout
    assert json.loads(row).keys() == {"path", "reason"}
    refused = invoke("list", "-c", empty, "--failed", "--size", ">1MB")
    assert refused.exit_code == 2
    assert "can be filtered only by name" in refused.stderr


def test_nothing_that_passes_is_said_so(invoke: Invoke, indexed: Path, photos: Path) -> None:
    nothing = invoke("list", "-c", indexed, "--name", "unheard")
    assert (nothing.exit_code, nothing.stdout) == (1, "")
    assert nothing.stderr.endswith("the collection holds no image that passes the filter\n")
    small = ("list", "-c", indexed, "--size", "<10")
    assert "not known yet" not in invoke(*small).stderr
    with closing(sqlite3.connect(indexed / "catalog.sqlite")) as catalog, catalog:
        catalog.execute("UPDATE images SET width = NULL WHERE id < 8")
    told = "pixels and camera are not known yet for 7 of its images: run `imgsearch index`"
    assert told in invoke(*small).stderr
    query = ("query", "-c", indexed, photos / "0003.png", "--size", "<10")
    assert told in invoke(*query).stderr


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("find", "did you mean `imgsearch query` or `imgsearch list`?"),
        ("serch", "did you mean `imgsearch query`"),
        ("lst", "did you mean `imgsearch list`?"),
        ("verfy", "did you mean `imgsearch verify`"),
        ("version", "did you mean `imgsearch --version`?"),
        ("xyzzy", "`imgsearch --help` lists all commands"),
    ],
)
def test_an_unknown_command_is_answered_with_a_suggestion(
    invoke: Invoke, typed: str, told: str
) -> None:
    ended = invoke(typed, "something")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert f"there is no command {typed!r}; {told}" in ended.stderr


def test_other_names_of_commands_are_understood(invoke: Invoke, indexed: Path) -> None:
    assert invoke("status", "-c", indexed).stdout == invoke("info", "-c", indexed).stdout
    by_config = Path("some.toml")
    by_config.write_text("[list]\nlimit = 3\n")
    listed = invoke("--config", by_config, "ls", "-c", indexed)
    assert len(listed.stdout.splitlines()) == 3


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_taught_to_complete(invoke: Invoke, shell: str) -> None:
    script = invoke("completion", shell).stdout
    assert "_IMGSEARCH_COMPLETE" in script
    assert "complete" in script


@pytest.mark.processes
def test_commands_options_and_choices_are_completed(tmp_path: Path) -> None:
    def completed(*words: str) -> list[str]:
        variables = {
            "_IMGSEARCH_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(("imgsearch", *words)),
            "COMP_CWORD": str(len(words)),
        }
        ended = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "imgsearch"],
            env=os.environ | variables,
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        )
        assert "imgsearch.cli.query" not in ended.stderr
        return [line.partition(",")[2] for line in ended.stdout.splitlines()]

    assert completed("l") == ["list"]
    assert completed("index", "--model", "") == [*MODELS, TORCHVISION, TIMM, OPEN_CLIP, ONNX]
