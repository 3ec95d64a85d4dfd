"""`imgsearch query --html`: one self-contained page, without scripts and without a network."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from html import escape
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import quote

from imgsearch.cli.answers import Answered, Crop
from imgsearch.cli.output import shown
from imgsearch.cli.pictures import STDIN, Picture
from imgsearch.embedding.cropping import Box
from imgsearch.errors import ImageError, StorageError, reason_of
from imgsearch.storage.files import Sink, write_atomically

if TYPE_CHECKING:
    from imgsearch.hits import Hit, Search

__all__ = ["render", "write_page"]

EDGE = 256  # pixels of the longer edge of a thumbnail
QUERIES_SHOWN = 12  # of the images that were combined
REMEMBERED = 512  # thumbnails, some 6 MB: the queries of a folder find the same images

STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1f; --dim: #5c5c66; --ground: #fff; --box: #f1f1f4;
  --mark: #2f5bd0; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ececf1; --dim: #a3a3af; --ground: #17171a; --box: #232328; --mark: #8fb0ff; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 100rem; padding: 1rem 1.5rem 3rem; color: var(--ink);
  background: var(--ground); font: 1rem/1.45 system-ui, sans-serif; }
h1 { font-size: 1.1rem; color: var(--dim); }
h2 { margin: 2rem 0 0; font-size: 1.25rem; overflow-wrap: anywhere; }
p { margin: 0.2rem 0 0.8rem; color: var(--dim); }
ol { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: 1rem;
  margin: 0; padding: 0; list-style: none; }
figure { margin: 0; height: 100%; padding: 0.6rem; border-radius: 0.5rem; background: var(--box);
  border: 2px solid transparent; }
.query figure { border-color: var(--mark); }
img, .none { display: block; width: 100%; height: 11rem; object-fit: contain; }
.none { padding: 0.6rem; overflow: auto; border: 1px dashed var(--dim); color: var(--dim);
  font-size: 0.85rem; }
figcaption { margin-top: 0.5rem; font-size: 0.85rem; overflow-wrap: anywhere; }
small { display: block; color: var(--dim); font-variant-numeric: tabular-nums; }
a { color: var(--mark); }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
_POLICY = f"default-src 'none'; img-src data:; style-src 'sha256-{_STYLE_HASH}'"

_HEAD = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>imgsearch</title>
<style>{STYLE}</style>
</head>
<body>
<h1>imgsearch</h1>
<main>
"""
_FOOT = "</main>\n</body>\n</html>\n"

_Thumbnail: TypeAlias = Callable[[str | bytes], bytes]


class _NothingToShowError(Exception):
    """Leave the page that was there."""


def write_page(path: Path, answers: Iterable[Answered], crop: Crop | None, max_pixels: int) -> bool:
    """Write a page of answers, which are computed meanwhile; it is there whole or not at all.

    Args:
        path: of the page, which is replaced if it exists.
        answers: to be shown.
        crop: the part of each image that was searched for.
        max_pixels: there is no thumbnail of an image of more.

    Returns:
        Whether there were answers to be shown; if not, nothing was written.

    Raises:
        StorageError: the page cannot be written; where that can be known, nothing is computed.
    """

    def fill(sink: Sink) -> None:
        pieces = render(answers, crop, max_pixels)
        head = next(pieces)
        first = next(pieces)
        if first == _FOOT:
            raise _NothingToShowError
        for piece in chain([head, first], pieces):
            sink.write(piece.encode())

    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():  # or a device would become a file
        raise StorageError(f"cannot write the page {path}: it is not a regular file")
    try:
        write_atomically(target, fill)
    except _NothingToShowError:
        return False
    except StorageError as error:
        if error.__cause__ and str(error).startswith(f"cannot write {target}: "):
            # In other words: those of a collection's file promise that nothing is lost.
            reason = reason_of(error.__cause__)
            raise StorageError(f"cannot write the page {path}: {reason}") from error
        raise  # the collection could not be read
    return True


def render(answers: Iterable[Answered], crop: Crop | None, max_pixels: int) -> Iterator[str]:
    """Yield the pieces of a page of answers."""
    from imgsearch.embedding.pictures import thumbnail

    of_unlike = partial(thumbnail, longest=EDGE, max_pixels=max_pixels)
    of_query = partial(of_unlike, crop=Box(*crop) if crop else None)
    of_hit = lru_cache(REMEMBERED)(of_unlike)
    yield _HEAD
    for answered in answers:
        yield f"<section>\n<h2>{_text(answered.title)}</h2>\n"
        yield f"<p>{_how(answered.answer.search, len(answered.answer.hits))}</p>\n<ol>\n"
        yield from _queries(answered.like, "query", of_query)
        yield from _queries(answered.unlike, "unlike", of_unlike)
        for hit in answered.answer.hits:
            yield _hit(hit, of_hit)
        yield "</ol>\n</section>\n"
    yield _FOOT


def _queries(pictures: tuple[Picture, ...], label: str, of: _Thumbnail) -> Iterator[str]:
    for picture in pictures[:QUERIES_SHOWN]:
        link = _link(picture.path) if picture.path != STDIN else "stdin"
        yield _item("query", _image(picture.source, picture.name, of), f"{label} {link}", "")
    if len(pictures) > QUERIES_SHOWN:
        more = len(pictures) - QUERIES_SHOWN
        yield _item("query", f'<div class="none">and {more:,} more</div>', label, "")


def _hit(hit: Hit, of: _Thumbnail) -> str:
    image = _image(hit.path, os.path.basename(hit.path), of)
    facts = f"similarity {hit.similarity:.4f}<br>distance {hit.distance:.4f}"
    return _item("hit", image, f"{hit.rank}. {_link(hit.path)}", facts)


def _item(kind: str, image: str, caption: str, facts: str) -> str:
    return (
        f'<li class="{kind}"><figure>{image}<figcaption>{caption}<small>{facts}</small>'
        "</figcaption></figure></li>\n"
    )


def _image(source: str | bytes, name: str, of: _Thumbnail) -> str:
    try:
        jpeg = of(source)
    except ImageError as error:  # it has gone or has changed since it was indexed
        return f'<div class="none">no picture: {_text(error.reason)}</div>'
    data = base64.b64encode(jpeg).decode("ascii")
    return f'<img alt="{_text(name)}" src="data:image/jpeg;base64,{data}">'


def _link(path: str) -> str:
    address = "file://" + quote(os.fsencode(path))
    name = _text(os.path.basename(path))
    return f'<a href="{address}" title="{_text(path)}">{name}</a>'


def _text(text: str) -> str:
    return escape(shown(text))


def _how(search: Search, count: int) -> str:
    images = "1 image" if count == 1 else f"{count:,} images"
    if search.kind == "exact":
        return f"{images}, compared with every image of the collection"
    recall = f", recall@10 {search.recall:.3f} expected" if search.recall is not None else ""
    return f"{images}, {search.nprobe:,} inverted lists searched{recall}"
