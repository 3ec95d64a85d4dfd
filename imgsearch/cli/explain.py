"""`imgsearch explain`."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imgsearch.cli import options
from imgsearch.cli.interrupt import waiting_for
from imgsearch.cli.locate import locate_any
from imgsearch.cli.output import dump, libraries_silenced, shortened, shown
from imgsearch.cli.query import Crop, Picture, picture_of
from imgsearch.errors import ImageError, InputError
from imgsearch.files.paths import is_url, path_fields
from imgsearch.images.limits import Limits, pillow_allows

if TYPE_CHECKING:
    from PIL import Image

    from imgsearch.ann.vectors import Vectors
    from imgsearch.images.keypoints import Match, Outline
    from imgsearch.querying.explanation import Explanation
    from imgsearch.storage.files import Sink

__all__ = ["explain"]

EDGE = 640  # pixels of the longer edge of a picture
NAMED = 3  # most parts of a picture that the summary names
LEAST_SHARE = 0.1  # share from which a part is named


@click.command(epilog=options.OPPOSITES)
@click.argument("query", type=click.Path())
@click.argument("hit", type=click.Path())
@options.explanation_html_option
@options.explanation_png_option
@options.json_option
@options.explanation_crop_option
@options.max_pixels_option
@options.collection_option
@click.pass_context
def explain(
    ctx: click.Context,
    query: str,
    hit: str,
    html: Path | None,
    png: Path | None,
    as_json: bool,
    crop: Crop | None,
    max_pixels: int,
    collection: Path | str | None,
) -> None:
    """Show where the similarity of QUERY and HIT comes from.

    QUERY is an image, or - for an image on stdin. HIT is an image of the collection: its path, or
    its id, as `imgsearch query --json` shows it.
    """
    from imgsearch.collection import Collection
    from imgsearch.querying.explanation import explanation_fields

    asked = picture_of(query)
    directory = locate_any(ctx, collection)
    with libraries_silenced(), pillow_allows(max_pixels), Collection.open(directory) as found:
        try:
            explained = waiting_for(
                found.explain, asked.source, _hit_of(hit), crop=crop, max_pixels=max_pixels
            )
        except ImageError as error:
            name = asked.name if error.path in (asked.path, "image") else error.path
            raise InputError(f"{name}: {error.reason}") from error
        seen = _Seen(asked, explained, crop, Limits(max_pixels))
        if html is not None:
            from imgsearch.cli.html import write_document

            write_document(html, _sections(seen))
            click.echo(f"wrote {shown(str(html))}", err=True)
        if png is not None:
            from imgsearch.storage.files import write_result

            sheet = waiting_for(_sheet, seen)
            write_result(png, partial(_write_png, sheet), "picture")
            click.echo(f"wrote {shown(str(png))}", err=True)
    if as_json:
        asked_fields = path_fields(asked.path, "query")
        click.echo(dump({**asked_fields, **explanation_fields(explained)}))
    else:
        click.echo("\n".join(_lines(seen)))


@dataclass(frozen=True, slots=True)
class _Seen:
    """An explanation with its query."""

    query: Picture
    explained: Explanation
    crop: Crop | None
    limits: Limits


def _hit_of(argument: str) -> str | int:
    """Return the path of a hit, or its id if there is no such file."""
    is_id = argument.isascii() and argument.isdecimal() and len(argument) < 19
    return int(argument) if is_id and not os.path.lexists(argument) else argument


def _lines(seen: _Seen) -> Iterator[str]:
    explained = seen.explained
    band = "" if explained.z is None else f"  {explained.band}, z {explained.z:.2f}"
    yield f"similarity  {explained.similarity:.4f}{band}"
    if explained.band is not None:
        yield f"centred     {explained.centred:.4f}  after subtracting the mean of the collection"
    if explained.match is not None:
        yield f"verified    {_verified(explained.match)}"
    yield f"query       {shown(seen.query.name)}: {_summary(explained.query_map)}"
    hit = shown(shortened(absolute=False)(explained.path))
    yield f"hit         {hit}: {_summary(explained.hit_map)}"


def _verified(match: Match) -> str:
    return f"{match.inliers:,} local features agree: the same object or picture"


def _summary(contributions: Vectors) -> str:
    """Return in words which parts of an image contribute most."""
    from imgsearch.querying.explanation import parts_of

    first, *rest = parts_of(contributions)
    if first.share == 0:
        return "no part contributes"
    parts = [first, *(part for part in rest[: NAMED - 1] if part.share >= LEAST_SHARE)]
    return "mostly " + ", ".join(f"{part.name} ({part.share:.0%})" for part in parts)


def _marked(seen: _Seen) -> Iterator[Image.Image]:
    """Yield the query and the hit, each with the parts that contribute most marked."""
    from imgsearch.images.heat import marked

    explained, match = seen.explained, seen.explained.match
    outlines: tuple[Outline, Outline] = ((), ())
    if match is not None:
        outlines = match.query_outline, match.hit_outline
    query = _render(seen.query.source, seen.crop, seen.limits)
    yield marked(query, explained.query_map, outlines[0])
    yield marked(_render(explained.path, None, seen.limits), explained.hit_map, outlines[1])


def _render(source: str | bytes, crop: Crop | None, limits: Limits) -> Image.Image:
    from PIL import Image

    from imgsearch.images.crop import Box
    from imgsearch.images.render import thumbnail

    jpeg = thumbnail(source, EDGE, Box(*crop) if crop else None, limits)
    return Image.open(io.BytesIO(jpeg)).convert("RGB")


def _sheet(seen: _Seen) -> Image.Image:
    from imgsearch.images.heat import side_by_side

    return side_by_side(list(_marked(seen)))


def _write_png(sheet: Image.Image, sink: Sink) -> None:
    content = io.BytesIO()
    sheet.save(content, "PNG")
    sink.write(content.getvalue())


def _sections(seen: _Seen) -> Iterator[str]:
    from imgsearch.cli.html import figure, image_element, link, text

    explained = seen.explained
    facts = [f"similarity {explained.similarity:.4f}"]
    if explained.z is not None:
        facts = [explained.band or "", *facts, f"z {explained.z:.2f}"]
    if explained.match is not None:
        facts.append(_verified(explained.match))
    yield "<section>\n<h2>Where the similarity comes from</h2>\n"
    yield f"<p>{text(', '.join(facts))}</p>\n"
    yield '<ol class="pair">\n'
    query, hit = waiting_for(list, _marked(seen))
    sides = (
        ("query", seen.query.path, seen.query.name, query, explained.query_map),
        ("hit", explained.path, os.path.basename(explained.path), hit, explained.hit_map),
    )
    for kind, path, name, picture, contributions in sides:
        summary = _summary(contributions)
        is_file = os.path.isabs(path) or is_url(path)
        caption = link(path) if is_file else text(name)
        image = image_element(path, f"{kind} {name}: {summary}", partial(_jpeg, picture))
        yield figure(kind, image, f"{kind} {caption}", text(summary))
    yield "</ol>\n</section>\n"


def _jpeg(picture: Image.Image, source: str | bytes) -> bytes:
    del source
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=85)
    return content.getvalue()
