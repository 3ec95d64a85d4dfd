"""A view: a collection as of one commit, opened for searching.

Search = segments ∪ tail − removed. The tail, every id above the last segment, is searched exactly,
so that an image is found from the moment it is committed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from imgsearch.errors import missing
from imgsearch.hits import Search
from imgsearch.search.ivf import IvfIndex, merge, search_exactly
from imgsearch.search.vectors import Ids, Vectors
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import Snapshot
from imgsearch.storage.shards import Shard, open_shard

__all__ = ["View", "open_view"]


class View:
    """What `snapshot` names, opened. Safe for concurrent searches.

    `removed` are the ids that are not to be found, int64, sorted.
    """

    def __init__(self, layout: Layout, snapshot: Snapshot, *, device: str = "cpu") -> None:
        """Open the segments; shards are mapped when they are read.

        Raises:
            FileNotFoundError: a file is gone; another process may just have replaced it.
            DamagedError: a file is not what the catalog says.
        """
        self.snapshot = snapshot
        self._layout = layout
        self.removed: Ids = np.array(snapshot.removed, dtype=np.int64)
        self._stale: Ids = np.array(snapshot.stale, dtype=np.int64)
        self.segments = [
            IvfIndex.open(layout.segment(segment.number), device=device)
            for segment in snapshot.segments
        ]
        indexed = max((segment.last_id for segment in snapshot.segments), default=0)
        self._tail = [
            shard for shard in snapshot.shards if shard.first_id + shard.count > indexed + 1
        ]
        self._indexed = indexed

    @property
    def count(self) -> int:
        """The number of images."""
        return sum(shard.count for shard in self.snapshot.shards) - len(self.removed)

    @property
    def tail_count(self) -> int:
        """The number of images that no segment holds."""
        dead = int((self.removed > self._indexed).sum())
        return sum(shard.count for shard in self._tail) - dead

    def blocks(self) -> Iterator[tuple[Ids, Vectors]]:
        """Yield the ids and vectors of each shard, removed ones included."""
        yield from self._read(self.snapshot.shards)

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
        if exact or not self.segments or self.snapshot.ivf is None:
            found = search_exactly(queries, self.blocks(), k, self.removed)
            return *found, [Search("exact", 0, 1.0)] * len(queries)
        found = self._search_ivf(queries, k, nprobe or self.snapshot.ivf.nprobe)
        short = (found[1] < 0).any(axis=1)
        if nprobe is None and short.any():  # the lists probed hold fewer than k images
            more = self._search_ivf(queries[short], k, self.snapshot.ivf.nlist)
            found[0][short], found[1][short] = more
        return *found, [Search("ivf", nprobe or self.snapshot.ivf.nprobe, None)] * len(queries)

    def _search_ivf(self, queries: Vectors, k: int, nprobe: int) -> tuple[Vectors, Ids]:
        parts = [index.search(queries, k, nprobe, self._stale) for index in self.segments]
        if self._tail:
            parts.append(search_exactly(queries, self._read(self._tail), k, self.removed))
        best = parts[0]
        for part in parts[1:]:
            best = merge(best, part, k)
        return best

    def _read(self, shards: Iterable[Shard]) -> Iterator[tuple[Ids, Vectors]]:
        for shard in shards:
            vectors = open_shard(self._layout.vectors, shard, self.snapshot.model.dim)
            yield shard.ids, vectors


def open_view(layout: Layout, catalog: Catalog, *, device: str = "cpu") -> View:
    """Open the present state of a collection.

    Between reading the catalog and opening what it names, a writer may replace the files: then the
    catalog is read again.

    Raises:
        DamagedError: files that the catalog names are missing, or are not what it says.
    """
    while True:
        snapshot = catalog.snapshot()
        try:
            return View(layout, snapshot, device=device)
        except FileNotFoundError as error:
            if catalog.snapshot() == snapshot:
                raise missing(error) from error
