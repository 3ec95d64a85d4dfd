"""Keep the shards few, and free of removed rows.

The last shards, each of less than `FoldPolicy.small_shard` rows, are merged like the digits of a
binary number: a shard is merged with all those after it once they have as many rows together. So
there are few shards, and each row is rewritten only a few times in all. A shard is rewritten
without its removed rows once half of it has been removed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from imgsearch.ann.vectors import Ids, Vectors, rows_of
from imgsearch.indexing.policy import FoldPolicy
from imgsearch.storage.files import check_room
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import Shard, Snapshot
from imgsearch.storage.shards import check_shard, open_ids, open_shard, write_shard
from imgsearch.storage.writer import CatalogWriter

__all__ = ["compact"]


def compact(layout: Layout, catalog: CatalogWriter, policy: FoldPolicy) -> None:
    """Merge small shards, and drop removed rows. Only the writer may call this function."""
    snapshot = catalog.snapshot()
    removed, stale = (np.array(ids, np.int64) for ids in (snapshot.removed, snapshot.stale))
    droppable = np.setdiff1d(removed, stale[stale <= _indexed(snapshot)])
    for group in _groups(snapshot, droppable, policy):
        size = 4 * snapshot.model.dim * sum(shard.count for shard in group)
        check_room(layout.vectors, size)
        ids, vectors = _rows(layout, group, snapshot.model.dim, droppable)
        new = None
        if len(ids):
            number, _ = catalog.next_shard()
            new = write_shard(layout.vectors, number, ids, vectors)
        catalog.replace_shards(group, new)


def _groups(snapshot: Snapshot, droppable: Ids, policy: FoldPolicy) -> Iterator[Sequence[Shard]]:
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
    taken = total = 0
    for reach, shard in enumerate(reversed(shards), 1):
        if shard.count >= small:
            break
        if shard.count <= total:
            taken = reach
        total += shard.count
    return shards[len(shards) - taken :] if taken else ()


def _rows(layout: Layout, shards: Sequence[Shard], dim: int, droppable: Ids) -> tuple[Ids, Vectors]:
    """Return the ids and vectors of the rows to keep."""
    parts = []
    for shard in shards:
        check_shard(layout.vectors, shard)
        ids = open_ids(layout.vectors, shard)
        keep = ~rows_of(ids, droppable)
        parts.append((ids[keep], open_shard(layout.vectors, shard, dim)[keep]))
    ids, vectors = (np.concatenate(column) for column in zip(*parts, strict=True))
    return ids, vectors
