"""`imgsearch list`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imgsearch.cli import options
from imgsearch.cli.locate import locate_any
from imgsearch.cli.output import ExitStatus, shortened, shown
from imgsearch.cli.terminal import Terminal
from imgsearch.files.paths import dump, path_fields

if TYPE_CHECKING:
    from imgsearch.querying.filters import FilterKeywords, Order

__all__ = ["list"]


@click.command("list", epilog=options.OPPOSITES)
@click.argument("folders", nargs=-1, metavar="[FOLDER]...", type=click.Path())
@options.limit_option
@options.sort_option
@options.reverse_option
@options.filter_options
@options.failed_option
@options.absolute_option
@options.json_option
@options.null_option
@options.collection_option
@click.pass_context
def list_(
    ctx: click.Context,
    /,
    folders: tuple[str, ...],
    limit: int | None,
    sort: Order,
    reverse: bool,
    failed: bool,
    absolute: bool,
    collection: Path | str | None,
    **_: object,  # the filters, and what is mutually exclusive
) -> None:
    """List the images in the collection.

    With FOLDER, list only the images in it and below it. Paths below the current folder are
    relative to it.
    """
    from imgsearch.collection import Collection

    form = options.choose(ctx, ("as_json",), ("null",))
    wanted: FilterKeywords = {**options.filters_of(ctx)}
    if folders:
        wanted["folder"] = [*folders, *ctx.params["folder"]]
    status = ExitStatus()
    with Collection.open(locate_any(ctx, collection)) as found:
        rows: Iterable[dict[str, Any]]
        if failed:
            rows = (
                {**path_fields(path), "reason": reason, "raw": path}
                for path, reason in found.entries.failures(**wanted)
            )
        else:
            from imgsearch.querying.entries import entry_fields

            rows = (
                {**entry_fields(entry), "raw": entry.path}
                for entry in found.entries.where(order=sort, reverse=reverse, **wanted)
            )
        nothing, unread = True, ""
        for line in _lines(islice(rows, limit), form, absolute=absolute):
            click.echo(line, nl=False)
            nothing = False
        if nothing and not failed:
            unread = options.what_is_unread(found, wanted)
    if nothing:
        what = "no failed file" if failed else "no image"
        which = " that passes the filter" if wanted else ""
        status.miss(f"nothing found: the collection holds {what}{which}{unread}")
    ctx.exit(status.code)


list = list_  # noqa: A001 - a command is called as its module


def _lines(
    rows: Iterable[dict[str, Any]], form: str | None, *, absolute: bool
) -> Iterator[str | bytes]:
    """Yield a line for each image or failed file: its fields as JSON, or its path."""
    short, terminal = shortened(absolute=absolute), sys.stdout.isatty()
    look = Terminal.on_stdout()
    for row in rows:
        raw = row.pop("raw")
        if form == "as_json":
            yield dump(row) + "\n"
            continue
        path = short(raw)
        if form == "null":
            yield (shown(path).encode() if terminal else os.fsencode(path)) + b"\0"
        elif "reason" in row:
            yield f"{look.linked(shown(path), raw)}: {shown(row['reason'])}\n"
        elif terminal:
            yield look.linked(shown(path), raw) + "\n"
        else:
            yield os.fsencode(path) + b"\n"
