"""Measure recall against exact search as a function of `nprobe`.

Two samples of queries represent future queries. *Held-out* images are like the collection, but the
centroids were trained without them. *Out-of-distribution* queries (`ood` in the code) are
unlike it: for each of them, all lists of its kind are left out, with their images and centroids.

No `nprobe` needs a search of its own: a true neighbour is found if and only if its list is among
the `nprobe` lists nearest to the query. So one exact search finds the neighbours, and one coarse
search the ranks of their lists. In a compact index, a neighbour must also be among the candidates,
and near enough by its estimate to be compared. One scan of all lists finds what is compared; with
fewer lists, a neighbour has fewer competitors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np

from imgsearch.ann.compact import train_compact
from imgsearch.ann.exact import candidates_for, merge, rerank_estimated, search_exactly
from imgsearch.ann.flat import IvfIndex
from imgsearch.ann.inverted import InvertedFile, NearestLists
from imgsearch.ann.kmeans import train
from imgsearch.ann.promise import RecallSample
from imgsearch.ann.threads import in_order
from imgsearch.ann.vectors import Block, Ids, Neighbours, Vectors, rows_of

__all__ = [
    "Assignment",
    "Blocks",
    "Candidates",
    "K",
    "cross_validate",
    "hold_out",
    "measure_ood",
]

K = 10
KINDS = 8  # into which the collection is divided, to simulate out-of-distribution queries
FOLDS = 5
_SEED = 1234

#: A function that returns all images, block by block, each time it is called.
Blocks: TypeAlias = Callable[[], Iterable[tuple[Ids, Vectors]]]


#: A function that returns blocks with at least the given images, int64 `[n]`.
Candidates: TypeAlias = Callable[[Ids], Iterable[tuple[Ids, Vectors]]]


class _KindBlock(NamedTuple):
    """A block of images, and the kind of each, int64 `[m]`."""

    ids: Ids
    vectors: Vectors
    kinds: Ids


@dataclass(frozen=True, slots=True, eq=False)
class Assignment:
    """The list of each image: ascending `ids`, int64 `[n]`, and their `lists`, int64 `[n]`."""

    ids: Ids
    lists: Ids

    @classmethod
    def of(cls, segments: Sequence[InvertedFile]) -> Assignment:
        """Collect the assignments of segments that share one set of centroids."""
        parts = [
            (ids, np.full(len(ids), number))
            for segment in segments
            for number, ids in enumerate(segment.list_ids())
        ]
        ids, lists = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(ids)
        return cls(ids[order], lists[order])

    def of_ids(self, ids: Ids) -> Ids:
        """Return the list of each id, or -1 where an id is negative."""
        places = np.searchsorted(self.ids, ids).clip(max=len(self.ids) - 1)
        return np.where(ids >= 0, self.lists[places], -1)


def cross_validate(
    vectors: Vectors, nlist: int, *, pca: int | None = None, device: str = "cpu"
) -> RecallSample:
    """Hold out every image once: train on four fifths of the images, query with the rest.

    Args:
        vectors: Vectors of a collection too small to spare any for measuring, float32 `[n, dim]`.
        nlist: Number of centroids.
        pca: Number of values after PCA in a compact index; None for a flat index.
        device: Device for training: see `imgsearch.ann.kmeans.train`.
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
        index.add(rest, kept)
        blocks = partial(iter, [Block(rest, kept)])
        part = hold_out(vectors[fold], [index], Assignment.of([index]), blocks)
        # Fewer images may mean fewer centroids: count the same share of them as probed.
        probed = np.arange(nlist + 1) * index.nlist // nlist
        recall = np.pad(part.recall, ((0, 0), (1, 0)))[:, probed]
        parts.append(RecallSample(part.distance, recall[:, 1:]))
    return RecallSample(
        np.concatenate([part.distance for part in parts] or [np.empty(0, np.float32)]),
        np.concatenate([part.recall for part in parts] or [np.empty((0, nlist), np.float32)]),
    )


def hold_out(
    queries: Vectors,
    segments: Sequence[InvertedFile],
    assignment: Assignment,
    blocks: Blocks,
    excluded: Ids | None = None,
    candidates: Candidates | None = None,
) -> RecallSample:
    """Measure recall with queries that the centroids were not trained on.

    Args:
        queries: Queries, float32 `[n, dim]`.
        segments: The index of the images in `blocks`.
        assignment: Lists of the images in `blocks`.
        blocks: Images to search.
        excluded: Sorted ids to skip, including those of the queries.
        candidates: Blocks of given images; None for all blocks.
    """
    neighbours = _nearest(queries, blocks(), excluded)
    nearest = segments[0].assign(queries, segments[0].nlist)
    found = _found(queries, segments, nearest, candidates or (lambda _: blocks()), excluded)
    return RecallSample(
        nearest.distances[:, 0], _recall(nearest.lists, assignment, neighbours, found)
    )


