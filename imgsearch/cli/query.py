"""`imgsearch query`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from imgsearch.cli import options
from imgsearch.cli.chatter import libraries_silenced
from imgsearch.cli.output import complain, hits_as_json, hits_as_table
from imgsearch.errors import InputError

__all__ = ["query"]

NOTHING_FOUND = 1


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", type=click.Path())
@options.k_option
@options.exact_option
@options.json_option
@options.nprobe_option
@options.exclude_self_option
@options.paths_option
@options.collection_option
@options.device_option
@click.pass_context
def query(
    ctx: click.Context,
    images: tuple[str, ...],
    collection: Path | None,
    k: int,
    nprobe: int | None,
    exact: bool,
    exclude_self: bool,
    as_json: bool,
    paths: bool,
    device: str,
) -> None:
    """Show the images most similar to each IMAGE, best first."""
    from imgsearch.collection import Collection

    code, answered = 0, 0
    directory = options.locate(ctx, collection)
    with libraries_silenced(), Collection.open(directory, device=device) as found:
        for image in images:
            try:
                hits = found.query(
                    image, k=k, nprobe=nprobe, exact=exact, exclude_self=exclude_self
                )
            except InputError as error:  # the other images are answered all the same
                complain(str(error))
                code = error.exit_code
                continue
            answered += 1
            if not hits:
                complain("nothing found: there is no other image in the collection")
                code = code or NOTHING_FOUND
            if as_json:
                click.echo(hits_as_json(image, hits))
            elif paths:
                for hit in hits:
                    click.echo(os.fsencode(hit.path))
            else:
                click.echo(("\n" if answered > 1 else "") + hits_as_table(image, hits))
    ctx.exit(code)
