"""Find the collection that a command is about."""

from __future__ import annotations

from pathlib import Path

import click
from click.core import ParameterSource

from imgsearch.errors import SettingError
from imgsearch.storage.layout import Layout

__all__ = ["locate", "locate_any"]

HIDDEN = ".imgsearch"


def locate(ctx: click.Context, collection: Path | str | None) -> Path:
    """Return the collection's directory; see `locate_any`.

    Raises:
        SettingError: it is no directory.
    """
    found = locate_any(ctx, collection)
    if isinstance(found, Path):
        return found
    raise SettingError(
        f"`imgsearch {ctx.info_name}` works on a collection in a directory, not on {found}; "
        "`index`, `query`, `info`, `remove`, `evaluate` and `serve` do on both"
    )


def locate_any(ctx: click.Context, collection: Path | str | None) -> Path | str:
    """Return the collection's directory, or the URL of what is elsewhere.

    The one given after the command or before it, the nearest `.imgsearch` from here upwards, or
    `./.imgsearch`.
    """
    # What is given before the command comes before a variable or a file, which stand for both.
    after = ctx.get_parameter_source("collection") is ParameterSource.COMMANDLINE
    given = collection if after else ctx.obj or collection
    if isinstance(given, Path | str):
        return given
    here = Path.cwd()
    near = (folder / HIDDEN for folder in (here, *here.parents))
    return next((path for path in near if Layout(path).exists()), here / HIDDEN)
