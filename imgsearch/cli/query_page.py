"""The page of `imgsearch query --html`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from imgsearch.cli.html import EDGE, Thumbnailer, figure, image_element, link, text, write_document
from imgsearch.cli.query import STDIN, Answered, Crop, Picture, versions
from imgsearch.images.crop import Box
from imgsearch.images.limits import Limits
from imgsearch.images.render import thumbnail
from imgsearch.storage.files import make_folder, user_cache

if TYPE_CHECKING:
    from imgsearch.querying.hits import Hit, Search

__all__ = ["own_page", "write_page"]

QUERIES_SHOWN = 12  # combined images to show on a page
REMEMBERED = 512  # thumbnails to cache, some 6 MB: queries from one folder find the same images


def own_page() -> Path:
    """Return the path of the page that `query --open` shows, in a folder for this user only."""
    folder = user_cache("pages")
    make_folder(folder, mode=0o700)
    return folder / "hits.html"


def write_page(path: Path, answers: Iterable[Answered], crop: Crop | None, max_pixels: int) -> bool:
    """Write an HTML page of answers, computing them along the way; see `write_document`.

    Args:
        path: Path of the page.
        answers: The answers to show.
        crop: The part of each image that was searched for; None for the whole image.
        max_pixels: Maximum number of pixels of an image; larger ones get no thumbnail.

    Returns:
        Whether there was anything to show; if not, nothing was written.
    """
    return write_document(path, _sections(answers, crop, max_pixels))


def _sections(answers: Iterable[Answered], crop: Crop | None, max_pixels: int) -> Iterator[str]:
    of_unlike = partial(thumbnail, longest=EDGE, limits=Limits(max_pixels))
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
        if query.words is not None:
            yield figure("query", f'<div class="none">{text(query.words.text)}</div>', label, "")
            continue
        linked = link(query.path) if query.path != STDIN else "stdin"
        yield figure("query", image_element(query.source, query.name, of), f"{label} {linked}", "")
    if len(pictures) > QUERIES_SHOWN:
        more = len(pictures) - QUERIES_SHOWN
        yield figure("query", f'<div class="none">and {more:,} more</div>', label, "")


def _hit(hit: Hit, of: Thumbnailer) -> str:
    image = image_element(hit.path, os.path.basename(hit.path), of)
    facts = f"similarity {hit.similarity:.4f}<br>distance {hit.distance:.4f}"
    if hit.score is not None:  # the order is not that of the similarity
        facts = text(hit.band or "")
    elif hit.band is not None:
        facts = f"{text(hit.band)}<br>{facts}"
    if hit.inliers:
        facts = f"{facts}<br>{hit.inliers:,} inliers"
    if hit.copies:
        facts = f"{facts}<br>{versions(hit).strip()}"
    return figure("hit", image, f"{hit.rank}. {link(hit.path)}", facts)


def _how(search: Search, count: int) -> str:
    images = {0: "nothing found", 1: "1 image"}.get(count, f"{count:,} images")
    if search.kind == "exact":
        return f"{images}, compared with every image of the collection"
    recall = f", recall@10 {search.recall:.3f} expected" if search.recall is not None else ""
    return f"{images}, {search.nprobe:,} inverted lists searched{recall}"
