"""Keep files in the user's cache that save work, and are trusted with nothing else."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from imgsearch.errors import StorageError
from imgsearch.storage.files import write_atomically

__all__ = ["read_cached", "write_cached"]


def read_cached(path: Path, most: int) -> bytes:
    """Return the content of this user's file, of a number of bytes at most.

    Raises:
        OSError: If there is no readable file.
        ValueError: If it is another user's, not a regular file, or too large.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags), "rb") as file:
        status = os.fstat(file.fileno())
        mine = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
        if not mine or status.st_size > most:
            raise ValueError(path)
        return file.read(most)


def write_cached(path: Path, content: bytes, *, files: int | None = None) -> None:
    """Write a file that nobody else can read, if possible.

    Args:
        path: Path of the file.
        content: Its content.
        files: Number of files that the folder holds at most, of which the oldest are deleted; None
            for any.
    """
    with suppress(OSError, StorageError):  # it only saves work
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(path, lambda sink: sink.write(content), mode=0o600)
        if files is not None:
            by_age = sorted(path.parent.iterdir(), key=lambda each: -each.lstat().st_mtime_ns)
            for old in by_age[files:]:
                old.unlink()
