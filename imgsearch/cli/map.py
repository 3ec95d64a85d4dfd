"""`imgsearch map`."""

from __future__ import annotations

from pathlib import Path

import click

from imgsearch.cli import options
from imgsearch.cli.locate import locate
from imgsearch.cli.output import counted, dump, where
from imgsearch.cli.progress import CountBar

__all__ = ["map"]


@click.command(
    "map",
    short_help="Make a map of the collection, similar images side by side.",
    epilog=options.OPPOSITES,
)
@options.rebuild_option
@options.json_option
@options.collection_option
@click.pass_context
def map_(
    ctx: click.Context, /, rebuild: bool, as_json: bool, collection: Path | str | None
) -> None:
    """Make a map of the collection, on which images that look alike are near each other.

    The page of `imgsearch serve` shows it. Run this again after images have been added: they are
    placed among the others or, once a quarter of all images are new, all are laid out again.
    """
    from imgsearch.collection import Collection

    directory = locate(ctx, collection)
    with Collection.open(directory) as found, CountBar("laying out the map", " steps") as bar:
        made = found.map(rebuild=rebuild, progress=bar)
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


map = map_  # noqa: A001 - a command is called as its module
