"""Keep the shards few, and free of what was removed.

Of the last shards, those of less than `SMALL` rows are merged like the digits of a binary number:
one with those after it, once they have as many rows together. So there are few of them, and a row
is written again a few times in all. A shard that is half removed is written again without that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from imgsearch.search.vectors import Ids, Vectors, rows_of
from imgsearch.storage.files import check_room
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import Snapshot
from imgsearch.storage.shards import Shard, open_ids, open_shard, write_shard
from imgsearch.storage.writer import CatalogWriter

__all__ = ["compact"]

SMALL = 1_000
DEAD = 0.5  # share of a shard


def compact(layout: Layout, catalog: CatalogWriter) -> None:
    """Merge small shards, and drop removed rows. Only the writer may call this."""
    snapshot = catalog.snapshot()
    removed, stale = (np.array(ids, np.int64) for ids in (snapshot.removed, snapshot.stale))
    droppable = np.setdiff1d(removed, stale[stale <= _indexed(snapshot)])
    for group in _groups(snapshot, droppable):
        size = 4 * snapshot.model.dim * sum(shard.count for shard in group)
        check_room(layout.vectors, size)
        ids, vectors = _rows(layout, group, snapshot.model.dim, droppable)
        new = None
        if len(ids):
            number, _ = catalog.next_shard()
            new = write_shard(layout.vectors, number, ids, vectors)
        catalog.replace_shards(group, new)


def _groups(snapshot: Snapshot, droppable: Ids) -> Iterator[Sequence[Shard]]:
    """Yield neighbouring shards that are to become one."""
    indexed = _indexed(snapshot)
    merged = _small_ones([shard for shard in snapshot.shards if shard.first_id > indexed])
    for shard in snapshot.shards[: len(snapshot.shards) - len(merged)]:
        first, last = np.searchsorted(droppable, (shard.first_id, shard.last_id + 1))
        if last - first and last - first >= DEAD * shard.count:
            yield [shard]
    if merged:
        yield merged


def _indexed(snapshot: Snapshot) -> int:
    """Return the last id that a segment may hold."""
    return max((segment.last_id for segment in snapshot.segments), default=0)


def _small_ones(tail: Sequence[Shard]) -> Sequence[Shard]:
    """Return the last shards of the tail that are to be merged; none if that would be one."""
    taken = total = 0
    for shard in reversed(tail):
        if shard.count >= SMALL or (taken and shard.count > total):
            break
        taken, total = taken + 1, total + shard.count
    return tail[len(tail) - taken :] if taken > 1 else ()


def _rows(layout: Layout, shards: Sequence[Shard], dim: int, droppable: Ids) -> tuple[Ids, Vectors]:
    """Return ids and vectors of the rows that are kept."""
    parts = []
    for shard in shards:
        ids = open_ids(layout.vectors, shard)
        keep = ~rows_of(ids, droppable)
        parts.append((ids[keep], open_shard(layout.vectors, shard, dim)[keep]))
    ids, vectors = (np.concatenate(column) for column in zip(*parts, strict=True))
    return ids, vectors
