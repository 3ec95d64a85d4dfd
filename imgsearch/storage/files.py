"""Write files so that a crash leaves the old one or the new one, and lock a collection."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from imgsearch.errors import REPAIR_IT, BusyError, DamagedError, StorageError, reason_of
from imgsearch.files.opening import check_regular, open_regular, opened_folder, read_limited

__all__ = [
    "Sink",
    "check_room",
    "check_sha256",
    "exclusive",
    "make_folder",
    "read_file",
    "remove_unfinished",
    "remove_unnamed",
    "sha256_of",
    "undisturbed",
    "user_cache",
    "write_atomically",
]

_TEMPORARY = ".tmp"  # suffix of a file that is being written; an orphan once its writer is gone
_RANDOM = r"(\.[0-9a-f]{16})?"  # before it; without by imgsearch 0.3 and before
_NUMBERED = r"[0-9]{8,}(\.ids)?"
_SINGLE = r"collection\.json|catalog\.(seal|copy|sqlite)|model\.onnx"
_LONGEST = 200  # bytes of a name that are kept in that of its temporary file
_LOCK = "lock"
_PATIENCE = 0.2  # seconds to wait for the lock


class Sink:
    """A file being written; it hashes what passes. Python's and Faiss's writers take it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    def write(self, data: Any) -> int:
        """Write bytes, or anything else with a buffer."""
        self._hash.update(data)
        return self._file.write(data)

    def digest(self) -> bytes:
        """Return the SHA-256 of all that was written."""
        return self._hash.digest()


def write_atomically(
    path: Path, fill: Callable[[Sink], object], *, mode: int | None = None
) -> bytes:
    """Write the file `path` and return its SHA-256; only the writer of a collection may.

    It is written under a temporary name beside it, synced, renamed, and its folder synced: after a
    crash there is the whole new file, or what was there before. No link is followed: the temporary
    file has a name that nobody can know before, and a link at `path` is replaced.

    Args:
        path: of a file that may exist already; its folder may be no link.
        fill: writes the content to the sink that it is given.
        mode: permissions, less the umask; None for those of the folder, as far as a file has them.

    Raises:
        DamagedError: the folder is a link.
        StorageError: the disk is full, or may not be written to.
    """
    name = os.fsdecode(os.fsencode(path.name)[:_LONGEST])
    temporary = f"{name}.{os.urandom(8).hex()}{_TEMPORARY}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with opened_folder(path.parent) as folder:
            mode = stat.S_IMODE(os.fstat(folder).st_mode) & 0o666 if mode is None else mode
            try:
                with os.fdopen(os.open(temporary, flags, mode, dir_fd=folder), "wb") as file:
                    sink = Sink(file)
                    fill(sink)
                    file.flush()
                    _sync(file.fileno())
                os.replace(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary, dir_fd=folder)
                raise
        _sync_folder(path.parent)
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {reason_of(error)}; what was committed before is safe, "
            "and the same command goes on from there"
        ) from error
    return sink.digest()


def check_room(folder: Path, size: int) -> None:
    """Check that `size` bytes more fit on the disk of `folder`.

    Raises:
        StorageError: they do not, or nobody can tell.
    """
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise StorageError(f"cannot read {folder}: {reason_of(error)}") from error
    if size > free:
        raise StorageError(
            f"{folder} needs {size / 1e6:,.0f} MB for the index, and its disk has "
            f"{free / 1e6:,.0f} MB left; what was indexed is safe: make room, and run the same "
            "command again"
        )


def make_folder(path: Path, *, mode: int = 0o777) -> None:
    """Make a folder and those above it, durably; it may exist.

    Args:
        path: of the folder.
        mode: its permissions, less the umask, if it is made.

    Raises:
        DamagedError: there is a link.
        StorageError: it cannot be made.
    """
    try:
        missing = [folder for folder in (path, *path.parents) if not folder.is_dir()]
        for folder in reversed(missing):
            folder.mkdir(mode if folder == path else 0o777, exist_ok=True)
            _sync_folder(folder.parent)
        with opened_folder(path):
            pass
    except OSError as error:
        raise StorageError(f"cannot make the folder {path}: {reason_of(error)}") from error


def remove_unnamed(folder: Path, suffix: str, named: set[str]) -> None:
    """Delete the files of `folder` that end in `suffix` and are not `named`, and unfinished ones.

    They are what a crash or a replacement left. Only the writer may call this. Only regular files
    and links are deleted, and only those whose names imgsearch gives: numbers.

    Raises:
        DamagedError: the folder is a link.
        StorageError: the disk cannot be written.
    """
    _remove(folder, _NUMBERED + re.escape(suffix), named)


def remove_unfinished(directory: Path) -> None:
    """Delete the unfinished files beside the catalog; raises as `remove_unnamed`."""
    _remove(directory, _SINGLE, None)