def measure_ood(
    queries: Vectors,
    query_ids: Ids,
    segments: Sequence[InvertedFile],
    assignment: Assignment,
    blocks: Blocks,
    candidates: Candidates | None = None,
) -> RecallSample:
    """Measure recall with out-of-distribution queries: images whose whole kind is left out.

    The kinds are groups of neighbouring lists, found by k-means over the centroids. The lists of a
    query's own kind are left out as well.

    Args:
        queries: Images of the collection, float32 `[n, dim]`.
        query_ids: Ids of the queries.
        segments: The index of the images in `blocks`.
        assignment: Lists of the images.
        blocks: Images to search, without removed ones.
        candidates: Blocks of given images; None for all blocks.
    """
    index = segments[0]
    centroids = index.centroids
    kinds = IvfIndex.empty(train(centroids, min(KINDS, index.nlist))).assign_one(centroids)
    own = kinds[assignment.of_ids(query_ids)]
    neighbours = _unlike(queries, own, _by_kind(blocks(), assignment, kinds), K)
    near = index.assign(queries, index.nlist)
    alike = kinds[near.lists] == own[:, None]  # lists of its own kind
    unlike = near._replace(lists=np.where(alike, -1, near.lists))
    found = _found(queries, segments, unlike, candidates or (lambda _: blocks()))
    last = np.argsort(alike, axis=1, kind="stable")
    distances = np.take_along_axis(near.distances, last, 1)
    order = np.take_along_axis(near.lists, last, 1)
    met = neighbours.there.any(axis=1)
    recall = _recall(order, assignment, neighbours, found)
    return RecallSample(distances[met, 0], recall[met])


def _nearest(
    queries: Vectors, blocks: Iterable[tuple[Ids, Vectors]], excluded: Ids | None
) -> Neighbours:
    """Return the K nearest images by exact search, several blocks at a time, `[n, K]`."""
    best = Neighbours.none(len(queries), K)
    for found in in_order(
        lambda block: search_exactly(queries, [block], K, excluded),
        blocks,
    ):
        best = merge([best, found], K)
    return best


def _recall(
    order: Ids, assignment: Assignment, neighbours: Neighbours, found: Neighbours | None
) -> Vectors:
    """Return the recall at each `nprobe`, `[n, nlist]`.

    Args:
        order: Lists of each query, nearest first, `[n, nlist]`.
        assignment: Lists of the images.
        neighbours: True neighbours, `[n, K]`.
        found: What a search of all lists finds, `[n, K]`; None if every image in the probed lists
            is compared.
    """
    nlist = order.shape[1]
    rank = np.full((len(order), nlist + 1), nlist)  # last column: images that no nprobe finds
    np.put_along_axis(rank, order, np.arange(nlist)[None, :], axis=1)
    recall = np.ones((len(order), nlist), np.float32)
    for row in np.flatnonzero(neighbours.there.any(axis=1)):
        true = neighbours.ids[row][neighbours.there[row]]
        lists = assignment.of_ids(true)
        if found is not None:
            lists[~np.isin(true, found.ids[row])] = nlist
        places = np.bincount(rank[row, lists], minlength=nlist + 1)
        recall[row] = places[:nlist].cumsum() / len(true)
    return recall


def _found(
    queries: Vectors,
    segments: Sequence[InvertedFile],
    nearest: NearestLists,
    candidates: Candidates,
    excluded: Ids | None = None,
) -> Neighbours | None:
    """Return what a search of these lists finds, `[n, K]`; None if it compares everything."""
    pca = segments[0].pca
    if pca is None:
        return None
    width = candidates_for(K, sum(segment.count for segment in segments), pca)
    parts = [segment.search(width, nearest, excluded) for segment in segments]
    return rerank_estimated(queries, merge(parts, width), candidates, K, pca)


def _by_kind(
    blocks: Iterable[tuple[Ids, Vectors]], assignment: Assignment, kinds: Ids
) -> Iterator[_KindBlock]:
    for ids, vectors in blocks:
        known = rows_of(ids, assignment.ids)
        if not known.all():
            ids, vectors = ids[known], vectors[known]
        yield _KindBlock(ids, vectors, kinds[assignment.of_ids(ids)])


def _unlike(queries: Vectors, own: Ids, blocks: Iterable[_KindBlock], k: int) -> Neighbours:
    """Return the nearest images of another kind than the query, `[n, k]`."""
    asking = {kind: np.flatnonzero(own == kind) for kind in np.unique(own).tolist()}

    def search(block: _KindBlock) -> Neighbours:
        ids, vectors, kinds = block
        found = []
        for kind, rows in asking.items():
            others = Block(ids[kinds != kind], vectors[kinds != kind])
            found.append((rows, search_exactly(queries[rows], [others], k)))
        return Neighbours.scattered(len(queries), k, found)

    best = Neighbours.none(len(queries), k)
    for found in in_order(search, blocks):
        best = merge([best, found], k)
    return best
