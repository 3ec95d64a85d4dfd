"""An inverted file: the common part of the Faiss indexes, whatever their lists hold.

`D` denotes squared L2 distances, as returned by Faiss.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

import faiss
import numpy as np
import numpy.typing as npt

from imgsearch.ann.gpu import GPU_MOST, to_gpu
from imgsearch.ann.vectors import Ids, Neighbours, Vectors, rows_of
from imgsearch.errors import REPAIR_IT, DamagedError, StorageError, reason_of
from imgsearch.files.opening import open_regular, path_of

__all__ = [
    "Chosen",
    "Codes",
    "InvertedFile",
    "NearestLists",
    "Writer",
    "by_query",
    "quantizer_of",
    "read_mapped",
]

Codes = npt.NDArray[np.uint8]

_GAPS = 64  # most ids per chosen one for a bitmap, which then takes as much as a list of the ids
_BY_QUERY = 3  # IndexIVF::parallel_mode for search_preassigned, which by default uses one thread
# Mapping through the interface is faster than the older way, but does not work on macOS.
_MAPPED = faiss.IO_FLAG_MMAP if sys.platform == "darwin" else faiss.IO_FLAG_MMAP_IFC

# A forked process lacks the threads that OpenMP started, and would wait for them forever.
os.register_at_fork(after_in_child=lambda: faiss.omp_set_num_threads(1))


class Writer(Protocol):
    """A destination for writing an index."""

    def write(self, data: Any) -> int:
        """Write bytes."""
        ...


class NearestLists(NamedTuple):
    """The inverted lists whose centroids are nearest to each of n queries, nearest first.

    `distances` holds D, float32 `[n, nprobe]`; `lists` the list numbers, int64 `[n, nprobe]`;
    `queries` the queries as the lists hold vectors, float32 `[n, d]`.
    """

    distances: Vectors
    lists: Ids
    queries: Vectors

    def of(self, rows: Ids, nprobe: int) -> NearestLists:
        """Return the first `nprobe` lists of the queries in `rows`."""
        near = self.distances[rows, :nprobe], self.lists[rows, :nprobe]
        return NearestLists(*near, self.queries[rows])

    def only(self, kept: npt.NDArray[np.bool_]) -> NearestLists:
        """Return only the lists in a mask, bool `[nlist]`; every query must have all of these."""
        columns = np.argsort(~kept[self.lists], axis=1, kind="stable")[:, : int(kept.sum())]
        return NearestLists(
            np.take_along_axis(self.distances, columns, 1),
            np.take_along_axis(self.lists, columns, 1),
            self.queries,
        )

    def each(self, rows: Ids, counts: Ids) -> NearestLists:
        """Return the first `counts` lists, int64 `[m]`, of each of the queries in `rows`."""
        width = int(counts.max())
        near = self.of(rows, width)
        probed = np.arange(width) < counts[:, None]
        return near._replace(lists=np.where(probed, near.lists, -1))


class Chosen:
    """The images that a search is limited to: `ids`, int64, ascending and distinct."""

    def __init__(self, ids: Ids) -> None:
        """Prepare a selector, which threads may share."""
        self.ids = ids
        self._mask = np.zeros(0, np.bool_)
        # The ids of a collection leave few gaps, but a foreign catalog may hold any number.
        if len(ids) and ids[0] >= 0 and ids[-1] <= _GAPS * len(ids):
            self._mask = np.zeros(int(ids[-1]) + 1, np.bool_)
            self._mask[ids] = True

    def has(self, ids: Ids) -> npt.NDArray[np.bool_]:
        """Tell for each id, none of them negative, whether it is chosen."""
        if not len(self._mask):
            return rows_of(ids, self.ids)
        return np.asarray(self._mask.take(ids, mode="clip") & (ids < len(self._mask)))

    @cached_property
    def selector(self) -> Any:
        """The Faiss selector of these ids."""
        if not len(self._mask):
            return faiss.IDSelectorBatch(self.ids)
        return faiss.IDSelectorBitmap(np.packbits(self._mask, bitorder="little"))


class InvertedFile(ABC):
    """Centroids, and the ids and codes of the vectors assigned to each.

    If `lossy`, neither vectors nor exact distances can be derived from the codes; the nearest
    results of `search` have to be compared again, using the vectors themselves.
    """

    def __init__(self, index: Any, device: str = "cpu") -> None:
        """Wrap a Faiss `IndexIVF`, and copy it to the GPU if the device calls for that."""
        self._index = by_query(index)
        self._device = device
        self._fast = to_gpu(index, device)
        self._lock = threading.Lock()

    @property
    def outdated(self) -> bool:
        """Whether a newer kind of index replaces it at the end of the next run."""
        return False

    @property
    def pca(self) -> int | None:
        """The number of values after PCA; None if the lists hold embeddings."""
        return None

    @property
    def lossy(self) -> bool:
        """Whether the lists hold less than the embeddings."""
        return self.pca is not None

    @property
    @abstractmethod
    def dim(self) -> int:
        """The length of a vector."""

    @abstractmethod
    def emptied(self) -> InvertedFile:
        """Return an index with the same training but without vectors."""

    @abstractmethod
    def is_trained_as(self, other: InvertedFile) -> bool:
        """Tell whether codes mean the same in both indexes, list by list."""

    @abstractmethod
    def bytes_of(self, count: int) -> int:
        """Return the maximum size in bytes of an index file with `count` vectors."""

    @abstractmethod
    def save(self, writer: Writer) -> None:
        """Write the index as Faiss does."""

    def add(self, ids: Ids, vectors: Vectors) -> Vectors:
        """Add each vector to the list of its nearest centroid, and return the squared distances."""
        vectors = np.ascontiguousarray(vectors)
        nearest = self.assign(vectors, 1)
        self.add_to(ids, vectors, np.ascontiguousarray(nearest.lists[:, 0]))
        return nearest.distances[:, 0]

    def add_to(self, ids: Ids, vectors: Vectors, lists: Ids) -> None:
        """Add each vector, float32 `[n, dim]`, to its assigned list, int64 `[n]`.

        An index on a GPU ignores `lists` and assigns the vectors itself.
        """
        pointers = map(faiss.swig_ptr, map(np.ascontiguousarray, (vectors, ids, lists)))
        self._index.add_core(len(ids), *pointers)

    def assign_one(self, vectors: Vectors) -> Ids:
        """Return the list nearest to each vector, int64 `[n]`; n may be 0."""
        if not len(vectors):
            return np.empty(0, np.int64)
        return np.ascontiguousarray(self.assign(np.ascontiguousarray(vectors), 1).lists[:, 0])

    def absorb(self, other: InvertedFile, excluded: Ids) -> None:
        """Add the content of an index with the same training, except for `excluded` (sorted)."""
        lists = self._index.invlists
        for number in range(self.nlist):
            ids, codes = other.codes(number)
            keep = ~rows_of(ids, excluded)
            kept, rows = ids[keep], codes[keep]
            if kept.size:
                lists.add_entries(number, len(kept), faiss.swig_ptr(kept), faiss.swig_ptr(rows))
                self._index.ntotal += len(kept)

    def assign(self, queries: Vectors, count: int) -> NearestLists:
        """Return the `count` lists nearest to each query."""
        distances, lists = self._index.quantizer.search(queries, count)
        return NearestLists(distances, lists, queries)

    def search(
        self,
        k: int,
        nearest: NearestLists,
        excluded: Ids | None = None,
        chosen: Chosen | None = None,
    ) -> Neighbours:
        """Scan the lists assigned to each query.

        Args:
            k: Number of hits per query.
            nearest: Queries, and lists to scan for them, as returned by `assign` of this index or
                of another one with the same training; -1 stands for no list.
            excluded: Sorted ids to skip; ignored if some are chosen.
            chosen: Images to find; None for all.

        Returns:
            The nearest entries of the lists; distances are approximate if the index is `lossy`.
        """
        nprobe = nearest.lists.shape[1]
        selector = None if chosen is None else chosen.selector
        if selector is None and excluded is not None and excluded.size:
            selector = faiss.IDSelectorNot(faiss.IDSelectorBatch(excluded))
        parameters = _parameters(nprobe)
        if selector is not None:
            parameters = faiss.SearchParametersIVF(nprobe=nprobe, sel=selector)
        if self._fast is not self._index and selector is None and max(k, nprobe) <= GPU_MOST:
            with self._lock:
                return Neighbours(*self._fast.search(nearest.queries, k, params=parameters))
        # Each array is named here, because a pointer does not keep its array alive.
        centroid_distances, lists, queries = map(np.ascontiguousarray, nearest)
        distances = np.empty((len(queries), k), np.float32)
        ids = np.empty((len(queries), k), np.int64)
        self._index.search_preassigned_c(  # the wrapper without _c takes no parameters
            len(queries),
            faiss.swig_ptr(queries),
            k,
            *map(faiss.swig_ptr, (lists, centroid_distances, distances, ids)),
            False,
            parameters,
        )
        return Neighbours(distances, ids)

    @property
    def centroids(self) -> Vectors:
        """The centroids, float32 `[nlist, d]`; d is dim, or the number of values after PCA."""
        quantizer = faiss.downcast_index(self._index.quantizer)
        flat = faiss.rev_swig_ptr(quantizer.get_xb(), quantizer.ntotal * quantizer.d)
        centroids: Vectors = flat.reshape(quantizer.ntotal, quantizer.d).copy()
        return centroids

    @property
    def nlist(self) -> int:
        """The number of lists."""
        return int(self._index.nlist)

    @property
    def width(self) -> int:
        """The number of bytes per vector in the lists."""
        return int(self._index.code_size)

    @property
    def count(self) -> int:
        """The number of vectors."""
        return int(self._index.ntotal)

    @property
    def assigned(self) -> int:
        """The number of vectors in the lists, which must equal `count`."""
        return int(self._index.invlists.compute_ntotal())

    def list_sizes(self) -> npt.NDArray[np.int64]:
        """Return the number of vectors in each list."""
        lists = self._index.invlists
        return np.array([lists.list_size(i) for i in range(self.nlist)], dtype=np.int64)

    def counts_of(self, chosen: Chosen) -> npt.NDArray[np.int64]:
        """Return the number of chosen images in each list."""
        ids, lists = self._assigned
        return np.bincount(lists[chosen.has(ids)], minlength=self.nlist)

    @cached_property
    def _assigned(self) -> tuple[Ids, npt.NDArray[np.int32]]:
        """All ids, and the list of each, of an index that is complete.

        Two threads may do this at once, with the same result.
        """
        ids = np.concatenate([np.empty(0, np.int64), *self.list_ids()])
        return ids, np.repeat(np.arange(self.nlist, dtype=np.int32), self.list_sizes())

    def list_ids(self) -> Iterator[Ids]:
        """Yield the ids of each list."""
        for number in range(self.nlist):
            yield self.codes(number)[0].copy()

    def codes(self, number: int) -> tuple[Ids, Codes]:
        """Return the ids `[n]` and codes `[n, bytes]` of a list, valid as long as the index is."""
        lists = self._index.invlists
        size, width = lists.list_size(number), lists.code_size
        if not size:
            return np.empty(0, np.int64), np.empty((0, width), np.uint8)
        ids: Ids = faiss.rev_swig_ptr(lists.get_ids(number), size)
        codes: Codes = faiss.rev_swig_ptr(lists.get_codes(number), size * width)
        return ids, codes.reshape(size, width)


@lru_cache(maxsize=64)
def _parameters(nprobe: int) -> Any:
    """Return parameters of a search, which take longer to make than some lists to scan."""
    return faiss.SearchParametersIVF(nprobe=nprobe)


def by_query(index: Any) -> Any:
    """Set a Faiss `IndexIVF` to divide a search among threads by query, and return it."""
    index.parallel_mode = _BY_QUERY
    return index


def quantizer_of(centroids: Vectors) -> Any:
    """Return a coarse quantizer with the given centroids, float32 `[nlist, d]`."""
    quantizer = faiss.IndexFlatL2(centroids.shape[1])
    quantizer.add(centroids)
    return quantizer


def read_mapped(path: Path, is_whole: Callable[[BinaryIO], bool], kind: str) -> Any:
    """Map an index file into memory.

    Args:
        path: Path of the file.
        is_whole: Function that tells whether the structure of the file is valid; Faiss does not
            check it.
        kind: Expected kind of index, for the error message.

    Raises:
        FileNotFoundError: If the file is missing; another process may just have replaced it.
        DamagedError: If the file is not an index of this kind.
        StorageError: If the file cannot be read.
    """
    try:
        with open_regular(path) as file:
            index = faiss.read_index(path_of(file, path), _MAPPED) if is_whole(file) else None
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageError(f"cannot read {path}: {reason_of(error)}") from error
    except RuntimeError as error:  # the file is whole, but Faiss cannot map it
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, "replaced", str(path)) from error
        reason = str(error).rsplit(": ", 1)[-1]
        raise StorageError(f"cannot read {path}: {reason}") from error
    if index is None:
        raise DamagedError(f"{path} is not an {kind}, or is cut off; {REPAIR_IT}")
    return index
