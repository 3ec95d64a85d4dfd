"""Walk through folders and list only the names of the files in each."""

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
    """A folder that could not be listed, and the reason."""

    folder: bytes
    reason: str


def walk(
    tops: Iterable[bytes],
    seen: set[tuple[int, int]],
    skipped: Container[bytes] = (),
    exclusions: Exclusions = BY_DEFAULT,
) -> Iterator[Names | Unreadable]:
    """Yield the folders at and below `tops` one by one, depth first, sorted by name.

    Links to folders are followed after all real folders. A folder that is reached twice is thus
    listed only once, by its real path if there is one; a loop of links ends for the same reason.

    Args:
        tops: Absolute paths of folders.
        seen: Device and inode of folders not to enter; each entered folder is added.
        skipped: Absolute paths of folders to skip, unless they are among `tops`.
        exclusions: Patterns of folders to exclude, unless they are among `tops`; by default hidden
            folders and some others.
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
    """Return the sorted names of files, and the sorted paths of real and of linked folders."""
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
    except OSError:  # A link into an unreadable folder, or a loop of links.
        return False
