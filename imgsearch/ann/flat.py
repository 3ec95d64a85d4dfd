"""Fill, search, save and open a Faiss IVF index of the vectors themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np

from imgsearch.ann.faiss_files import is_ivf_file
from imgsearch.ann.inverted import InvertedFile, Writer, by_query, quantizer_of, read_mapped
from imgsearch.ann.vectors import Ids, Vectors

__all__ = ["IvfIndex"]


class IvfIndex(InvertedFile):
    """A Faiss `IndexIVFFlat`: the lists hold the vectors themselves."""

    @classmethod
    def empty(cls, centroids: Vectors, *, device: str = "cpu") -> IvfIndex:
        """Return an index without vectors."""
        nlist, dim = centroids.shape
        index = faiss.IndexIVFFlat(quantizer_of(centroids), dim, nlist, faiss.METRIC_L2)
        return cls(index, device)

    @classmethod
    def open(cls, path: Path, *, device: str = "cpu") -> IvfIndex:
        """Map an index file into memory; raises as `imgsearch.ann.inverted.read_mapped`."""
        return cls(read_mapped(path, is_ivf_file, "IndexIVFFlat"), device)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the index without its vectors, for use in another process."""
        return IvfIndex.empty, (self.centroids,)

    def emptied(self) -> IvfIndex:
        """Return an index with the same centroids but without vectors."""
        return IvfIndex.empty(self.centroids, device=self._device)

    def is_trained_as(self, other: InvertedFile) -> bool:
        """Tell whether another index is of this kind and has the same centroids."""
        return isinstance(other, IvfIndex) and np.array_equal(self.centroids, other.centroids)

    def bytes_of(self, count: int) -> int:
        """Return the maximum size in bytes of an index file with `count` vectors."""
        return (count + self.nlist) * (4 * self.dim + 8)

    def save(self, writer: Writer) -> None:
        """Write the index in its CPU form."""
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
        """Return the ids `[n]` and vectors `[n, dim]` of a list, valid as long as the index is."""
        ids, codes = self.codes(number)
        return ids, codes.view(np.float32)
