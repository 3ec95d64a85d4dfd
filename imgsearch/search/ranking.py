"""Rank all of some vectors by their distance from each query."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from imgsearch.search.metrics import Values
from imgsearch.search.vectors import Ids, Vectors

__all__ = ["ranking", "squared_distances"]

_BITS = 30  # of a rounded distance behind the point, and of the number of a column


def squared_distances(queries: Vectors, ids: Ids, blocks: Iterable[tuple[Ids, Vectors]]) -> Values:
    """Return the squared L2 distance of each query and each vector, float64 `[n, m]`.

    Args:
        queries: float32 `[n, dim]`.
        ids: of all vectors, int64 `[m]`, ascending: the columns.
        blocks: ids and float32 vectors, which are all of `ids` together.
    """
    asked = queries.astype(np.float64)
    squares = np.einsum("ij,ij->i", asked, asked)
    distances = np.full((len(queries), len(ids)), np.inf)
    for block_ids, block in blocks:
        vectors = block.astype(np.float64)
        own = np.einsum("ij,ij->i", vectors, vectors)
        columns = np.searchsorted(ids, block_ids)
        distances[:, columns] = squares[:, None] + own - 2 * (asked @ vectors.T)
    np.maximum(distances, 0, out=distances)  # or an image and itself might be less than 0 apart
    return distances


def ranking(distances: Values) -> Ids:
    """Return the columns of each row, nearest first, int64 `[n, m]`; ties are ordered by column.

    Distances are rounded to 2⁻³⁰, or identical vectors would differ by how they were multiplied.

    Args:
        distances: squared, from 0 to 4, float64 `[n, m]`.
    """
    # Distance and column as one number: faster than a stable argsort, by a factor of nine.
    keys = np.rint(distances * (1 << _BITS)).astype(np.int64) << _BITS
    keys |= np.arange(distances.shape[1])
    keys.sort(axis=1)
    keys &= (1 << _BITS) - 1
    return keys
