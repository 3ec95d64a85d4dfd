"""List the files under a folder, sorted, in blocks, in bounded memory."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from imgsearch.errors import reason_of

__all__ = ["File", "Kind", "Listing", "Unreadable", "list_files", "list_one", "trusted_time"]

BLOCK = 1_000  # files a listing at most: a folder of a million is not held as a million objects
UNTRUSTED_NS = 2_000_000_000  # the coarsest clock of a file system in use, that of FAT


class Kind(Enum):
    """What a directory entry leads to."""

    REGULAR = "regular"
    SPECIAL = "special"  # a pipe, a socket, a device: never opened
    BROKEN = "broken"  # a link that leads nowhere, or a file gone since it was listed


@dataclass(frozen=True, slots=True)
class File:
    """One file of a folder: its name, its size in bytes and its `trusted_time`."""

    name: bytes
    size: int
    mtime_ns: int | None
    kind: Kind = Kind.REGULAR


@dataclass(frozen=True, slots=True)
class Listing:
    """Up to `BLOCK` files of one folder (its absolute path), sorted by name.

    They are all that the folder has with names from `first` to `upto` (None: to the end).
    """

    folder: bytes
    files: tuple[File, ...]
    first: bytes = b""
    upto: bytes | None = None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A folder that could not be listed, and why."""

    folder: bytes
    reason: str


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
    return None if recent else mtime_ns


def list_one(path: bytes) -> Listing:
    """Return the listing of a single file, given by its absolute path."""
    folder, name = os.path.split(path)
    return Listing(folder, (_stat(folder, name),), first=name, upto=name)


def list_files(
    tops: Iterable[bytes], seen: set[tuple[int, int]], skipped: Container[bytes] = ()
) -> Iterator[Listing | Unreadable]:
    """Yield the files under the folders `tops`, depth first, sorted by name.

    Hidden folders are left out, `tops` themselves excepted. Links to folders are followed after all
    real folders, so that a folder that is reached twice is listed once, by its real path if it has
    one; a loop of links ends for the same reason.

    Args:
        tops: absolute paths.
        seen: device and inode of folders not to be entered; those entered are added.
        skipped: absolute paths of folders that are passed over, unless they are of `tops`.
    """
    folders: list[bytes] = [*tops][::-1]
    links: list[bytes] = []
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            names, real, linked = _scan(folder)
        except OSError as error:
            yield Unreadable(folder, reason_of(error))
            continue
        folders += [path for path in reversed(real) if path not in skipped]
        links += [path for path in linked if path not in skipped]
        first = b""
        for start in range(0, len(names), BLOCK):
            block = names[start : start + BLOCK]
            upto = block[-1] if start + BLOCK < len(names) else None
            yield Listing(folder, tuple(_stat(folder, name) for name in block), first, upto)
            first = block[-1] + b"\0"  # the name that comes next, if there is one


def _scan(folder: bytes) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """Return the sorted names of files, and the paths of real and of linked folders."""
    names: list[bytes] = []
    real: list[bytes] = []
    linked: list[bytes] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not _is_folder(entry):
                names.append(entry.name)
            elif not entry.name.startswith(b"."):
                (linked if entry.is_symlink() else real).append(entry.path)
    return sorted(names), sorted(real), sorted(linked)


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link into a folder that may not be read, or a loop of links
        return False


def _stat(folder: bytes, name: bytes) -> File:
    now = time.time_ns()  # for each file: a block on a slow disk takes longer than a time is recent
    try:
        status = os.stat(os.path.join(folder, name))
    except OSError:
        return File(name, 0, 0, Kind.BROKEN)
    kind = Kind.REGULAR if stat.S_ISREG(status.st_mode) else Kind.SPECIAL
    return File(name, status.st_size, trusted_time(status.st_mtime_ns, now), kind)
