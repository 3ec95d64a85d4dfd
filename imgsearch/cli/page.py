"""`imgsearch query --html`: a page of answers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from imgsearch.cli.answers import Answered, Crop
from imgsearch.cli.document import EDGE, Thumbnailer, figure, link, picture, text, write_document
from imgsearch.cli.pictures import STDIN, Picture
from imgsearch.images.crop import Box

if TYPE_CHECKING:
    from imgsearch.querying.hits import Hit, Search

__all__ = ["write_page"]

QUERIES_SHOWN = 12  # of the images that were combined
REMEMBERED = 512  # thumbnails, some 6 MB: the queries of a folder find the same images


def write_page(path: Path, answers: Iterable[Answered], crop: Crop | None, max_pixels: int) -> bool:
    """Write a page of answers, which are computed meanwhile; see `write_document`.

    Args:
        path: of the page.
        answers: to be shown.
        crop: the part of each image that was searched for.
        max_pixels: there is no thumbnail of an image of more.
    """
    return write_document(path, _sections(answers, crop, max_pixels))


def _sections(answers: Iterable[Answered], crop: Crop | None, max_pixels: int) -> Iterator[str]:
    from imgsearch.images.render import thumbnail

    of_unlike = partial(thumbnail, longest=EDGE, max_pixels=max_pixels)
    of_query = partial(of_unlike, crop=Box(*crop) if crop else None)
    of_hit = lru_cache(REMEMBERED)(of_unlike)
    for answered in answers:
        yield f"<section>\n<h2>{text(answered.title)}</h2>\n"
        yield f"<p>{_how(answered.answer.search, len(answered.answer.hits))}</p>\n<ol>\n"
        yield from _queries(answered.like, "query", of_query)
        yield from _queries(answered.unlike, "unlike", of_unlike)
        for hit in answered.answer.hits:
            yield _hit(hit, of_hit)
        yield "</ol>\n</section>\n"


def _queries(pictures: tuple[Picture, ...], label: str, of: Thumbnailer) -> Iterator[str]:
    for query in pictures[:QUERIES_SHOWN]:
        linked = link(query.path) if query.path != STDIN else "stdin"
        yield figure("query", picture(query.source, query.name, of), f"{label} {linked}", "")
    if len(pictures) > QUERIES_SHOWN:
        more = len(pictures) - QUERIES_SHOWN
        yield figure("query", f'<div class="none">and {more:,} more</div>', label, "")


def _hit(hit: Hit, of: Thumbnailer) -> str:
    image = picture(hit.path, os.path.basename(hit.path), of)
    facts = f"similarity {hit.similarity:.4f}<br>distance {hit.distance:.4f}"
    return figure("hit", image, f"{hit.rank}. {link(hit.path)}", facts)


def _how(search: Search, count: int) -> str:
    images = {0: "nothing found", 1: "1 image"}.get(count, f"{count:,} images")
    if search.kind == "exact":
        return f"{images}, compared with every image of the collection"
    recall = f", recall@10 {search.recall:.3f} expected" if search.recall is not None else ""
    return f"{images}, {search.nprobe:,} inverted lists searched{recall}"
