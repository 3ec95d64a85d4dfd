"""Train, fill, search, save and open a Faiss IVF index of the vectors themselves.

`D` are squared L2 distances, as Faiss returns them, and -1 stands for "no id".
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from imgsearch.search.gpu import is_on_gpu
from imgsearch.search.inverted import InvertedFile, Writer, by_query, quantizer_of, read_mapped
from imgsearch.search.ivf_file import is_ivf_file
from imgsearch.search.seeding import MOST as SEEDED
from imgsearch.search.seeding import first_centroids
from imgsearch.search.vectors import Ids, Vectors

__all__ = [
    "IvfIndex",
    "choose_nlist",
    "train",
    "training_size",
]

SEED = 1234
ITERATIONS = 10  # of k-means: Faiss's 25 take longer for little (by the design's figures)
TRAIN_PER_CENTROID = 256
TRAIN_BYTES = 1 << 30


def choose_nlist(count: int) -> int:
    """Return the number of centroids for `count` images.

    4 √n, as the Faiss wiki's "Guidelines to choose an index" has it, as long as each centroid has
    39 vectors to be trained on (`faiss::ClusteringParameters::min_points_per_centroid`).
    """
    return max(1, min(round(4 * math.sqrt(count)), count // 39))


def training_size(count: int, nlist: int, dim: int) -> int:
    """Return how many of `count` vectors to train on: all, up to 256 a centroid and 1 GiB."""
    limit = max(nlist, TRAIN_BYTES // (4 * dim))
    return min(count, TRAIN_PER_CENTROID * nlist, limit)


def train(vectors: Vectors, nlist: int, *, device: str = "cpu") -> Vectors:
    """Return k-means centroids, float32 `[nlist, dim]`, of float32 `[n, dim]` with n ≥ nlist.

    `faiss::Clustering`, seeded; a few centroids begin as `imgsearch.search.seeding` has it, many as
    vectors drawn at random, which there is as good and takes no time.
    """
    kmeans = faiss.Kmeans(
        vectors.shape[1],
        nlist,
        niter=ITERATIONS,
        seed=SEED,
        min_points_per_centroid=1,  # or Faiss prints a warning: choose_nlist has seen to it
        max_points_per_centroid=len(vectors),
        gpu=is_on_gpu(device),
    )
    first = first_centroids(vectors, nlist, seed=SEED) if nlist <= SEEDED else None
    kmeans.train(vectors, init_centroids=first)
    centroids: Vectors = kmeans.centroids
    return centroids


class IvfIndex(InvertedFile):
    """A Faiss `IndexIVFFlat`: the lists hold the vectors themselves."""

    lossy = False

    @classmethod
    def empty(cls, centroids: Vectors, *, device: str = "cpu") -> IvfIndex:
        """Return an index without vectors."""
        nlist, dim = centroids.shape
        index = faiss.IndexIVFFlat(quantizer_of(centroids), dim, nlist, faiss.METRIC_L2)
        return cls(index, device)

    @classmethod
    def open(cls, path: Path, *, device: str = "cpu") -> IvfIndex:
        """Map an index file into memory; raises as `imgsearch.search.inverted.read_mapped`."""
        return cls(read_mapped(path, is_ivf_file, "IndexIVFFlat"), device)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process without vectors."""
        return IvfIndex.empty, (self.centroids,)

    def emptied(self) -> IvfIndex:
        """Return an index with the same centroids, and without vectors."""
        return IvfIndex.empty(self.centroids, device=self._device)

    def is_trained_as(self, other: InvertedFile) -> bool:
        """Tell whether another index is of this kind and has the same centroids."""
        return isinstance(other, IvfIndex) and np.array_equal(self.centroids, other.centroids)

    def bytes_of(self, count: int) -> int:
        """Return how large the file of so many vectors is, in bytes, at most."""
        return (count + self.nlist) * (4 * self.dim + 8)

    def save(self, writer: Writer) -> None:
        """Write the index as its CPU kind."""
        if self._fast is not self._index:
            self._index = by_query(faiss.index_gpu_to_cpu(self._fast))
        faiss.write_index(self._index, faiss.PyCallbackIOWriter(writer.write))

    def add_to(self, ids: Ids, vectors: Vectors, lists: Ids) -> None:
        """See `InvertedFile.add_to`."""
        if self._fast is self._index:
            super().add_to(ids, vectors, lists)
        else:
            self._fast.add_with_ids(vectors, ids)

    @property
    def dim(self) -> int:
        """The length of a vector."""
        return int(self._index.d)

    @property
    def count(self) -> int:
        """The number of vectors."""
        return int(self._fast.ntotal)

    def entries(self, number: int) -> tuple[Ids, Vectors]:
        """Return ids `[n]` and vectors `[n, dim]` of a list, valid as long as the index is."""
        ids, codes = self.codes(number)
        return ids, codes.view(np.float32)
