"""A compact index: PCA, then inverted lists with one bit per remaining value (RaBitQ).

Source: Gao & Long, "RaBitQ: Quantizing High-Dimensional Vectors with a Theoretical Error Bound for
Approximate Nearest Neighbor Search" (SIGMOD 2024), as `faiss::IndexIVFRaBitQ`.

`D` denotes squared L2 distances, and -1 stands for "no id". The results of `CompactIndex.search`
must be re-ranked: see `imgsearch.ann.exact`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import faiss
import numpy as np
import numpy.typing as npt

from imgsearch.ann.faiss_files import QUERY_BITS, is_compact_file
from imgsearch.ann.inverted import (
    InvertedFile,
    NearestLists,
    Writer,
    quantizer_of,
    read_mapped,
)
from imgsearch.ann.kmeans import train
from imgsearch.ann.vectors import Ids, Vectors

__all__ = ["CompactIndex", "train_compact"]

KIND = "IndexPreTransform of a PCA and an IndexIVFRaBitQ"
PCA_TRAIN = 20_000  # maximum number of vectors for training the PCA
_BLOCK = 4_096  # rows of them to process at a time, in float64
_SEED = 1234
_Reals: TypeAlias = npt.NDArray[np.float64]
_PARTS = ("mean", "eigenvalues", "A", "b")  # of a PCAMatrix; its PCAMat has the rows of A and more


def train_compact(vectors: Vectors, nlist: int, pca: int, *, device: str = "cpu") -> CompactIndex:
    """Train the PCA and the centroids, and return an index without vectors.

    Args:
        vectors: Training vectors, float32 `[n, dim]` with n ≥ nlist.
        nlist: Number of centroids, which are trained after PCA.
        pca: Number of values that remain after PCA, at most dim.
        device: Device for training: see `imgsearch.ann.kmeans.train`.
    """
    dim = vectors.shape[1]
    transform = _principal_components(vectors, min(pca, dim))
    short = transform.apply(np.ascontiguousarray(vectors))
    return CompactIndex(
        faiss.IndexPreTransform(transform, _lists(train(short, nlist, device=device)))
    )


class CompactIndex(InvertedFile):
    """A Faiss `IndexPreTransform`: `PCAMatrix`, then `IndexIVFRaBitQ` (L2).

    An `outdated` one, of imgsearch 0.4 and earlier, has an `IndexIVFScalarQuantizer` (`QT_8bit`)
    instead. Faiss has no RaBitQ on a GPU, so either is searched on the CPU.
    """

    def __init__(self, index: Any) -> None:
        """Wrap a Faiss index; callers use `train_compact` or `open` instead."""
        super().__init__(faiss.downcast_index(index.index))
        self._whole = index  # owns the other two
        self._pca = faiss.downcast_VectorTransform(index.chain.at(0))
        self._mean: Vectors = faiss.vector_to_array(self._pca.mean)

    @classmethod
    def open(cls, path: Path, *, device: str = "cpu") -> CompactIndex:  # noqa: ARG003 - as `IvfIndex.open`
        """Map an index file into memory; raises as `imgsearch.ann.inverted.read_mapped`."""
        return cls(read_mapped(path, is_compact_file, KIND))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the index without its vectors, for use in another process."""
        return _restored, (faiss.serialize_index(self.emptied()._whole),)

    def emptied(self) -> CompactIndex:
        """Return an index with the same training but without vectors."""
        index = _lists(self.centroids, self._ranges)
        return CompactIndex(faiss.IndexPreTransform(_copy(self._pca), index))

    def is_trained_as(self, other: InvertedFile) -> bool:
        """Tell whether another index is of the same kind, and has the same PCA and centroids."""
        return isinstance(other, CompactIndex) and all(
            np.array_equal(one, same)
            for one, same in zip(self._trained(), other._trained(), strict=True)
        )

    def bytes_of(self, count: int) -> int:
        """Return the maximum size in bytes of an index file with `count` vectors."""
        dim, pca = self.dim, int(self._index.d)
        lists = count * (self.width + 8) + self.nlist * (4 * pca + 16)
        return lists + 4 * dim * (pca + 2) + 8 * pca + 1_024

    def save(self, writer: Writer) -> None:
        """Write the index as Faiss does."""
        self._whole.ntotal = self._index.ntotal
        faiss.write_index(self._whole, faiss.PyCallbackIOWriter(writer.write))

    def assign(self, queries: Vectors, count: int) -> NearestLists:
        """Return the `count` lists nearest to each query.

        D applies to the full space: it adds the squared length of the part of the query that PCA
        drops to the distance after PCA.
        """
        short = self.project(queries)
        near = super().assign(short, count)
        # |q − m|² without q − m, which would take longer to write than the products.
        mean = self._mean
        centred = np.vecdot(queries, queries) - 2 * np.vecdot(queries, mean) + np.vecdot(mean, mean)
        left_out = centred - np.vecdot(short, short)
        return near._replace(distances=near.distances + left_out.clip(min=0)[:, None])

    def project(self, vectors: Vectors) -> Vectors:
        """Return vectors after PCA, float32 `[n, pca]`."""
        short: Vectors = self._pca.apply(np.ascontiguousarray(vectors))
        return short

    def add_to(self, ids: Ids, vectors: Vectors, lists: Ids) -> None:
        """See `InvertedFile.add_to`."""
        super().add_to(ids, self.project(vectors), lists)

    def _trained(self) -> Iterator[Vectors]:
        yield self.centroids
        for vector in (self._pca.A, self._pca.b):
            yield faiss.vector_to_array(vector)
        yield np.empty(0, np.float32) if self._ranges is None else self._ranges

    @property
    def _ranges(self) -> Vectors | None:
        """The ranges of the values of an outdated index, minima and widths, float32 `[2, pca]`."""
        if not self.outdated:
            return None
        ranges: Vectors = faiss.vector_to_array(self._index.sq.trained)
        return ranges

    @property
    def outdated(self) -> bool:
        """See `InvertedFile.outdated`."""
        return isinstance(self._index, faiss.IndexIVFScalarQuantizer)

    @property
    def dim(self) -> int:
        """The length of a vector, before PCA."""
        return int(self._whole.d)

    @property
    def pca(self) -> int:
        """The number of values after PCA."""
        return int(self._index.d)


