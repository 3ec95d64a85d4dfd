"""A compact index: PCA, inverted lists with a byte for each value that it leaves (SQ8).

`D` are squared L2 distances, and -1 stands for "no id". What `CompactIndex.search` finds is to be
re-ranked: see `imgsearch.ann.exact`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from imgsearch.ann.faiss_files import is_compact_file
from imgsearch.ann.inverted import InvertedFile, NearestLists, Writer, quantizer_of, read_mapped
from imgsearch.ann.kmeans import train
from imgsearch.ann.vectors import Ids, Neighbours, Vectors

__all__ = ["CompactIndex", "train_compact"]

KIND = "IndexPreTransform of a PCA and an IndexIVFScalarQuantizer"
PCA_TRAIN = 20_000  # vectors that the PCA is made of at most
_BLOCK = 4_096  # rows of them at a time, in float64
_SEED = 1234
_PARTS = ("mean", "eigenvalues", "A", "b")  # of a PCAMatrix; PCAMat has the rows of A and more


def train_compact(vectors: Vectors, nlist: int, pca: int, *, device: str = "cpu") -> CompactIndex:
    """Train PCA, centroids and the ranges of SQ8; return an index without vectors.

    Args:
        vectors: float32 `[n, dim]` with n ≥ nlist.
        nlist: centroids, of what PCA leaves.
        pca: values that PCA leaves, at most dim.
        device: see `imgsearch.ann.kmeans.train`.
    """
    dim = vectors.shape[1]
    transform = _principal_components(vectors, min(pca, dim))
    short = transform.apply(np.ascontiguousarray(vectors))
    index = _lists(train(short, nlist, device=device))
    index.train(short)
    return CompactIndex(faiss.IndexPreTransform(transform, index))


class CompactIndex(InvertedFile):
    """A Faiss `IndexPreTransform`: `PCAMatrix`, then `IndexIVFScalarQuantizer` (`QT_8bit`, L2)."""

    lossy = True

    def __init__(self, index: Any, device: str = "cpu") -> None:
        """Wrap a Faiss index; use `train_compact` or `open`."""
        super().__init__(faiss.downcast_index(index.index), device)
        self._whole = index  # owns the other two
        self._pca = faiss.downcast_VectorTransform(index.chain.at(0))
        self._mean: Vectors = faiss.vector_to_array(self._pca.mean)

    @classmethod
    def open(cls, path: Path, *, device: str = "cpu") -> CompactIndex:
        """Map an index file into memory; raises as `imgsearch.ann.inverted.read_mapped`."""
        return cls(read_mapped(path, is_compact_file, KIND), device)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process without vectors."""
        return _restored, (faiss.serialize_index(self.emptied()._whole),)

    def emptied(self) -> CompactIndex:
        """Return an index that was trained as this one was, and without vectors."""
        index = _lists(self.centroids)
        index.sq = self._index.sq
        index.is_trained = True
        return CompactIndex(faiss.IndexPreTransform(_copy(self._pca), index))

    def is_trained_as(self, other: InvertedFile) -> bool:
        """Tell whether another index has the same PCA, centroids and ranges."""
        return isinstance(other, CompactIndex) and all(
            np.array_equal(one, same)
            for one, same in zip(self._trained(), other._trained(), strict=True)
        )

    def bytes_of(self, count: int) -> int:
        """Return how large the file of so many vectors is, in bytes, at most."""
        dim, pca = self.dim, int(self._index.d)
        return count * (pca + 8) + self.nlist * (4 * pca + 16) + 4 * dim * (pca + 2) + 1_024

    def save(self, writer: Writer) -> None:
        """Write the index as Faiss does."""
        self._whole.ntotal = self._index.ntotal
        faiss.write_index(self._whole, faiss.PyCallbackIOWriter(writer.write))

    def assign(self, queries: Vectors, count: int) -> NearestLists:
        """Return the `count` lists nearest to each query.

        D is that of the full space: to the distance within the PCA, the squared length of what it
        leaves out of the query is added.
        """
        short = self.project(queries)
        near = super().assign(short, count)
        centred = queries - self._mean
        left_out = np.square(centred).sum(axis=1) - np.square(short).sum(axis=1)
        return NearestLists(near.distances + left_out.clip(min=0)[:, None], near.lists)

    def search(
        self, queries: Vectors, k: int, nearest: NearestLists, excluded: Ids | None = None
    ) -> Neighbours:
        """See `InvertedFile.search`."""
        return super().search(self.project(queries), k, nearest, excluded)

    def project(self, vectors: Vectors) -> Vectors:
        """Return what PCA leaves of vectors, float32 `[n, pca]`."""
        short: Vectors = self._pca.apply(np.ascontiguousarray(vectors))
        return short

    def approximate(self, vectors: Vectors) -> Vectors:
        """Return vectors as the lists would have them, float32 `[n, pca]`."""
        codes = self._index.sq.compute_codes(self.project(vectors))
        near: Vectors = self._index.sq.decode(codes)
        return near

    def add_to(self, ids: Ids, vectors: Vectors, lists: Ids) -> None:
        """See `InvertedFile.add_to`."""
        super().add_to(ids, self.project(vectors), lists)

    def _trained(self) -> Iterator[Vectors]:
        yield self.centroids
        for vector in (self._pca.A, self._pca.b, self._index.sq.trained):
            yield faiss.vector_to_array(vector)

    @property
    def dim(self) -> int:
        """The length of a vector, before PCA."""
        return int(self._whole.d)

    @property
    def pca(self) -> int:
        """The number of values that PCA leaves, which is that of bytes in the lists."""
        return int(self._index.d)


