"""Choose among options that exclude each other: the one that is given nearer wins."""

from __future__ import annotations

from collections.abc import Iterable

import click
from click.core import ParameterSource

from imgsearch.cli.config import config_path

__all__ = ["choose"]

#: Where an option may be given, the nearest first.
_LEVELS = (
    ParameterSource.COMMANDLINE,
    ParameterSource.ENVIRONMENT,
    ParameterSource.DEFAULT_MAP,
)


def choose(ctx: click.Context, *choices: tuple[str, ...]) -> str | None:
    """Return which of some choices is to be heeded, None if none of them is given.

    A flag comes before a variable, that before a file. A switch that is off is not given.

    Args:
        ctx: of the command.
        choices: its parameters, those that go together in one tuple, which is called by the first.

    Raises:
        UsageError: two are given at the same place.
    """
    for level in _LEVELS:
        here = {
            choice[0]: name
            for choice in choices
            for name in choice
            if ctx.params[name] not in (None, False) and ctx.get_parameter_source(name) is level
        }
        if len(here) > 1:
            raise click.UsageError(_conflict(ctx, level, here.values()), ctx)
        if here:
            return next(iter(here))
    return None


def _conflict(ctx: click.Context, level: ParameterSource, names: Iterable[str]) -> str:
    options = {option.name: option for option in ctx.command.params}
    flags = [max(options[name].opts, key=len) for name in names]
    if level is ParameterSource.ENVIRONMENT:
        flags = [str(options[name].envvar) for name in names]
    where = f" in {config_path(ctx)}" if level is ParameterSource.DEFAULT_MAP else ""
    return f"{' and '.join(flags)} exclude each other{where}: give one of them"
