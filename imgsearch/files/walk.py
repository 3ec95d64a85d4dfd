"""Walk through folders: the names of the files in each, and no more."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass

from imgsearch.errors import reason_of
from imgsearch.files.exclusions import BY_DEFAULT, Exclusions

__all__ = ["Names", "Unreadable", "walk"]


@dataclass(frozen=True, slots=True)
class Names:
    """The sorted names of all files of one folder (its absolute path)."""

    folder: bytes
    names: list[bytes]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A folder that could not be listed, and why."""

    folder: bytes
    reason: str


def walk(
    tops: Iterable[bytes],
    seen: set[tuple[int, int]],
    skipped: Container[bytes] = (),
    exclusions: Exclusions = BY_DEFAULT,
) -> Iterator[Names | Unreadable]:
    """Yield the folders at and under `tops` one by one, depth first, sorted by name.

    Links to folders are followed after all
    real folders, so that a folder that is reached twice is listed once, by its real path if it has
    one; a loop of links ends for the same reason.

    Args:
        tops: absolute paths.
        seen: device and inode of folders not to be entered; those entered are added.
        skipped: absolute paths of folders that are passed over, unless they are of `tops`.
        exclusions: leave folders out, unless they are of `tops`; by default hidden ones and others.
    """
    folders: list[bytes] = [*tops][::-1]
    links: deque[bytes] = deque()
    while folders or links:
        folder = folders.pop() if folders else links.popleft()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            names, real, linked = _scan(folder, exclusions)
        except OSError as error:
            yield Unreadable(folder, reason_of(error))
            continue
        folders += [path for path in reversed(real) if path not in skipped]
        links += [path for path in linked if path not in skipped]
        yield Names(folder, names)


def _scan(folder: bytes, exclusions: Exclusions) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """Return the sorted names of files, and the paths of real and of linked folders."""
    names: list[bytes] = []
    real: list[bytes] = []
    linked: list[bytes] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not _is_folder(entry):
                names.append(entry.name)
            elif not exclusions.has_folder(entry.path):
                (linked if entry.is_symlink() else real).append(entry.path)
    return sorted(names), sorted(real), sorted(linked)


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link into a folder that may not be read, or a loop of links
        return False
