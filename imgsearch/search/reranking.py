"""Re-ranking: compare the best few that an index found with the vectors themselves.

The vectors stay where they are, in blocks that may be memory-mapped; only the rows of candidates
are read. `D` are squared L2 distances, and -1 stands for "no id".
"""

from __future__ import annotations

from collections.abc import Iterable

import faiss
import numpy as np

from imgsearch.search.vectors import Ids, Vectors

__all__ = ["candidates_for", "rerank"]

LEAST = 50  # candidates of a query
EACH = 5  # candidates for each hit
MORE = 1_000  # candidates than hits at most, by the rule of `EACH`
ONE_IN = 5_000  # images: the more there are, the more of them are about as near as a hit


def candidates_for(k: int, count: int) -> int:
    """Return how many candidates are compared so that the `k` nearest of `count` are among them."""
    return max(LEAST, count // ONE_IN, min(EACH * k, k + MORE))


def rerank(
    queries: Vectors, candidates: Ids, blocks: Iterable[tuple[Ids, Vectors]], k: int
) -> tuple[Vectors, Ids]:
    """Return the `k` nearest candidates of each query (`faiss::pairwise_indexed_L2sqr`).

    Args:
        queries: float32 `[n, dim]`.
        candidates: ids int64 `[n, m]`, -1 for none; one that no block has is no hit.
        blocks: ids int64 `[r]`, ascending, and vectors float32 `[r, dim]`, contiguous.
        k: hits a query, at most m.

    Returns:
        D and ids `[n, k]`, nearest first; equal distances are ordered by id.
    """
    width = candidates.shape[1]
    distances = np.full(candidates.size, np.inf, np.float32)
    order = np.argsort(candidates, axis=None)
    wanted = candidates.reshape(-1)[order]
    for ids, vectors in blocks:
        if not len(ids):
            continue
        start, end = np.searchsorted(wanted, (ids[0], ids[-1] + 1))
        rows = np.searchsorted(ids, wanted[start:end])
        here = ids[rows] == wanted[start:end]
        places = order[start:end][here]
        distances[places] = _distances(queries, places // width, vectors, rows[here])
    squared = distances.reshape(candidates.shape)
    ids = np.where(np.isfinite(squared), candidates, -1)
    nearest = np.lexsort((ids, squared))[:, :k]
    return np.take_along_axis(squared, nearest, 1), np.take_along_axis(ids, nearest, 1)


def _distances(queries: Vectors, asking: Ids, vectors: Vectors, rows: Ids) -> Vectors:
    """Return D `[n]` of pairs: the queries `asking` and the vectors `rows`, int64 `[n]`."""
    distances = np.empty(len(rows), np.float32)
    arrays = [np.ascontiguousarray(array) for array in (queries, asking, vectors, rows)]
    pointers = map(faiss.swig_ptr, (*arrays, distances))
    faiss.pairwise_indexed_L2sqr(queries.shape[1], len(rows), *pointers)
    return distances