def _restored(serialised: npt.NDArray[np.uint8]) -> CompactIndex:
    return CompactIndex(faiss.deserialize_index(serialised))


def _lists(centroids: Vectors, ranges: Vectors | None = None) -> Any:
    """Return a Faiss index with empty lists, of the outdated kind if there are ranges."""
    nlist, dim = centroids.shape
    quantizer = quantizer_of(centroids)
    if ranges is None:
        index = faiss.IndexIVFRaBitQ(quantizer, dim, nlist, faiss.METRIC_L2)
        index.qb = QUERY_BITS
    else:
        kind = faiss.ScalarQuantizer.QT_8bit
        index = faiss.IndexIVFScalarQuantizer(quantizer, dim, nlist, kind, faiss.METRIC_L2, False)
        faiss.copy_array_to_vector(ranges, index.sq.trained)
    index.is_trained = True
    return index


def _principal_components(vectors: Vectors, count: int) -> Any:
    """Return a Faiss `PCAMatrix` that projects onto the `count` directions of largest variance.

    NumPy computes it because Faiss divides by the roots of eigenvalues, some of which are 0 if
    vectors are few or equal, and because Faiss keeps all `dim` directions.
    """
    if len(vectors) > PCA_TRAIN:
        drawn = np.random.default_rng(_SEED).choice(len(vectors), PCA_TRAIN, replace=False)
        vectors = vectors[np.sort(drawn)]
    mean = vectors.mean(axis=0, dtype=np.float64)
    find = _few_directions if len(vectors) < vectors.shape[1] else _directions
    values, kept = find(vectors, mean, count)
    return _pca_matrix(mean, values, kept, -kept @ mean)


def _directions(vectors: Vectors, mean: _Reals, count: int) -> tuple[_Reals, _Reals]:
    """Return the eigenvalues, largest first, `[dim]`, and `count` directions, `[count, dim]`."""
    scatter = np.zeros((len(mean), len(mean)))
    for start in range(0, len(vectors), _BLOCK):
        centred = vectors[start : start + _BLOCK] - mean
        scatter += centred.T @ centred
    values, directions = np.linalg.eigh(scatter / len(vectors))
    return values[::-1], directions.T[::-1][:count]


def _few_directions(vectors: Vectors, mean: _Reals, count: int) -> tuple[_Reals, _Reals]:
    """Return the same for fewer vectors than values, by their products with each other."""
    centred = vectors - mean
    values, weights = np.linalg.eigh(centred @ centred.T / len(vectors))
    spanned = np.zeros((len(mean), count))  # beyond the span of the vectors, any directions will do
    some = min(count, len(vectors))
    spanned[:, :some] = centred.T @ weights[:, ::-1][:, :some]
    return np.pad(values[::-1], (0, len(mean) - len(values))), np.linalg.qr(spanned)[0].T


def _copy(pca: Any) -> Any:
    return _pca_matrix(*(faiss.vector_to_array(getattr(pca, name)) for name in _PARTS))


def _pca_matrix(*parts: npt.NDArray[Any]) -> Any:
    """Return a Faiss `PCAMatrix` made of `_PARTS`."""
    pca = faiss.PCAMatrix(len(parts[0]), len(parts[-1]))
    for name, part in zip(_PARTS, parts, strict=True):
        values = np.ascontiguousarray(part, np.float32).reshape(-1)
        faiss.copy_array_to_vector(values, getattr(pca, name))
    pca.have_bias = pca.is_trained = True
    return pca
