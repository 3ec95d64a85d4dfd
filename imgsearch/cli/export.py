"""`imgsearch export`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imgsearch.cli import options
from imgsearch.cli.interrupt import waiting_for
from imgsearch.cli.locate import locate, locate_any
from imgsearch.cli.output import (
    NOTHING_FOUND,
    complain,
    counted,
    dump,
    libraries_silenced,
    shown,
    where,
)
from imgsearch.cli.progress import CountBar
from imgsearch.errors import DamagedError
from imgsearch.storage.layout import is_elsewhere

if TYPE_CHECKING:
    from imgsearch.ann.vectors import Vectors
    from imgsearch.collection import Collection

__all__ = ["embedding_of", "export"]


@click.command(
    short_help="Export the collection to a file, a folder or Milvus.", epilog=options.OPPOSITES
)
@click.argument("destination", metavar="[FOLDER]", required=False, type=click.Path(path_type=Path))
@options.to_option
@options.query_option
@options.filter_options
@options.force_option
@options.verify_option
@options.json_option
@options.collection_option
@options.device_option
@options.trust_model_option
@click.pass_context
def export(
    ctx: click.Context,
    /,
    destination: Path | None,
    to: str | None,
    query: str | None,
    force: bool,
    verify: bool,
    as_json: bool,
    collection: Path | str | None,
    device: str,
    trust_model: bool,
    **_: object,  # the filters
) -> None:
    """Export the collection to a file that other programs read, a folder of arrays, or Milvus.

    Files have what `list --json` shows of each image, and its embedding. In Milvus, a copy of the
    collection is made or brought up to date; run the same command again to resume an interrupted
    export. With `--to gallery`, web pages are written to FOLDER, as by `imgsearch gallery`.
    """
    if to is None:
        raise click.UsageError(
            "--to is missing; name a destination, such as photos.parquet or "
            "milvus://HOST:PORT/NAME",
            ctx,
        )
    if destination is not None:
        _to_gallery(ctx, destination)
        return
    wanted = options.filters_of(ctx)
    if is_elsewhere(to):
        given = [name for name in ("query", "force") if ctx.params[name]]
        if given or wanted:
            flag = f"--{given[0]}" if given else "a filter"
            raise click.UsageError(f"{flag} does not apply to an export to Milvus", ctx)
        _to_milvus(ctx, collection, to, verify=verify, as_json=as_json)
        return
    if verify:
        raise click.UsageError("--verify applies only to an export to Milvus", ctx)
    from imgsearch.collection import Collection
    from imgsearch.querying.export import kind_of

    kind_of(to)  # before anything is opened
    directory = locate_any(ctx, collection)
    found_there = Collection.open(directory, device=device, trust_model=trust_model)
    with libraries_silenced(), found_there as found, CountBar("exporting", " images") as bar:
        if not found.entries.ids(**wanted):
            unread = options.what_is_unread(found, wanted)
            which = " that passes the filter" if wanted else ""
            complain(f"nothing to export: the collection holds no image{which}{unread}")
            ctx.exit(NOTHING_FOUND)
        embedding = None if query is None else embedding_of(found, query)[0]
        count = found.export(to, query=embedding, force=force, progress=bar, **wanted)
    if as_json:
        click.echo(dump({"collection": where(directory), "to": to, "images": count}))
    click.echo(f"exported {counted(count, 'image')} to {shown(to)}", err=True)


def embedding_of(collection: Collection, image: str) -> Vectors:
    """Return the embedding, `[1, dim]`, of an image that is given like one of `query`."""
    from imgsearch.cli.query import picture_of

    return waiting_for(collection.embed, [picture_of(image).source])


def _to_gallery(ctx: click.Context, destination: Path) -> None:
    from imgsearch.cli.gallery import gallery

    if ctx.params["to"] != "gallery":
        raise click.UsageError(f"{destination}: a FOLDER is given only with --to gallery", ctx)
    for name, flag in (("verify", "--verify"), ("as_json", "--json")):
        if ctx.params[name]:
            raise click.UsageError(f"{flag} does not apply to a gallery", ctx)
    ctx.forward(gallery)


def _to_milvus(
    ctx: click.Context, collection: Path | str | None, to: str, *, verify: bool, as_json: bool
) -> None:
    from imgsearch.backends.milvus.export import export as export_to_milvus

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
            f"{to} lacks {counted(missing, 'image')}; {done.different:,} embeddings differ; "
            "run `imgsearch export` without --verify to send them"
        )
