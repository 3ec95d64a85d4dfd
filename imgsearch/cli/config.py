"""Defaults from a TOML file, through Click's `default_map`."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any

import click

from imgsearch.errors import StorageError, reason_of

__all__ = ["load_config"]

_NOT_IN_A_FILE = ("config", "version")


def load_config(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Make what a file says the defaults of the options; a table a command.

    Raises:
        UsageError: it is no TOML, or it names an option that does not exist.
    """
    if path is None:
        return
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{path} is no TOML file: {error}") from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {reason_of(error)}") from error
    ctx.default_map = _translate(path, ctx.command, settings)


def _translate(path: Path, command: click.Command, settings: dict[str, Any]) -> dict[str, Any]:
    """Turn option names into parameter names; refuse what is neither option nor command."""
    names = {
        option.lstrip("-"): parameter
        for parameter in command.params
        if isinstance(parameter, click.Option) and parameter.name not in _NOT_IN_A_FILE
        for option in parameter.opts
    }
    commands = command.commands if isinstance(command, click.Group) else {}
    translated: dict[str, Any] = {}
    for key, value in settings.items():
        if key in commands and isinstance(value, dict):
            translated[key] = _translate(path, commands[key], value)
        elif key in names and not isinstance(value, dict):
            translated[str(names[key].name)] = _checked(path, key, value, names[key])
        else:
            near = difflib.get_close_matches(key, [*names, *commands], n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise click.UsageError(f"{path}: there is no option {key!r}{hint}")
    return translated


def _checked(path: Path, key: str, value: Any, option: click.Option) -> Any:
    """Return a value that has the type of its option; Click converts from text only."""
    if option.is_flag:
        fits = isinstance(value, bool)
    elif isinstance(option.type, click.types.FloatParamType):
        fits = isinstance(value, int | float) and not isinstance(value, bool)
    elif isinstance(option.type, click.types.IntParamType):
        fits = isinstance(value, int) and not isinstance(value, bool)
    else:
        fits = isinstance(value, str)
    if not fits:
        raise click.UsageError(f"{path}: {key} cannot be {value!r}")
    return value
