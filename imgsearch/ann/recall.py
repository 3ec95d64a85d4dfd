"""Measure recall against exact search as a function of `nprobe`.

Two samples of queries stand for what people will ask. *Held-out* images are like the collection,
but the centroids were trained without them. *Strangers* are unlike it: with each of them, all lists
of its kind are taken away, images and centroids.

No `nprobe` needs a search of its own: a true neighbour is found if and only if its list is among
the `nprobe` nearest of the query. So one exact search tells the neighbours, one coarse search the
rank of their lists. In a compact index it has to be among the candidates, too, that are re-ranked.
One search of all lists tells which are; with fewer lists they have fewer competitors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np

from imgsearch.ann.compact import CompactIndex, train_compact
from imgsearch.ann.exact import candidates_for, merge, search_exactly
from imgsearch.ann.flat import IvfIndex
from imgsearch.ann.inverted import InvertedFile
from imgsearch.ann.kmeans import train
from imgsearch.ann.promise import Sample
from imgsearch.ann.vectors import Block, Ids, Neighbours, Vectors, rows_of

__all__ = [
    "Blocks",
    "Filed",
    "K",
    "cross_validate",
    "hold_out",
    "meet_strangers",
]

K = 10
KINDS = 8  # that the collection is divided into, to meet strangers
FOLDS = 5
_SEED = 1234

#: Gives all images, block by block, as often as it is called.
Blocks: TypeAlias = Callable[[], Iterable[tuple[Ids, Vectors]]]


class _KindBlock(NamedTuple):
    """A block of images, and the kind of each, int64 `[m]`."""

    ids: Ids
    vectors: Vectors
    kinds: Ids


@dataclass(frozen=True, slots=True, eq=False)
class Filed:
    """The list that each image is filed under; `ids` int64 `[n]` ascend, `lists` int64 `[n]`."""

    ids: Ids
    lists: Ids

    @classmethod
    def of(cls, segments: Sequence[InvertedFile]) -> Filed:
        """Read it from segments that share one set of centroids."""
        parts = [
            (ids, np.full(len(ids), number))
            for segment in segments
            for number, ids in enumerate(segment.list_ids())
        ]
        ids, lists = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(ids)
        return cls(ids[order], lists[order])

    def of_ids(self, ids: Ids) -> Ids:
        """Return the list of each id, -1 for what is no id."""
        places = np.searchsorted(self.ids, ids).clip(max=len(self.ids) - 1)
        return np.where(ids >= 0, self.lists[places], -1)


def cross_validate(
    vectors: Vectors, nlist: int, *, pca: int | None = None, device: str = "cpu"
) -> Sample:
    """Hold every image out once: train on four fifths of them, query with the fifth.

    Args:
        vectors: float32 `[n, dim]`, of a collection too small to spare any for measuring.
        nlist: centroids.
        pca: values that the PCA of a compact index leaves; None for a flat one.
        device: see `imgsearch.ann.kmeans.train`.
    """
    parts = []
    shuffled = np.random.default_rng(_SEED).permutation(len(vectors))
    for fold in np.array_split(shuffled, min(FOLDS, len(vectors))):
        rest = np.delete(np.arange(len(vectors)), fold)
        if not rest.size or not fold.size:
            continue
        kept = np.ascontiguousarray(vectors[rest])
        index: InvertedFile
        if pca is None:
            index = IvfIndex.empty(train(kept, min(nlist, len(rest)), device=device))
        else:
            index = train_compact(kept, min(nlist, len(rest)), pca, device=device)
        filed = Filed(rest, index.assign_one(kept))
        part = hold_out(vectors[fold], index, filed, partial(iter, [Block(rest, kept)]))
        # With fewer images there may be fewer centroids: the same share of them was probed.
        probed = np.arange(nlist + 1) * index.nlist // nlist
        recall = np.pad(part.recall, ((0, 0), (1, 0)))[:, probed]
        parts.append(Sample(part.distance, recall[:, 1:]))
    return Sample(
        np.concatenate([part.distance for part in parts] or [np.empty(0, np.float32)]),
        np.concatenate([part.recall for part in parts] or [np.empty((0, nlist), np.float32)]),
    )


def hold_out(
    queries: Vectors,
    index: InvertedFile,
    filed: Filed,
    blocks: Blocks,
    excluded: Ids | None = None,
) -> Sample:
    """Measure with queries that the centroids were not trained on.

    Args:
        queries: float32 `[n, dim]`.
        index: of the centroids; what it holds is of no account.
        filed: the list of each image of `blocks`.
        blocks: what is searched.
        excluded: sorted ids to be passed over, the queries' own among them.
    """
    neighbours = search_exactly(queries, blocks(), K, excluded)
    candidates = None
    if isinstance(index, CompactIndex):
        near = _approximate(index, blocks())
        width = candidates_for(K, len(filed.ids))
        candidates = search_exactly(index.project(queries), near, width, excluded)
    nearest = index.assign(queries, index.nlist)
    return Sample(nearest.distances[:, 0], _recall(nearest.lists, filed, neighbours, candidates))


def meet_strangers(
    queries: Vectors, query_ids: Ids, index: InvertedFile, filed: Filed, blocks: Blocks
) -> Sample:
    """Measure with images whose whole kind is taken away, lists and all.

    The kinds are groups of neighbouring lists: k-means over the centroids.

    Args:
        queries: float32 `[n, dim]`, images of the collection.
        query_ids: their ids.
        index: of the centroids; what it holds is of no account.
        filed: the list of each image.
        blocks: what is searched, without removed images.
    """
    centroids = index.centroids
    kinds = IvfIndex.empty(train(centroids, min(KINDS, index.nlist))).assign_one(centroids)
    own = kinds[filed.of_ids(query_ids)]
    neighbours = _unlike(queries, own, _by_kind(blocks(), filed, kinds), K)
    candidates = None
    if isinstance(index, CompactIndex):
        near = _by_kind(_approximate(index, blocks()), filed, kinds)
        width = candidates_for(K, len(filed.ids))
        candidates = _unlike(index.project(queries), own, near, width)
    distances, order = index.assign(queries, index.nlist)
    last = np.argsort(kinds[order] == own[:, None], axis=1, kind="stable")  # the own kind's lists
    distances = np.take_along_axis(distances, last, 1)
    order = np.take_along_axis(order, last, 1)
    met = neighbours.there.any(axis=1)
    recall = _recall(order, filed, neighbours, candidates)
    return Sample(distances[met, 0], recall[met])


def _recall(
    order: Ids, filed: Filed, neighbours: Neighbours, candidates: Neighbours | None
) -> Vectors:
    """Return recall at each `nprobe`, `[n, nlist]`.

    Args:
        order: the lists, nearest first, `[n, nlist]`.
        filed: the list of each image.
        neighbours: the true ones, `[n, K]`.
        candidates: those of all lists that are re-ranked, `[n, m]`; None: whatever is in the lists.
    """
    nlist = order.shape[1]
    rank = np.full((len(order), nlist + 1), nlist)  # the last: of what no nprobe finds
    np.put_along_axis(rank, order, np.arange(nlist)[None, :], axis=1)
    recall = np.ones((len(order), nlist), np.float32)
    for row in np.flatnonzero(neighbours.there.any(axis=1)):
        true = neighbours.ids[row][neighbours.there[row]]
        lists = filed.of_ids(true)
        if candidates is not None:
            lists[~np.isin(true, candidates.ids[row])] = nlist
        places = np.bincount(rank[row, lists], minlength=nlist + 1)
        recall[row] = places[:nlist].cumsum() / len(true)
    return recall


def _approximate(index: CompactIndex, blocks: Iterable[tuple[Ids, Vectors]]) -> Iterator[Block]:
    for ids, vectors in blocks:
        yield Block(ids, index.approximate(vectors))


def _by_kind(
    blocks: Iterable[tuple[Ids, Vectors]], filed: Filed, kinds: Ids
) -> Iterator[_KindBlock]:
    for ids, vectors in blocks:
        known = rows_of(ids, filed.ids)
        if not known.all():
            ids, vectors = ids[known], vectors[known]
        yield _KindBlock(ids, vectors, kinds[filed.of_ids(ids)])


def _unlike(queries: Vectors, own: Ids, blocks: Iterable[_KindBlock], k: int) -> Neighbours:
    """Return the nearest images that are of another kind than the query, `[n, k]`."""
    asking = {kind: np.flatnonzero(own == kind) for kind in np.unique(own).tolist()}
    best = {kind: Neighbours.none(len(rows), k) for kind, rows in asking.items()}
    for ids, vectors, kinds in blocks:
        for kind, rows in asking.items():
            others = Block(ids[kinds != kind], vectors[kinds != kind])
            found = search_exactly(queries[rows], [others], k)
            best[kind] = merge([best[kind], found], k)
    return Neighbours.scattered(len(queries), k, zip(asking.values(), best.values(), strict=True))
