"""`imgsearch query`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imgsearch.cli import options
from imgsearch.cli.answers import Crop, Request, answers
from imgsearch.cli.chatter import libraries_silenced
from imgsearch.cli.choice import choose
from imgsearch.cli.forms import Form, as_csv, as_json, as_paths, as_table
from imgsearch.cli.locating import locate_any
from imgsearch.cli.outcome import Outcome
from imgsearch.cli.output import shown
from imgsearch.cli.page import write_page
from imgsearch.cli.pictures import STDIN
from imgsearch.images.limits import pillow_allows

if TYPE_CHECKING:
    from imgsearch.querying.options import QueryOptions

__all__ = ["query"]


@click.command(epilog=options.OPPOSITES)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", type=click.Path())
@options.k_option
@options.recall_option
@options.exact_option
@options.json_option
@options.csv_option
@options.paths_option
@options.null_option
@options.html_option
@options.combine_option
@options.unlike_option
@options.crop_option
@options.min_similarity_option
@options.include_self_option
@options.exclude_self_option
@options.max_pixels_option
@options.nprobe_option
@options.collection_option
@options.device_option
@options.trust_model_option
@click.pass_context
def query(
    ctx: click.Context,
    /,
    images: tuple[str, ...],
    collection: Path | str | None,
    k: int,
    html: Path | None,
    combine: bool,
    unlike: tuple[str, ...],
    crop: Crop | None,
    max_pixels: int,
    min_similarity: float | None,
    device: str,
    trust_model: bool,
    **_: object,  # those that exclude each other: see choose
) -> None:
    """Show the images most similar to each IMAGE, best first.

    IMAGE is a file, a folder for all images in it, or - for an image on stdin.
    """
    from imgsearch.places import opened

    if [*images, *unlike].count(STDIN) > 1:
        raise click.UsageError("- is given twice, and stdin holds one image", ctx)
    form = choose(ctx, ("as_json",), ("as_csv",), ("html",), ("paths", "null"))
    request = Request(
        images=images,
        unlike=unlike,
        combine=combine,
        crop=crop,
        max_pixels=max_pixels,
        include_self=choose(ctx, ("include_self",), ("exclude_self",)) == "include_self",
        options=_search_options(ctx, k, min_similarity),
    )
    outcome = Outcome()
    directory = locate_any(ctx, collection)
    found_there = opened(directory, device=device, trust_model=trust_model)
    with libraries_silenced(), pillow_allows(max_pixels), found_there as found:
        answered = answers(found, request, outcome)
        if form == "html" and html is not None:
            if write_page(html, answered, crop, max_pixels):
                click.echo(f"wrote {shown(str(html))}", err=True)
        else:
            for text in _form(ctx, form)(answered):
                click.echo(text, nl=False)
    ctx.exit(outcome.code)


def _search_options(ctx: click.Context, k: int, min_similarity: float | None) -> QueryOptions:
    found: QueryOptions = {"k": k, "min_similarity": min_similarity}
    match choose(ctx, ("recall",), ("nprobe",), ("exact",)):
        case "recall":
            found["recall"] = ctx.params["recall"]
        case "nprobe":
            found["nprobe"] = ctx.params["nprobe"]
        case "exact":
            found["exact"] = True
    return found


def _form(ctx: click.Context, name: str | None) -> Form:
    match name:
        case "as_json":
            return as_json
        case "as_csv":
            return partial(as_csv, terminal=sys.stdout.isatty())
        case "paths" if ctx.params["null"]:
            return partial(as_paths, end=b"\0", terminal=sys.stdout.isatty())
        case "paths":
            return partial(as_paths, terminal=sys.stdout.isatty())
        case _:
            return as_table
