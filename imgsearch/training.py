"""Train centroids, file every image under its nearest, and measure what that keeps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import astuple
from statistics import median

import numpy as np

from imgsearch.search.ivf import IvfIndex, train, training_size
from imgsearch.search.tuning import (
    Filed,
    K,
    cross_validate,
    curve,
    hold_out,
    meet_strangers,
)
from imgsearch.search.vectors import Ids, Vectors
from imgsearch.segments import SEGMENT_BYTES, check_segment_room, write_segment
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import CurveStep, IvfRecord, Segment
from imgsearch.storage.writer import CatalogWriter
from imgsearch.view import View

__all__ = ["build", "fetch", "most_lists", "train_anew"]

HELD_OUT = 1_000  # images that recall is measured with
ENOUGH = 5_000  # images from which on so many can be spared from training; else cross-validation
TIMED = 10  # queries whose median is the time that a query takes
TIMED_SECONDS = 0.05
_SEED = 1234


def most_lists(count: int) -> int:
    """Return how many centroids `count` images can have: one each, but for those held out."""
    return count if count < ENOUGH else count - HELD_OUT


def train_anew(
    layout: Layout, catalog: CatalogWriter, view: View, nlist: int, *, device: str
) -> None:
    """Train `nlist` centroids on the images of `view`, and put new segments in place of the old.

    Raises:
        StorageError: there is not enough room on the disk.
    """
    dim = view.snapshot.model.dim
    segments = 1 + view.count * 4 * dim // SEGMENT_BYTES
    check_segment_room(layout, view.count, segments * nlist, dim)
    held_ids, held, centroids = _train(view, nlist, device)
    made = list(build(layout, view, centroids, first=catalog.next_segment(), device=device))
    indexes = [IvfIndex.open(layout.segment(segment.number)) for segment in made]
    filed = Filed.of(indexes)
    if held_ids.size:
        sample = hold_out(held, centroids, filed, view.live_blocks(), held_ids)
    else:
        sample = cross_validate(fetch(view, np.arange(view.count))[1], nlist, device=device)
    drawn = np.random.default_rng(_SEED + 1).choice(
        view.count, min(HELD_OUT, view.count), replace=False
    )
    ids, queries = fetch(view, np.sort(drawn))
    strangers = meet_strangers(queries, ids, centroids, filed, view.live_blocks())
    steps = curve(sample, strangers, lambda nprobe: _milliseconds(indexes, queries, nprobe))
    ivf = IvfRecord(
        nlist=nlist,
        requested_nlist=view.snapshot.settings.nlist,
        trained=view.count,
        held_out=len(sample.distance),
        strangers=len(strangers.distance),
        added=0,
        far=0,
        curve=tuple(CurveStep(*astuple(step)) for step in steps),
    )
    catalog.replace_segments([segment.number for segment in view.snapshot.segments], made, ivf)


def _train(view: View, nlist: int, device: str) -> tuple[Ids, Vectors, Vectors]:
    """Return ids and vectors of the images held out, none of a small collection, and centroids."""
    spare = HELD_OUT if view.count >= ENOUGH else 0
    size = training_size(view.count - spare, nlist, view.snapshot.model.dim)
    drawn = np.random.default_rng(_SEED).choice(view.count, spare + size, replace=False)
    held_ids, held = fetch(view, np.sort(drawn[:spare]))
    return held_ids, held, train(fetch(view, np.sort(drawn[spare:]))[1], nlist, device=device)


def fetch(view: View, rows: Ids) -> tuple[Ids, Vectors]:
    """Return ids and vectors of images, given by their sorted places in the order of ids."""
    start = 0
    ids: list[Ids] = [np.empty(0, np.int64)]
    vectors: list[Vectors] = [np.empty((0, view.snapshot.model.dim), np.float32)]
    for block_ids, block in view.live_blocks():
        first, last = np.searchsorted(rows, (start, start + len(block_ids)))
        if last > first:
            ids.append(block_ids[rows[first:last] - start])
            vectors.append(block[rows[first:last] - start])
        start += len(block_ids)
    return np.concatenate(ids), np.concatenate(vectors)


def build(
    layout: Layout, view: View, centroids: Vectors, *, first: int, device: str
) -> Iterator[Segment]:
    """Write segments of at most about `SEGMENT_BYTES` that share `centroids`; yield each."""
    rows = SEGMENT_BYTES // (centroids.itemsize * centroids.shape[1])
    number, first_id, last_id = first, 1, 0
    index = IvfIndex.empty(centroids, device=device)
    for shard, (ids, vectors) in zip(view.snapshot.shards, view.live_blocks(), strict=True):
        if index.count and index.count + len(ids) > rows:
            yield write_segment(layout, index, number, first_id=first_id, last_id=last_id)
            number, first_id = number + 1, last_id + 1
            index = IvfIndex.empty(centroids, device=device)
        if len(ids):
            index.add(ids, vectors)
        last_id = shard.last_id
    yield write_segment(layout, index, number, first_id=first_id, last_id=last_id)


def _milliseconds(indexes: list[IvfIndex], queries: Vectors, nprobe: int) -> float:
    """Return how long one query takes: the median of a few, after one to warm up."""
    seconds: list[float] = []
    for number in range(TIMED + 1):
        query = queries[number % len(queries)][None]
        started = time.perf_counter()
        nearest = indexes[0].assign(query, nprobe)
        for index in indexes:
            index.search(query, K, nearest)
        seconds.append(time.perf_counter() - started)
        if sum(seconds) > TIMED_SECONDS and number:
            break
    return 1000 * median(seconds[1:])
