"""Train, fill, search, save and open a Faiss IVF index.

`D` are squared L2 distances, as Faiss returns them, and -1 stands for "no id".
"""

from __future__ import annotations

import errno
import math
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import faiss
import numpy as np
import numpy.typing as npt

from imgsearch.errors import MEND, DamagedError, StorageError, reason_of
from imgsearch.search.ivf_file import is_ivf_file
from imgsearch.search.vectors import Ids, Vectors, rows_of

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
_BY_QUERY = 3  # IndexIVF::parallel_mode for search_preassigned, which by default uses one thread
_GPU_MAX = 2_048  # faiss/gpu/utils/DeviceDefs.cuh

# A forked process has none of the threads that OpenMP started, and would wait for them for ever.
os.register_at_fork(after_in_child=lambda: faiss.omp_set_num_threads(1))


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
        index.parallel_mode = _BY_QUERY
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
            with path.open("rb") as file:
                whole = is_ivf_file(file)
            index = faiss.read_index(str(path), _MAPPED) if whole else None
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StorageError(f"cannot read {path}: {reason_of(error)}") from error
        except RuntimeError as error:  # the file is whole: Faiss cannot map it
            if not path.exists():
                raise FileNotFoundError(errno.ENOENT, "replaced", str(path)) from error
            reason = str(error).rsplit(": ", 1)[-1]
            raise StorageError(f"cannot read {path}: {reason}") from error
        if index is None:
            raise DamagedError(f"{path} is no IndexIVFFlat, or is cut off; {MEND}")
        return cls(index, device=device)

    def save(self, writer: Writer) -> None:
        """Write the index as its CPU kind."""
        if self._fast is not self._index:
            self._index = faiss.index_gpu_to_cpu(self._fast)
            self._index.parallel_mode = _BY_QUERY
        faiss.write_index(self._index, faiss.PyCallbackIOWriter(writer.write))

    def add(self, ids: Ids, vectors: Vectors) -> Vectors:
        """File each vector under its nearest centroid; return the squared distances to those."""
        vectors = np.ascontiguousarray(vectors)
        distances, lists = self.assign(vectors, 1)
        if self._fast is self._index:
            self._index.add_core(
                *(len(ids), faiss.swig_ptr(vectors), faiss.swig_ptr(ids), faiss.swig_ptr(lists))
            )
        else:
            self._fast.add_with_ids(vectors, ids)
        return distances[:, 0]

    def absorb(self, other: IvfIndex, excluded: Ids) -> None:
        """File what another index with the same centroids holds, but for `excluded` (sorted)."""
        lists = self._index.invlists
        for number in range(self.nlist):
            ids, vectors = other.entries(number)
            keep = ~rows_of(ids, excluded)
            kept, rows = ids[keep], vectors[keep].view(np.uint8)
            if kept.size:
                lists.add_entries(number, len(kept), faiss.swig_ptr(kept), faiss.swig_ptr(rows))
                self._index.ntotal += len(kept)

    def assign(self, queries: Vectors, count: int) -> tuple[Vectors, Ids]:
        """Return the lists nearest to each query: D and numbers `[n, count]`, nearest first."""
        found: tuple[Vectors, Ids] = self._index.quantizer.search(queries, count)
        return found

    def search(
        self, queries: Vectors, k: int, nearest: tuple[Vectors, Ids], excluded: Ids | None = None
    ) -> tuple[Vectors, Ids]:
        """Scan the lists that were assigned to each query.

        Args:
            queries: float32 `[n, dim]`.
            k: hits a query.
            nearest: D and numbers `[n, nprobe]` of lists, as from `assign`; -1 for none.
            excluded: sorted ids to be passed over.

        Returns:
            D and ids `[n, k]`, nearest first.
        """
        selector = None
        if excluded is not None and excluded.size:
            selector = faiss.IDSelectorNot(faiss.IDSelectorBatch(excluded))
        nprobe = nearest[1].shape[1]
        parameters = faiss.SearchParametersIVF(nprobe=nprobe, sel=selector)
        if self._fast is not self._index and selector is None and max(k, nprobe) <= _GPU_MAX:
            with self._lock:  # one thread at a time may search an index on a GPU
                found: tuple[Vectors, Ids] = self._fast.search(queries, k, params=parameters)
            return found
        distances = np.empty((len(queries), k), np.float32)
        ids = np.empty((len(queries), k), np.int64)
        centroid_distances, lists = map(np.ascontiguousarray, nearest)
        self._index.search_preassigned_c(  # the wrapper without _c takes no parameters
            len(queries),
            faiss.swig_ptr(np.ascontiguousarray(queries)),
            k,
            *map(faiss.swig_ptr, (lists, centroid_distances, distances, ids)),
            False,
            parameters,
        )
        return distances, ids

    @property
    def centroids(self) -> Vectors:
        """The centroids, float32 `[nlist, dim]`."""
        quantizer = faiss.downcast_index(self._index.quantizer)
        flat = faiss.rev_swig_ptr(quantizer.get_xb(), quantizer.ntotal * quantizer.d)
        centroids: Vectors = flat.reshape(quantizer.ntotal, quantizer.d).copy()
        return centroids

    @property
    def nlist(self) -> int:
        """The number of lists."""
        return int(self._index.nlist)

    @property
    def dim(self) -> int:
        """The length of a vector."""
        return int(self._index.d)

    @property
    def count(self) -> int:
        """The number of vectors."""
        return int(self._fast.ntotal)

    @property
    def filed(self) -> int:
        """The number of vectors in the lists, which `count` has to be."""
        return int(self._index.invlists.compute_ntotal())

    def list_sizes(self) -> npt.NDArray[np.int64]:
        """Return the number of vectors in each list."""
        lists = self._index.invlists
        return np.array([lists.list_size(i) for i in range(self.nlist)], dtype=np.int64)

    def list_ids(self) -> Iterator[Ids]:
        """Yield the ids of each list."""
        for number in range(self.nlist):
            yield self.entries(number)[0].copy()

    def entries(self, number: int) -> tuple[Ids, Vectors]:
        """Return ids `[n]` and vectors `[n, dim]` of a list, valid as long as the index is."""
        lists, dim = self._index.invlists, self._index.d
        size = lists.list_size(number)
        if not size:
            return np.empty(0, np.int64), np.empty((0, dim), np.float32)
        ids: Ids = faiss.rev_swig_ptr(lists.get_ids(number), size)
        codes = faiss.rev_swig_ptr(lists.get_codes(number), size * lists.code_size)
        return ids, codes.view(np.float32).reshape(size, dim)


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
