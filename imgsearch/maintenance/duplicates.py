"""Find the images of a collection that are copies of one another.

Exact copies are recognised by their digest. Of all other images, those with near embeddings are
candidates, found by search in the index; an image is a copy if its pixels agree with those of the
image that is kept, tile by tile.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import numpy as np

from imgsearch.ann.vectors import Ids, Vectors
from imgsearch.embedding.lanes import decoders
from imgsearch.embedding.pipeline import cores
from imgsearch.images.compare import ALIKE, Overlay, flattened
from imgsearch.maintenance.copies import Duplicates
from imgsearch.maintenance.grouping import Grouping, Looks
from imgsearch.maintenance.verdicts import Verdicts
from imgsearch.querying.options import SearchOptions, number
from imgsearch.querying.search import search
from imgsearch.querying.view import View, open_view
from imgsearch.storage.catalog import Catalog, open_catalog
from imgsearch.storage.layout import Layout

__all__ = ["MIN_SIMILARITY", "find_duplicates"]

MIN_SIMILARITY = 0.75  # of embeddings: a small copy can be this far from its image
BLOCK = 1_024  # catalog entries
SEARCHED = 64  # images per search, so that progress is visible
NEIGHBOURS = 16  # per image at first; four times as many as long as all are near enough
MOST_NEIGHBOURS = 1_024

Progress = Callable[[int, int], None]


def find_duplicates(
    directory: str | os.PathLike[str],
    *,
    min_similarity: float = MIN_SIMILARITY,
    progress: Progress | None = None,
) -> Duplicates:
    """Return groups of copies, each with the image to keep; change nothing.

    Files that were re-encoded, resized, brightened, turned to grey or cropped by up to a tenth
    are copies (see `imgsearch.images.agreement`). Each of them agrees with the image that is kept,
    and holds nothing that this image lacks (see `imgsearch.images.holdings`).

    Args:
        directory: The collection itself.
        min_similarity: The minimum similarity of embeddings for their pixels to be compared: a
            lower one finds more and takes longer.
        progress: Function called with the number of images compared and the total, from the start.

    Raises:
        NoCollectionError: If there is no collection.
        SettingError: If `min_similarity` makes no sense.
        DamagedError: If a file of the collection is missing or damaged.
    """
    min_similarity = number("min_similarity", min_similarity, -1, 1)
    progress = progress or _nothing
    layout = Layout.at(directory)
    with closing(open_catalog(layout)) as catalog:
        view = open_view(layout, catalog)
        progress(0, view.count)
        ids = np.concatenate([np.empty(0, np.int64), *(ids for ids, _ in view.live_blocks())])
        same = _by_content(catalog, ids)
        # The threads end last: they wait for the decoders.
        with (
            ThreadPoolExecutor(cores()) as threads,
            decoders(cores()) as lane,
            ExitStack() as late,
        ):
            verdicts = Verdicts.load()
            late.callback(verdicts.save)  # the findings of an interrupted run are valid, too
            looks = Looks(catalog, threads, lane, verdicts)
            near: dict[int, set[int]] = defaultdict(set)
            compared = 0
            for count, pairs in _near(view, same, min_similarity, looks):
                for one, other in pairs:
                    near[one].add(other)
                    near[other].add(one)
                compared += count
                progress(max(0, compared - len(near)), len(same))
            grouping = Grouping(catalog, view, looks, same)
            done = len(same) - len(near)
            for count in grouping.group(near):
                done += count
                progress(min(done, len(same)), len(same))
    return grouping.found(len(ids))


def _nothing(done: int, total: int) -> None:
    """Ignore the progress."""


def _by_content(catalog: Catalog, ids: Ids) -> dict[int, tuple[int, ...]]:
    """Return the images of each content, keyed by the first of them."""
    found: dict[bytes, list[int]] = defaultdict(list)
    for start in range(0, len(ids), BLOCK):
        for entry in catalog.entries_of(ids[start : start + BLOCK].tolist()):
            found[entry.digest].append(entry.id)
    return {same[0]: tuple(same) for same in found.values()}


def _near(
    view: View, same: dict[int, tuple[int, ...]], min_similarity: float, looks: Looks
) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Yield how many images were examined, and their pairs that deserve a close look."""
    for ids, vectors in _firsts(view, same):
        pairs: list[tuple[int, int]] = []
        for id_, candidates in _candidates(view, ids, vectors, min_similarity):
            others = [other for other in candidates if other in same and other != id_]
            if others:
                pairs += [(id_, other) for other in _alike(id_, others, looks)]
        yield len(ids), pairs


def _alike(id_: int, others: list[int], looks: Looks) -> Iterator[int]:
    """Yield those of `others` that deserve a close look beside an image."""
    verdicts = looks.verdicts
    entries = {entry.id: entry for entry in looks.catalog.entries_of([id_, *others])}
    unchanged = {entry.id for entry in looks.unchanged(entries.values())}
    known: dict[int, bool] = {}
    for other in unchanged if id_ in unchanged else ():
        near = verdicts.near(entries[id_].digest, entries[other].digest)
        if near is not None:
            known[other] = near
    yield from (other for other in others if known.get(other))
    unknown = [other for other in others if other not in known]
    seen = looks.glances([id_, *unknown]) if unknown else {}
    if id_ not in seen or len(seen) == 1:
        return
    overlay = Overlay(seen.pop(id_).pixels)
    rows = overlay.likeness(np.stack([flattened(other.pixels) for other in seen.values()]))
    for other, likeness in zip(seen, rows.tolist(), strict=True):
        near = likeness >= ALIKE
        verdicts.note_near(entries[id_].digest, entries[other].digest, so=near)
        if near:
            yield other


def _firsts(view: View, same: dict[int, tuple[int, ...]]) -> Iterator[tuple[Ids, Vectors]]:
    """Yield ids and embeddings of the first image of each content, block by block."""
    for ids, vectors in view.live_blocks():
        rows = np.flatnonzero([id_ in same for id_ in ids.tolist()])
        for start in range(0, len(rows), SEARCHED):
            some = rows[start : start + SEARCHED]
            yield ids[some], np.ascontiguousarray(vectors[some])


def _candidates(
    view: View, ids: Ids, vectors: Vectors, min_similarity: float
) -> Iterator[tuple[int, list[int]]]:
    """Yield each image with the ids of the images that are near enough."""
    k = NEIGHBOURS
    while len(ids):
        options = SearchOptions(k=k, min_similarity=min_similarity)
        found = search(view, vectors, options).hits.ids
        more = (found[:, -1] >= 0) & (k < min(MOST_NEIGHBOURS, view.count))
        for row in np.flatnonzero(~more).tolist():
            yield int(ids[row]), found[row][found[row] >= 0].tolist()
        ids, vectors, k = ids[more], vectors[more], 4 * k