def _restored(serialised: npt.NDArray[np.uint8]) -> CompactIndex:
    return CompactIndex(faiss.deserialize_index(serialised))


def _lists(centroids: Vectors) -> Any:
    """Return a Faiss index whose SQ8 has no ranges yet."""
    nlist, dim = centroids.shape
    return faiss.IndexIVFScalarQuantizer(
        *(quantizer_of(centroids), dim, nlist),
        *(faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_L2),
        False,  # of the vector itself, not of its difference from the centroid
    )


def _principal_components(vectors: Vectors, count: int) -> Any:
    """Return a Faiss `PCAMatrix` to the `count` directions of largest variance.

    By NumPy: Faiss divides by the roots of eigenvalues, some of which are 0 where vectors are few
    or equal, and keeps all `dim` directions.
    """
    if len(vectors) > PCA_TRAIN:
        drawn = np.random.default_rng(_SEED).choice(len(vectors), PCA_TRAIN, replace=False)
        vectors = vectors[np.sort(drawn)]
    dim = vectors.shape[1]
    mean = vectors.mean(axis=0, dtype=np.float64)
    scatter = np.zeros((dim, dim))
    for start in range(0, len(vectors), _BLOCK):
        centred = vectors[start : start + _BLOCK] - mean
        scatter += centred.T @ centred
    values, directions = np.linalg.eigh(scatter / len(vectors))
    kept = directions.T[::-1][:count]
    return _pca_matrix(mean, values[::-1], kept, -kept @ mean)


def _copy(pca: Any) -> Any:
    return _pca_matrix(*(faiss.vector_to_array(getattr(pca, name)) for name in _PARTS))


def _pca_matrix(*parts: npt.NDArray[Any]) -> Any:
    """Return a Faiss `PCAMatrix` of `_PARTS`."""
    pca = faiss.PCAMatrix(len(parts[0]), len(parts[-1]))
    for name, part in zip(_PARTS, parts, strict=True):
        values = np.ascontiguousarray(part, np.float32).reshape(-1)
        faiss.copy_array_to_vector(values, getattr(pca, name))
    pca.have_bias = pca.is_trained = True
    return pca
