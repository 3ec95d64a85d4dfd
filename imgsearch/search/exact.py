"""Exact search, block by block. `D` are squared L2 distances; -1 stands for "no id"."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import faiss
import numpy as np

from imgsearch.search.vectors import Ids, Vectors, rows_of

__all__ = ["merge", "nothing", "search_exactly"]

_QUERIES = 1_024  # a block
_FEW = 64  # excluded vectors of a block that are found and dropped: to leave them out is to copy it


def search_exactly(
    queries: Vectors, blocks: Iterable[tuple[Ids, Vectors]], k: int, excluded: Ids | None = None
) -> tuple[Vectors, Ids]:
    """Return the `k` nearest of all vectors, block by block (`faiss::knn_L2sqr`).

    Args:
        queries: float32 `[n, dim]`.
        blocks: ids int64 `[m]` and vectors float32 `[m, dim]`.
        k: hits a query.
        excluded: sorted ids to be passed over.

    Returns:
        D and ids `[n, k]`, nearest first.
    """
    best = nothing(len(queries), k)
    for ids, vectors in blocks:
        dead = np.zeros(len(ids), np.bool_) if excluded is None else rows_of(ids, excluded)
        few = int(dead.sum())
        if few > _FEW:
            ids, vectors, few = ids[~dead], vectors[~dead], 0
        if len(ids) and len(queries):
            found = _knn(queries, ids, np.ascontiguousarray(vectors), k + few)
            if few and excluded is not None:
                passed_over = rows_of(found[1], excluded)
                found[0][passed_over], found[1][passed_over] = np.inf, -1
            best = merge([best, found], k)
    return best


def merge(results: Sequence[tuple[Vectors, Ids]], k: int) -> tuple[Vectors, Ids]:
    """Return the `k` nearest of several results; equal distances are ordered by id."""
    distances = np.concatenate([result[0] for result in results], axis=1)
    ids = np.concatenate([result[1] for result in results], axis=1)
    order = np.lexsort((ids, distances))[:, :k]
    return np.take_along_axis(distances, order, 1), np.take_along_axis(ids, order, 1)


def nothing(queries: int, k: int) -> tuple[Vectors, Ids]:
    """Return a result without a hit, `[queries, k]`."""
    return np.full((queries, k), np.inf, np.float32), np.full((queries, k), -1, np.int64)


def _knn(queries: Vectors, ids: Ids, vectors: Vectors, k: int) -> tuple[Vectors, Ids]:
    k = min(k, len(ids))
    results = []
    for start in range(0, len(queries), _QUERIES):
        block = queries[start : start + _QUERIES]
        rows = faiss.knn(block, vectors, k)[1]
        results.append((_distances(block, vectors, rows), ids[rows]))
    distances, found = (np.concatenate(parts) for parts in zip(*results, strict=True))
    return distances, found


def _distances(queries: Vectors, vectors: Vectors, rows: Ids) -> Vectors:
    # For many queries Faiss expands |x - y|² for the sake of BLAS; what cancellation leaves would
    # give an identical image a distance of 0.001.
    squares = [
        np.square(vectors[near] - query).sum(axis=1, dtype=np.float32)
        for query, near in zip(queries, rows, strict=True)
    ]
    return np.stack(squares)
