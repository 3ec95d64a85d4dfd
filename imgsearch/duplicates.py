"""Find the images of a collection that are copies of one another.

Exact copies are known by their digest. Of all other images those with near embeddings are
candidates, found by search in the index; what makes them copies is that their pixels agree.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np

from imgsearch.copies import Copy, Duplicates, Group
from imgsearch.embedding.likeness import ALIKE, EDGE, Overlay, flattened
from imgsearch.embedding.pictures import Glance, glance
from imgsearch.embedding.pipeline import cores
from imgsearch.embedding.sources import open_source, status_of
from imgsearch.errors import ImageError, reason_of
from imgsearch.queries import SearchOptions
from imgsearch.reports import Failure
from imgsearch.search.vectors import Ids, Vectors
from imgsearch.searching import search
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.layout import Layout
from imgsearch.storage.migrations import migrate
from imgsearch.storage.records import Entry
from imgsearch.view import View, open_view

__all__ = ["MIN_SIMILARITY", "find_duplicates"]

MIN_SIMILARITY = 0.8  # of embeddings: a small copy of an image can be as far from it
BLOCK = 1_024  # images
NEIGHBOURS = 16  # of an image at first; four times as many while all are near enough
MOST_NEIGHBOURS = 1_024
KEPT = 20_000  # pictures in memory, 12 KB each


def find_duplicates(
    directory: str | os.PathLike[str],
    *,
    min_similarity: float = MIN_SIMILARITY,
    progress: Callable[[int, int], None] | None = None,
) -> Duplicates:
    """Return groups of near-identical images; change nothing.

    Files that were encoded again, resized, brightened or cropped by up to a tenth are copies of one
    another (see `imgsearch.embedding.likeness`), and so are two that are copies of a third. The
    one with the most pixels is suggested to be kept; of these the largest file, then the oldest.

    Args:
        directory: the collection itself.
        min_similarity: of embeddings, from which on pixels are compared: lower finds more, slower.
        progress: called with the images compared and their number.

    Raises:
        NoCollectionError: there is none.
        SettingError: `min_similarity` makes no sense.
        DamagedError: a file of the collection is missing or damaged.
    """
    SearchOptions(min_similarity=min_similarity)  # checks it
    layout = Layout.at(directory)
    migrate(layout)
    with closing(Catalog(layout.catalog)) as catalog:
        view = open_view(layout, catalog)
        ids = np.concatenate([np.empty(0, np.int64), *(ids for ids, _ in view.live_blocks())])
        alike = _Alike(catalog, ids)
        compared = 0
        with ThreadPoolExecutor(cores()) as threads:
            pictures = _Pictures(catalog, threads)
            for block_ids, vectors in _firsts(view, alike.first):
                _join_near(view, block_ids, vectors, min_similarity, alike, pictures)
                compared += len(block_ids)
                if progress is not None:
                    progress(compared, alike.count)
            groups = sorted(
                alike.groups(catalog, view, pictures),
                key=lambda group: -sum(copy.size for copy in group.others),
            )
        unreadable = tuple(pictures.failures.values())
    return Duplicates(tuple(groups), len(ids), unreadable)


class _Alike:
    """Sets of images that are copies of one another (union-find), at first those of one digest."""

    def __init__(self, catalog: Catalog, ids: Ids) -> None:
        self.first: set[int] = set()  # of each digest
        self._parent: dict[int, int] = {}
        by_digest: dict[bytes, int] = {}
        for start in range(0, len(ids), BLOCK):
            for entry in catalog.entries_of(ids[start : start + BLOCK].tolist()):
                known = by_digest.setdefault(entry.digest, entry.id)
                if known == entry.id:
                    self.first.add(entry.id)
                else:
                    self.join(known, entry.id)
        self.count = len(self.first)

    def root(self, id_: int) -> int:
        """Return the image that stands for the set of an image."""
        while (parent := self._parent.get(id_, id_)) != id_:
            self._parent[id_] = self._parent.get(parent, parent)
            id_ = parent
        return id_

    def join(self, one: int, other: int) -> None:
        """Note that two images are copies of one another."""
        one, other = self.root(one), self.root(other)
        if one != other:
            self._parent[max(one, other)] = min(one, other)
            self._parent.setdefault(min(one, other), min(one, other))

    def groups(self, catalog: Catalog, view: View, pictures: _Pictures) -> Iterator[Group]:
        """Yield the sets of more than one image."""
        sets: dict[int, list[int]] = defaultdict(list)
        for id_ in list(self._parent):
            sets[self.root(id_)].append(id_)
        for ids in sets.values():
            entries = catalog.entries_of(ids)
            if len(entries) > 1:
                yield _group(entries, view.embeddings([entry.id for entry in entries]), pictures)


@dataclass(slots=True)
class _Pictures:
    """The pictures of images, the latest of which are kept."""

    catalog: Catalog
    threads: ThreadPoolExecutor
    failures: dict[int, Failure] = field(default_factory=dict)
    _sizes: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    _kept: OrderedDict[int, Glance] = field(default_factory=OrderedDict)

    def of(self, ids: Iterable[int]) -> dict[int, Glance]:
        """Return the pictures of images, of as many as can be read."""
        wanted = dict.fromkeys(ids)
        missing = [id_ for id_ in wanted if id_ not in self._kept and id_ not in self.failures]
        entries = self.catalog.entries_of(missing)
        for entry, seen in zip(entries, self.threads.map(_look, entries), strict=True):
            if isinstance(seen, Failure):
                self.failures[entry.id] = seen
            else:
                self._kept[entry.id] = seen
                self._sizes[entry.digest] = seen.width, seen.height
        found = {id_: self._kept[id_] for id_ in wanted if id_ in self._kept}
        for id_ in found:
            self._kept.move_to_end(id_)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return found

    def size_of(self, entry: Entry) -> tuple[int, int]:
        """Return width and height of an image, (0, 0) where it cannot be read."""
        if entry.digest not in self._sizes:
            self.of([entry.id])
        return self._sizes.get(entry.digest, (0, 0))


def _look(entry: Entry) -> Glance | Failure:
    try:
        with open_source(entry.path) as file:
            content = file.read()
        if hashlib.sha256(content).digest() != entry.digest:
            return Failure(entry.path, "has changed since it was indexed")
        return glance(content, EDGE)
    except OSError as error:
        return Failure(entry.path, f"cannot be read: {reason_of(error)}")
    except ImageError as error:
        return Failure(entry.path, error.reason)


def _firsts(view: View, first: set[int]) -> Iterator[tuple[Ids, Vectors]]:
    """Yield ids and embeddings of the first image of each digest, block by block."""
    for ids, vectors in view.live_blocks():
        rows = np.flatnonzero([id_ in first for id_ in ids.tolist()])
        for start in range(0, len(rows), BLOCK):
            some = rows[start : start + BLOCK]
            yield ids[some], np.ascontiguousarray(vectors[some])


def _join_near(
    view: View,
    ids: Ids,
    vectors: Vectors,
    min_similarity: float,
    alike: _Alike,
    pictures: _Pictures,
) -> None:
    """Join images with those near to them whose pixels agree."""
    for id_, near in _candidates(view, ids, vectors, min_similarity):
        others = [other for other in near if other in alike.first and other != id_]
        others = [other for other in others if alike.root(other) != alike.root(id_)]
        seen = pictures.of([id_, *others]) if others else {}
        if id_ not in seen or len(seen) == 1:
            continue
        overlay = Overlay(seen.pop(id_).pixels)
        rows = overlay.likeness(np.stack([flattened(other.pixels) for other in seen.values()]))
        for other, likeness in zip(seen, rows.tolist(), strict=True):
            if likeness >= ALIKE:
                alike.join(id_, other)


def _candidates(
    view: View, ids: Ids, vectors: Vectors, min_similarity: float
) -> Iterator[tuple[int, list[int]]]:
    """Yield each image with the ids of those that are near enough."""
    k = NEIGHBOURS
    while len(ids):
        options = SearchOptions(k=k, min_similarity=min_similarity)
        found = search(view, vectors, options, None)[0].ids
        more = (found[:, -1] >= 0) & (k < min(MOST_NEIGHBOURS, view.count))
        for row in np.flatnonzero(~more).tolist():
            yield int(ids[row]), found[row][found[row] >= 0].tolist()
        ids, vectors, k = ids[more], vectors[more], 4 * k


def _group(entries: Sequence[Entry], embeddings: Vectors, pictures: _Pictures) -> Group:
    """Return a group, the image to be kept first."""
    sizes = [pictures.size_of(entry) for entry in entries]

    def worth(number: int) -> tuple[float, ...]:
        entry, (width, height) = entries[number], sizes[number]
        mtime = _mtime(entry)
        return -width * height, -entry.size, math.inf if mtime is None else mtime, len(entry.path)

    order = sorted(range(len(entries)), key=lambda number: (worth(number), entries[number].path))
    kept = order[0]
    copies = [
        Copy(
            id=entries[number].id,
            path=entries[number].path,
            width=sizes[number][0],
            height=sizes[number][1],
            size=entries[number].size,
            mtime=_mtime(entries[number]),
            digest=entries[number].digest,
            exact=entries[number].digest == entries[kept].digest,
            similarity=min(1.0, float(embeddings[number] @ embeddings[kept])),
        )
        for number in order
    ]
    return Group(copies[0], tuple(copies[1:]))


def _mtime(entry: Entry) -> float | None:
    if entry.mtime_ns is not None:
        return entry.mtime_ns / 1e9
    try:
        mtime_ns = status_of(entry.path).mtime_ns
    except OSError:
        return None
    return None if mtime_ns is None else mtime_ns / 1e9
