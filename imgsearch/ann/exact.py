"""Exact search, block by block. `D` denotes squared L2 distances."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import faiss
import numpy as np
import numpy.typing as npt

from imgsearch.ann.metrics import Values
from imgsearch.ann.vectors import Ids, Neighbours, Vectors, places_among, rows_of

__all__ = [
    "candidates_for",
    "merge",
    "ranking",
    "rerank",
    "rerank_estimated",
    "search_exactly",
    "squared_distances",
]


_QUERIES = 1_024  # queries per block
_FEW = 64  # most excluded vectors to drop from the results: leaving them out copies the block
_FEW_PAIRS = 4_096  # pairs of vectors that one thread compares
_BITS = 30  # binary digits of a rounded distance after the point, and bits of a column number
LEAST = 50  # minimum number of candidates per query
EACH = 5  # candidates per hit
MORE = 1_000  # maximum number of candidates beyond the hits, by the rule of `EACH`
MANY = 250_000  # images from which on there are more candidates, as more are as near as a hit:
ONE_IN = 1_000  # one for so many images more
FIRST = 20  # least number of candidates that are compared whatever their estimates
STEP = 3  # factor on the candidates looked at until the error of their estimates is taken again
ERRORS = 3  # standard deviations by which an estimate may be too high
_LEAST_ERROR = np.float32(1e-3)  # minimum of such a deviation, for images that are equal
BITS = 256  # of a code; the candidates of shorter ones are less certain, so there are more of them


def search_exactly(
    queries: Vectors, blocks: Iterable[tuple[Ids, Vectors]], k: int, excluded: Ids | None = None
) -> Neighbours:
    """Return the `k` vectors nearest to each query, block by block (`faiss::knn_L2sqr`).

    Args:
        queries: Queries, float32 `[n, dim]`.
        blocks: Blocks of ids, int64 `[m]`, and vectors, float32 `[m, dim]`.
        k: Number of hits per query.
        excluded: Sorted ids to skip.
    """
    best = Neighbours.none(len(queries), k)
    for ids, vectors in blocks:
        dead = np.zeros(len(ids), np.bool_) if excluded is None else rows_of(ids, excluded)
        few = int(dead.sum())
        if few > _FEW:
            ids, vectors, few = ids[~dead], vectors[~dead], 0
        if len(ids) and len(queries):
            found = _knn(queries, ids, np.ascontiguousarray(vectors), k + few)
            if few and excluded is not None:
                found = found.without(rows_of(found.ids, excluded))
            best = merge([best, found], k)
    return best


def merge(results: Sequence[Neighbours], k: int) -> Neighbours:
    """Merge results and return the `k` nearest; equal distances are ordered by id."""
    distances = np.concatenate([result.distances for result in results], axis=1)
    ids = np.concatenate([result.ids for result in results], axis=1)
    return Neighbours(distances, ids).take(np.lexsort((ids, distances))[:, :k])


def _knn(queries: Vectors, ids: Ids, vectors: Vectors, k: int) -> Neighbours:
    k = min(k, len(ids))
    results = []
    for start in range(0, len(queries), _QUERIES):
        block = queries[start : start + _QUERIES]
        rows = faiss.knn(block, vectors, k)[1]
        results.append((_distances(block, vectors, rows), ids[rows]))
    return Neighbours(*map(np.concatenate, zip(*results, strict=True)))


def _distances(queries: Vectors, vectors: Vectors, rows: Ids) -> Vectors:
    # For many queries, Faiss expands |x - y|² so that it can use BLAS; after cancellation, an
    # identical image would have a distance of 0.001.
    squares = [
        np.square(vectors[near] - query).sum(axis=1, dtype=np.float32)
        for query, near in zip(queries, rows, strict=True)
    ]
    return np.stack(squares)


def squared_distances(queries: Vectors, ids: Ids, blocks: Iterable[tuple[Ids, Vectors]]) -> Values:
    """Return the squared L2 distance between each query and each vector, float64 `[n, m]`.

    Args:
        queries: Queries, float32 `[n, dim]`.
        ids: Ids of all vectors, int64 `[m]`, ascending: the columns of the result.
        blocks: Blocks of ids and vectors, which together cover all of `ids`.
    """
    asked = queries.astype(np.float64)
    squares = np.einsum("ij,ij->i", asked, asked)
    distances = np.full((len(queries), len(ids)), np.inf)
    for block_ids, block in blocks:
        vectors = block.astype(np.float64)
        own = np.einsum("ij,ij->i", vectors, vectors)
        columns = np.searchsorted(ids, block_ids)
        distances[:, columns] = squares[:, None] + own - 2 * (asked @ vectors.T)
    np.maximum(distances, 0, out=distances)  # rounding could put an image less than 0 from itself
    return distances


def ranking(distances: Values) -> Ids:
    """Return the columns of each row, nearest first, int64 `[n, m]`; ties are ordered by column.

    Distances are rounded to 2⁻³⁰; otherwise the distances of identical vectors would depend on how
    the product was computed.

    Args:
        distances: Squared distances from 0 to 4, float64 `[n, m]`.
    """
    # Distance and column in one number: nine times as fast as a stable argsort.
    keys = np.rint(distances * (1 << _BITS)).astype(np.int64) << _BITS
    keys |= np.arange(distances.shape[1])
    keys.sort(axis=1)
    keys &= (1 << _BITS) - 1
    return keys


def candidates_for(k: int, count: int, bits: int = BITS) -> int:
    """Return how many candidates must be compared to include the `k` nearest of `count` images.

    `bits` is the number of bits in a code, `CompactIndex.pca`.
    """
    more = max(count - MANY, 0) // ONE_IN
    many = max(LEAST + more, min(EACH * k, k + MORE))
    return many if bits >= BITS else min(many * BITS // bits, max(many, count))


def rerank(
    queries: Vectors, candidates: Ids, blocks: Iterable[tuple[Ids, Vectors]], k: int
) -> Neighbours:
    """Return the `k` nearest candidates of each query (`faiss::pairwise_indexed_L2sqr`).

    Args:
        queries: Queries, float32 `[n, dim]`.
        candidates: Candidate ids as in `Neighbours`, int64 `[n, m]`; an id in no block is not a
            hit.
        blocks: Blocks of ascending ids, int64 `[r]`, and contiguous vectors, float32 `[r, dim]`.
        k: Number of hits per query, at most m.

    Returns:
        The nearest candidates; equal distances are ordered by id.
    """
    squared = np.full(candidates.shape, np.inf, np.float32)
    _compare(queries, candidates, np.arange(candidates.size), blocks, squared)
    return _nearest(squared, candidates, k)


def rerank_estimated(
    queries: Vectors,
    found: Neighbours,
    blocks: Callable[[Ids], Iterable[tuple[Ids, Vectors]]],
    k: int,
    bits: int = BITS,
) -> Neighbours:
    """Return the `k` nearest candidates of each query, without comparing those that are too far.

    The first of a query's candidates tell how much its estimates are wrong. Others are compared
    only if they would be among the `k` nearest so far with an estimate that is too high by three
    standard deviations; and those that are compared tell more about the next ones. Shorter codes
    than usual are not relied on: all are compared.

    Args:
        queries: Queries, float32 `[n, dim]`.
        found: Candidates with estimates of their squared distances, nearest first; the estimates
            may all be too low, or too high.
        blocks: Function that returns blocks, as `rerank` takes them, which hold given ids, `[m]`.
        k: Number of hits per query, at most the number of candidates.
        bits: Number of bits in a code, `CompactIndex.pca`.
    """
    estimates, ids = found
    start, end, width = 0, max(FIRST, 2 * k), ids.shape[1]
    if end >= width or bits < BITS:
        return rerank(queries, ids, blocks(ids), k)
    squared = np.full(ids.shape, np.inf, np.float32)
    compared = np.zeros(ids.shape, np.bool_)
    places = np.arange(ids.size).reshape(ids.shape)
    while start < width:
        chosen = compared[:, start:end]
        chosen[:] = ids[:, start:end] >= 0
        if start:
            most = _highest_near(estimates[:, :start], squared[:, :start], compared[:, :start], k)
            chosen &= ~(estimates[:, start:end] > most[:, None])
        some = places[:, start:end][chosen]
        if not some.size:  # the others are farther
            break
        _compare(queries, ids, some, blocks(ids.reshape(-1)[some]), squared)
        start, end = end, min(width, STEP * end)
    return _nearest(squared[:, :end], ids[:, :end], k)


def _highest_near(
    estimates: Vectors, squared: Vectors, compared: npt.NDArray[np.bool_], k: int
) -> Vectors:
    """Return the highest estimate of an image that may be among the `k` nearest, float32 `[n]`.

    Args:
        estimates: Estimates of the candidates so far, float32 `[n, m]`.
        squared: Their squared distances, infinite if unknown.
        compared: Whether each of them was compared.
        k: Number of hits per query, at most m.
    """
    with np.errstate(invalid="ignore"):  # an infinite distance gives NaN, and nothing is too far
        count = compared.sum(axis=1)
        errors = np.where(compared, squared - estimates, 0)
        mean = errors.sum(axis=1) / count
        spread = np.sqrt(np.square(errors - mean[:, None]).sum(axis=1, where=compared) / count)
        reached = np.partition(squared, k - 1, axis=1)[:, k - 1]
        return np.asarray(reached - mean + ERRORS * np.maximum(spread, _LEAST_ERROR))


def _compare(
    queries: Vectors,
    candidates: Ids,
    places: Ids,
    blocks: Iterable[tuple[Ids, Vectors]],
    squared: Vectors,
) -> None:
    """Compute D for some of the places in `candidates`, `[n, m]`; those in no block stay."""
    wanted = candidates.reshape(-1)[places]
    order = np.argsort(wanted)
    wanted, places = wanted[order], places[order]
    for ids, vectors in blocks:
        if not len(ids):
            continue
        start, end = np.searchsorted(wanted, (ids[0], ids[-1] + 1))
        rows, here = places_among(wanted[start:end], ids), places[start:end]
        there = ids[rows] == wanted[start:end]
        if not there.all():
            rows, here = rows[there], here[there]
        asking = here // candidates.shape[1]
        squared.reshape(-1)[here] = _candidate_distances(queries, asking, vectors, rows)


def _nearest(squared: Vectors, candidates: Ids, k: int) -> Neighbours:
    ids = np.where(np.isfinite(squared), candidates, -1)
    return Neighbours(squared, ids).take(np.lexsort((ids, squared))[:, :k])


def _candidate_distances(queries: Vectors, asking: Ids, vectors: Vectors, rows: Ids) -> Vectors:
    """Return D `[n]` for pairs of the queries `asking` and the vectors `rows`, int64 `[n]` each."""
    distances = np.empty(len(rows), np.float32)
    arrays = [np.ascontiguousarray(array) for array in (queries, asking, vectors, rows)]
    pointers = map(faiss.swig_ptr, (*arrays, distances))
    threads = faiss.omp_get_max_threads()
    try:
        if len(rows) <= _FEW_PAIRS:  # several threads would mostly wait for each other
            faiss.omp_set_num_threads(1)  # for what this thread starts
        faiss.pairwise_indexed_L2sqr(queries.shape[1], len(rows), *pointers)
    finally:
        faiss.omp_set_num_threads(threads)
    return distances
