"""Measure what recall an index in Milvus keeps, with queries that it has not seen."""

from __future__ import annotations

import time
from statistics import median

import numpy as np

from imgsearch.milvus.store import MOST_LISTS, Store
from imgsearch.search.curves import FEWEST, WITHIN, ladder, lower_bound
from imgsearch.search.vectors import Ids, Vectors
from imgsearch.storage.records import CurveStep

__all__ = ["measure"]

K = 10
TIMED = 5  # queries whose median is the time that a query takes
ENOUGH = 0.999  # recall from which on more lists are not tried
_TIE = 1e-5  # squared distance: what is as near as the last true neighbour is as good


def measure(store: Store, own: Ids, queries: Vectors, nlist: int) -> tuple[CurveStep, ...]:
    """Return recall@10 against exact search (all lists) by `nprobe`, in one band.

    Milvus divides its rows into segments, and each has centroids of its own that cannot be had: so
    each `nprobe` is tried.

    Args:
        store: of the collection.
        own: ids of the queries that are in the index, which are left out; int64 `[n]`, -1 for none.
        queries: float32 `[n, dim]`.
        nlist: lists of each segment.
    """
    true = _nearest(store, own, queries, MOST_LISTS)
    sizes = np.maximum(np.isfinite(true).sum(axis=1), 1)
    last = np.where(np.isfinite(true), true, -np.inf).max(axis=1, initial=-np.inf)
    up_to = float(np.quantile(true[:, 0], WITHIN)) if np.isfinite(true[:, 0]).all() else 0.0
    steps: list[CurveStep] = []
    bound = 0.0
    for nprobe in ladder(nlist):
        mean = steps[-1].recall if steps else 0.0
        if mean < ENOUGH:
            found = _nearest(store, own, queries, nprobe)
            recall = ((found <= last[:, None] + _TIE).sum(axis=1) / sizes).clip(max=1)
            recall = recall.astype(np.float32)
            mean = max(mean, float(recall.mean()))
            if len(queries) >= FEWEST:  # 3 / n: the rule of three, see imgsearch.search.curves
                bound = max(bound, min(1 - 3 / len(queries), lower_bound(recall)))
        bound = 1.0 if nprobe == nlist else bound
        milliseconds = _milliseconds(store, queries, nprobe)
        steps.append(
            CurveStep(up_to, nprobe, 1.0 if nprobe == nlist else mean, bound, milliseconds)
        )
    return tuple(steps)


def _nearest(store: Store, own: Ids, queries: Vectors, nprobe: int) -> Vectors:
    """Return the squared distances `[n, 10]` of the nearest but the queries themselves."""
    distances, ids = store.search(queries, K + 1, nprobe)
    distances = np.where(ids == own[:, None], np.inf, distances)
    return np.sort(distances, axis=1)[:, :K]


def _milliseconds(store: Store, queries: Vectors, nprobe: int) -> float:
    seconds = []
    for query in queries[:TIMED]:
        started = time.perf_counter()
        store.search(query[None], K, nprobe)
        seconds.append(time.perf_counter() - started)
    return 1000 * median(seconds) if seconds else 0.0
