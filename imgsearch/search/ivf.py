"""Train, fill, search, save and open a Faiss IVF index of the vectors themselves.

`D` are squared L2 distances, as Faiss returns them, and -1 stands for "no id".
"""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from imgsearch.search.inverted import InvertedFile, Writer, by_query, quantizer_of, read_mapped
from imgsearch.search.ivf_file import is_ivf_file
from imgsearch.search.seeding import MOST as SEEDED
from imgsearch.search.seeding import first_centroids
from imgsearch.search.vectors import Ids, Vectors

__all__ = [
    "IvfIndex",
    "choose_nlist",
    "describe_faiss",
    "to_gpu",
    "train",
    "training_size",
]

SEED = 1234
ITERATIONS = 10  # of k-means: Faiss's 25 take longer for little (by the design's figures)
TRAIN_PER_CENTROID = 256
TRAIN_BYTES = 1 << 30
_GPU_MAX = 2_048  # faiss/gpu/utils/DeviceDefs.cuh


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
        gpu=_on_gpu(device),
    )
    first = first_centroids(vectors, nlist, seed=SEED) if nlist <= SEEDED else None
    kmeans.train(vectors, init_centroids=first)
    centroids: Vectors = kmeans.centroids
    return centroids


class IvfIndex(InvertedFile):
    """A Faiss `IndexIVFFlat`: the lists hold the vectors themselves."""

    lossy = False

    def __init__(self, index: Any, *, device: str = "cpu") -> None:
        """Wrap a Faiss index; use `empty` or `open`."""
        super().__init__(index)
        self._device = device
        self._fast = to_gpu(index, device)
        self._lock = threading.Lock()

    @classmethod
    def empty(cls, centroids: Vectors, *, device: str = "cpu") -> IvfIndex:
        """Return an index without vectors."""
        nlist, dim = centroids.shape
        index = faiss.IndexIVFFlat(quantizer_of(centroids), dim, nlist, faiss.METRIC_L2)
        return cls(index, device=device)

    @classmethod
    def open(cls, path: Path, *, device: str = "cpu") -> IvfIndex:
        """Map an index file into memory; raises as `imgsearch.search.inverted.read_mapped`."""
        return cls(read_mapped(path, is_ivf_file, "IndexIVFFlat"), device=device)

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

    def search(
        self, queries: Vectors, k: int, nearest: tuple[Vectors, Ids], excluded: Ids | None = None
    ) -> tuple[Vectors, Ids]:
        """See `InvertedFile.search`; on a GPU if the index is there and nothing is excluded."""
        nprobe = nearest[1].shape[1]
        all_in = excluded is None or not excluded.size
        if self._fast is self._index or not all_in or max(k, nprobe) > _GPU_MAX:
            return super().search(queries, k, nearest, excluded)
        parameters = faiss.SearchParametersIVF(nprobe=nprobe)
        with self._lock:  # one thread at a time may search an index on a GPU
            found: tuple[Vectors, Ids] = self._fast.search(queries, k, params=parameters)
        return found

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


def to_gpu(index: Any, device: str) -> Any:
    """Return `index` on the GPU where the device is CUDA and faiss-gpu is installed, else itself.

    Training, adding and searching happen there then; `IvfIndex.save` writes the CPU kind.
    """
    if not _on_gpu(device):
        return index
    return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), _ordinal(device), index)


def describe_faiss(device: str = "cpu") -> str:
    """Say which Faiss this is and where it works, as in "faiss-cpu 1.15.1 on cpu"."""
    kind = "faiss-gpu" if hasattr(faiss, "StandardGpuResources") else "faiss-cpu"
    return f"{kind} {faiss.__version__} on {device if _on_gpu(device) else 'cpu'}"


def _on_gpu(device: str) -> bool:
    gpu = device.startswith("cuda") and hasattr(faiss, "StandardGpuResources")
    return gpu and faiss.get_num_gpus() > _ordinal(device)


def _ordinal(device: str) -> int:
    """Return the number of a CUDA device; "cuda" alone is the first."""
    return int(device.partition(":")[2] or 0)
