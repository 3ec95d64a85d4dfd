"""List the files under a folder, sorted, in blocks, in bounded memory."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from imgsearch.errors import reason_of

__all__ = ["File", "Kind", "Listing", "Unreadable", "list_files", "list_one"]

BLOCK = 1_000  # files a listing at most: a folder of a million is not held as a million objects


class Kind(Enum):
    """What a directory entry leads to."""

    REGULAR = "regular"
    SPECIAL = "special"  # a pipe, a socket, a device: never opened
    BROKEN = "broken"  # a link that leads nowhere, or a file gone since it was listed


@dataclass(frozen=True, slots=True)
class File:
    """One file of a folder: its name, its size in bytes and its modification time."""

    name: bytes
    size: int
    mtime_ns: int
    kind: Kind = Kind.REGULAR


@dataclass(frozen=True, slots=True)
class Listing:
    """Up to `BLOCK` files of one folder (its absolute path), sorted by name."""

    folder: bytes
    files: tuple[File, ...]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A folder that could not be listed, and why."""

    folder: bytes
    reason: str


def list_one(path: bytes) -> Listing:
    """Return the listing of a single file, given by its absolute path."""
    folder, name = os.path.split(path)
    return Listing(folder, (_stat(folder, name),))


def list_files(top: bytes, seen: set[tuple[int, int]]) -> Iterator[Listing | Unreadable]:
    """Yield the files under the folder `top`, depth first, sorted by name.

    Hidden folders are left out, `top` itself excepted. Links to folders are followed after all real
    folders, so that a folder that is reached twice is listed once, by its real path if it has one;
    a loop of links ends for the same reason.

    Args:
        top: an absolute path.
        seen: device and inode of folders not to be entered; those entered are added.
    """
    folders: list[bytes] = [top]
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
        folders += reversed(real)
        links += linked
        for start in range(0, len(names), BLOCK):
            block = names[start : start + BLOCK]
            yield Listing(folder, tuple(_stat(folder, name) for name in block))


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
    try:
        status = os.stat(os.path.join(folder, name))
    except OSError:
        return File(name, 0, 0, Kind.BROKEN)
    kind = Kind.REGULAR if stat.S_ISREG(status.st_mode) else Kind.SPECIAL
    return File(name, status.st_size, status.st_mtime_ns, kind)
