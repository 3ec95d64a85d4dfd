"""Train, fill, search, save and open a Faiss IVF index. The only module that imports faiss.

`D` are squared L2 distances, as Faiss returns them, and -1 stands for "no id".
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import faiss
import numpy as np
import numpy.typing as npt

from imgsearch.errors import DamagedError, StorageError, reason_of
from imgsearch.search.vectors import Ids, Vectors, rows_of

__all__ = [
    "IvfIndex",
    "choose_nlist",
    "describe_faiss",
    "merge",
    "search_exactly",
    "to_gpu",
    "train",
    "training_size",
]

SEED = 1234
ITERATIONS = 10  # of k-means: Faiss's 25 take longer for little (by the design's figures)
TRAIN_PER_CENTROID = 256
TRAIN_BYTES = 1 << 30
_QUERIES = 1_024  # a block of exact search
_GPU_MAX = 2_048  # faiss/gpu/utils/DeviceDefs.cuh


class Writer(Protocol):
    """Where an index is written to."""

    def write(self, data: Any) -> int:
        """Write bytes."""
        ...


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

    `faiss::Clustering`, seeded.
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
    kmeans.train(vectors)
    centroids: Vectors = kmeans.centroids
    return centroids


class IvfIndex:
    """A Faiss `IndexIVFFlat`: centroids, and the vectors and ids filed under each."""

    def __init__(self, index: Any, *, device: str = "cpu") -> None:
        """Wrap a Faiss index; use `empty` or `open`."""
        self._index = index
        self._fast = to_gpu(index, device)
        self._lock = threading.Lock()

    @classmethod
    def empty(cls, centroids: Vectors, *, device: str = "cpu") -> IvfIndex:
        """Return an index without vectors."""
        nlist, dim = centroids.shape
        quantizer = faiss.IndexFlatL2(dim)
        quantizer.add(centroids)
        index = faiss.IndexIVFFlat(quantizer, dim, nlist, faiss.METRIC_L2)
        return cls(index, device=device)

    @classmethod
    def open(cls, path: Path, *, device: str = "cpu") -> IvfIndex:
        """Map an index file into memory.

        Raises:
            FileNotFoundError: it is gone; another process may just have replaced it.
            DamagedError: it is no IVF index.
            StorageError: it cannot be read.
        """
        try:
            path.open("rb").close()  # Faiss's own error does not tell these from a damaged file
            index = faiss.read_index(str(path), _MAPPED)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StorageError(f"cannot read {path}: {reason_of(error)}") from error
        except RuntimeError as error:
            raise DamagedError(
                f"{path} is no Faiss index, or is cut off; restore it from a copy"
            ) from error
        if not isinstance(index, faiss.IndexIVFFlat):
            raise DamagedError(
                f"{path} holds a {type(index).__name__}, not an IndexIVFFlat; "
                "restore it from a copy"
            )
        return cls(index, device=device)

    def save(self, writer: Writer) -> None:
        """Write the index as its CPU kind."""
        if self._fast is not self._index:
            self._index = faiss.index_gpu_to_cpu(self._fast)
        faiss.write_index(self._index, faiss.PyCallbackIOWriter(writer.write))

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """File each vector under its nearest centroid."""
        self._fast.add_with_ids(np.ascontiguousarray(vectors), ids)

    def search(
        self, queries: Vectors, k: int, nprobe: int, excluded: Ids | None = None
    ) -> tuple[Vectors, Ids]:
        """Scan the `nprobe` nearest lists of each query.

        Args:
            queries: float32 `[n, dim]`.
            k: hits a query.
            nprobe: lists a query.
            excluded: sorted ids to be passed over.

        Returns:
            D and ids `[n, k]`, nearest first.
        """
        index = self._fast if max(k, nprobe) <= _GPU_MAX else self._index
        selector = None
        if excluded is not None and excluded.size:
            index = self._index  # an index on a GPU takes no selector
            selector = faiss.IDSelectorNot(faiss.IDSelectorBatch(excluded))
        parameters = faiss.SearchParametersIVF(nprobe=min(nprobe, self.nlist), sel=selector)
        # Several threads may search an index in main memory, and only one an index on a GPU.
        with self._lock if index is self._fast is not self._index else nullcontext():
            distances, ids = index.search(queries, k, params=parameters)
        return distances, ids

    def assign(self, queries: Vectors, count: int) -> Ids:
        """Return the numbers `[n, count]` of the lists nearest to each query, nearest first."""
        lists: Ids = self._index.quantizer.search(queries, count)[1]
        return lists

    @property
    def nlist(self) -> int:
        """The number of lists."""
        return int(self._index.nlist)

    @property
    def count(self) -> int:
        """The number of vectors."""
        return int(self._fast.ntotal)

    def list_sizes(self) -> npt.NDArray[np.int64]:
        """Return the number of vectors in each list."""
        lists = self._index.invlists
        return np.array([lists.list_size(i) for i in range(self.nlist)], dtype=np.int64)

    def list_ids(self) -> Iterator[Ids]:
        """Yield the ids of each list."""
        lists = self._index.invlists
        for number in range(self.nlist):
            size = lists.list_size(number)
            pointer = lists.get_ids(number)
            yield faiss.rev_swig_ptr(pointer, size).copy() if size else np.empty(0, np.int64)


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
    best = _nothing(len(queries), k)
    for ids, vectors in blocks:
        if excluded is not None and excluded.size:
            keep = ~rows_of(ids, excluded)
            if not keep.all():
                ids, vectors = ids[keep], vectors[keep]
        if len(ids) and len(queries):
            best = merge(best, _knn(queries, ids, np.ascontiguousarray(vectors), k), k)
    return best


def merge(one: tuple[Vectors, Ids], other: tuple[Vectors, Ids], k: int) -> tuple[Vectors, Ids]:
    """Return the `k` nearest of two results; equal distances are ordered by id."""
    distances = np.concatenate([one[0], other[0]], axis=1)
    ids = np.concatenate([one[1], other[1]], axis=1)
    order = np.lexsort((ids, distances))[:, :k]
    return np.take_along_axis(distances, order, 1), np.take_along_axis(ids, order, 1)


def to_gpu(index: Any, device: str) -> Any:
    """Return `index` on the GPU where the device is CUDA and faiss-gpu is installed, else itself.

    Training, adding and searching happen there then; `IvfIndex.save` writes the CPU kind.
    """
    if not _on_gpu(device):
        return index
    return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)


def describe_faiss(device: str = "cpu") -> str:
    """Say which Faiss this is and where it works, as in "faiss-cpu 1.15.1 on cpu"."""
    kind = "faiss-gpu" if hasattr(faiss, "StandardGpuResources") else "faiss-cpu"
    return f"{kind} {faiss.__version__} on {device if _on_gpu(device) else 'cpu'}"


# Mapping by interface is faster than the older way, and does not work on macOS.
_MAPPED = faiss.IO_FLAG_MMAP if sys.platform == "darwin" else faiss.IO_FLAG_MMAP_IFC


def _on_gpu(device: str) -> bool:
    gpu = device == "cuda" and hasattr(faiss, "StandardGpuResources")
    return gpu and faiss.get_num_gpus() > 0


def _nothing(queries: int, k: int) -> tuple[Vectors, Ids]:
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
