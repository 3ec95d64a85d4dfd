"""Write segments, the files of the index, each of which covers a range of ids."""

from __future__ import annotations

from imgsearch.search.ivf import IvfIndex
from imgsearch.storage.files import check_room, write_atomically
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import Segment

__all__ = ["SEGMENT_BYTES", "check_segment_room", "write_segment"]

SEGMENT_BYTES = 1 << 30  # of embeddings in a segment at most


def check_segment_room(layout: Layout, count: int, nlist: int, dim: int) -> None:
    """Check that there is room for `count` images in segments with `nlist` lists in all.

    Raises:
        StorageError: there is not.
    """
    check_room(layout.segments, (count + nlist) * (4 * dim + 8))


def write_segment(
    layout: Layout, index: IvfIndex, number: int, *, first_id: int, last_id: int
) -> Segment:
    """Write an index over the images with ids from `first_id` to `last_id`.

    Raises:
        StorageError: it cannot be written.
    """
    sha256 = write_atomically(layout.segment(number), index.save)
    return Segment(number, first_id, last_id, index.count, sha256)
