"""Measure recall against exact search as a function of `nprobe`.

Two samples of queries stand for what people will ask. *Held-out* images are like the collection,
but the centroids were trained without them. *Strangers* are unlike it: with each of them, all lists
of its kind are taken away, images and centroids.

No `nprobe` needs a search of its own: a true neighbour is found if and only if its list is among
the `nprobe` nearest of the query. So one exact search tells the neighbours, one coarse search the
rank of their lists.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imgsearch.search.exact import merge, nothing, search_exactly
from imgsearch.search.ivf import IvfIndex, train
from imgsearch.search.promise import Step
from imgsearch.search.vectors import Ids, Vectors, rows_of

__all__ = [
    "WITHIN",
    "Filed",
    "K",
    "Sample",
    "cross_validate",
    "curve",
    "hold_out",
    "ladder",
    "lower_bound",
    "meet_strangers",
]

K = 10
BANDS = 3
WITHIN = 0.95  # share of the held-out images that the bands cover; beyond, queries are exact
KINDS = 8  # that the collection is divided into, to meet strangers
FOLDS = 5
FEWEST = 20  # queries of a sample in a band: fewer are judged together with the other sample's
FARTHEST = 4.0  # squared distance of two unit vectors at most
_Z95 = 1.6449  # one-sided 95 % quantile of the standard normal distribution
_SEED = 1234


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Queries as they were measured.

    `distance` float32 `[n]` is squared, to the nearest centroid. `recall` float32 `[n, nlist]` is
    recall@10 at each `nprobe` from 1 to nlist; its rows never fall.
    """

    distance: Vectors
    recall: Vectors

    def joined(self, other: Sample) -> Sample:
        """Return both samples as one."""
        return Sample(
            np.concatenate([self.distance, other.distance]),
            np.concatenate([self.recall, other.recall]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Filed:
    """The list that each image is filed under; `ids` int64 `[n]` ascend, `lists` int64 `[n]`."""

    ids: Ids
    lists: Ids

    @classmethod
    def of(cls, segments: Sequence[IvfIndex]) -> Filed:
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


def cross_validate(vectors: Vectors, nlist: int, *, device: str = "cpu") -> Sample:
    """Hold every image out once: train on four fifths of them, query with the fifth.

    Args:
        vectors: float32 `[n, dim]`, of a collection too small to spare any for measuring.
        nlist: centroids.
        device: see `imgsearch.search.ivf.train`.
    """
    parts = []
    shuffled = np.random.default_rng(_SEED).permutation(len(vectors))
    for fold in np.array_split(shuffled, min(FOLDS, len(vectors))):
        rest = np.delete(np.arange(len(vectors)), fold)
        if not rest.size or not fold.size:
            continue
        kept = np.ascontiguousarray(vectors[rest])
        centroids = train(kept, min(nlist, len(rest)), device=device)
        filed = Filed(rest, IvfIndex.empty(centroids).assign(kept, 1)[1][:, 0])
        part = hold_out(vectors[fold], centroids, filed, [(rest, kept)])
        # With fewer images there may be fewer centroids: the same share of them was probed.
        probed = np.arange(nlist + 1) * len(centroids) // nlist
        recall = np.pad(part.recall, ((0, 0), (1, 0)))[:, probed]
        parts.append(Sample(part.distance, recall[:, 1:]))
    return Sample(
        np.concatenate([part.distance for part in parts] or [np.empty(0, np.float32)]),
        np.concatenate([part.recall for part in parts] or [np.empty((0, nlist), np.float32)]),
    )


def hold_out(
    queries: Vectors,
    centroids: Vectors,
    filed: Filed,
    blocks: Iterable[tuple[Ids, Vectors]],
    excluded: Ids | None = None,
) -> Sample:
    """Measure with queries that the centroids were not trained on.

    Args:
        queries: float32 `[n, dim]`.
        centroids: float32 `[nlist, dim]`.
        filed: the list of each image of `blocks`.
        blocks: as for `imgsearch.search.exact.search_exactly`.
        excluded: sorted ids to be passed over, the queries' own among them.
    """
    _, neighbours = search_exactly(queries, blocks, K, excluded)
    distances, order = IvfIndex.empty(centroids).assign(queries, len(centroids))
    return Sample(distances[:, 0], _recall(order, filed.of_ids(neighbours)))


def meet_strangers(
    queries: Vectors,
    query_ids: Ids,
    centroids: Vectors,
    filed: Filed,
    blocks: Iterable[tuple[Ids, Vectors]],
) -> Sample:
    """Measure with images whose whole kind is taken away, lists and all.

    The kinds are groups of neighbouring lists: k-means over the centroids.

    Args:
        queries: float32 `[n, dim]`, images of the collection.
        query_ids: their ids.
        centroids: float32 `[nlist, dim]`.
        filed: the list of each image.
        blocks: as for `imgsearch.search.exact.search_exactly`, without removed images.
    """
    nlist = len(centroids)
    kinds = IvfIndex.empty(train(centroids, min(KINDS, nlist))).assign(centroids, 1)[1][:, 0]
    own = kinds[filed.of_ids(query_ids)]
    neighbours = _unlike(queries, own, _by_kind(blocks, filed, kinds))
    distances, order = IvfIndex.empty(centroids).assign(queries, nlist)
    last = np.argsort(kinds[order] == own[:, None], axis=1, kind="stable")  # the own kind's lists
    distances = np.take_along_axis(distances, last, 1)
    order = np.take_along_axis(order, last, 1)
    met = (neighbours >= 0).any(axis=1)
    recall = _recall(order, filed.of_ids(neighbours))
    return Sample(distances[met, 0], recall[met])


def ladder(nlist: int) -> list[int]:
    """Return the `nprobe`s that a curve has: from 1 to `nlist`, each about √2 times the last."""
    steps = [1]
    while steps[-1] < nlist:
        steps.append(min(nlist, max(steps[-1] + 1, round(steps[-1] * math.sqrt(2)))))
    return steps


def curve(held_out: Sample, strangers: Sample, clock: Callable[[int], float]) -> list[Step]:
    """Return recall and its bound for each band and each `nprobe` of the `ladder`.

    The bands divide the held-out images, by their distance from the nearest centroid, into three
    parts of the same size, the farthest 5 % left out.

    Args:
        held_out: queries like the collection.
        strangers: queries unlike it.
        clock: returns the milliseconds that one query takes at an `nprobe`.
    """
    nlist = held_out.recall.shape[1]
    if not len(held_out.distance):  # of a single image
        return [Step(FARTHEST, nlist, 1.0, 1.0, clock(nlist))]
    shares = np.linspace(0, WITHIN, BANDS + 1)[1:]
    edges = np.unique(np.quantile(held_out.distance, shares).astype(np.float64))
    both = held_out.joined(strangers)
    steps = []
    reached = dict.fromkeys(edges.tolist(), 0.0)  # what holds for fewer lists holds for more
    for nprobe in ladder(nlist):
        milliseconds, above = clock(nprobe), -1.0
        for edge in edges.tolist():
            values = [
                sample.recall[(sample.distance > above) & (sample.distance <= edge), nprobe - 1]
                for sample in (both, held_out, strangers)
            ]
            judged = [part for part in values if len(part) >= FEWEST]
            # What a sample without a single miss can vouch for, by the rule of three (Hanley and
            # Lippman-Hand, "If Nothing Goes Wrong, Is Everything All Right?", JAMA 1983).
            most = 1 - 3 / max(len(values[0]), 3)
            bound = min((most, *map(lower_bound, judged))) if judged else 0.0
            bound = max(reached[edge], bound)
            reached[edge] = bound = 1.0 if nprobe == nlist else bound  # all lists: exact
            shown = values[1] if len(values[1]) else values[0]
            recall = float(shown.mean()) if len(shown) else bound
            steps.append(Step(edge, nprobe, recall, bound, milliseconds))
            above = edge
    return steps


def lower_bound(values: npt.NDArray[np.float32]) -> float:
    """Return the one-sided lower 95 % confidence bound of the mean of a sample.

    Normal approximation, mean - 1.645 s / √n (Wasserman, All of Statistics, 2004, section 6.3.2),
    of at least two values.
    """
    return float(values.mean() - _Z95 * values.std(ddof=1) / math.sqrt(len(values)))


def _recall(order: Ids, filed: Ids) -> Vectors:
    """Return recall at each `nprobe`, `[n, nlist]`.

    Args:
        order: the lists, nearest first, `[n, nlist]`.
        filed: the list of each true neighbour, -1 for none, `[n, K]`.
    """
    nlist = order.shape[1]
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(nlist)[None, :], axis=1)
    recall = np.ones((len(order), nlist), np.float32)
    for row in np.flatnonzero((filed >= 0).any(axis=1)):
        places = rank[row, filed[row][filed[row] >= 0]]
        recall[row] = np.bincount(places, minlength=nlist).cumsum() / len(places)
    return recall


def _by_kind(
    blocks: Iterable[tuple[Ids, Vectors]], filed: Filed, kinds: Ids
) -> Iterator[tuple[Ids, Vectors, Ids]]:
    for ids, vectors in blocks:
        known = rows_of(ids, filed.ids)
        if not known.all():
            ids, vectors = ids[known], vectors[known]
        yield ids, vectors, kinds[filed.of_ids(ids)]


def _unlike(queries: Vectors, own: Ids, blocks: Iterable[tuple[Ids, Vectors, Ids]]) -> Ids:
    """Return the nearest images that are of another kind than the query, `[n, K]`."""
    best = nothing(len(queries), K)
    for ids, vectors, kinds in blocks:
        for kind in np.unique(own):
            asking, others = own == kind, kinds != kind
            found = search_exactly(queries[asking], [(ids[others], vectors[others])], K)
            nearer = merge([(best[0][asking], best[1][asking]), found], K)
            best[0][asking], best[1][asking] = nearer
    return best[1]
