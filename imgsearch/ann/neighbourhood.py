"""The mathematics of the ranking that knows its collection: neighbour lists and what follows.

For each image, with `z` its embedding after the collection's mean is subtracted, L2-normalised:

    s_ij = z_i · z_j                                 similarity of two images
    b_i  = similarity of the 41st neighbour          what is no neighbour any more
    t_i  = the largest s_ij ≤ 0.95                   near copies do not count
    w_ij = clip((s_ij − b_i) / (t_i − b_i), 0, 1)³   weight of each of its 40 neighbours
    D1_i = norm(z_i + Σ w_ij z_j)
    D2_i = norm(z_i + Σ w_ij D1_j)

Of images that are near copies of one another, a list has one. A query is expanded to
`q' = norm(q + Σ w_qj z_j)` in the same way, and images are ranked by 0.2 q · z + 0.8 q' · D2.
Sources: P. Turcot and D. G. Lowe, "Better matching with fewer features" (2009); R. Arandjelović and
A. Zisserman, "Three things everyone should know to improve object retrieval" (2012).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from imgsearch.ann.threads import matrix_product
from imgsearch.ann.vectors import Block, Ids, Neighbours, Vectors, columns_of

__all__ = [
    "NEIGHBOURS",
    "Centre",
    "NearLists",
    "Small",
    "centred",
    "centred_sums",
    "code_products",
    "dequantised",
    "leaders_of",
    "mixed",
    "near_lists",
    "nearest",
    "normalised",
    "products",
    "quantised",
    "similarity_from_code",
    "similarity_to_code",
    "weighted_sums",
    "weights",
]

Small: TypeAlias = npt.NDArray[np.int8]
Codes: TypeAlias = npt.NDArray[np.uint16]
Flags: TypeAlias = npt.NDArray[np.bool_]

NEIGHBOURS = 40  # neighbours in a list
NEAR = 0.95  # similarity above which two images are near copies
OWN = 0.2  # share of the plain similarity in the score
LEAST_WEIGHT = 0.005  # weights below this make no difference, and take most of the time
_CODES = 65_535 / 2  # codes per unit of similarity
_FEW = 8  # queries that are cheaper to multiply one by one
_DENSE = 16  # products with 0 for each other one, up to which a product of matrices is quicker
_SHARED = 6  # times that each row is asked for, from which on all of them are multiplied at once


class NearLists(NamedTuple):
    """The lists of n images: places of neighbours in their candidates, and similarities.

    `places` is int64 `[n, NEIGHBOURS]`, -1 if there are fewer; `similarities` is float32
    `[n, NEIGHBOURS + 1]`, in descending order, of which the last is the bound `b`. If there are
    fewer neighbours, the bound is repeated.
    """

    places: Ids
    similarities: Vectors


class Centre:
    """The frozen mean of a collection, float32 `[dim]`."""

    def __init__(self, mean: Vectors) -> None:
        self.mean = mean
        self.square = float(mean.astype(np.float64) @ mean.astype(np.float64))

    def along(self, vectors: Vectors) -> Vectors:
        """Return the product of each vector with the mean, float32 `[n]`."""
        return np.asarray(np.vecdot(vectors, self.mean), np.float32)

    def similarities(self, cosines: Vectors, first: Vectors, second: Vectors) -> Vectors:
        """Return centred similarities, from the cosines and the products with the mean.

        Args:
            cosines: Cosines of pairs of L2-normalised vectors, float32 of any shape.
            first: Products of the first vectors with the mean (`along`), broadcastable to it.
            second: Products of the second vectors with the mean.
        """
        products = cosines - first - second + np.float32(self.square)
        lengths = self.lengths(first) * self.lengths(second)
        return np.asarray(np.minimum(np.maximum(products / lengths, -1), 1), np.float32)

    def lengths(self, along: Vectors) -> Vectors:
        """Return the lengths of L2-normalised vectors without the mean, from `along`, float32."""
        squares = np.maximum(np.float32(1 + self.square) - 2 * along, np.float32(1e-6))
        return np.asarray(np.sqrt(squares), np.float32)


def centred(vectors: Vectors, centre: Centre) -> Vectors:
    """Return vectors without the mean, L2-normalised; float32 `[n, dim]`."""
    return normalised(vectors - centre.mean)


def products(queries: Vectors, vectors: Vectors) -> Vectors:
    """Return the product of each query with each vector, float32 `[n, m]`.

    A few queries are multiplied one by one, in this thread. BLAS would share even a single one
    among threads that wait for each other, which takes ten times as long where the cores have other
    work, such as further queries.

    Args:
        queries: Queries, float32 `[n, dim]`.
        vectors: Vectors, float32 `[m, dim]`.
    """
    if len(queries) > _FEW:
        return matrix_product(queries, vectors)
    return np.asarray(np.vecdot(queries[:, None], vectors), np.float32)


def nearest(ids: Ids, queries: Vectors, blocks: Iterable[Block], k: int) -> Neighbours:
    """Return the `k` other images with the highest products with each, as squared distances.

    Quicker than `imgsearch.ann.exact.search_exactly`, and less precise; all have length 1.

    Args:
        ids: Ids of n images, int64 `[n]`.
        queries: Their embeddings, float32 `[n, dim]`.
        blocks: Blocks of images, which may hold these images themselves.
        k: Number of images to return.
    """
    k += 1  # the image itself may be among them
    best = Neighbours.none(len(queries), k)
    for number, (there, vectors) in enumerate(blocks):
        distances = matrix_product(queries, vectors)
        distances *= -2
        distances += 2
        found = Neighbours(distances, np.broadcast_to(there, distances.shape))
        if number or len(there) < k:
            found = Neighbours(
                np.concatenate([best.distances, found.distances], axis=1),
                np.concatenate([best.ids, found.ids], axis=1),
            )
        best = found.take(np.argpartition(found.distances, k - 1, axis=1)[:, :k])
    itself = best.ids == ids[:, None]
    best.distances[itself], best.ids[itself] = np.inf, -1
    return best.take(np.argsort(best.distances, axis=1, kind="stable")).first(k - 1)


def leaders_of(ids: Ids, candidates: Ids, similarities: Vectors) -> Ids:
    """Return the leader of each image: the lowest id among it and its near copies, int64 `[n]`.

    Args:
        ids: Ids of the images, int64 `[n]`.
        candidates: Ids of candidates, int64 `[n, m]`, -1 for none.
        similarities: Their similarities, float32 `[n, m]`.
    """
    near = (similarities > NEAR) & (candidates >= 0)
    lowest = np.where(near, candidates, np.iinfo(np.int64).max).min(axis=1, initial=2**63 - 1)
    return np.asarray(np.minimum(ids, lowest), np.int64)


def near_lists(similarities: Vectors, leaders: Ids, own: Ids, there: Flags) -> NearLists:
    """Choose the neighbours of n images from candidates, one of each group of near copies.

    Args:
        similarities: Similarities of the candidates, float32 `[n, m]`.
        leaders: Leaders of the candidates, int64 `[n, m]`.
        own: Leader of each image, int64 `[n]`: its near copies are not its neighbours. -1 for none.
        there: Which candidates there are, bool `[n, m]`.
    """
    known = np.where(there, similarities, np.float32(-2))
    order = np.argsort(-known, axis=1, kind="stable")
    kept = columns_of(there & (leaders != own[:, None]), order)
    several = _have_copies(leaders, there)  # few images have near copies
    if several.any():
        kept[several] &= _first_of_each(columns_of(leaders, order)[several])
    listable = NEIGHBOURS + 1
    if not kept[:, :listable].all() or kept.shape[1] < listable:
        chosen = np.argsort(~kept, axis=1, kind="stable")[:, :listable]
        order = columns_of(order, chosen)
        order = np.pad(order, ((0, 0), (0, listable - order.shape[1])))
    places = order[:, :listable]
    found = columns_of(known, places)
    count = np.minimum(kept.sum(axis=1), listable)
    last = np.maximum(count - 1, 0)
    bound = np.where(count > 0, found[np.arange(len(found)), last], np.float32(-1))
    listed = np.arange(listable) < last[:, None]  # the last one only sets the bound
    found = np.where(listed, found, bound[:, None]).astype(np.float32)
    return NearLists(np.where(listed, places, -1)[:, :NEIGHBOURS], found)


def _have_copies(leaders: Ids, there: Flags) -> Flags:
    """Tell which rows have two candidates with the same leader, bool `[n]`."""
    distinct = np.where(there, leaders, -1 - np.arange(leaders.shape[1]))
    distinct.sort(axis=1)
    return np.asarray((distinct[:, 1:] == distinct[:, :-1]).any(axis=1))


def _first_of_each(values: Ids) -> Flags:
    """Tell which values are the first of their kind in their row, bool `[n, m]`."""
    order = np.argsort(values, axis=1, kind="stable")
    sorted_ = columns_of(values, order)
    first = np.ones(values.shape, np.bool_)
    first[:, 1:] = sorted_[:, 1:] != sorted_[:, :-1]
    result = np.empty(values.shape, np.bool_)
    np.put_along_axis(result, order, first, 1)
    return result


def weights(similarities: Vectors) -> Vectors:
    """Return the weights of neighbours, float32 `[n, NEIGHBOURS]`, from `NearLists.similarities`.

    They do not change under an affine change of the similarities.
    """
    listed, bound = similarities[:, :-1], similarities[:, -1:]
    counted = np.where(listed <= NEAR, listed, np.float32(-2)).max(axis=1, keepdims=True)
    top = np.where(counted > -2, counted, listed[:, :1])
    spread = np.maximum(top - bound, np.float32(1e-6))
    found = np.minimum(np.maximum((listed - bound) / spread, 0), 1) ** 3
    return np.asarray(np.where(found < LEAST_WEIGHT, 0, found), np.float32)


def weighted_sums(
    neighbours: Ids, weight: Vectors, base: Callable[[Ids], Vectors]
) -> npt.NDArray[np.float32]:
    """Return the sum of weight · vector over the neighbours of each image, float32 `[n, dim]`.

    Args:
        neighbours: Ids of the neighbours, int64 `[n, m]`.
        weight: Their weights, float32 `[n, m]`; ids with a weight of 0 are not looked up.
        base: Function that returns the vectors of distinct ids, ascending, float32 `[k, dim]`.
    """
    used = weight != 0
    wanted = np.unique(neighbours[used])
    vectors = base(wanted)
    columns = np.searchsorted(wanted, neighbours)
    if len(weight) > _FEW and len(weight) * len(wanted) <= _DENSE * used.sum():
        matrix = np.zeros((len(weight), len(wanted)), np.float32)
        rows, places = np.nonzero(used)
        np.add.at(matrix, (rows, columns[rows, places]), weight[rows, places])
        return np.asarray(matrix @ vectors, np.float32)
    total = np.empty((len(weight), vectors.shape[1]), np.float32)
    for row, here in enumerate(used):
        np.einsum("i,id->d", weight[row, here], vectors[columns[row, here]], out=total[row])
    return total


def normalised(vectors: Vectors) -> Vectors:
    """Return vectors divided by their lengths, float32 `[n, dim]`."""
    lengths = np.sqrt(np.vecdot(vectors, vectors))[:, None]
    return np.asarray(vectors / np.maximum(lengths, np.float32(1e-12)), np.float32)


def centred_sums(
    centre: Centre,
    neighbours: Ids,
    weight: Vectors,
    along: Vectors,
    base: Callable[[Ids], Vectors],
) -> Vectors:
    """Return `weighted_sums` of embeddings without the mean, L2-normalised; float32 `[n, dim]`.

    Args:
        centre: The mean.
        neighbours: Ids of the neighbours, int64 `[n, m]`.
        weight: Their weights, float32 `[n, m]`.
        along: Their products with the mean, float32 `[n, m]`.
        base: Function that returns the embeddings of distinct ids, ascending, with the mean.
    """
    weight = weight / centre.lengths(along)
    sums = weighted_sums(neighbours, weight, base)
    sums -= weight.sum(axis=1)[:, None] * centre.mean
    return sums


def code_products(queries: Vectors, codes: Small, rows: Ids, wanted: Flags) -> Vectors:
    """Return the products of each query with rows of codes, float32 `[n, m]`.

    Args:
        queries: Queries, float32 `[n, dim]`.
        codes: Codes as returned by `quantised`, int8 `[r, dim]`.
        rows: Rows of codes for each query, int64 `[n, m]`.
        wanted: Which of these to multiply, bool `[n, m]`; the product with any other is 0.
    """
    if len(queries) > _FEW and _SHARED * len(codes) <= np.count_nonzero(wanted):
        every = matrix_product(queries, codes.astype(np.float32))
        return np.where(wanted, columns_of(every, rows), np.float32(0))
    found = np.zeros(rows.shape, np.float32)
    for query, some, here, products_ in zip(queries, rows, wanted, found, strict=True):
        # One query at a time, so that what is converted stays in the cache.
        vectors = codes.take(some[here], axis=0).astype(np.float32)
        products_[here] = np.vecdot(query, vectors)
    return found


def mixed(similarities: Vectors, augmented_similarities: Vectors) -> Vectors:
    """Return scores: q · z and q' · D2, mixed. They are of the same shape, float32."""
    return np.asarray(OWN * similarities + (1 - OWN) * augmented_similarities, np.float32)


def quantised(vectors: Vectors) -> tuple[Small, Vectors]:
    """Return vectors in one byte per value, int8 `[n, dim]`, and the scale of each, float32."""
    scales = np.maximum(np.abs(vectors).max(axis=1, initial=0), np.float32(1e-12)) / np.float32(127)
    return np.rint(vectors / scales[:, None]).astype(np.int8), scales.astype(np.float32)


def dequantised(codes: Small, scales: Vectors) -> Vectors:
    """Return the vectors that `quantised` made codes of, float32 `[n, dim]`."""
    return codes.astype(np.float32) * scales[:, None]


def similarity_to_code(similarities: Vectors) -> Codes:
    """Return similarities in two bytes each."""
    return np.asarray(np.rint((np.clip(similarities, -1, 1) + 1) * _CODES), np.uint16)


def similarity_from_code(codes: Codes) -> Vectors:
    """Return the similarities that `similarity_to_code` made codes of."""
    return np.asarray(codes.astype(np.float32) / np.float32(_CODES) - 1, np.float32)
