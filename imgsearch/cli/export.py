"""`imgsearch export`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from imgsearch.cli import options
from imgsearch.cli.locate import locate
from imgsearch.cli.output import dump, where
from imgsearch.cli.progress import CountBar
from imgsearch.errors import DamagedError

__all__ = ["export"]


@click.command(short_help="Copy the collection into Milvus.", epilog=options.OPPOSITES)
@options.to_option
@options.verify_option
@options.json_option
@options.collection_option
@click.pass_context
def export(
    ctx: click.Context, to: str | None, verify: bool, as_json: bool, collection: Path | str | None
) -> None:
    """Copy the collection, its model and its settings into Milvus.

    What is there already is not sent again: interrupted, the same command resumes. The collection
    itself stays.
    """
    from imgsearch.backends.milvus.export import export as export_to_milvus

    if to is None:
        raise click.UsageError(
            "--to is missing; name a destination, as in milvus://HOST:PORT/NAME", ctx
        )
    directory = locate(ctx, collection)
    with CountBar("comparing" if verify else "exporting", " images") as bar:
        done = export_to_milvus(directory, to, verify=verify, progress=bar)
    if as_json:
        click.echo(dump({"collection": where(directory), "to": to, **asdict(done)}))
    click.echo(
        f"{done.images:,} images: {done.there:,} there, {done.sent:,} sent, "
        f"{done.removed:,} removed; {done.others:,} others there; "
        f"{done.compared:,} embeddings compared, {done.different:,} different",
        err=True,
    )
    missing = done.images - done.there - done.sent
    if missing or done.different:
        raise DamagedError(
            f"{to} lacks {missing:,} images, and {done.different:,} embeddings differ; "
            "run `imgsearch export` without --verify to send them"
        )
