"""The folder of `imgsearch gallery`: a page, its data, and thumbnails."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import imgsearch.web
from imgsearch.ann.vectors import Block
from imgsearch.cli.output import shown
from imgsearch.embedding.lanes import Lane, decoders
from imgsearch.embedding.pipeline import cores
from imgsearch.errors import ImageError
from imgsearch.files.paths import dump
from imgsearch.storage.files import Sink, write_atomically, write_folder

if TYPE_CHECKING:
    from imgsearch.ann.vectors import Vectors
    from imgsearch.collection import Collection
    from imgsearch.querying.filters import FilterKeywords
    from imgsearch.querying.hits import HitArrays
    from imgsearch.storage.records import Entry

__all__ = ["Picture", "near_among", "near_in", "write_gallery"]

STATIC = Path(str(imgsearch.web.__file__)).parent / "static"
#: The files of the page, by their names in the folder; what they link to has these names.
PAGE = {
    "index.html": "gallery.html",
    "gallery.css": "gallery.css",
    "gallery.js": "gallery.js",
    "style.css": "style.css",
    "favicon.svg": "favicon.svg",
}
DATA, THUMBNAILS = "images.js", "images"
FILES = (*PAGE, DATA, THUMBNAILS)

EDGE = 384  # pixels of the longer edge of a thumbnail
BLOCK = 256  # images whose neighbours are searched together
AHEAD = 4  # images per core that wait for a worker
#: Similar images, by their place in the gallery, with their similarities; the nearest first.
Near = Sequence[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class Picture:
    """An image of a gallery, the images most similar to it, and its similarity to the query."""

    entry: Entry
    near: Near
    similarity: float | None = None


@dataclass(frozen=True, slots=True)
class _Thumbnail:
    """What became of the thumbnail of an image: its size, or the reason why there is none."""

    width: int = 0
    height: int = 0
    lost: str = ""


def near_in(
    collection: Collection, ids: Sequence[int], k: int, keywords: FilterKeywords
) -> Iterator[Near]:
    """Yield, for each of the images that pass a filter, the `k` most similar of them.

    Raises:
        NoImageError: If one of the images is not in the collection any longer.
    """
    places = {id_: place for place, id_ in enumerate(ids)}
    for start in range(0, len(ids), BLOCK):
        block = list(ids[start : start + BLOCK])
        found: HitArrays = collection.query_many(
            collection.entries.embeddings(block),
            arrays=True,
            k=k,
            rank="cosine",
            exclude=[[id_] for id_ in block],
            **keywords,
        )
        for row in range(len(block)):
            pairs = zip(found.ids[row].tolist(), found.similarities[row].tolist(), strict=True)
            yield [(places[id_], similarity) for id_, similarity in pairs if id_ in places]


def near_among(vectors: Vectors, k: int) -> list[Near]:
    """Return, for each of some embeddings, float32 `[n, dim]`, the `k` most similar others."""
    from imgsearch.ann.exact import search_exactly

    rows = np.arange(len(vectors), dtype=np.int64)
    found = search_exactly(vectors, [Block(rows, vectors)], k + 1)
    lists: list[Near] = []
    for row in rows.tolist():
        pairs = zip(found.ids[row].tolist(), found.distances[row].tolist(), strict=True)
        others = [(id_, 1 - squared / 2) for id_, squared in pairs if id_ not in (row, -1)]
        lists.append(others[:k])
    return lists


def write_gallery(
    path: Path,
    title: str,
    pictures: Sequence[Picture],
    *,
    force: bool,
    progress: Callable[[int, int], None],
) -> list[str]:
    """Write a folder that shows images, as a whole or not at all.

    Args:
        path: The folder.
        title: Heading of the page.
        pictures: The images, in their order.
        force: Whether to replace a gallery that is there.
        progress: Function that is called with the number of images done, and of all.

    Returns:
        A message for each image that has no thumbnail, because its file is missing or has changed.

    Raises:
        InputError: If there is something at the path that is not a gallery, or may not be replaced.
        StorageError: If the folder cannot be written.
    """
    lost: list[str] = []

    def fill(folder: Path) -> None:
        for name, source in PAGE.items():
            (folder / name).write_bytes((STATIC / source).read_bytes())
        (folder / THUMBNAILS).mkdir()
        above = _common([picture.entry.path for picture in pictures])

        def fill_data(sink: Sink) -> None:
            sink.write(f"window.gallery = {{ title: {dump(title)}, images: [\n".encode("ascii"))
            with closing(_thumbnails(folder / THUMBNAILS, pictures)) as thumbnails:
                for done, (picture, made) in enumerate(
                    zip(pictures, thumbnails, strict=True), start=1
                ):
                    if made.lost:
                        lost.append(f"{picture.entry.path}: {made.lost}")
                    sink.write(f"{dump(_fields(picture, made, above))},\n".encode("ascii"))
                    progress(done, len(pictures))
            sink.write(b"] };\n")

        write_atomically(folder / DATA, fill_data, mode=0o666)

    write_folder(path, fill, "gallery", replaces=lambda name: force and name in FILES)
    return lost


def _thumbnails(folder: Path, pictures: Sequence[Picture]) -> Generator[_Thumbnail, None, None]:
    """Have workers make the thumbnails, named by the places of the images, and yield them."""
    waiting: list[Future[_Thumbnail]] = []
    with ThreadPoolExecutor(cores()) as threads, decoders(cores()) as lane:
        for place, picture in enumerate(pictures):
            file = folder / f"{place}.jpg"
            waiting.append(threads.submit(_make_thumbnail, lane, picture.entry, file))
            if len(waiting) >= AHEAD * cores():
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()


def _make_thumbnail(lane: Lane, entry: Entry, file: Path) -> _Thumbnail:
    from imgsearch.embedding.decoder import Stored

    try:
        with lane.decoder() as decoder:
            made = decoder.thumbnail(Stored(entry.path, entry.digest), EDGE)
    except ImageError as error:  # the file is missing, or has changed since it was indexed
        return _Thumbnail(lost=error.reason)
    file.write_bytes(made.jpeg)
    return _Thumbnail(made.width, made.height)


def _fields(picture: Picture, made: _Thumbnail, above: str) -> dict[str, Any]:
    """Return what the page knows of an image, without its absolute path, which stays private."""
    folder, name = os.path.split(picture.entry.path)
    fields: dict[str, Any] = {
        "name": shown(name),
        "folder": shown(folder[len(above) :].lstrip("/")),
        "width": made.width,
        "height": made.height,
        "near": [(place, round(similarity, 3)) for place, similarity in picture.near],
    }
    if picture.similarity is not None:
        fields["similarity"] = round(picture.similarity, 3)
    if made.lost:
        fields["lost"] = shown(made.lost)
    return fields


def _common(paths: Sequence[str]) -> str:
    """Return the folder that all paths have in common; it may be a URL, or empty."""
    folders = [os.path.dirname(path).split("/") for path in paths]
    first, last = min(folders), max(folders)
    count = 0
    while count < len(first) and count < len(last) and first[count] == last[count]:
        count += 1
    return "/".join(first[:count])
