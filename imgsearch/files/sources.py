"""Examine and open files at paths, whether in the file system or at URLs.

The module for URLs is imported only when there is a URL.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedReader
from typing import BinaryIO

from imgsearch.errors import ImageError, InputError, reason_of
from imgsearch.files.paths import is_url, real_path
from imgsearch.files.stamps import Stamp, stamp_of

__all__ = [
    "TimedFile",
    "existing",
    "exists",
    "is_folder",
    "open_source",
    "open_timed",
    "says",
    "status_of",
]


@dataclass(frozen=True, slots=True)
class TimedFile:
    """An open file, its time in ns (None if it has none), and `time.time_ns()` just before.

    The time is that of the content or earlier: a write while the file is read gives it a later one.
    """

    file: BufferedReader
    mtime_ns: int | None
    asked_ns: int


def open_source(path: str, accept: Callable[[BinaryIO], object] | None = None) -> BufferedReader:
    """Open a file for reading, fetching it if it is at a URL.

    Args:
        path: Path or URL of the file.
        accept: Function that checks the first bytes before the rest is fetched, if fetching is
            slow; its exceptions are raised.

    Raises:
        ImageError: If it is not a regular file (not `recognised`).
        FileNotFoundError: If there is no such file.
        OSError: If the file cannot be read.
        PackageError: If a package for this kind of URL is not installed.
        SettingError: If there is no such kind of URL.
    """
    return open_timed(path, accept).file


def open_timed(path: str, accept: Callable[[BinaryIO], object] | None = None) -> TimedFile:
    """Open a file as `open_source` does, and return it with its time."""
    if is_url(path):
        from imgsearch.files import urls

        now = time.time_ns()
        found, file = urls.fetch(path, accept)
        return TimedFile(file, found.mtime_ns, now)
    file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115 - it is returned
    now = time.time_ns()
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        file.close()
        raise ImageError(path, "is not a regular file", recognised=False)
    return TimedFile(file, status.st_mtime_ns, now)


def status_of(path: str) -> Stamp:
    """Return the size, times and inode of a file, or only the size and mtime at a URL.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If the status cannot be read.
        PackageError: If a package for this kind of URL is not installed.
        SettingError: If there is no such kind of URL.
    """
    if is_url(path):
        from imgsearch.files import urls

        found = urls.status_of(path)
        return Stamp(found.size, found.mtime_ns)
    return stamp_of(os.stat(path))


def exists(path: bytes) -> bool:
    """Tell whether something is at a path; false if this cannot be determined."""
    if is_url(path):
        from imgsearch.files import urls

        return says(urls.exists, path)
    return os.path.exists(path)


def is_folder(path: bytes) -> bool:
    """Tell whether a folder is at a path; false if this cannot be determined."""
    if is_url(path):
        from imgsearch.files import urls

        return says(urls.is_folder, path)
    return os.path.isdir(path)


def says(asked: Callable[[bytes], bool], url: bytes) -> bool:
    """Return the answer of `asked` about a URL, or false if it cannot be determined."""
    try:
        return asked(url)
    except OSError:
        return False


def existing(path: str | os.PathLike[str]) -> bytes:
    """Return the path under which a file or folder is indexed.

    Raises:
        InputError: If there is no such file or folder, or it cannot be reached.
        PackageError: If it is a URL and a package for its kind is not installed.
        SettingError: If it is a URL of an unknown kind.
    """
    real = real_path(path)
    if is_url(real):
        return _at_url(real)
    if os.path.isdir(real):
        return os.path.realpath(real)
    if not os.path.lexists(real):
        raise InputError(f"{os.fsdecode(path)}: there is no such file or folder")
    return real


def _at_url(url: bytes) -> bytes:
    text = os.fsdecode(url)
    try:
        status_of(text)
    except FileNotFoundError as error:
        raise InputError(f"{text}: there is no such file or folder") from error
    except OSError as error:
        raise InputError(f"{text}: cannot be reached: {reason_of(error)}") from error
    return url


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # Otherwise a pipe waits for a writer.
