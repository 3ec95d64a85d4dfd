"""Train centroids, assign every image to its nearest, and measure the resulting recall."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple
from statistics import median
from typing import TypeAlias

import numpy as np

from imgsearch.ann.compact import train_compact
from imgsearch.ann.flat import IvfIndex
from imgsearch.ann.inverted import InvertedFile
from imgsearch.ann.kmeans import train, training_size
from imgsearch.ann.promise import curve
from imgsearch.ann.recall import (
    Assignment,
    K,
    cross_validate,
    hold_out,
    measure_ood,
)
from imgsearch.ann.vectors import Ids, Vectors
from imgsearch.errors import REPAIR_IT, DamagedError
from imgsearch.indexing.engine import assign_here
from imgsearch.indexing.policy import HELD_OUT, POLICY, SPARE_FROM, FoldPolicy
from imgsearch.querying.segments import check_segment_room, open_segment, write_segment
from imgsearch.querying.view import View
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import CurveStep, IvfRecord, Segment
from imgsearch.storage.writer import CatalogWriter

__all__ = ["Assign", "build", "fetch", "retrain"]

OUTER_FROM = 50_000  # images: comparing a query with all of fewer takes milliseconds
BEYOND = 0.05  # share of the out-of-distribution queries that are compared with so many
TIMED = 10  # queries whose median time is taken
TIMED_SECONDS = 0.05
_SEED = 1234

#: A function that finds the list of each vector: see `imgsearch.indexing.engine.Engine.assign`.
Assign: TypeAlias = Callable[
    [InvertedFile, Iterable[tuple[Ids, Vectors]]], Iterator[tuple[Ids, Vectors, Ids]]
]


def retrain(
    layout: Layout,
    catalog: CatalogWriter,
    view: View,
    nlist: int,
    *,
    device: str,
    assign: Assign = assign_here,
    policy: FoldPolicy = POLICY,
) -> None:
    """Train `nlist` centroids on the images of `view`, and replace the old segments by new ones.

    They are trained on a sample, in this process; `assign` finds the lists of all images.

    Raises:
        StorageError: If there is not enough room on the disk.
    """
    pca = view.snapshot.pca
    held_ids, held, index = _train(view, nlist, pca, device)
    made = list(
        build(layout, view, index, first=catalog.next_segment(), assign=assign, policy=policy)
    )
    indexes = [open_segment(layout, segment, compact=pca is not None) for segment in made]
    assignment = Assignment.of(indexes)
    if held_ids.size:
        sample = hold_out(held, indexes, assignment, view.live_blocks, held_ids, view.candidates)
    else:
        everything = fetch(view, np.arange(view.count))[1]
        sample = cross_validate(everything, nlist, pca=pca, device=device)
    drawn = np.random.default_rng(_SEED + 1).choice(
        view.count, min(HELD_OUT, view.count), replace=False
    )
    ids, queries = fetch(view, np.sort(drawn))
    ood = measure_ood(queries, ids, indexes, assignment, view.live_blocks, view.candidates)
    steps = curve(
        *(
            sample,
            ood,
            lambda nprobe: _milliseconds(view, indexes, queries, nprobe),
        ),
        lossy=index.lossy,
        beyond=_beyond(view.count),
        fewest=policy.judged_from,
    )
    ivf = IvfRecord(
        nlist=nlist,
        requested_nlist=view.snapshot.settings.nlist,
        trained=view.count,
        held_out=len(sample.distance),
        strangers=len(ood.distance),
        added=0,
        far=0,
        curve=tuple(CurveStep(*astuple(step)) for step in steps),
        pca=pca,
    )
    catalog.replace_segments([segment.number for segment in view.snapshot.segments], made, ivf)


def _train(
    view: View, nlist: int, pca: int | None, device: str
) -> tuple[Ids, Vectors, InvertedFile]:
    """Return ids and vectors of the held-out images, none if there are few, and an empty index.

    The index was trained on other images.
    """
    spare = HELD_OUT if view.count >= SPARE_FROM else 0
    size = training_size(view.count - spare, nlist, view.snapshot.model.dim)
    drawn = np.random.default_rng(_SEED).choice(view.count, spare + size, replace=False)
    held_ids, held = fetch(view, np.sort(drawn[:spare]))
    seen = fetch(view, np.sort(drawn[spare:]))[1]
    if pca is None:
        return held_ids, held, IvfIndex.empty(train(seen, nlist, device=device), device=device)
    return held_ids, held, train_compact(seen, nlist, pca, device=device)


def fetch(view: View, rows: Ids) -> tuple[Ids, Vectors]:
    """Return ids and vectors of images, given by their sorted positions in id order."""
    ids = np.empty(len(rows), np.int64)
    vectors = np.empty((len(rows), view.snapshot.model.dim), np.float32)
    start = 0
    for block_ids, block in view.live_blocks():
        first, last = np.searchsorted(rows, (start, start + len(block_ids)))
        places = rows[first:last] - start
        ids[first:last], vectors[first:last] = block_ids[places], block[places]
        if not np.isfinite(vectors[first:last]).all():
            raise DamagedError(f"an embedding in {view.folder} is not a number; {REPAIR_IT}")
        start += len(block_ids)
    return ids, vectors


def build(
    layout: Layout,
    view: View,
    index: InvertedFile,
    *,
    first: int,
    assign: Assign = assign_here,
    policy: FoldPolicy = POLICY,
) -> Iterator[Segment]:
    """Write segments of up to about `FoldPolicy.segment_bytes`, trained like `index`; yield each.

    Raises:
        StorageError: If there is not enough room on the disk.
    """
    rows = policy.segment_bytes // index.width
    check_segment_room(layout, index, view.count, segments=1 + view.count // rows)
    number, first_id, last_id = first, 1, 0
    blocks = assign(index, view.live_blocks())
    for shard, (ids, vectors, lists) in zip(view.snapshot.shards, blocks, strict=True):
        if index.count and index.count + len(ids) > rows:
            yield write_segment(layout, index, number, first_id=first_id, last_id=last_id)
            number, first_id = number + 1, last_id + 1
            index = index.emptied()
        if len(ids):
            index.add_to(ids, vectors, lists)
        last_id = shard.last_id
    yield write_segment(layout, index, number, first_id=first_id, last_id=last_id)


def _beyond(count: int) -> float | None:
    """Return the share of out-of-distribution queries beyond the outer band; None without one.

    The more images there are, the longer it takes to compare a query with all of them.
    """
    return BEYOND * OUTER_FROM / count if count >= OUTER_FROM else None


def _milliseconds(
    view: View, indexes: Sequence[InvertedFile], queries: Vectors, nprobe: int
) -> float:
    """Return the duration of one query: the median of a few, after one to warm up."""
    seconds: list[float] = []
    for number in range(TIMED + 1):
        query = queries[number % len(queries)][None]
        started = time.perf_counter()
        view.search_lists(indexes, query, K, indexes[0].assign(query, nprobe))
        seconds.append(time.perf_counter() - started)
        if sum(seconds) > TIMED_SECONDS and number:
            break
    return 1000 * median(seconds[1:])
