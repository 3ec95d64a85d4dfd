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

from imgsearch.ann.vectors import Block, Ids, Neighbours, Vectors

__all__ = [
    "NEIGHBOURS",
    "Centre",
    "NearLists",
    "Small",
    "augmented",
    "centred",
    "dequantised",
    "leaders_of",
    "mixed",
    "near_lists",
    "nearest",
    "products",
    "quantised",
    "similarity_from_code",
    "similarity_to_code",
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
        return np.asarray(vectors @ self.mean, np.float32)

    def similarities(self, cosines: Vectors, first: Vectors, second: Vectors) -> Vectors:
        """Return centred similarities, from the cosines and the products with the mean.

        Args:
            cosines: Cosines of pairs of L2-normalised vectors, float32 of any shape.
            first: Products of the first vectors with the mean (`along`), broadcastable to it.
            second: Products of the second vectors with the mean.
        """
        products = cosines - first - second + np.float32(self.square)
        lengths = np.maximum(self._squares(first) * self._squares(second), np.float32(1e-12))
        return np.asarray(np.clip(products / np.sqrt(lengths), -1, 1), np.float32)

    def _squares(self, along: Vectors) -> Vectors:
        return np.asarray(np.maximum(1 - 2 * along + np.float32(self.square), 0), np.float32)


def centred(vectors: Vectors, centre: Centre) -> Vectors:
    """Return vectors without the mean, L2-normalised; float32 `[n, dim]`."""
    return _normalised(vectors - centre.mean)


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
        return np.asarray(queries @ vectors.T, np.float32)
    return np.stack([np.vecdot(query, vectors) for query in queries])


def nearest(queries: Vectors, blocks: Iterable[Block], k: int) -> Neighbours:
    """Return the `k` vectors with the highest products with each query, as squared distances.

    Quicker than `imgsearch.ann.exact.search_exactly`, and less precise; all have length 1.
    """
    best = Neighbours.none(len(queries), k)
    for ids, vectors in blocks:
        distances = np.concatenate([best.distances, 2 - 2 * (queries @ vectors.T)], axis=1)
        every = np.concatenate([best.ids, np.broadcast_to(ids, (len(queries), len(ids)))], axis=1)
        columns = np.argpartition(distances, k - 1, axis=1)[:, :k]
        best = Neighbours(distances, every).take(columns)
    return best.take(np.argsort(best.distances, axis=1, kind="stable"))


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
    there = np.take_along_axis(there, order, 1)
    leaders = np.take_along_axis(leaders, order, 1)
    kept = there & (leaders != own[:, None]) & _first_of_each(leaders)
    chosen = np.argsort(~kept, axis=1, kind="stable")[:, : NEIGHBOURS + 1]
    count = np.minimum(kept.sum(axis=1), NEIGHBOURS + 1)
    width = NEIGHBOURS + 1 - chosen.shape[1]
    places = np.pad(np.take_along_axis(order, chosen, 1), ((0, 0), (0, width)))
    found = np.take_along_axis(known, places, 1)
    last = np.maximum(count - 1, 0)
    bound = np.where(count > 0, np.take_along_axis(found, last[:, None], 1)[:, 0], np.float32(-1))
    columns = np.arange(NEIGHBOURS + 1)
    listed = columns < last[:, None]  # the last one only sets the bound
    found = np.where(listed, found, bound[:, None]).astype(np.float32)
    return NearLists(np.where(listed, places, -1)[:, :NEIGHBOURS], found)


def _first_of_each(values: Ids) -> Flags:
    """Tell which values are the first of their kind in their row, bool `[n, m]`."""
    order = np.argsort(values, axis=1, kind="stable")
    sorted_ = np.take_along_axis(values, order, 1)
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
    found = np.clip((listed - bound) / spread, 0, 1) ** 3
    return np.asarray(np.where(found < LEAST_WEIGHT, 0, found), np.float32)


def augmented(
    own: Vectors, neighbours: Ids, weight: Vectors, base: Callable[[Ids], Vectors]
) -> Vectors:
    """Return norm(own + Σ weight · base of the neighbours), float32 `[n, dim]`.

    Args:
        own: Vectors of n images, float32 `[n, dim]`.
        neighbours: Ids of their neighbours, int64 `[n, m]`.
        weight: Weights of these, float32 `[n, m]`; ids with a weight of 0 are not looked up.
        base: Function that returns the vectors of distinct ids, ascending, float32 `[k, dim]`.
    """
    used = weight > 0
    wanted = np.unique(neighbours[used])
    if not wanted.size:
        return _normalised(own)
    vectors = base(wanted)
    columns = np.searchsorted(wanted, neighbours)
    if len(own) > _FEW and len(own) * len(wanted) <= _DENSE * used.sum():
        matrix = np.zeros((len(own), len(wanted)), np.float32)
        rows, places = np.nonzero(used)
        np.add.at(matrix, (rows, columns[rows, places]), weight[rows, places])
        return _normalised(own + matrix @ vectors)
    total = own.copy()
    for row, here in enumerate(used):
        total[row] += _weighted_sum(weight[row, here], vectors[columns[row, here]])
    return _normalised(total)


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


def _weighted_sum(weight: Vectors, vectors: Vectors) -> Vectors:
    """Return Σ weight · vector, float32 `[dim]`, computed in this thread alone: see `products`."""
    return np.asarray(np.einsum("i,id->d", weight, vectors), np.float32)


def _normalised(vectors: Vectors) -> Vectors:
    lengths = np.sqrt(np.vecdot(vectors, vectors))[:, None]
    return np.asarray(vectors / np.maximum(lengths, np.float32(1e-12)), np.float32)
