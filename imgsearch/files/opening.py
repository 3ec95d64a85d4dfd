"""Open the files of a collection, which somebody else may have made, without following it anywhere.

A file is opened relative to its folder. Neither may be a link, the file has to be a regular one,
and opening it never waits, as opening a FIFO does. A file of more than `SPARSE` bytes that is
nearly all holes is refused, too: it takes no room on the disk, and hours to read.
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

SPARSE = 64 << 20  # bytes
HOLES = 64  # times as many bytes as there are data

_FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SEARCH = getattr(os, "O_PATH", os.O_RDONLY)  # needs no permission to list the folder
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
    """Open a folder, which may be no link, for `dir_fd`; `flags` O_RDONLY lets it be listed.

    Raises:
        DamagedError: it is a link.
        OSError: it cannot be opened; the error has its full path.
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
        DamagedError: it, or its folder, is a link; or it is no regular file, nearly all holes, or
            larger than `most`.
        OSError: it cannot be opened; the error has its full path.
    """
    with opened_folder(path.parent) as folder:
        try:
            descriptor = os.open(path.name, _FILE, dir_fd=folder)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):  # a link; a socket
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
    """Return the content of a regular file of at most so many bytes; raises as `open_regular`."""
    with open_regular(path, most) as file:
        content = file.read(min(os.fstat(file.fileno()).st_size, most) + 1)
    _check_size(path, len(content), most)
    return content


def check_regular(path: Path) -> os.stat_result | None:
    """Check what is at a path without opening it; return its status, None if nothing is there.

    Raises:
        DamagedError: it, or its folder, is a link; or it is no regular file.
        OSError: nobody can tell.
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
    """Check that what is at a path is a folder, if anything is there.

    Raises:
        DamagedError: it is something else, such as a link to one.
        OSError: nobody can tell.
    """
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    if not stat.S_ISDIR(status.st_mode):
        raise _damaged(path, kind_of(status))


def kind_of(status: os.stat_result) -> str:
    """Return what a status is of, as the end of a sentence: "is a link"."""
    return _KINDS.get(stat.S_IFMT(status.st_mode), "is no regular file")


def is_there(path: Path) -> bool:
    """Tell whether anything is at a path, be it a link that leads nowhere."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def path_of(file: BufferedReader, path: Path) -> str:
    """Return a path by which a library opens the very file that is open here, if there is one.

    Args:
        file: an open file, which stays open meanwhile.
        path: of that file; what is there may have been replaced since.
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
    """Refuse a large file that is nearly all holes."""
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
        if error.errno == errno.ENXIO:  # there is no more data
            reason = f"has {size:,} bytes, of which only {data:,} were ever written"
            raise _damaged(path, reason) from error
    os.lseek(descriptor, 0, os.SEEK_SET)


def _damaged(path: Path, reason: str) -> DamagedError:
    return DamagedError(f"{path} {reason}; {REPAIR_IT}")
