"""Kinds of options that Click does not have."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeAlias

import click
from click.core import ParameterSource

from imgsearch.cli.config import config_path
from imgsearch.errors import SettingError
from imgsearch.files.sources import is_url, located
from imgsearch.images.crop import Box
from imgsearch.places import is_elsewhere

__all__ = ["Decorator", "Option", "Place", "Switch", "crop", "option", "switch"]

Decorator: TypeAlias = Callable[[Any], Any]


class Place(click.Path):
    """A path or a `file:` URL, or the URL of a collection that is not a directory."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a Path, or the URL of what is elsewhere as it is.

        Raises:
            InputError: It is a `file:` URL of another machine.
        """
        if is_elsewhere(value):
            return value
        if is_url(value):
            here = "give a directory, or milvus://HOST:PORT/NAME"
            self.fail(f"a collection cannot be at {value}; {here}", param, ctx)
        # Before it is a Path, which takes two slashes for one.
        path = os.fsdecode(located(value)) if str(value)[:5].lower() == "file:" else value
        return super().convert(path, param, ctx)


class Option(click.Option):
    """An option; an error about its value names the variable or the file that it is from."""

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """Return what an error message calls this option."""
        source = ctx.get_parameter_source(str(self.name)) if ctx else None
        if source is ParameterSource.ENVIRONMENT:
            return str(self.envvar)
        hint = super().get_error_hint(ctx)
        if ctx and source is ParameterSource.DEFAULT_MAP:
            return f"{hint} in {config_path(ctx)}"
        return hint


class Switch(Option):
    """An option without a value; `--no-...` undoes what a variable or a file says.

    `--help` names the opposites only once, below all options.
    """

    def __init__(self, declarations: list[str], **settings: Any) -> None:
        flag = max((name for name in declarations if name.startswith("-")), key=len)
        with_opposite = [f"{d}/--no-{flag[2:]}" if d == flag else d for d in declarations]
        super().__init__(with_opposite, is_flag=True, default=False, **settings)

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the row of `--help`."""
        del ctx
        return ", ".join(self.opts), self.help or ""


def crop(value: Any) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of the box that is given, as text or as four numbers.

    Raises:
        BadParameter: it is none, or it is empty.
    """
    try:
        left, top, right, bottom = map(float, value.split(",") if isinstance(value, str) else value)
        Box(left, top, right, bottom)
    except (TypeError, ValueError) as error:
        raise click.BadParameter(
            f"{value!r} is no box; give left,top,right,bottom, as 0,0,0.5,1 for the left half"
        ) from error
    except SettingError as error:
        raise click.BadParameter(str(error)) from error
    return left, top, right, bottom


def option(*names: str, **settings: Any) -> Decorator:
    """Return an option that a variable, IMGSEARCH_ and its name, may stand for."""
    flag = max((name for name in names if name.startswith("-")), key=len)
    variable = flag.lstrip("-").replace("-", "_").upper()
    settings = {"cls": Option, "show_default": settings.get("default") is not None, **settings}
    return click.option(*names, envvar=f"IMGSEARCH_{variable}", **settings)


def switch(*names: str, **settings: Any) -> Decorator:
    """Return an option without a value, whose opposite is `--no-...`."""
    return option(*names, cls=Switch, **settings)
