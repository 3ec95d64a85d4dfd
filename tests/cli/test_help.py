"""`--help`: short, and first what people use."""

from __future__ import annotations

import re
from collections.abc import Callable

import click
import pytest
from click.testing import Result

from imgsearch.cli import main
from imgsearch.cli.config import commands_of

Invoke = Callable[..., Result]


def options_of(help_text: str) -> list[str]:
    """Return the longest name of each option, in the order of the help."""
    rows = re.findall(r"^  (-[\w-]+(?:, -[\w-]+)*)", help_text.partition("\nOptions:")[2], re.M)
    return [max(row.split(", "), key=len) for row in rows]


def test_without_arguments_the_help_is_shown(invoke: Invoke) -> None:
    bare = invoke()
    assert (bare.exit_code, bare.stderr) == (0, "")
    assert bare.stdout == invoke("--help").stdout
    without_a_command = invoke("-c", "somewhere")
    assert (without_a_command.exit_code, without_a_command.stdout) == (2, "")
    assert "Missing command" in without_a_command.stderr


def test_the_help_lists_the_commands_in_the_order_in_which_they_are_needed(invoke: Invoke) -> None:
    text = invoke("--help").stdout
    rows = re.findall(r"^  (\w+)  +(.+)", text.partition("\nCommands:")[2], re.M)
    summaries = {
        name: command.get_short_help_str(80) for name, command in commands_of(main).items()
    }
    assert dict(rows) == summaries
    assert [name for name, _ in rows] == [
        *("index", "query", "list", "explain", "serve", "gallery", "duplicates", "map", "info"),
        *("remove", "verify", "evaluate", "tune", "export", "watch", "mcp", "models"),
        "completion",
    ]
    assert all(help_text.endswith(".") and "..." not in help_text for _, help_text in rows)
    assert "Exit codes: 0 done, 1 nothing found, 2 usage, 3 bad input" in text
    assert len(text.splitlines()) < 40
    assert "\\b" not in text


@pytest.mark.parametrize(
    ("command", "first"),
    [
        ("query", ["-k", "--recall", "--exact", "--json"]),
        ("index", ["--recall", "--prune", "--model", "--json"]),
        ("info", ["--settings", "--verbose", "--json", "--collection"]),
        ("remove", ["--json", "--collection"]),
        ("evaluate", ["-k", "--recall", "--json"]),
    ],
)
def test_the_help_of_a_command_begins_with_the_options_that_people_use(
    invoke: Invoke, command: str, first: list[str]
) -> None:
    assert options_of(invoke(command, "--help").stdout)[: len(first)] == first


def test_every_option_has_a_help_text_and_a_variable_and_every_switch_an_opposite() -> None:
    for command in commands_of(main).values():
        for option in command.params:
            if isinstance(option, click.Option):
                assert option.help, option
                assert str(option.envvar).startswith("IMGSEARCH_"), option
                assert option.is_flag == any(
                    name.startswith("--no-") for name in option.secondary_opts
                )


def test_opposites_are_told_of_once(invoke: Invoke) -> None:
    assert invoke("query", "--help").stdout.count("--no-") == 1
