"""What a file system says of a file, by which a change is noticed, bounded where it enters.

A file system may say anything: a time before 1677, an inode number of 64 bits, a negative size. All
of it has to fit into a signed integer of 64 bits, or a single file would end every run.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

__all__ = [
    "LARGEST",
    "Stamp",
    "bounded_size",
    "bounded_time",
    "stamp_of",
    "trusted_time",
]

LARGEST = 2**63 - 1  # and its negative: the smallest is left to mean something else in Milvus
UNTRUSTED_NS = 2_000_000_000  # the coarsest clock of a file system in use, that of FAT


@dataclass(frozen=True, slots=True)
class Stamp:
    """The size of a file in bytes, its times in nanoseconds and its inode; None where unknown."""

    size: int
    mtime_ns: int | None
    ctime_ns: int | None = None
    inode: int | None = None


def stamp_of(status: os.stat_result) -> Stamp:
    """Return what `os.stat` says of a file, bounded."""
    return Stamp(
        bounded_size(status.st_size),
        bounded_time(status.st_mtime_ns),
        bounded_time(status.st_ctime_ns),
        status.st_ino if status.st_ino <= LARGEST else status.st_ino - 2**64,  # the same 64 bits
    )


def bounded_size(size: int) -> int:
    """Return a size that can be kept: the nearest one to what was said."""
    return size if 0 <= size <= LARGEST else max(0, min(size, LARGEST))


def bounded_time(time_ns: int) -> int:
    """Return a time that can be kept, from 1677 to 2262: the nearest one to what was said."""
    # Not None, or such a file would be read at each run; that it has changed is told by its ctime.
    return time_ns if -LARGEST <= time_ns <= LARGEST else max(-LARGEST, min(time_ns, LARGEST))


def trusted_time(mtime_ns: int, now_ns: int) -> int | None:
    """Return a file's modification time, None where it says nothing about the file's content.

    Args:
        mtime_ns: the time, in nanoseconds.
        now_ns: `time.time_ns()` as it was just before the file was asked for its time.
    """
    # A file that is changed twice while the clock of its file system stands still keeps one time
    # for two contents, and this may be between the two. A time ahead of that is not the clock's:
    # somebody has set it, and the next change sets another.
    recent = -UNTRUSTED_NS <= now_ns - mtime_ns < UNTRUSTED_NS
    return None if recent else bounded_time(mtime_ns)
