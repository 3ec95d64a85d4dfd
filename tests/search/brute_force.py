"""Search by brute force, and the comparison of results in which ties may stand in any order."""

from __future__ import annotations

import numpy as np

from imgsearch.search.ivf import IvfIndex, train
from imgsearch.search.vectors import Ids, Vectors

__all__ = ["DIM", "assert_same_hits", "index_of", "nearest"]

DIM = 16


def nearest(queries: Vectors, ids: Ids, vectors: Vectors, k: int) -> tuple[Vectors, Ids]:
    """Return the `k` nearest by brute force, padded as Faiss does."""
    squared = np.square(queries[:, None].astype(np.float64) - vectors[None]).sum(axis=2)
    order = np.argsort(squared, axis=1, kind="stable")[:, :k]
    missing = ((0, 0), (0, max(0, k - len(ids))))
    distances = np.pad(np.take_along_axis(squared, order, 1), missing, constant_values=np.inf)
    return distances.astype(np.float32), np.pad(ids[order], missing, constant_values=-1)


def assert_same_hits(
    found: tuple[Vectors, Ids], expected: tuple[Vectors, Ids], *, atol: float = 1e-5
) -> None:
    """Compare two results; equally near images may stand in any order."""
    real = expected[1] >= 0
    np.testing.assert_array_equal(found[1] >= 0, real)
    np.testing.assert_allclose(found[0][real], expected[0][real], atol=atol)
    for row, distances in enumerate(expected[0]):
        last = distances[real[row]].max(initial=0)
        sure = {int(i) for i, d in zip(expected[1][row], distances, strict=True) if d < last - atol}
        assert sure <= set(found[1][row].tolist())
        ids = found[1][row][real[row]].tolist()
        assert len(set(ids)) == len(ids)


def index_of(ids: Ids, vectors: Vectors, nlist: int) -> IvfIndex:
    index = IvfIndex.empty(train(vectors, nlist))
    index.add(ids, vectors)
    return index
