"""Rebuild the index when the images need another, and measure the recall it keeps."""

from __future__ import annotations

import time
from dataclasses import replace
from statistics import median

import numpy as np

from imgsearch.ann.kmeans import choose_nlist
from imgsearch.ann.promise import FEWEST as FEWEST_IN_BAND
from imgsearch.ann.promise import WITHIN, ladder, lower_bound
from imgsearch.ann.vectors import Ids, Vectors
from imgsearch.backends.milvus.sink import HELD, RowSink
from imgsearch.backends.milvus.state import State, write_state
from imgsearch.backends.milvus.store import MAX_LISTS, Store
from imgsearch.indexing.policy import POLICY
from imgsearch.storage.records import CurveStep, IvfRecord

__all__ = ["finish", "is_outgrown", "measure"]


HELD_LEAST = 100  # held-out images; with fewer, the queries are stored ones, left out of their hits
SHARE = 5  # at most one in this many images is held out
K = 10
TIMED = 5  # queries whose median time is taken
RECALL_ENOUGH = 0.999  # recall above which more lists are not tried
_TIE = 1e-5  # squared distance: a hit as near as the last true neighbour counts as one


def finish(store: Store, state: State, sink: RowSink) -> State:
    """Send the remaining images, and update index, promise and state; return the state.

    The index is built without the held-back images: these are the queries that measure the promise,
    and are added afterwards.
    """
    sink.send()
    count = store.count() + sink.held
    wanted = _wanted_nlist(state, count)
    if is_outgrown(state, count):
        held = sink.release(count // SHARE)
        store.flush()
        write_state(store, replace(state, ivf=None))  # until its successor is measured
        store.make_index(wanted)
        ivf = None
        if wanted is not None:
            own = np.full(len(held), -1)
            if len(held) < HELD_LEAST:
                own, held = store.sample(HELD)
            curve = measure(store, own, held, wanted)
            requested = state.settings.nlist
            ivf = IvfRecord(wanted, requested, count, len(held), 0, 0, 0, curve)
        state = replace(state, ivf=ivf)
    sink.release()
    write_state(store, state)
    store.flush()
    return state


def is_outgrown(state: State, count: int) -> bool:
    """Tell whether `count` images need another index than the present one."""
    wanted, ivf = _wanted_nlist(state, count), state.ivf
    if wanted is None or ivf is None:
        return (wanted is None) != (ivf is None)
    if state.settings.nlist != ivf.requested_nlist:
        return True
    return count >= POLICY.growth * ivf.trained or count * POLICY.growth <= ivf.trained


def _wanted_nlist(state: State, count: int) -> int | None:
    asked = state.settings.nlist
    if count == 0 or (asked is None and count < POLICY.ivf_from):
        return None
    return min(asked or choose_nlist(count), count, MAX_LISTS)


def measure(store: Store, own: Ids, queries: Vectors, nlist: int) -> tuple[CurveStep, ...]:
    """Measure recall@10 against exact search (all lists) by `nprobe`, in one band.

    Milvus divides its rows into segments, each with centroids of its own, which it does not reveal:
    so each `nprobe` is tried.

    Args:
        store: The store of the collection.
        own: The ids of the queries that are in the index, to be left out; int64 `[n]`, -1 for none.
        queries: The vectors of the queries, float32 `[n, dim]`.
        nlist: The number of lists in each segment.
    """
    true = _nearest(store, own, queries, MAX_LISTS)
    sizes = np.maximum(np.isfinite(true).sum(axis=1), 1)
    last = np.where(np.isfinite(true), true, -np.inf).max(axis=1, initial=-np.inf)
    up_to = float(np.quantile(true[:, 0], WITHIN)) if np.isfinite(true[:, 0]).all() else 0.0
    steps: list[CurveStep] = []
    bound = 0.0
    for nprobe in ladder(nlist):
        mean = steps[-1].recall if steps else 0.0
        if mean < RECALL_ENOUGH:
            found = _nearest(store, own, queries, nprobe)
            recall = ((found <= last[:, None] + _TIE).sum(axis=1) / sizes).clip(max=1)
            recall = recall.astype(np.float32)
            mean = max(mean, float(recall.mean()))
            if len(queries) >= FEWEST_IN_BAND:  # 3 / n: the rule of three, see ann.promise
                bound = max(bound, min(1 - 3 / len(queries), lower_bound(recall)))
        bound = 1.0 if nprobe == nlist else bound
        milliseconds = _milliseconds(store, queries, nprobe)
        steps.append(
            CurveStep(up_to, nprobe, 1.0 if nprobe == nlist else mean, bound, milliseconds)
        )
    return tuple(steps)


def _nearest(store: Store, own: Ids, queries: Vectors, nprobe: int) -> Vectors:
    """Return the squared distances `[n, 10]` of the nearest, except the queries themselves."""
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
