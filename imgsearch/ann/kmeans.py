"""Train centroids with k-means: their number, the training vectors, and the starting points."""

from __future__ import annotations

import math

import faiss
import numpy as np

from imgsearch.ann.gpu import is_on_gpu
from imgsearch.ann.vectors import Ids, Vectors

__all__ = ["MAX_CHOSEN", "choose_nlist", "first_centroids", "train", "training_size"]


SEED = 1234
ITERATIONS = 10  # of k-means: Faiss's 25 take longer for little gain (by the design's figures)
TRAIN_PER_CENTROID = 256
TRAIN_BYTES = 1 << 30
MAX_CHOSEN = 512  # maximum number of centroids: each takes another pass over the sample
CHOSEN_FROM = 4_096  # vectors in the sample


def choose_nlist(count: int) -> int:
    """Return the number of centroids for `count` images.

    It is 4 √n, as the Faiss wiki recommends in "Guidelines to choose an index", as long as each
    centroid has 39 training vectors (`faiss::ClusteringParameters::min_points_per_centroid`).
    """
    return max(1, min(round(4 * math.sqrt(count)), count // 39))


def training_size(count: int, nlist: int, dim: int) -> int:
    """Return how many of `count` vectors to train on: all, up to 256 per centroid and 1 GiB."""
    limit = max(nlist, TRAIN_BYTES // (4 * dim))
    return min(count, TRAIN_PER_CENTROID * nlist, limit)


def train(vectors: Vectors, nlist: int, *, device: str = "cpu") -> Vectors:
    """Return k-means centroids, float32 `[nlist, dim]`, of vectors `[n, dim]` with n ≥ nlist.

    This is `faiss::Clustering` with a seed. Up to `MAX_CHOSEN` centroids start from
    `first_centroids`; more of them start from vectors drawn at random, which is as good then and
    takes no time.
    """
    kmeans = faiss.Kmeans(
        vectors.shape[1],
        nlist,
        niter=ITERATIONS,
        seed=SEED,
        min_points_per_centroid=1,  # no Faiss warning: choose_nlist checks it
        max_points_per_centroid=len(vectors),
        gpu=is_on_gpu(device),
    )
    first = first_centroids(vectors, nlist, seed=SEED) if nlist <= MAX_CHOSEN else None
    kmeans.train(vectors, init_centroids=first)
    centroids: Vectors = kmeans.centroids
    return centroids


def first_centroids(
    vectors: Vectors, nlist: int, *, seed: int, chosen_from: int = CHOSEN_FROM
) -> Vectors:
    """Return `nlist` of the vectors, far from one another, float32 `[nlist, dim]`.

    This is greedy k-means++ (Arthur and Vassilvitskii, "k-means++: The Advantages of Careful
    Seeding", 2007, sections 2.2 and 7) on a sample of the vectors: for each centroid,
    2 + log(nlist) vectors are drawn with a probability proportional to the squared distance from
    the nearest centroid so far, and the best of them is taken.

    Args:
        vectors: Vectors to choose from, float32 `[n, dim]` with n ≥ nlist.
        nlist: Number of centroids, at most `MAX_CHOSEN`.
        seed: Seed of the random draws.
        chosen_from: Maximum number of vectors in the sample.
    """
    random = np.random.default_rng(seed)
    if len(vectors) > chosen_from:
        vectors = vectors[np.sort(random.choice(len(vectors), chosen_from, replace=False))]
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
    """Return the squared distances from the vectors in `rows` to all vectors, `[rows, n]`."""
    squares = norms[rows, None] - 2 * (vectors[rows] @ vectors.T) + norms
    clipped: Vectors = squares.clip(min=0)
    return clipped
