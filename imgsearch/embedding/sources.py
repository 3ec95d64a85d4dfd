"""What is at a path, wherever that is: in the file system, or at a URL."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from io import BufferedReader
from typing import BinaryIO

from imgsearch.embedding import remote
from imgsearch.embedding.remote import is_url
from imgsearch.errors import ImageError

__all__ = ["exists", "is_folder", "is_url", "open_source", "status_of"]


def open_source(path: str, accept: Callable[[BinaryIO], object] | None = None) -> BufferedReader:
    """Open a file for reading; one at a URL is fetched.

    Args:
        path: of the file.
        accept: is shown the first bytes before the rest is fetched, if that takes long: what it
            raises is raised.

    Raises:
        ImageError: it is no regular file (not `recognised`).
        FileNotFoundError: it is not there.
        OSError: it cannot be read.
        SettingError: a package for this kind of URL is missing.
    """
    if is_url(path):
        return remote.fetch(path, accept)
    file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115 - it is returned
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ImageError(path, "is not a regular file", recognised=False)
    return file


def status_of(path: str) -> tuple[int, int | None]:
    """Return the size of a file in bytes, and its time in nanoseconds, None if it has none.

    Raises:
        FileNotFoundError: it is not there.
        OSError: it cannot be looked at.
        SettingError: a package for this kind of URL is missing.
    """
    if is_url(path):
        found = remote.status_of(path)
        return found.size, found.mtime_ns
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def exists(path: bytes) -> bool:
    """Tell whether something is there; not if that cannot be seen."""
    return _says(remote.exists, path) if is_url(path) else os.path.exists(path)


def is_folder(path: bytes) -> bool:
    """Tell whether a folder is there; not if that cannot be seen."""
    return _says(remote.is_folder, path) if is_url(path) else os.path.isdir(path)


def _says(asked: Callable[[bytes], bool], url: bytes) -> bool:
    try:
        return asked(url)
    except OSError:
        return False


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # or a pipe would wait for somebody to write to it
