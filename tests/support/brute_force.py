"""Search by brute force, and the comparison of results in which ties may stand in any order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from imgsearch.ann.flat import IvfIndex
from imgsearch.ann.inverted import InvertedFile
from imgsearch.ann.kmeans import train
from imgsearch.ann.vectors import Ids, Neighbours, Vectors
from tests.support.small_network import random_embeddings

__all__ = [
    "DIM",
    "assert_same_hits",
    "blocks_of",
    "index_of",
    "nearest",
    "probe",
    "squares",
    "stored",
]

DIM = 16


def squares(one: Vectors, other: Vectors) -> npt.NDArray[np.float64]:
    """Return the squared distances `[len(one), len(other)]`."""
    squared: npt.NDArray[np.float64] = np.square(one[:, None].astype(np.float64) - other[None]).sum(
        axis=2
    )
    return squared


def nearest(queries: Vectors, ids: Ids, vectors: Vectors, k: int) -> Neighbours:
    """Return the `k` nearest by brute force, padded as Faiss does."""
    squared = squares(queries, vectors)
    order = np.argsort(squared, axis=1, kind="stable")[:, :k]
    missing = ((0, 0), (0, max(0, k - len(ids))))
    distances = np.pad(np.take_along_axis(squared, order, 1), missing, constant_values=np.inf)
    found = np.pad(ids[order], missing, constant_values=-1)
    return Neighbours(distances.astype(np.float32), found)


def assert_same_hits(
    found: tuple[Vectors, Ids], expected: tuple[Vectors, Ids], *, atol: float = 1e-5
) -> None:
    """Compare two results; equally near images may stand in any order."""
    real = expected[1] >= 0
    np.testing.assert_array_equal(found[1] >= 0, real)
    np.testing.assert_allclose(found[0][real], expected[0][real], atol=atol)
    for row, distances in enumerate(expected[0]):
        last = distances[real[row]].max(initial=0)
        sure = {int(i) for i, d in zip(expected[1][row], distances, strict=True) if d < last - atol}
        assert sure <= set(found[1][row].tolist())
        ids = found[1][row][real[row]].tolist()
        assert len(set(ids)) == len(ids)


@st.composite
def stored(draw: st.DrawFn) -> tuple[Ids, Vectors]:
    """Some ids, and their vectors, many of them duplicates."""
    count = draw(st.integers(1, 120))
    different = draw(st.integers(1, count))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    vectors = random_embeddings(different, seed=different, dim=DIM)
    ids = np.sort(rng.choice(1000, count, replace=False)).astype(np.int64)
    return ids, vectors[rng.integers(0, different, count)]


def index_of(ids: Ids, vectors: Vectors, nlist: int) -> IvfIndex:
    index = IvfIndex.empty(train(vectors, nlist))
    index.add(ids, vectors)
    return index


def probe(
    index: InvertedFile, queries: Vectors, k: int, nprobe: int, excluded: Ids | None = None
) -> Neighbours:
    """Search the `nprobe` lists nearest to each query."""
    return index.search(k, index.assign(queries, nprobe), excluded)


def blocks_of(ids: Ids, vectors: Vectors, size: int) -> Iterator[tuple[Ids, Vectors]]:
    for start in range(0, len(ids), size):
        yield ids[start : start + size], vectors[start : start + size]
