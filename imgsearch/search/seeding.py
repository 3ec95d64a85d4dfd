"""Choose the centroids that k-means begins with."""

from __future__ import annotations

import math

import numpy as np

from imgsearch.search.vectors import Ids, Vectors

__all__ = ["MOST", "first_centroids"]

MOST = 512  # centroids: each takes another look at the sample
SAMPLE = 4_096  # vectors that are looked at


def first_centroids(vectors: Vectors, nlist: int, *, seed: int) -> Vectors:
    """Return `nlist` of the vectors, far from one another, float32 `[nlist, dim]`.

    Greedy k-means++ (Arthur and Vassilvitskii, "k-means++: The Advantages of Careful Seeding",
    2007, sections 2.2 and 7): each is drawn with a chance in proportion to its squared distance
    from those before it, the best of 2 + log(nlist) that are so drawn. Of a sample of the vectors.

    Args:
        vectors: float32 `[n, dim]` with n ≥ nlist.
        nlist: at most `MOST`.
        seed: of what is drawn.
    """
    random = np.random.default_rng(seed)
    if len(vectors) > SAMPLE:
        vectors = vectors[np.sort(random.choice(len(vectors), SAMPLE, replace=False))]
    norms = np.vecdot(vectors, vectors)
    chosen = random.integers(len(vectors), size=1)
    nearest = _squares(vectors, norms, chosen)[0]
    for _ in range(nlist - 1):
        reached = np.cumsum(nearest, dtype=np.float64)
        drawn = random.random(2 + int(math.log(nlist))) * reached[-1]
        rows = np.searchsorted(reached, drawn).clip(max=len(vectors) - 1)
        left = np.minimum(_squares(vectors, norms, rows), nearest)
        best = int(left.sum(axis=1).argmin())
        nearest = left[best]
        chosen = np.append(chosen, rows[best])
    return np.ascontiguousarray(vectors[chosen])


def _squares(vectors: Vectors, norms: Vectors, rows: Ids) -> Vectors:
    """Return the squared distances of some of the vectors from all, `[rows, n]`."""
    squares = norms[rows, None] - 2 * (vectors[rows] @ vectors.T) + norms
    clipped: Vectors = squares.clip(min=0)
    return clipped
