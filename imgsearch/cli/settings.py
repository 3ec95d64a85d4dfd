"""Where the value of each option comes from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import click
from click.core import ParameterSource

from imgsearch.cli.config import config_path
from imgsearch.cli.locating import locate_any
from imgsearch.cli.output import dump, path_fields, shown

__all__ = ["Setting", "settings_as_json", "settings_as_text", "settings_of"]

Source: TypeAlias = Literal["flag", "variable", "file", "default"]

_SOURCES: dict[ParameterSource | None, Source] = {
    ParameterSource.COMMANDLINE: "flag",
    ParameterSource.ENVIRONMENT: "variable",
    ParameterSource.DEFAULT_MAP: "file",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """An option of a command as it stands.

    Attributes:
        command: its name.
        option: its longest name without dashes, as in a configuration file.
        value: as the command gets it; None if it has none.
        source: where the value was found.
        where: the flag, the name of the variable or the path of the file; None for a default.
    """

    command: str
    option: str
    value: Any
    source: Source
    where: str | None


def settings_of(ctx: click.Context) -> list[Setting]:
    """Return the settings of all commands, those of the running one with its flags.

    Click resolves them as it does for the command itself.

    Args:
        ctx: of the running command, whose parent is the group.

    Raises:
        UsageError: a variable or a file holds a value that makes no sense.
    """
    group = ctx.find_root()
    commands = group.command.commands if isinstance(group.command, click.Group) else {}
    source = _source(group, "config")
    where = {"flag": "--config", "variable": "IMGSEARCH_CONFIG"}.get(source)
    settings = [Setting(str(group.info_name), "config", config_path(ctx), source, where)]
    for name, command in commands.items():
        own = ctx if command is ctx.command else _resolve(command, name, group)
        settings += _settings(own, group)
    return settings


def _resolve(command: click.Command, name: str, group: click.Context) -> click.Context:
    """Return the context that a command would have if it were given no flags."""
    arguments = [part for part in command.params if isinstance(part, click.Argument)]
    needed = ["." for argument in arguments if argument.required]
    return command.make_context(name, needed, parent=group)


def _settings(ctx: click.Context, group: click.Context) -> Iterator[Setting]:
    for option in ctx.command.params:
        if not isinstance(option, click.Option):
            continue
        name = str(option.name)
        value, source = ctx.params[name], _source(ctx, name)
        if name == "collection":
            value = locate_any(ctx, value, make=True)
            if source != "flag" and group.obj is not None:  # given before the command
                source = _source(group, name)
        flag = max(option.opts, key=len)
        where = {"flag": flag, "variable": str(option.envvar), "file": _file(ctx)}.get(source)
        yield Setting(str(ctx.info_name), flag.lstrip("-"), value, source, where)


def _source(ctx: click.Context, name: str) -> Source:
    return _SOURCES.get(ctx.get_parameter_source(name), "default")


def _file(ctx: click.Context) -> str:
    return os.path.abspath(config_path(ctx) or "")


def settings_as_text(settings: Sequence[Setting]) -> str:
    """Return a line for each setting."""
    rows = [("command", "option", "value", "from")]
    rows += [
        (row.command, row.option, shown(_text(row.value)), shown(row.where or row.source))
        for row in settings
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]])
        for row in rows
    )


def settings_as_json(settings: Sequence[Setting]) -> str:
    """Return the settings as a line of JSON."""
    return dump(
        {
            "settings": [
                {
                    "command": row.command,
                    "option": row.option,
                    "value": _plain(row.value),
                    "source": row.source,
                    "where": row.where and path_fields(row.where)["path"],
                }
                for row in settings
            ]
        }
    )


def _plain(value: Any) -> Any:
    if isinstance(value, str | os.PathLike):
        return path_fields(os.fspath(value))["path"]
    return [_plain(part) for part in value] if isinstance(value, tuple) else value


def _text(value: Any) -> str:
    match value:
        case None | ():
            return "-"
        case bool():
            return str(value).lower()
        case tuple():
            return ", ".join(map(_text, value))
        case float():
            return f"{value:g}"
        case _:
            return str(value)
