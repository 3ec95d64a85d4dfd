"""Open the files of a collection, which may be hostile, without following links.

A file is opened relative to its folder. Neither may be a link, and the file must be a regular one.
Opening never blocks, as opening a FIFO would. A file of more than `SPARSE` bytes that consists
almost entirely of holes is refused, too: it takes no space on the disk, but hours to read.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from imgsearch.errors import REPAIR_IT, DamagedError

__all__ = [
    "check_folder",
    "check_regular",
    "is_there",
    "kind_of",
    "open_regular",
    "opened_folder",
    "path_of",
    "read_limited",
]

SPARSE = 64 << 20  # Bytes.
HOLES = 64  # Minimum ratio of the size to the bytes of data.

_FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SEARCH = getattr(os, "O_PATH", os.O_RDONLY)  # Needs no permission to list the folder.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_KINDS = {
    stat.S_IFREG: "is a file",
    stat.S_IFLNK: "is a link",
    stat.S_IFDIR: "is a folder",
    stat.S_IFIFO: "is a FIFO",
    stat.S_IFSOCK: "is a socket",
    stat.S_IFCHR: "is a device",
    stat.S_IFBLK: "is a device",
}


@contextmanager
def opened_folder(folder: Path, *, flags: int = _SEARCH) -> Iterator[int]:
    """Open a folder, which must not be a link, for `dir_fd`.

    With O_RDONLY as `flags`, the folder can be listed as well.

    Raises:
        DamagedError: If the folder is a link.
        OSError: If it cannot be opened; the error has the full path.
    """
    try:
        descriptor = os.open(folder, flags | _FOLDER)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP) and folder.is_symlink():
            raise _damaged(folder, "is a link") from error
        raise
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_regular(path: Path, most: int | None = None) -> BufferedReader:
    """Open a regular file for reading.

    Args:
        path: Path of the file.
        most: Maximum size in bytes; None for no limit.

    Raises:
        DamagedError: If the file or its folder is a link, or if the file is not a regular one, is
            nearly all holes, or is larger than `most`.
        OSError: If it cannot be opened; the error has the full path.
    """
    with opened_folder(path.parent) as folder:
        try:
            descriptor = os.open(path.name, _FILE, dir_fd=folder)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):  # A link, or a socket.
                check_regular(path)
            raise OSError(error.errno, error.strerror, str(path)) from error
    try:
        status = os.fstat(descriptor)
        _check(path, status)
        _check_size(path, status.st_size, most)
        _check_holes(path, descriptor)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_limited(path: Path, most: int) -> bytes:
    """Return the content of a regular file of at most `most` bytes; raise as `open_regular`."""
    with open_regular(path, most) as file:
        content = file.read(min(os.fstat(file.fileno()).st_size, most) + 1)
    _check_size(path, len(content), most)
    return content


def check_regular(path: Path) -> os.stat_result | None:
    """Check a path without opening it, and return its status, or None if nothing is there.

    Raises:
        DamagedError: If the file or its folder is a link, or if it is not a regular file.
        OSError: If this cannot be determined.
    """
    if path.parent.is_symlink():
        raise _damaged(path.parent, "is a link")
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    _check(path, status)
    return status


def check_folder(path: Path) -> None:
    """Check that a path is a folder, if anything is there.

    Raises:
        DamagedError: If it is anything else, such as a link to a folder.
        OSError: If this cannot be determined.
    """
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    if not stat.S_ISDIR(status.st_mode):
        raise _damaged(path, kind_of(status))


def kind_of(status: os.stat_result) -> str:
    """Return the kind of file of a status as the end of a sentence, such as "is a link"."""
    return _KINDS.get(stat.S_IFMT(status.st_mode), "is not a regular file")


def is_there(path: Path) -> bool:
    """Tell whether anything is at a path, even a link that leads nowhere."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def path_of(file: BufferedReader, path: Path) -> str:
    """Return a path by which a library can open exactly this open file, if possible.

    Args:
        file: An open file, which must stay open until then.
        path: Path of that file, used as a fallback; the file there may have been replaced since.
    """
    own = f"/proc/self/fd/{file.fileno()}"
    return own if os.path.exists(own) else str(path)


def _check(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _damaged(path, kind_of(status))


def _check_size(path: Path, size: int, most: int | None) -> None:
    if most is not None and size > most:
        raise _damaged(path, f"has {size:,} bytes, which is more than it can have")


def _check_holes(path: Path, descriptor: int) -> None:
    """Refuse a large file that consists almost entirely of holes."""
    size = os.fstat(descriptor).st_size
    if size <= SPARSE:
        return
    data = end = 0
    try:
        while data <= size // HOLES:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
            end = os.lseek(descriptor, start, os.SEEK_HOLE)
            data += end - start
    except OSError as error:
        if error.errno == errno.ENXIO:  # There is no more data.
            reason = f"has {size:,} bytes, of which only {data:,} were ever written"
            raise _damaged(path, reason) from error
    os.lseek(descriptor, 0, os.SEEK_SET)


def _damaged(path: Path, reason: str) -> DamagedError:
    return DamagedError(f"{path} {reason}; {REPAIR_IT}")
