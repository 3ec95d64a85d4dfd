"""Find the nearest of many small vectors, for which no index is kept."""

from __future__ import annotations

from math import sqrt

import faiss
import numpy as np
import numpy.typing as npt

from imgsearch.ann.vectors import Ids, Vectors

__all__ = ["Nearest"]

EXACT_UP_TO = 4_000  # vectors up to which each is compared with all others
LISTS = 4.0  # inverted lists, as a multiple of the square root of the number of vectors
PROBED = 16  # lists per query
ROUNDS, EACH = 10, 64  # of k-means; vectors per list that it takes at most


class Nearest:
    """Vectors to search among, in memory."""

    def __init__(self, vectors: Vectors, exact_up_to: int = EXACT_UP_TO) -> None:
        """Index vectors of length 1, float32 `[n, dim]`, with inverted lists if they are many."""
        count, dim = vectors.shape
        index = faiss.IndexFlatIP(dim)
        if count > exact_up_to:
            lists = round(LISTS * sqrt(count))
            index = faiss.IndexIVFFlat(index, dim, lists, faiss.METRIC_INNER_PRODUCT)
            index.cp.niter, index.cp.max_points_per_centroid = ROUNDS, EACH
            index.cp.min_points_per_centroid = 1  # without a warning
            index.nprobe = PROBED
            index.train(vectors)
        index.add(vectors)
        self._index = index

    def search(self, asked: Vectors, k: int) -> tuple[npt.NDArray[np.float32], Ids]:
        """Return the similarities and the rows of the nearest vectors, `[m, k]`, nearest first.

        The rows are -1 where there are fewer. With inverted lists, a few of the nearest may be
        missing.

        Args:
            asked: Vectors of length 1, float32 `[m, dim]`.
            k: Number of vectors to find for each.
        """
        similarities, rows = self._index.search(np.ascontiguousarray(asked), k)
        return similarities, rows
