"""Write files so that a crash leaves the old one or the new one, and lock a collection."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import filelock

from imgsearch.errors import MEND, BusyError, DamagedError, StorageError, reason_of

__all__ = [
    "Sink",
    "check_room",
    "check_sha256",
    "exclusive",
    "make_folder",
    "remove_unnamed",
    "sha256_of",
    "undisturbed",
    "user_cache",
    "write_atomically",
]

_TEMPORARY = ".tmp"  # suffix of a file that is being written; an orphan once its writer is gone


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


def write_atomically(path: Path, fill: Callable[[Sink], object]) -> bytes:
    """Write the file `path` and return its SHA-256; only the writer of a collection may.

    It is written under a temporary name beside it, synced, renamed, and its folder synced: after a
    crash there is the whole new file, or what was there before.

    Args:
        path: of a file that may exist already.
        fill: writes the content to the sink that it is given.

    Raises:
        StorageError: the disk is full, or may not be written to.
    """
    temporary = path.with_name(path.name + _TEMPORARY)
    try:
        with temporary.open("wb") as file:
            sink = Sink(file)
            fill(sink)
            file.flush()
            _sync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise StorageError(
                f"cannot write {path}: {reason_of(error)}; what was committed before is safe, "
                "and the same command goes on from there"
            ) from error
        raise
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


def make_folder(path: Path) -> None:
    """Make a folder and those above it, durably; it may exist.

    Raises:
        StorageError: it cannot be made.
    """
    try:
        missing = [folder for folder in (path, *path.parents) if not folder.is_dir()]
        path.mkdir(parents=True, exist_ok=True)
        for folder in missing:
            _sync_folder(folder.parent)
    except OSError as error:
        raise StorageError(f"cannot make the folder {path}: {reason_of(error)}") from error


def remove_unnamed(folder: Path, suffix: str, named: set[str]) -> None:
    """Delete the files of `folder` that end in `suffix` and are not `named`, and unfinished ones.

    They are what a crash or a replacement left. Only the writer may call this.

    Raises:
        StorageError: the disk cannot be written.
    """
    try:
        for path in folder.iterdir():
            if path.name.endswith((suffix, suffix + _TEMPORARY)) and path.name not in named:
                path.unlink()
    except OSError as error:
        raise StorageError(f"cannot clean up {folder}: {reason_of(error)}") from error


def sha256_of(path: Path) -> bytes:
    """Return the SHA-256 of a file.

    Raises:
        FileNotFoundError: there is none.
        StorageError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
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
        raise DamagedError(f"{path} is not what was written; {MEND}")


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Hold the lock of the one writer of a collection.

    The operating system releases it when its holder dies.

    Raises:
        BusyError: another writer holds it.
        StorageError: the lock file cannot be written.
    """
    # Who looks whether somebody writes holds it, too, for a moment: see `undisturbed`.
    lock = filelock.FileLock(directory / "lock", timeout=0.2)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise BusyError(
            f"another imgsearch is writing to {directory}, or verifies it; "
            "try again when it is done"
        ) from None
    except (OSError, NotImplementedError) as error:
        raise StorageError(f"cannot lock {directory}: {reason_of(error)}") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def undisturbed(directory: Path) -> Iterator[None]:
    """Keep writers off while a collection is looked at; others may look, too.

    Where the lock file cannot even be read, or is not there, nobody can be kept off.

    Raises:
        BusyError: a writer is at work.
    """
    with ExitStack() as opened:
        with suppress(OSError):
            lock = opened.enter_context((directory / "lock").open("rb"))
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # as filelock does, but shared
            except BlockingIOError:
                raise BusyError(
                    f"another imgsearch is writing to {directory}; try again when it is done"
                ) from None
        yield


def user_cache(name: str) -> Path:
    """Return a folder of this user's cache, which `XDG_CACHE_HOME` moves; it need not be there."""
    above = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(above, "imgsearch", name)


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
