"""`imgsearch gallery`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imgsearch.cli import options
from imgsearch.cli.export import embedding_of
from imgsearch.cli.locate import locate_any
from imgsearch.cli.output import NOTHING_FOUND, complain, counted, libraries_silenced, shown
from imgsearch.cli.progress import CountBar
from imgsearch.errors import BusyError, NoImageError

if TYPE_CHECKING:
    from imgsearch.cli.gallery_page import Picture
    from imgsearch.collection import Collection
    from imgsearch.querying.filters import FilterKeywords, Order

__all__ = ["gallery"]

HITS = 100  # images of a query, unless --limit says otherwise
ATTEMPTS = 3  # to read a collection that loses images meanwhile
LOST_SHOWN = 20


@click.command(epilog=options.OPPOSITES)
@click.argument("destination", metavar="FOLDER", type=click.Path(path_type=Path))
@options.gallery_k_option
@options.gallery_limit_option
@options.gallery_query_option
@options.sort_option
@options.reverse_option
@options.filter_options
@options.force_option
@options.gallery_open_option
@options.collection_option
@options.device_option
@options.trust_model_option
@click.pass_context
def gallery(
    ctx: click.Context,
    /,
    destination: Path,
    query: str | None,
    force: bool,
    open: bool,  # noqa: A002 - the name of the option
    collection: Path | str | None,
    device: str,
    trust_model: bool,
    **_: object,  # the filters, and what `_pictures` reads
) -> None:
    """Write web pages that show the images, without a server.

    Open FOLDER/index.html in a browser: a click on an image shows those most similar to it. The
    folder can be moved and published; it holds thumbnails and names, but neither the files
    themselves nor where they are.
    """
    from imgsearch.cli.gallery_page import write_gallery
    from imgsearch.collection import Collection
    from imgsearch.querying.export import check_absent

    check_absent(destination, force=force)
    found_there = Collection.open(
        locate_any(ctx, collection), device=device, trust_model=trust_model
    )
    with libraries_silenced(), found_there as found:
        wanted = options.filters_of(ctx)
        pictures = _pictures(ctx, found, wanted)
        if not pictures:
            unread = options.what_is_unread(found, wanted)
            which = " that passes the filter" if wanted else ""
            complain(f"nothing to show: the collection holds no image{which}{unread}")
            ctx.exit(NOTHING_FOUND)
        title = "Images" if query is None else f"Most similar to {shown(os.path.basename(query))}"
        with CountBar("making thumbnails", " images") as bar:
            lost = write_gallery(destination, title, pictures, force=force, progress=bar)
    for message in lost[:LOST_SHOWN]:
        complain(f"no thumbnail: {message}")
    if len(lost) > LOST_SHOWN:
        complain(f"and no thumbnail of {len(lost) - LOST_SHOWN:,} more")
    page = destination / "index.html"
    click.echo(f"wrote {counted(len(pictures), 'image')} to {shown(str(page))}", err=True)
    if open:
        click.launch(page.absolute().as_uri())


def _pictures(ctx: click.Context, found: Collection, wanted: FilterKeywords) -> list[Picture]:
    """Return the images to show, each with those most similar to it."""
    for _ in range(ATTEMPTS):
        try:
            if ctx.params["query"] is not None:
                return _answer(ctx, found, wanted)
            return _listing(ctx, found, wanted)
        except (NoImageError, KeyError):  # removed meanwhile
            continue
    raise BusyError("images were removed from the collection all the while; try again later")


def _listing(ctx: click.Context, found: Collection, wanted: FilterKeywords) -> list[Picture]:
    from imgsearch.cli.gallery_page import Picture, near_among, near_in

    order: Order = ctx.params["sort"]
    ids = found.entries.ids(order=order, reverse=ctx.params["reverse"], **wanted)
    limit = ctx.params["limit"]
    entries = found.entries.find(ids[:limit])
    if limit is not None and limit < len(ids):
        ids = ids[:limit]
        near = iter(near_among(found.entries.embeddings(ids), ctx.params["k"]))
    else:
        near = near_in(found, ids, ctx.params["k"], wanted)
    return [Picture(entries[id_], each) for id_, each in zip(ids, near, strict=True)]


def _answer(ctx: click.Context, found: Collection, wanted: FilterKeywords) -> list[Picture]:
    from imgsearch.cli.gallery_page import Picture, near_among

    embedding = embedding_of(found, ctx.params["query"])
    (answer,) = found.answer(embedding, k=ctx.params["limit"] or HITS, rank="cosine", **wanted)
    ids = [hit.id for hit in answer.hits]
    if not ids:
        return []
    entries = found.entries.find(ids)
    near = near_among(found.entries.embeddings(ids), ctx.params["k"])
    return [
        Picture(entries[hit.id], each, hit.similarity)
        for hit, each in zip(answer.hits, near, strict=True)
    ]
