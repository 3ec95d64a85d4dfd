"""Read the defaults of options from a TOML file, through Click's `default_map`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from imgsearch.errors import StorageError, reason_of

__all__ = ["commands_of", "config_path", "load_config"]

MAX_CONFIG = 1 << 20  # maximum size of a configuration file in bytes

_NOT_IN_A_FILE = ("config", "version")
_PATH = "imgsearch.config"  # key in `Context.meta`, which all contexts share


def load_config(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Make the settings in a file the defaults of the options; each table is for one command.

    Raises:
        UsageError: If the file is not TOML, or names an option that does not exist.
        StorageError: If the file cannot be read.
    """
    if path is None:
        return
    import tomllib

    try:
        with path.open("rb") as file:
            content = file.read(MAX_CONFIG + 1)
        if len(content) > MAX_CONFIG:
            raise click.UsageError(
                f"{path} has more than {MAX_CONFIG:,} bytes, which is too many for a "
                f"configuration file"
            )
        settings = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:  # also: not UTF-8, too long a number, too deep
        raise click.UsageError(f"{path} is not a TOML file: {error}") from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {reason_of(error)}") from error
    ctx.default_map = _translate(path, ctx.command, settings)
    ctx.meta[_PATH] = path


def config_path(ctx: click.Context) -> Path | None:
    """Return the file that defaults were read from; None if there is none."""
    path: Path | None = ctx.meta.get(_PATH)
    return path


def commands_of(command: click.Command) -> dict[str, click.Command]:
    """Return the commands of a group by name; a plain command has none."""
    if not isinstance(command, click.Group):
        return {}
    context = click.Context(command)
    found = {name: command.get_command(context, name) for name in command.list_commands(context)}
    return {name: each for name, each in found.items() if each is not None}


def _translate(path: Path, command: click.Command, settings: dict[str, Any]) -> dict[str, Any]:
    """Turn option names into parameter names; refuse keys that are neither option nor command."""
    names = _options(command)
    commands = commands_of(command)
    translated: dict[str, Any] = {}
    for key, value in settings.items():
        if key in commands and isinstance(value, dict):
            translated[key] = _translate(path, commands[key], value)
        elif key in names and not isinstance(value, dict):
            translated[str(names[key].name)] = _checked(path, key, value, names[key])
        else:
            raise click.UsageError(f"{path}: there is no option {key!r}; {_hint(key, command)}")
    return translated


def _hint(key: str, command: click.Command) -> str:
    """Say which table an option belongs in, or which option has the most similar name."""
    top = click.get_current_context().command
    tables = {"": top, **commands_of(top)}
    for name, table in tables.items():
        if key in _options(table):
            return f"it belongs in [{name}]" if name else "it belongs above the tables"
    there = [*_options(command), *commands_of(command)]
    if not there:
        return "this command has none that a file may set"
    import difflib

    return f"did you mean {difflib.get_close_matches(key, there, n=1, cutoff=0)[0]}?"


def _options(command: click.Command) -> dict[str, click.Option]:
    """Return the options that are allowed in a file, by their names there."""
    return {
        option.lstrip("-"): parameter
        for parameter in command.params
        if isinstance(parameter, click.Option) and parameter.name not in _NOT_IN_A_FILE
        for option in parameter.opts
    }


def _checked(path: Path, key: str, value: Any, option: click.Option) -> Any:
    """Return a value if it has the type of its option; Click only converts from text.

    A NUL character, which no argument of a command can hold, is refused.
    """
    if option.multiple or option.nargs > 1:
        fits = isinstance(value, list) and all(isinstance(part, str) for part in value)
        fits = fits and (option.multiple or len(value) == option.nargs)
    elif option.is_flag:
        fits = isinstance(value, bool)
    elif isinstance(option.type, click.types.FloatParamType):
        fits = _is_number(value)
    elif isinstance(option.type, click.types.IntParamType):
        fits = _is_number(value) and isinstance(value, int)
    elif isinstance(option.type, click.types.FuncParamType):  # a crop box
        fits = isinstance(value, str) or (isinstance(value, list) and all(map(_is_number, value)))
    else:
        fits = isinstance(value, str)
    texts = value if isinstance(value, list) else [value]
    if not fits or any(isinstance(text, str) and "\0" in text for text in texts):
        raise click.UsageError(f"{path}: {key} cannot be {value!r}")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
