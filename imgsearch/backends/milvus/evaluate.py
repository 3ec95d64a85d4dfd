"""Evaluate a collection in Milvus on labelled images."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from imgsearch.ann.inverted import Chosen
from imgsearch.ann.metrics import Flags
from imgsearch.ann.vectors import Block, Ids, Vectors, rows_of
from imgsearch.backends.milvus.store import MAX_ROWS
from imgsearch.backends.milvus.view import MilvusView
from imgsearch.evaluation.evaluate import Evaluation, judge
from imgsearch.evaluation.ground_truth import Reach, ground_truth
from imgsearch.evaluation.labels import read_labels
from imgsearch.querying.hits import Search
from imgsearch.querying.options import SearchOptions
from imgsearch.querying.view import Found

__all__ = ["evaluate"]


def evaluate(
    view: MilvusView,
    labels: str | os.PathLike[str],
    options: SearchOptions,
    progress: Callable[[int, int], None] | None,
) -> Evaluation:
    """Measure as `imgsearch.evaluation.evaluate` does, with the labelled embeddings in memory.

    Milvus does not tell which images a search reached: it is asked for as many hits as it can
    return. In a larger collection, images beyond those add nothing to the mAP of the index.
    """
    started = time.monotonic()
    labelled = read_labels(labels)
    paths = {row.id: os.fsdecode(row.path) for row in view.store.rows()}

    def fetched(ids: Ids) -> tuple[_Fetched, Reach]:
        found = view.store.vectors(ids.tolist())
        vectors = np.stack([found[id_] for id_ in ids.tolist()])
        searched = _Fetched(view, ids, vectors)
        return searched, searched.reach

    truth = ground_truth(paths, fetched, labelled, os.fsdecode(labels))
    return judge(truth, options, progress, started)


@dataclass(frozen=True, slots=True, eq=False)
class _Fetched:
    """The labelled images of a view: ascending ids int64 `[m]`, vectors float32 `[m, dim]`."""

    view: MilvusView
    ids: Ids
    vectors: Vectors

    @property
    def count(self) -> int:
        return self.view.count

    @property
    def has_index(self) -> bool:
        return self.view.has_index

    @property
    def ranking(self) -> None:
        return

    def live_blocks(self) -> Iterator[Block]:
        yield Block(self.ids, self.vectors)

    def search(
        self,
        queries: Vectors,
        k: int,
        *,
        recall: float | None,
        nprobe: int | None,
        exact: bool,
        candidates: int = 0,  # noqa: ARG002 - ranked by cosine, which needs no more
        among: Chosen | None = None,  # noqa: ARG002 - of the labelled images, none is left out
    ) -> Found:
        return self.view.search(queries, k, recall=recall, nprobe=nprobe, exact=exact)

    def reach(self, vectors: Vectors, searches: Sequence[Search]) -> Flags:
        """Tell which labelled images each search reached, bool `[n, m]`."""
        k = min(self.count, MAX_ROWS)
        reached = np.ones((len(searches), len(self.ids)), np.bool_)
        for row, search in enumerate(searches):
            if search.kind == "ivf":
                found = self.view.store.search(vectors[row : row + 1], k, search.nprobe).ids[0]
                reached[row] = rows_of(self.ids, np.sort(found))
        return reached
