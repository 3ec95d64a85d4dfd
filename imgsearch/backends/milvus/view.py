"""The searchable view of a collection in Milvus."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, dataclass

import numpy as np

from imgsearch.ann.inverted import Chosen
from imgsearch.ann.promise import Promise, Step
from imgsearch.ann.vectors import Block, Neighbours, Vectors
from imgsearch.backends.milvus.state import State
from imgsearch.backends.milvus.store import Store
from imgsearch.querying.hits import Search
from imgsearch.querying.view import EXACT, Found

__all__ = ["MilvusView"]


@dataclass(frozen=True, slots=True, eq=False)
class MilvusView:
    """A state and the number of images at the time. Safe for concurrent searches."""

    store: Store
    state: State
    count: int

    @property
    def has_index(self) -> bool:
        """Whether there are inverted lists; otherwise, every search is exact."""
        return self.state.ivf is not None

    @property
    def nprobe(self) -> int | None:
        """The number of lists that keep the promise, 0 for exact search; None without lists."""
        promise = self.promise()
        return None if promise is None else int(promise.keep(self.state.settings.recall).nprobe[0])

    def promise(self) -> Promise | None:
        """Return the measured promise of the index."""
        ivf = self.state.ivf
        return Promise([Step(*astuple(step)) for step in ivf.curve]) if ivf else None

    @property
    def ranking(self) -> None:
        """None: images in Milvus are ranked by cosine."""
        return

    def live_blocks(self) -> Iterator[Block]:
        """Yield ids and vectors of all images, block by block."""
        ids = [row.id for row in self.store.rows()]
        for start in range(0, len(ids), 1_000):
            found = self.store.vectors(ids[start : start + 1_000])
            yield Block(np.array(list(found), np.int64), np.stack(list(found.values())))

    def search(
        self,
        queries: Vectors,
        k: int,
        *,
        recall: float | None,
        nprobe: int | None,
        exact: bool,
        candidates: int = 0,  # noqa: ARG002 - ranked by cosine, which needs no more
        among: Chosen | None = None,  # noqa: ARG002 - refused: see `MilvusCollection`
    ) -> Found:
        """Return the `k` images nearest to each query; see `View.search`.

        There are no more `candidates` than `k`.

        Scanning all lists is exact search. It also answers queries that are farther from their
        nearest hit than nearly all queries that the promise was measured with, and those with too
        few hits.
        """
        ivf, promise = self.state.ivf, self.promise()
        recall = recall or self.state.settings.recall
        if ivf is None or promise is None or not len(queries):
            return Found(*self.store.search(queries, k), [EXACT] * len(queries))
        if nprobe is not None:
            nprobe = min(nprobe, ivf.nlist)
            found = self.store.search(queries, k, nprobe)
            way = Search("ivf", nprobe, promise.expected(0, nprobe))
            return Found(*found, [way] * len(queries))
        plan = promise.keep(recall)
        lists = int(plan.nprobe[0])
        if exact or recall >= 1 or not lists:
            return Found(*self.store.search(queries, k), [EXACT] * len(queries))
        near = self.store.search(queries, k, lists)
        far = (promise.band_of(near.distances[:, 0]) > 0) | ~near.there.all(axis=1)
        way = Search("ivf", lists, float(plan.recall[0]))
        if not far.any():
            return Found(*near, [way] * len(queries))
        rows, again = np.arange(len(queries)), np.flatnonzero(far)
        parts = [(rows, near), (again, self.store.search(queries[again], k))]
        searches = [EXACT if is_far else way for is_far in far.tolist()]
        return Found(*Neighbours.scattered(len(queries), k, parts), searches)
