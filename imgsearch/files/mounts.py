"""Tell whether a drive is present, by what is mounted and what an unplugged drive leaves."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from imgsearch.files.paths import is_at, is_url, upwards
from imgsearch.files.sources import is_folder, says

__all__ = ["Mounts", "device_of", "empty_link", "is_gone", "is_lost", "unanswered"]


MOUNTS = Path("/proc/self/mountinfo")  # Only on Linux.


class Mounts:
    """The mount points of file systems at the time when the instance was created."""

    def __init__(self) -> None:
        self._points = _mount_points()

    def has(self, path: bytes) -> bool:
        """Tell whether a file system is mounted at an absolute path."""
        return os.path.ismount(path) if self._points is None else path in self._points

    def among(self, folders: Iterator[bytes], top: bytes) -> set[bytes]:
        """Return the mount points among `folders` and their parents, at or below `top`."""
        if self._points is not None and not self.at(top):
            return set()
        looked_at: set[bytes] = set()
        for folder in folders:
            for path in upwards(folder):
                if path in looked_at or not is_at(path, top):
                    break
                looked_at.add(path)
        return {path for path in looked_at if self.has(path)}

    def at(self, top: bytes) -> set[bytes]:
        """Return the mount points at or below a folder, if the system has a list of them."""
        return {point for point in self._points or () if is_at(point, top)}


def is_gone(path: bytes) -> bool:
    """Tell whether there is no file at a path, as far as can be determined.

    An unreadable file counts as present; so does one behind a link, if the folder that the link
    leads to may be on an unplugged drive.
    """
    if is_url(path):
        from imgsearch.files import urls

        return says(lambda url: not urls.exists(url), path)
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return not os.path.islink(path) or not is_lost(os.path.dirname(os.path.realpath(path)))
    except OSError:
        pass
    return False


def empty_link(folder: bytes) -> bytes | None:
    """Return the nearest existing folder or link at or above a folder if it is a dead link.

    A dead link leads nowhere or to an empty folder.
    """
    if is_url(folder):
        return None
    there = next(path for path in upwards(folder) if os.path.lexists(path))
    return there if os.path.islink(there) and is_lost(there) else None


def is_lost(folder: bytes) -> bool:
    """Tell whether a folder is missing, or empty like the mount point of an unplugged drive."""
    if is_url(folder):
        from imgsearch.files import urls

        return is_gone(folder) or says(urls.is_empty, folder)
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False


def unanswered(tops: Iterable[bytes]) -> list[str]:
    """Return a message for each folder at a URL, among folders that could not be listed.

    A server that does not answer is treated like a drive that is not present.
    """
    urls = sorted(top for top in tops if is_url(top))
    return [f"{os.fsdecode(url)} cannot be listed: its images are kept" for url in urls]


def device_of(folder: bytes) -> int | None:
    """Return a number that identifies a folder's file system; None if it cannot be read."""
    if is_url(folder):
        return 0 if is_folder(folder) else None
    try:
        with os.scandir(folder) as entries:
            next(entries, None)
        return os.stat(folder).st_dev
    except OSError:
        return None


def _mount_points() -> frozenset[bytes] | None:
    """Return the mount points of file systems; None where only `os.path.ismount` can tell."""
    try:
        lines = MOUNTS.read_bytes().splitlines()
    except OSError:
        return None
    # proc(5): the fifth field, with space, tab, newline and backslash as octal escapes.
    return frozenset(line.split()[4].decode("unicode_escape").encode("latin-1") for line in lines)
