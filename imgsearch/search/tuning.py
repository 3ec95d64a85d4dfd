"""Recall against exact search as a function of `nprobe`, and the choice of an `nprobe`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imgsearch.search.ivf import IvfIndex, search_exactly
from imgsearch.search.vectors import Ids, Vectors

__all__ = ["K", "RecallCurve", "choose_nprobe", "lower_bound", "recall_curve"]

K = 10
_Z95 = 1.6449  # one-sided 95 % quantile of the standard normal distribution


@dataclass(frozen=True, slots=True, eq=False)
class RecallCurve:
    """Recall@10 of each sampled query at each `nprobe` from 1 to nlist: float32 `[queries, nlist]`.

    Rows never fall: probing one list more loses no hit.
    """

    recall: npt.NDArray[np.float32]

    def mean(self, nprobe: int) -> float:
        """Return the mean recall at `nprobe`."""
        return float(self.recall[:, nprobe - 1].mean())


def recall_curve(
    queries: Vectors,
    query_ids: Ids,
    segments: Sequence[IvfIndex],
    blocks: Iterable[tuple[Ids, Vectors]],
    excluded: Ids,
) -> RecallCurve:
    """Measure recall@10 for every `nprobe` at once.

    A true neighbour is found if and only if its list is among the `nprobe` nearest of the query.
    So one exact search tells the neighbours, one coarse search the rank of their lists, and no
    `nprobe` needs a search of its own. The query's own vector is left out of the neighbours.

    Args:
        queries: float32 `[n, dim]`, stored vectors.
        query_ids: their ids.
        segments: indexes that share one set of centroids and together hold `blocks`.
        blocks: all vectors, as for `imgsearch.search.ivf.search_exactly`.
        excluded: sorted ids to be passed over.
    """
    _, found = search_exactly(queries, blocks, K + 1, excluded)
    own = found == query_ids[:, None]
    own[~own.any(axis=1), -1] = True  # K + 1 identical images, and it was not among them
    neighbours = found[~own].reshape(len(queries), K)

    filed = _lists_of(neighbours, segments)
    nlist = segments[0].nlist
    order = segments[0].assign(queries, nlist)
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(nlist)[None, :], axis=1)

    recall = np.ones((len(queries), nlist), np.float32)
    real = neighbours >= 0  # fewer than K where the collection is that small
    for row in np.flatnonzero(real.any(axis=1)):
        places = rank[row, filed[row, real[row]]]
        recall[row] = np.bincount(places, minlength=nlist).cumsum() / len(places)
    return RecallCurve(recall)


def choose_nprobe(curve: RecallCurve, recall: float) -> int:
    """Return the smallest `nprobe` whose lower 95 % bound of recall is `recall` or more."""
    nlist = curve.recall.shape[1]
    passing = (n for n in range(1, nlist + 1) if lower_bound(curve.recall[:, n - 1]) >= recall)
    return next(passing, nlist)


def lower_bound(values: npt.NDArray[np.float32]) -> float:
    """Return the one-sided lower 95 % confidence bound of the mean of a sample.

    Normal approximation, mean - 1.645 s / √n (Wasserman, All of Statistics, 2004, section 6.3.2).
    """
    if len(values) < 2:
        return float(values.mean())
    return float(values.mean() - _Z95 * values.std(ddof=1) / math.sqrt(len(values)))


def _lists_of(ids: Ids, segments: Sequence[IvfIndex]) -> Ids:
    """Return the number of the list that each id is filed under, -1 for an id that is in none."""
    wanted = np.unique(ids)
    lists = np.full(wanted.shape, -1, np.int64)
    for segment in segments:
        for number, members in enumerate(segment.list_ids()):
            places = np.searchsorted(wanted, members).clip(max=wanted.size - 1)
            hit = wanted[places] == members
            lists[places[hit]] = number
    return lists[np.searchsorted(wanted, ids)]
