"""Whether a drive is there: what is mounted, and what is left where one was unplugged."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from imgsearch.files import urls as remote
from imgsearch.files.paths import is_at, is_url, upwards
from imgsearch.files.sources import is_folder, says

__all__ = ["Mounts", "device_of", "empty_link", "is_gone", "is_lost", "unanswered"]


MOUNTS = Path("/proc/self/mountinfo")  # Linux


class Mounts:
    """Where file systems are mounted, as it was when this was made."""

    def __init__(self) -> None:
        self._points = _mount_points()

    def has(self, path: bytes) -> bool:
        """Tell whether one is mounted at an absolute path."""
        return os.path.ismount(path) if self._points is None else path in self._points

    def among(self, folders: Iterator[bytes], top: bytes) -> set[bytes]:
        """Return where one is mounted of `folders` and those above them, at or below `top`."""
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
        """Return where one is mounted at or below a folder, as far as the system has a list."""
        return {point for point in self._points or () if is_at(point, top)}


def is_gone(path: bytes) -> bool:
    """Tell whether there is no file at a path, as far as can be seen.

    One that may not be read is there; so is one behind a link, if the folder that it leads to may
    be on an unplugged drive.
    """
    if is_url(path):
        return says(lambda url: not remote.exists(url), path)
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return not os.path.islink(path) or not is_lost(os.path.dirname(os.path.realpath(path)))
    except OSError:
        pass
    return False


def empty_link(folder: bytes) -> bytes | None:
    """Return the link above a folder, or the folder itself, that leads to nothing, if one does."""
    if is_url(folder):
        return None
    there = next(path for path in upwards(folder) if os.path.lexists(path))
    return there if os.path.islink(there) and is_lost(there) else None


def is_lost(folder: bytes) -> bool:
    """Tell whether a folder is missing, or empty as where a drive is mounted."""
    if is_url(folder):
        return is_gone(folder) or says(remote.is_empty, folder)
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False


def unanswered(tops: Iterable[bytes]) -> list[str]:
    """Return what to say of folders to look at that could not be listed, and are at URLs.

    A server that does not answer is like a drive that is not there.
    """
    urls = sorted(top for top in tops if is_url(top))
    return [f"{os.fsdecode(url)} cannot be listed: its images are kept" for url in urls]


def device_of(folder: bytes) -> int | None:
    """Return a number that stands for the file system of a folder, None if it cannot be read."""
    if is_url(folder):
        return 0 if is_folder(folder) else None
    try:
        with os.scandir(folder) as entries:
            next(entries, None)
        return os.stat(folder).st_dev
    except OSError:
        return None


def _mount_points() -> frozenset[bytes] | None:
    """Return where file systems are mounted; None where only `os.path.ismount` can tell."""
    try:
        lines = MOUNTS.read_bytes().splitlines()
    except OSError:
        return None
    # proc(5): the fifth field, with space, tab, newline and backslash as octal escapes.
    return frozenset(line.split()[4].decode("unicode_escape").encode("latin-1") for line in lines)
