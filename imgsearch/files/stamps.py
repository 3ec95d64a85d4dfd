"""The status of a file, which reveals changes, with its values bounded on input.

A file system may report anything: a time before 1677, a 64-bit inode number, a negative size. All
values must fit into a signed 64-bit integer, or a single file would end every run.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

__all__ = [
    "LARGEST",
    "Stamp",
    "bounded_size",
    "bounded_time",
    "is_settled",
    "stamp_of",
    "trusted_time",
]

LARGEST = 2**63 - 1  # The smallest is -LARGEST, as Milvus gives -2**63 another meaning.
UNTRUSTED_NS = 2_000_000_000  # The coarsest clock of a file system in use, that of FAT.


@dataclass(frozen=True, slots=True)
class Stamp:
    """The size of a file in bytes, its times in nanoseconds and its inode; None if unknown."""

    size: int
    mtime_ns: int | None
    ctime_ns: int | None = None
    inode: int | None = None


def stamp_of(status: os.stat_result) -> Stamp:
    """Return the bounded values of an `os.stat` result."""
    return Stamp(
        bounded_size(status.st_size),
        bounded_time(status.st_mtime_ns),
        bounded_time(status.st_ctime_ns),
        status.st_ino if status.st_ino <= LARGEST else status.st_ino - 2**64,  # The same 64 bits.
    )


def bounded_size(size: int) -> int:
    """Return the nearest size that can be stored."""
    return size if 0 <= size <= LARGEST else max(0, min(size, LARGEST))


def bounded_time(time_ns: int) -> int:
    """Return the nearest time that can be stored, between 1677 and 2262."""
    # Not None, or such a file would be read in every run; its ctime reveals changes.
    return time_ns if -LARGEST <= time_ns <= LARGEST else max(-LARGEST, min(time_ns, LARGEST))


def is_settled(stamp: Stamp, now_ns: int) -> bool:
    """Tell whether any later change of the file will give it another stamp.

    Args:
        stamp: Stamp of the file.
        now_ns: `time.time_ns()` just before the stamp was taken.
    """
    return stamp.mtime_ns is not None and now_ns - stamp.mtime_ns >= UNTRUSTED_NS


def trusted_time(mtime_ns: int, now_ns: int) -> int | None:
    """Return a file's modification time, or None if it says nothing about the file's content.

    Args:
        mtime_ns: Modification time in nanoseconds.
        now_ns: `time.time_ns()` just before the time of the file was read.
    """
    # A file that changes twice within one tick of its file system's clock has the same time for two
    # contents, and this call may fall between the two. A time further ahead does not come from the
    # clock: a program has set it, and the next change sets another.
    recent = -UNTRUSTED_NS <= now_ns - mtime_ns < UNTRUSTED_NS
    return None if recent else bounded_time(mtime_ns)
