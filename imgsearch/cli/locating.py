"""Find the collection that a command is about."""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.core import ParameterSource

from imgsearch.cli.ownership import check_owner
from imgsearch.errors import ImgsearchError, NoCollectionError, SettingError
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


def locate_any(
    ctx: click.Context, collection: Path | str | None, *, make: bool = False
) -> Path | str:
    """Return the collection's directory, or the URL of what is elsewhere.

    The one given after the command or before it, the nearest `.imgsearch` from here upwards, or
    `./.imgsearch`. One that was not given has to belong to the user.

    Args:
        ctx: of the command.
        collection: that it was given.
        make: there need not be one: the command makes it.

    Raises:
        NoCollectionError: none is given, and there is none here nor in a folder above.
        InputError: the one that was found belongs to another user.
    """
    # What is given before the command comes before a variable or a file, which stand for both.
    after = ctx.get_parameter_source("collection") is ParameterSource.COMMANDLINE
    given = collection if after else ctx.obj or collection
    if isinstance(given, Path | str):
        return given
    here = Path.cwd()
    near = (folder / HIDDEN for folder in (here, *here.parents))
    found = next((path for path in near if Layout(path).exists()), None)
    nearest = found or here / HIDDEN
    if os.path.lexists(nearest):
        check_owner(nearest)
    if found is None and not make:
        _check_none(here)
    return nearest


def _check_none(here: Path) -> None:
    """Raise `NoCollectionError`, unless there is a damaged collection, about which others raise."""
    try:
        Layout(here / HIDDEN).version()
    except NoCollectionError as error:
        raise NoCollectionError(
            f"there is no collection at {here / HIDDEN}, nor in any folder above; make one with "
            "`imgsearch index FOLDER`, or name one with -c DIR or IMGSEARCH_COLLECTION"
        ) from error
    except ImgsearchError:
        return
