"""`imgsearch map`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imgsearch.cli import options
from imgsearch.cli.locate import locate
from imgsearch.cli.output import counted, dump, shown, where
from imgsearch.cli.progress import CountBar

if TYPE_CHECKING:
    from imgsearch.collection import Collection
    from imgsearch.querying.map.make import Map

__all__ = ["map"]


@click.command(
    "map",
    short_help="Make a map of the collection, similar images side by side.",
    epilog=options.OPPOSITES,
)
@options.rebuild_option
@options.map_out_option
@options.json_option
@options.collection_option
@click.pass_context
def map_(
    ctx: click.Context,
    /,
    rebuild: bool,
    out: Path | None,
    as_json: bool,
    collection: Path | str | None,
) -> None:
    """Make a map of the collection, on which images that look alike are near each other.

    The page of `imgsearch serve` shows it, and --out draws it. Run this again after images have
    been added: they are placed among the others or, once a quarter of all images are new, all are
    laid out again.
    """
    from imgsearch.collection import Collection

    directory = locate(ctx, collection)
    with Collection.open(directory) as found:
        with CountBar("laying out the map", " steps") as bar:
            made = found.map(rebuild=rebuild, progress=bar)
        if out is not None:
            _draw(found, made, out)
    count = len(made.ids)
    if as_json:
        fields = {"images": count, "placed": made.placed, "rebuilt": made.rebuilt}
        click.echo(dump({"collection": where(directory), **fields}))
    if made.rebuilt:
        told = f"laid out {counted(count, 'image')}"
    elif made.placed:
        told = f"placed {made.placed:,} new among {counted(count, 'image')}"
    else:
        told = f"the map of {counted(count, 'image')} is up to date"
    click.echo(f"{told}; see it under Map in `imgsearch serve --open`", err=True)


def _draw(found: Collection, made: Map, out: Path) -> None:
    """Write a picture of the map."""
    from imgsearch.cli.map_picture import FORMATS, chosen, draw
    from imgsearch.storage.files import write_result

    rows, places, count = chosen(made.positions)
    entries = found.entries.find(made.ids[rows].tolist())
    with CountBar("drawing the map", " images") as bar:
        sheet = draw([entries.get(id_) for id_ in made.ids[rows].tolist()], places, count, bar)
    content = io.BytesIO()
    sheet.save(content, FORMATS[out.suffix.lower()], quality=88)
    write_result(out, lambda sink: sink.write(content.getvalue()), "picture")
    click.echo(f"wrote {counted(len(rows), 'image')} to {shown(str(out))}", err=True)


map = map_  # noqa: A001 - a command is called as its module
