"""A view: a collection as of one commit, opened for searching.

Search = segments ∪ tail − removed. The tail, every id above the last segment, is searched exactly,
so that an image is found from the moment it is committed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple
from pathlib import Path

import numpy as np

from imgsearch.ann.exact import candidates_for, merge, rerank, search_exactly
from imgsearch.ann.inverted import InvertedFile
from imgsearch.ann.promise import Promise, Step
from imgsearch.ann.vectors import Ids, Vectors, rows_of
from imgsearch.errors import NoImageError, missing
from imgsearch.querying.hits import Search
from imgsearch.querying.segments import open_segment
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import Snapshot
from imgsearch.storage.shards import Shard, open_ids, open_shard

__all__ = ["View", "open_view"]

TAIL_KEPT = 128 << 20  # bytes of the tail that are kept in memory; a longer one is read each time
MAPPED = 256  # shards that stay mapped: each takes a file descriptor
EXACT = Search("exact", 0, 1.0)


class View:
    """What `snapshot` names, opened. Safe for concurrent searches.

    `count` is the number of images; `removed` are the ids that are not to be found, int64, sorted;
    `promise` is None without lists.
    """

    def __init__(
        self,
        layout: Layout,
        snapshot: Snapshot,
        *,
        device: str = "cpu",
        previous: View | None = None,
    ) -> None:
        """Open the segments; shards are mapped when they are read.

        Args:
            layout: of the collection.
            snapshot: of its catalog.
            device: where to search the segments.
            previous: an earlier view with the same device; what it opened is used again.

        Raises:
            FileNotFoundError: a file is gone; another process may just have replaced it.
            DamagedError: a file is not what the catalog says.
        """
        self.snapshot = snapshot
        self._layout = layout
        self.removed: Ids = np.array(snapshot.removed, dtype=np.int64)
        self.count = sum(shard.count for shard in snapshot.shards) - len(self.removed)
        self._stale: Ids = np.array(snapshot.stale, dtype=np.int64)
        there = previous._opened if previous else {}
        ivf = snapshot.ivf
        compact = ivf is not None and ivf.pca is not None
        self._opened: dict[int, InvertedFile] = {
            segment.number: there.get(segment.number)
            or open_segment(layout, segment, compact=compact, device=device)
            for segment in snapshot.segments
        }
        self.segments = list(self._opened.values())
        self._first_ids = np.array([shard.first_id for shard in snapshot.shards], np.int64)
        steps = [Step(*astuple(step)) for step in ivf.curve] if ivf else []
        self.promise = Promise(steps) if steps and self.segments else None
        self._indexed = max((segment.last_id for segment in snapshot.segments), default=0)
        self._tail = [shard for shard in snapshot.shards if shard.last_id > self._indexed]
        self._kept: tuple[Ids, Vectors] | None = None
        before = previous._mapped.copy() if previous else {}
        self._mapped: dict[int, tuple[Ids, Vectors]] = {
            shard.number: before[shard.number]
            for shard in snapshot.shards
            if shard.number in before
        }

    @property
    def folder(self) -> Path:
        """The folder of the embeddings."""
        return self._layout.vectors

    @property
    def has_index(self) -> bool:
        """Whether there are inverted lists; else every search is exact."""
        return self.promise is not None

    @property
    def tail_count(self) -> int:
        """The number of images that no segment holds."""
        dead = int((self.removed > self._indexed).sum())
        return sum(shard.count for shard in self._tail) - dead

    @property
    def nprobe(self) -> tuple[int, ...]:
        """The lists that a query of each band probes to keep the collection's promise; 0: exact."""
        if self.promise is None:
            return ()
        plan = self.promise.keep(self.snapshot.settings.recall)
        return tuple(plan.nprobe.tolist())

    def embeddings(self, ids: Sequence[int]) -> Vectors:
        """Return the embeddings of images, float32 `[n, dim]`, in the order of `ids`.

        Raises:
            NoImageError: one of them is not in the collection (any more).
        """
        for id_ in np.array(ids, np.int64)[rows_of(np.array(ids, np.int64), self.removed)].tolist():
            raise NoImageError(id_)
        rows = np.empty((len(ids), self.snapshot.model.dim), np.float32)
        for row, id_ in zip(rows, ids, strict=True):
            place = int(np.searchsorted(self._first_ids, id_, side="right")) - 1
            shards = self.snapshot.shards[place : place + 1] if place >= 0 else ()
            for there, vectors in self._read(shards):
                at = int(np.searchsorted(there, id_))
                if at < len(there) and there[at] == id_:
                    row[:] = vectors[at]
                    break
            else:
                raise NoImageError(id_)
        return rows

    def live_blocks(self) -> Iterator[tuple[Ids, Vectors]]:
        """Yield the ids and vectors of each shard, removed images left out."""
        return map(self._live, self._read(self.snapshot.shards))

    def live_tail(self) -> Iterator[tuple[Ids, Vectors]]:
        """Yield the ids and vectors of the tail, removed images left out."""
        return map(self._live, self._read(self._tail))

    def search(
        self, queries: Vectors, k: int, *, recall: float | None, nprobe: int | None, exact: bool
    ) -> tuple[Vectors, Ids, list[Search]]:
        """Return squared L2 distances and ids `[n, k]`, nearest first, and how they were found.

        Args:
            queries: float32 `[n, dim]`.
            k: hits a query.
            recall: recall@10 to keep; None for what the collection promises.
            nprobe: lists a query, whatever recall that has; None for as many as `recall` takes.
            exact: compare with every vector instead.
        """
        recall = recall or self.snapshot.settings.recall
        exact = exact or (nprobe is None and recall >= 1)
        if exact or self.promise is None or not len(queries):
            return *self._search_exactly(queries, k), [EXACT] * len(queries)
        if nprobe is not None:
            nprobe = min(nprobe, self.segments[0].nlist)
            nearest = self.segments[0].assign(queries, nprobe)
            return *self._probe(queries, k, nearest), self._described(nearest[0], nprobe)
        return self._keep(queries, k, recall, self.promise)

    def _keep(
        self, queries: Vectors, k: int, recall: float, promise: Promise
    ) -> tuple[Vectors, Ids, list[Search]]:
        """Search so that `recall` is kept: see `imgsearch.ann.promise`."""
        plan = promise.keep(recall)
        nearest = self.segments[0].assign(queries, max(1, int(plan.nprobe.max())))
        band = promise.band_of(nearest[0][:, 0])
        nprobe = np.append(plan.nprobe, 0)[band]
        far = nprobe == 0
        # A list with the number -1 is not scanned.
        nearest[1][np.arange(nearest[1].shape[1]) >= nprobe[:, None]] = -1
        found = self._probe(queries, k, nearest)
        ways = [
            *(
                Search("ivf", int(count), expected) if count else EXACT
                for count, expected in zip(plan.nprobe, plan.recall.tolist(), strict=True)
            ),
            EXACT,
        ]
        searches = [ways[number] for number in band.tolist()]
        few = (found[1] < 0).any(axis=1) & ~far  # the lists probed hold fewer than k images
        if self.segments[0].lossy:  # to search all lists is not to search exactly
            for row in np.flatnonzero(few).tolist():
                searches[row] = EXACT
            far, few = far | few, np.zeros_like(few)
        if far.any():
            found[0][far], found[1][far] = self._search_exactly(queries[far], k)
        short = np.flatnonzero(few)
        if short.size:
            nlist = self.segments[0].nlist
            more = self._probe(queries[short], k, self.segments[0].assign(queries[short], nlist))
            found[0][short], found[1][short] = more
            for row in short.tolist():
                searches[row] = Search("wide", nlist, 1.0)
        return *found, searches

    def _described(self, distances: Vectors, nprobe: int) -> list[Search]:
        """Say what is to be expected of an `nprobe` that was asked for."""
        if self.promise is None:
            return []
        bands = self.promise.band_of(distances[:, 0]).tolist()
        ways = {
            band: Search("ivf", nprobe, self.promise.expected(band, nprobe)) for band in set(bands)
        }
        return [ways[band] for band in bands]

    def _search_exactly(self, queries: Vectors, k: int) -> tuple[Vectors, Ids]:
        return search_exactly(queries, self._read(self.snapshot.shards), k, self.removed)

    def _probe(self, queries: Vectors, k: int, nearest: tuple[Vectors, Ids]) -> tuple[Vectors, Ids]:
        found = self.search_lists(self.segments, queries, k, nearest)
        if not self._tail:
            return found
        return merge([found, search_exactly(queries, self._tail_blocks(), k)], k)

    def search_lists(
        self,
        segments: Sequence[InvertedFile],
        queries: Vectors,
        k: int,
        nearest: tuple[Vectors, Ids],
        excluded: Ids | None = None,
    ) -> tuple[Vectors, Ids]:
        """Return squared L2 distances and ids `[n, k]` of what the lists of segments hold.

        Args:
            segments: of this view, or others that are trained alike and hold images of it.
            queries: float32 `[n, dim]`.
            k: hits a query.
            nearest: lists of each query, as from `InvertedFile.assign`.
            excluded: sorted ids to be passed over; None for those that segments may hold yet.
        """
        lossy = segments[0].lossy
        width = candidates_for(k, self.count) if lossy else k
        out = self._stale if excluded is None else excluded
        parts = [index.search(queries, width, nearest, out) for index in segments]
        found = merge(parts, width) if len(parts) > 1 else parts[0]
        return self._rerank(queries, found[1], k) if lossy else found

    def _rerank(self, queries: Vectors, candidates: Ids, k: int) -> tuple[Vectors, Ids]:
        """Compare candidates with their embeddings, in the shards whose ranges hold them."""
        places = np.searchsorted(self._first_ids, candidates[candidates >= 0], side="right") - 1
        shards = [self.snapshot.shards[place] for place in np.unique(places).tolist()]
        return rerank(queries, candidates, self._read(shards), k)

    def _tail_blocks(self) -> Iterable[tuple[Ids, Vectors]]:
        size = 4 * self.snapshot.model.dim * sum(shard.count for shard in self._tail)
        if size > TAIL_KEPT:
            return self.live_tail()
        if self._kept is None:  # two threads may do this at once: both get the same
            ids, vectors = (np.concatenate(part) for part in zip(*self.live_tail(), strict=True))
            self._kept = ids, vectors
        return [self._kept]

    def _read(self, shards: Iterable[Shard]) -> Iterator[tuple[Ids, Vectors]]:
        for shard in shards:
            mapped = self._mapped.get(shard.number)
            if mapped is None:
                vectors = open_shard(self._layout.vectors, shard, self.snapshot.model.dim)
                mapped = open_ids(self._layout.vectors, shard), vectors
                if len(self._mapped) < MAPPED:
                    self._mapped[shard.number] = mapped
            yield mapped

    def _live(self, block: tuple[Ids, Vectors]) -> tuple[Ids, Vectors]:
        ids, vectors = block
        live = ~rows_of(ids, self.removed)
        return block if live.all() else (ids[live], vectors[live])


def open_view(
    layout: Layout, catalog: Catalog, *, device: str = "cpu", previous: View | None = None
) -> View:
    """Open the present state of a collection.

    Between reading the catalog and opening what it names, a writer may replace the files: then the
    catalog is read again.

    Raises:
        DamagedError: files that the catalog names are missing, or are not what it says.
    """
    while True:
        snapshot = catalog.snapshot()
        try:
            return View(layout, snapshot, device=device, previous=previous)
        except FileNotFoundError as error:
            if catalog.snapshot() == snapshot:
                raise missing(error) from error