def _remove(folder: Path, pattern: str, named: set[str] | None) -> None:
    """Delete unfinished files of a pattern, and, of finished ones, those that are not `named`."""
    finished = re.compile(pattern)
    unfinished = re.compile(rf"({pattern}){_RANDOM}{re.escape(_TEMPORARY)}")
    try:
        with opened_folder(folder, flags=os.O_RDONLY) as descriptor:
            for name in os.listdir(descriptor):
                dead = named is not None and name not in named and finished.fullmatch(name)
                if dead or unfinished.fullmatch(name):
                    status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
                        os.unlink(name, dir_fd=descriptor)
    except OSError as error:
        raise StorageError(f"cannot clean up {folder}: {reason_of(error)}") from error


def read_file(path: Path, most: int) -> bytes:
    """Return the content of a file of at most `most` bytes.

    Raises:
        FileNotFoundError: there is none.
        DamagedError: it has more, or is no regular file, or a link.
        StorageError: it cannot be read.
    """
    try:
        return read_limited(path, most)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise StorageError(f"cannot read {path}: {reason_of(error)}") from error


def sha256_of(path: Path, most: int | None = None) -> bytes:
    """Return the SHA-256 of a file.

    Args:
        path: Path of the file.
        most: Maximum size in bytes, beyond which nothing is read; None for no limit.

    Raises:
        FileNotFoundError: there is none.
        DamagedError: it is no regular file, or a link, or larger than `most`.
        StorageError: it cannot be read.
    """
    try:
        with open_regular(path, most) as file:
            return hashlib.file_digest(file, "sha256").digest()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageError(f"cannot read {path}: {reason_of(error)}") from error


def check_sha256(path: Path, sha256: bytes) -> None:
    """Check that a file is what was written, before something is made of it.

    Raises:
        FileNotFoundError: there is none.
        DamagedError: it is another.
        StorageError: it cannot be read.
    """
    if sha256_of(path) != sha256:
        raise DamagedError(f"{path} is not what was written; {REPAIR_IT}")


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Hold the lock of the one writer of a collection.

    The operating system releases it when its holder dies.

    Raises:
        BusyError: another writer holds it.
        DamagedError: the lock file is a link, or no regular file.
        StorageError: the lock file cannot be written.
    """
    with ExitStack() as opened:
        try:
            check_regular(directory / _LOCK)
            lock = opened.enter_context(_locked(directory))
        except OSError as error:
            raise StorageError(f"cannot lock {directory}: {reason_of(error)}") from error
        if lock is None:
            raise BusyError(
                f"another imgsearch is writing to {directory}, or verifies it; "
                "try again when it is done"
            )
        yield


@contextmanager
def undisturbed(directory: Path) -> Iterator[None]:
    """Keep writers off while a collection is looked at; others may look, too.

    Where the lock file cannot even be read, or is not there, nobody can be kept off.

    Raises:
        BusyError: a writer is at work.
        DamagedError: the lock file is a link, or no regular file.
    """
    with ExitStack() as opened:
        with suppress(OSError):
            lock = opened.enter_context(open_regular(directory / _LOCK))
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # as the writer does, but shared
            except BlockingIOError:
                raise BusyError(
                    f"another imgsearch is writing to {directory}; try again when it is done"
                ) from None
        yield


def user_cache(name: str) -> Path:
    """Return a folder of this user's cache, which `XDG_CACHE_HOME` moves; it need not be there."""
    above = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(above, "imgsearch", name)


@contextmanager
def _locked(directory: Path) -> Iterator[BinaryIO | None]:
    """Open and lock the lock file; yield None if another holds it.

    Who looks whether somebody writes holds it, too, for a moment (see `undisturbed`): so this waits
    for a moment. A file that was deleted meanwhile locks nobody out.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    end = time.monotonic() + _PATIENCE
    with opened_folder(directory) as folder:
        mode = stat.S_IMODE(os.fstat(folder).st_mode) & 0o666
        while True:
            with os.fdopen(os.open(_LOCK, flags, mode, dir_fd=folder), "rb") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if time.monotonic() > end:
                        yield None
                        return
                else:
                    if _is_named(lock, folder):
                        yield lock
                        return
            time.sleep(0.01)


def _is_named(lock: BinaryIO, folder: int) -> bool:
    """Tell whether the lock file that is open is the one in its folder."""
    try:
        return os.path.samestat(os.fstat(lock.fileno()), os.stat(_LOCK, dir_fd=folder))
    except FileNotFoundError:
        return False


def _sync(descriptor: int) -> None:
    # macOS: fsync hands the data to the drive, which may still lose it; F_FULLFSYNC does not.
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is None:
        os.fsync(descriptor)
    else:
        fcntl.fcntl(descriptor, full)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
