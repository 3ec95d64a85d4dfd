"""Fold a collection's tail into its index: train, build and measure the segments anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from imgsearch.search.ivf import IvfIndex, choose_nlist, train, training_size
from imgsearch.search.tuning import choose_nprobe, lower_bound, recall_curve
from imgsearch.search.vectors import Ids, Vectors, rows_of
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.files import write_atomically
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import IvfRecord, Segment
from imgsearch.view import View, open_view

__all__ = ["IVF_FROM", "RECALL", "fold"]

IVF_FROM = 256  # images: fewer are too few for lists, and are compared in no time
RECALL = 0.95  # recall@10 that the default nprobe keeps
SEGMENT_BYTES = 1 << 30
QUERIES = 1_000  # sampled to measure recall with
_SEED = 1234


def fold(layout: Layout, catalog: Catalog, *, nlist: int | None, device: str) -> None:
    """Make the index cover all images, if it does not yet. Only the writer may call this.

    Args:
        layout: of the collection.
        catalog: of the collection.
        nlist: number of centroids, at most one an image; None for what was asked for before, else
            by `imgsearch.search.ivf.choose_nlist` from `IVF_FROM` images on.
        device: where to train and fill the index.
    """
    view = open_view(layout, catalog)
    ivf = view.snapshot.ivf
    requested = nlist or (ivf.requested_nlist if ivf else None)
    if view.count == 0 or (requested is None and view.count < IVF_FROM):
        return
    if ivf and not view.tail_count and not view.snapshot.stale and ivf.requested_nlist == requested:
        return
    lists = min(requested or choose_nlist(view.count), view.count)
    size = training_size(view.count, lists, view.snapshot.model.dim)
    centroids = train(_sample(view, size)[1], lists, device=device)
    segments = list(_build(layout, view, centroids, first=catalog.next_segment(), device=device))
    nprobe, recall, bound = _measure(layout, view, segments)
    catalog.replace_segments(segments, IvfRecord(lists, requested, nprobe, recall, bound))


def _live_blocks(view: View) -> Iterator[tuple[Ids, Vectors]]:
    for ids, vectors in view.blocks():
        live = ~rows_of(ids, view.removed)
        yield (ids, vectors) if live.all() else (ids[live], vectors[live])


def _sample(view: View, size: int) -> tuple[Ids, Vectors]:
    """Draw `size` images at random, seeded: ids and vectors, ordered by id."""
    drawn = np.random.default_rng(_SEED).choice(view.count, min(size, view.count), replace=False)
    drawn.sort()
    start, parts = 0, []
    for ids, vectors in _live_blocks(view):
        first, last = np.searchsorted(drawn, (start, start + len(ids)))
        rows = drawn[first:last] - start
        parts.append((ids[rows], vectors[rows]))
        start += len(ids)
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def _build(
    layout: Layout, view: View, centroids: Vectors, *, first: int, device: str
) -> Iterator[Segment]:
    """Write segments of at most about `SEGMENT_BYTES` that share `centroids`; yield each."""
    rows = SEGMENT_BYTES // (centroids.itemsize * centroids.shape[1])
    number, first_id, last_id = first, 1, 0
    index = IvfIndex.empty(centroids, device=device)
    for shard, (ids, vectors) in zip(view.snapshot.shards, _live_blocks(view), strict=True):
        if index.count and index.count + len(ids) > rows:
            yield _save(layout, index, number, first_id, last_id)
            number, first_id = number + 1, last_id + 1
            index = IvfIndex.empty(centroids, device=device)
        if len(ids):
            index.add(ids, vectors)
        last_id = shard.first_id + shard.count - 1
    yield _save(layout, index, number, first_id, last_id)


def _save(layout: Layout, index: IvfIndex, number: int, first_id: int, last_id: int) -> Segment:
    sha256 = write_atomically(layout.segment(number), index.save)
    return Segment(number, first_id, last_id, index.count, sha256)


def _measure(layout: Layout, view: View, segments: Sequence[Segment]) -> tuple[int, float, float]:
    """Choose `nprobe`; return it with the recall@10 measured and its lower 95 % bound."""
    ids, queries = _sample(view, QUERIES)
    indexes = [IvfIndex.open(layout.segment(segment.number)) for segment in segments]
    curve = recall_curve(queries, ids, indexes, view.blocks(), view.removed)
    nprobe = choose_nprobe(curve, RECALL)
    return nprobe, curve.mean(nprobe), lower_bound(curve.recall[:, nprobe - 1])
