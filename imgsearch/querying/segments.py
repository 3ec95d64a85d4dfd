"""Segments: the files of the index, each of which covers a range of ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imgsearch.errors import REPAIR_IT, DamagedError
from imgsearch.storage.files import check_room, write_atomically
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import Segment

if TYPE_CHECKING:
    from imgsearch.ann.compact import CompactIndex
    from imgsearch.ann.flat import IvfIndex
    from imgsearch.ann.inverted import InvertedFile

__all__ = ["check_segment_room", "open_segment", "write_segment"]


def check_segment_room(
    layout: Layout, index: InvertedFile, count: int, *, segments: int = 1
) -> None:
    """Check that there is room for `count` images in the given number of segments like `index`.

    Raises:
        StorageError: If there is not enough room.
    """
    check_room(layout.segments, index.bytes_of(count) + (segments - 1) * index.bytes_of(0))


def write_segment(
    layout: Layout, index: InvertedFile, number: int, *, first_id: int, last_id: int
) -> Segment:
    """Write an index over the images with ids from `first_id` to `last_id`.

    Raises:
        StorageError: If the segment cannot be written.
    """
    path = layout.segment(number)
    sha256 = write_atomically(path, index.save)
    return Segment(number, first_id, last_id, index.count, sha256, path.stat().st_size)


def open_segment(
    layout: Layout, segment: Segment, *, compact: bool, device: str = "cpu"
) -> InvertedFile:
    """Map a segment into memory, and copy it to the GPU if it will be searched there.

    Raises:
        FileNotFoundError: If the file is missing; another process may just have replaced it.
        DamagedError: If the file does not match the catalog.
        StorageError: If the file cannot be read.
    """
    path = layout.segment(segment.number)
    index = _kind(compact=compact).open(path, device=device)
    size = path.stat().st_size
    if size != segment.size:  # Faiss does not notice a few missing bytes at the end
        raise DamagedError(f"{path} has {size:,} bytes, not {segment.size:,}; {REPAIR_IT}")
    if not index.count == index.assigned == segment.count:
        raise DamagedError(f"{path} does not hold {segment.count:,} images; {REPAIR_IT}")
    return index


def _kind(*, compact: bool) -> type[CompactIndex] | type[IvfIndex]:
    """Return the class of an index, importing it only if there is one."""
    if compact:
        from imgsearch.ann.compact import CompactIndex

        return CompactIndex
    from imgsearch.ann.flat import IvfIndex

    return IvfIndex
