"""Keep the index and the shards in step: when to flush, to merge, and to train again.

The rules (docs/index-upkeep.md explains them and their cost):

- There are lists from 256 images on, or at any size if `nlist` was given; they are dropped once
  half of the images are gone and fewer than 256 are left.
- The centroids are trained again once the number of images has doubled or halved since the last
  training, or once more than a tenth of them lies beyond the last band of the promise, where a
  twentieth lay then, or if the segments are of an outdated kind.
- The tail becomes a segment once it has half as many images as a query compares in the lists,
  at least 256 and at most 5,000. It absorbs the last segments that are at most four times as large
  together; once there are 16 segments, any of them, up to 1 GiB.
- A segment is rewritten without its removed images once these are a quarter of it.
- The last shards, each of less than `FoldPolicy.small_shard` rows, are merged like the digits of a
  binary number: a shard is merged with all those after it once they have as many rows together. So
  there are few shards, and each row is rewritten only a few times in all.
- A shard is rewritten without its removed rows once half of it has been removed.
- Files of fingerprints are merged and rewritten by the same two rules.

The numbers are the defaults of `imgsearch.indexing.policy.FoldPolicy`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from imgsearch.ann.kmeans import choose_nlist
from imgsearch.ann.promise import BANDS, WITHIN
from imgsearch.ann.vectors import Ids, Vectors, rows_of
from imgsearch.indexing.engine import assign_here
from imgsearch.indexing.fingerprints import last_to_merge, merge_prints
from imgsearch.indexing.policy import POLICY, FoldPolicy, most_lists
from imgsearch.querying.segments import check_segment_room, write_segment
from imgsearch.querying.view import View, open_view
from imgsearch.storage.files import check_room, check_sha256, remove_unnamed
from imgsearch.storage.fingerprints import prints_name
from imgsearch.storage.layers import layer_name
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import IvfRecord, Shard, Snapshot
from imgsearch.storage.shards import check_shard, open_ids, open_shard, shard_files, write_shard
from imgsearch.storage.writer import CatalogWriter

if TYPE_CHECKING:  # most runs train nothing
    from imgsearch.indexing.train import Assign

__all__ = ["fold", "is_outgrown", "remove_orphans"]


def fold(
    layout: Layout,
    catalog: CatalogWriter,
    *,
    device: str,
    meanwhile: bool = False,
    assign: Assign = assign_here,
    policy: FoldPolicy = POLICY,
) -> None:
    """Bring the index up to date by the rules above. Only the writer may call this function.

    Args:
        layout: The layout of the collection.
        catalog: The catalog of the collection.
        device: The device on which to train, and to fill the rebuilt index.
        meanwhile: Whether more images are coming in this run.
        assign: The function that finds the lists of all images after centroids are trained.
        policy: The thresholds of the rules.

    Raises:
        StorageError: If there is not enough room on the disk.
    """
    remove_orphans(layout, catalog)
    view = open_view(layout, catalog)
    wanted = _wanted_nlist(view, policy)
    ivf = view.snapshot.ivf
    outgrown = is_outgrown(view.snapshot, view.count, policy, meanwhile=meanwhile)
    outgrown |= not meanwhile and view.outdated
    if wanted is None:
        if outgrown:
            catalog.drop_index()
    elif ivf is None or not view.segments or outgrown:
        for shard in view.snapshot.shards:
            check_shard(layout.vectors, shard)
        from imgsearch.indexing.train import retrain

        retrain(layout, catalog, view, wanted, device=device, assign=assign, policy=policy)
    else:
        _flush_tail(layout, catalog, view, ivf, policy)
        _purge(layout, catalog, policy)
    _compact(layout, catalog, policy)
    merge_prints(layout, catalog, view.live_ids(), policy)
    if not meanwhile and (view.count >= policy.ranked_from or view.snapshot.layers):
        from imgsearch.indexing.neighbours import rank

        rank(layout, catalog, policy)


def remove_orphans(layout: Layout, catalog: CatalogWriter) -> None:
    """Delete files that the catalog does not name: left by a crash, or replaced some time ago.

    A file that a run replaces is deleted only when the next one is replaced, so that a reader who
    is about to open it still can.
    """
    if catalog.replaced():
        catalog.forget_replaced()
    snapshot = catalog.snapshot()
    shards = {name for shard in snapshot.shards for name in shard_files(shard)}
    segments = {layout.segment(segment.number).name for segment in snapshot.segments}
    remove_unnamed(layout.vectors, ".npy", shards)
    remove_unnamed(layout.segments, ".faiss", segments)
    layers = {layer_name(layer.number) for layer in snapshot.layers}
    remove_unnamed(layout.layers, ".layer", layers)
    prints = {prints_name(file.number) for file in catalog.prints()}
    remove_unnamed(layout.fingerprints, ".prints", prints)


def is_outgrown(
    snapshot: Snapshot, count: int, policy: FoldPolicy = POLICY, *, meanwhile: bool = False
) -> bool:
    """Tell whether the centroids, or their promise, no longer suit `count` images.

    `meanwhile` tells whether more images are coming in this run.
    """
    ivf, asked = snapshot.ivf, snapshot.settings.nlist
    if ivf is None:
        return False
    if asked != ivf.requested_nlist or (
        asked is not None and ivf.nlist != min(asked, most_lists(count))
    ):
        return True
    if ivf.pca != snapshot.pca:
        return True
    growth = policy.growth_meanwhile if meanwhile else policy.growth
    far = (1 - WITHIN) * ivf.trained + ivf.far
    return (
        count >= growth * ivf.trained
        or count * policy.growth <= ivf.trained
        or (ivf.added >= policy.tail_least and far > policy.unlike * (ivf.trained + ivf.added))
    )


def _wanted_nlist(view: View, policy: FoldPolicy) -> int | None:
    """Return the number of centroids that suits the images; None if they need no lists."""
    asked = view.snapshot.settings.nlist
    if view.count == 0 or (asked is None and view.count < policy.ivf_from):
        return None
    return min(asked or choose_nlist(view.count), most_lists(view.count))


def _tail_limit(view: View, ivf: IvfRecord, policy: FoldPolicy) -> int:
    """Return half the number of images that a query compares in the lists, within bounds."""
    if view.promise is None:
        return policy.tail_least
    nprobe = view.promise.keep(view.snapshot.settings.recall).nprobe
    probed = int(nprobe[(len(nprobe) - 1) // 2]) or ivf.nlist  # 0: all are compared
    compared = ivf.nlist + probed * view.count // ivf.nlist
    return min(max(compared // 2, policy.tail_least), policy.tail_most)


def _flush_tail(
    layout: Layout, catalog: CatalogWriter, view: View, ivf: IvfRecord, policy: FoldPolicy
) -> None:
    """Turn a tail that has grown long, and the segments it absorbs, into one segment."""
    if view.tail_count < _tail_limit(view, ivf, policy):
        return
    segments = view.snapshot.segments
    cap = policy.segment_bytes // view.segments[0].width
    sizes = [segment.count for segment in segments]
    budget = policy.merge * view.tail_count if len(sizes) < policy.segments else cap
    taken = _absorbed(sizes, view.tail_count, cap, budget)
    kept, gone = segments[: len(segments) - taken], segments[len(segments) - taken :]
    count = view.tail_count + sum(segment.count for segment in gone)
    check_segment_room(layout, view.segments[0], count)
    for segment in gone:
        check_sha256(layout.segment(segment.number), segment.sha256)
    for shard in view.snapshot.shards:
        if shard.last_id > segments[-1].last_id:
            check_shard(layout.vectors, shard)
    index = view.segments[0].emptied()
    for old in view.segments[len(kept) :]:
        index.absorb(old, view.removed)
    edges = sorted({step.up_to for step in ivf.curve})
    last_band = edges[:BANDS][-1] if edges else np.inf
    far = 0
    for ids, vectors in view.live_tail():
        if len(ids):
            far += int((index.add(ids, vectors) > last_band).sum())
    first = kept[-1].last_id + 1 if kept else 1
    last = view.snapshot.shards[-1].last_id
    new = write_segment(layout, index, catalog.next_segment(), first_id=first, last_id=last)
    ivf = replace(ivf, added=ivf.added + view.tail_count, far=ivf.far + far)
    catalog.replace_segments([segment.number for segment in gone], [new], ivf)


def _absorbed(sizes: Sequence[int], tail: int, cap: int, budget: int) -> int:
    """Return how many of the last segments to merge with the tail.

    Args:
        sizes: The number of images in each segment.
        tail: The number of images in the tail.
        cap: The maximum number of images in a segment.
        budget: The maximum number of images to rewrite.
    """
    taken = total = 0
    for size in reversed(sizes):
        if total + size > budget or total + size + tail > cap:
            break
        taken, total = taken + 1, total + size
    return taken


def _purge(layout: Layout, catalog: CatalogWriter, policy: FoldPolicy) -> None:
    """Rewrite segments that have many removed images."""
    view = open_view(layout, catalog)
    ivf = view.snapshot.ivf
    stale = np.array(view.snapshot.stale, np.int64)
    for segment, old in zip(view.snapshot.segments, view.segments, strict=True):
        dead = int(((stale >= segment.first_id) & (stale <= segment.last_id)).sum())
        if ivf is None or dead < policy.segment_dead * segment.count or not dead:
            continue
        check_segment_room(layout, old, segment.count)
        check_sha256(layout.segment(segment.number), segment.sha256)
        index = old.emptied()
        index.absorb(old, view.removed)
        new = write_segment(
            *(layout, index, catalog.next_segment()),
            first_id=segment.first_id,
            last_id=segment.last_id,
        )
        catalog.replace_segments([segment.number], [new], ivf)


def _compact(layout: Layout, catalog: CatalogWriter, policy: FoldPolicy) -> None:
    """Merge small shards, and drop removed rows. Only the writer may call this function."""
    snapshot = catalog.snapshot()
    removed, stale = (np.array(ids, np.int64) for ids in (snapshot.removed, snapshot.stale))
    droppable = np.setdiff1d(removed, stale[stale <= _indexed(snapshot)])
    for group in _shards_to_merge(snapshot, droppable, policy):
        size = 4 * snapshot.model.dim * sum(shard.count for shard in group)
        check_room(layout.vectors, size)
        ids, vectors = _rows_to_keep(layout, group, snapshot.model.dim, droppable)
        new = None
        if len(ids):
            number, _ = catalog.next_shard()
            new = write_shard(layout.vectors, number, ids, vectors)
        catalog.replace_shards(group, new)


def _shards_to_merge(
    snapshot: Snapshot, droppable: Ids, policy: FoldPolicy
) -> Iterator[Sequence[Shard]]:
    """Yield neighbouring shards to merge into one, never across the end of the segments."""
    indexed = _indexed(snapshot)
    in_segments = [shard for shard in snapshot.shards if shard.last_id <= indexed]
    for shards in (in_segments, snapshot.shards[len(in_segments) :]):
        small = _small_ones(shards, policy.small_shard)
        for shard in shards[: len(shards) - len(small)]:
            first, last = np.searchsorted(droppable, (shard.first_id, shard.last_id + 1))
            if last - first and last - first >= policy.shard_dead * shard.count:
                yield [shard]
        if small:
            yield small


def _indexed(snapshot: Snapshot) -> int:
    """Return the last id that a segment may hold."""
    return max((segment.last_id for segment in snapshot.segments), default=0)


def _small_ones(shards: Sequence[Shard], small: int) -> Sequence[Shard]:
    """Return the last shards to merge; none if there would be only one."""
    taken = last_to_merge([shard.count for shard in shards], small)
    return shards[len(shards) - taken :] if taken else ()


def _rows_to_keep(
    layout: Layout, shards: Sequence[Shard], dim: int, droppable: Ids
) -> tuple[Ids, Vectors]:
    """Return the ids and vectors of the rows to keep."""
    parts = []
    for shard in shards:
        check_shard(layout.vectors, shard)
        ids = open_ids(layout.vectors, shard)
        keep = ~rows_of(ids, droppable)
        parts.append((ids[keep], open_shard(layout.vectors, shard, dim)[keep]))
    ids, vectors = (np.concatenate(column) for column in zip(*parts, strict=True))
    return ids, vectors
