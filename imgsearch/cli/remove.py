"""`imgsearch remove`."""

from __future__ import annotations

from pathlib import Path

import click

from imgsearch.cli import options
from imgsearch.cli.locate import locate_any
from imgsearch.cli.output import counted, dump, path_fields, where

__all__ = ["remove"]


@click.command(
    short_help="Take images out of the collection; the files stay.", epilog=options.OPPOSITES
)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path())
@options.json_option
@options.collection_option
@click.pass_context
def remove(
    ctx: click.Context, paths: tuple[str, ...], collection: Path | str | None, as_json: bool
) -> None:
    """Take images out of the collection and keep them out; the files stay.

    PATH is an image, a folder or a quoted pattern ('*.png'; * matches / too). `index` with the same
    name brings them back.
    """
    from imgsearch.collection import Collection

    directory = locate_any(ctx, collection)
    with Collection.open(directory) as found:
        removed = found.remove(paths)
    click.echo(f"removed {counted(removed, 'image')}", err=True)
    if as_json:
        fields = path_fields(where(directory), "collection")
        click.echo(dump({**fields, "removed": removed}))
