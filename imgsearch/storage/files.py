"""Write files so that a crash leaves either the old or the new one, and lock a collection."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from imgsearch.errors import (
    REPAIR_IT,
    BusyError,
    DamagedError,
    InputError,
    StorageError,
    reason_of,
)
from imgsearch.files.opening import check_regular, open_regular, opened_folder, read_limited

__all__ = [
    "Sink",
    "check_room",
    "check_sha256",
    "copy_file",
    "exclusive",
    "link_file",
    "make_folder",
    "move_file",
    "read_file",
    "remove_folder",
    "remove_unfinished",
    "remove_unnamed",
    "sha256_of",
    "undisturbed",
    "user_cache",
    "write_atomically",
    "write_folder",
    "write_result",
]

_TEMPORARY = ".tmp"  # suffix of a file being written; an orphan once its writer is gone
_RANDOM = r"(\.[0-9a-f]{16})?"  # precedes the suffix; imgsearch 0.3 and older did without
_NUMBERED = r"[0-9]{8,}(\.ids)?"
_SINGLE = r"collection\.json|catalog\.(seal|copy|sqlite)|(model|words)\.onnx|not-duplicates"
_LONGEST = 200  # bytes of a file's name that are kept in the name of its temporary file
_LOCK = "lock"
_PATIENCE = 0.2  # seconds to wait for the lock


class Sink:
    """A file being written, which hashes its content; Python's and Faiss's writers accept it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    def write(self, data: Any) -> int:
        """Write bytes, or any other object with a buffer."""
        self._hash.update(data)
        return self._file.write(data)

    def digest(self) -> bytes:
        """Return the SHA-256 of everything written."""
        return self._hash.digest()


def write_atomically(
    path: Path, fill: Callable[[Sink], object], *, mode: int | None = None
) -> bytes:
    """Write the file `path` and return its SHA-256; for the writer of a collection only.

    The file is written under a temporary name beside `path`, synced and renamed, and its folder is
    synced: after a crash, either the whole new file exists, or the old state. No link is followed:
    the name of the temporary file cannot be guessed, and a link at `path` is replaced.

    Args:
        path: Path of the file, which may already exist; its folder may not be a link.
        fill: Function that writes the content to a sink.
        mode: Permissions, less the umask; None for those of the folder, as far as they apply to a
            file.

    Raises:
        DamagedError: If the folder is a link.
        StorageError: If the disk is full or cannot be written.
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
            f"cannot write {path}: {reason_of(error)}; everything committed so far is kept; run "
            f"the same command again to resume"
        ) from error
    return sink.digest()


def write_result(path: Path, fill: Callable[[Sink], object], what: str) -> None:
    """Write a file that a user asked for atomically.

    Args:
        path: Path of the file, which is replaced if it exists.
        fill: Function that writes the content.
        what: What the file is, for messages.

    Raises:
        StorageError: If the file cannot be written. Where this can be known beforehand, `fill` is
            not called.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():  # otherwise a file would replace a device
        raise StorageError(f"cannot write the {what} {path}: it is not a regular file")
    try:
        write_atomically(target, fill, mode=0o666)
    except StorageError as error:
        if error.__cause__ and str(error).startswith(f"cannot write {target}: "):
            # Reworded: the message for a collection's file promises that nothing is lost.
            reason = reason_of(error.__cause__)
            raise StorageError(f"cannot write the {what} {path}: {reason}") from error
        raise  # the collection could not be read


def write_folder(
    path: Path, fill: Callable[[Path], object], what: str, *, replaces: Callable[[str], bool]
) -> None:
    """Write a folder that a user asked for, under a temporary name that it loses at the end.

    Args:
        path: Path of the folder. If it exists, it is replaced.
        fill: Function that writes the content into the folder that it is given.
        what: What the folder is, for messages.
        replaces: Function that tells whether an entry of an existing folder, given by its name, may
            be lost.

    Raises:
        InputError: If there is something else at the path, or an entry that may not be lost.
        StorageError: If the folder cannot be written.
    """
    target = Path(os.path.realpath(path))
    import shutil

    try:
        check_replaceable(target, what, replaces)
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.parent / f".{target.name[: _LONGEST // 4]}.{os.urandom(8).hex()}"
        made, old = (beside.with_name(beside.name + suffix) for suffix in (_TEMPORARY, ".old"))
        try:
            made.mkdir()
            fill(made)
            check_replaceable(target, what, replaces)
            if target.exists():
                target.rename(old)
            made.rename(target)
        except BaseException:
            if old.exists() and not target.exists():
                old.rename(target)
            shutil.rmtree(made, ignore_errors=True)
            raise
        _sync_folder(target.parent)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise StorageError(f"cannot write the {what} {path}: {reason_of(error)}") from error


def check_replaceable(path: Path, what: str, replaces: Callable[[str], bool]) -> None:
    """Check that a folder is absent, or holds nothing that may not be lost; see `write_folder`."""
    if not os.path.lexists(path):
        return
    if not path.is_dir():
        raise InputError(f"cannot write the {what} {path}: it is not a folder")
    for name in sorted(os.listdir(path)):
        if not replaces(name):
            raise InputError(
                f"cannot write the {what} {path}: it holds {name}, which is not part of one; give "
                "a folder that does not exist yet"
            )


def link_file(source: Path, target: Path, sha256: bytes) -> None:
    """Give a file that never changes a second name, or copy it where links are impossible.

    Args:
        source: Path of the file.
        target: The other path; a file there is replaced.
        sha256: SHA-256 of the file.

    Raises:
        FileNotFoundError: If there is no such file.
        DamagedError: If the file is not as it was written.
        StorageError: If the disk is full or cannot be written.
    """
    check_regular(source)
    try:
        target.unlink(missing_ok=True)
        os.link(source, target, follow_symlinks=False)
        _sync_folder(target.parent)
    except FileNotFoundError:
        raise
    except OSError:  # such as a file system without links
        if copy_file(source, target) != sha256:
            raise DamagedError(f"{source} has changed since it was written; {REPAIR_IT}") from None


def copy_file(source: Path, target: Path) -> bytes:
    """Copy a file atomically, and return its SHA-256.

    Raises:
        FileNotFoundError: If there is no such file.
        DamagedError: If it is not a regular file.
        StorageError: If the disk is full or cannot be written.
    """
    import shutil

    with open_regular(source) as file:
        return write_atomically(target, lambda sink: shutil.copyfileobj(file, sink, 1 << 20))


def move_file(source: Path, target: Path) -> None:
    """Move a file to another path of the same disk, replacing what is there, unless it is missing.

    Raises:
        DamagedError: If one of the folders is a link.
        StorageError: If the disk cannot be written.
    """
    try:
        with opened_folder(source.parent) as old, opened_folder(target.parent) as new:
            os.replace(source.name, target.name, src_dir_fd=old, dst_dir_fd=new)
        _sync_folder(target.parent)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"cannot write {target}: {reason_of(error)}") from error


def remove_folder(path: Path) -> None:
    """Delete a folder of our own with everything in it, if it is there; no link is followed.

    Raises:
        StorageError: If something cannot be deleted.
    """
    import shutil

    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"cannot remove {path}: {reason_of(error)}") from error


def check_room(folder: Path, size: int) -> None:
    """Check that another `size` bytes fit on the disk of `folder`.

    Raises:
        StorageError: If they do not fit, or the free space cannot be determined.
    """
    try:
        import shutil

        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise StorageError(f"cannot read {folder}: {reason_of(error)}") from error
    if size > free:
        raise StorageError(
            f"{folder} needs {size / 1e6:,.0f} MB for the index, but its disk has "
            f"{free / 1e6:,.0f} MB left; everything indexed so far is kept: free some space, and "
            f"run the same command again"
        )


def make_folder(path: Path, *, mode: int = 0o777) -> None:
    """Create a folder and its parents durably, unless they exist.

    Args:
        path: Path of the folder.
        mode: Permissions of the folder if it is created, less the umask.

    Raises:
        DamagedError: If the path is a link.
        StorageError: If the folder cannot be created.
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
    """Delete files of `folder` that end in `suffix` and are not `named`, and unfinished files.

    A crash or a replacement left them behind. Only the writer may call this. Only regular files and
    links are deleted, and only those with a name that imgsearch assigns: a number.

    Raises:
        DamagedError: If the folder is a link.
        StorageError: If the disk cannot be written.
    """
    _remove(folder, _NUMBERED + re.escape(suffix), named)


def remove_unfinished(directory: Path) -> None:
    """Delete the unfinished files beside the catalog; raises as `remove_unnamed`."""
    _remove(directory, _SINGLE, None)


def _remove(folder: Path, pattern: str, named: set[str] | None) -> None:
    """Delete the unfinished files that match a pattern, and the finished ones not `named`."""
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
        FileNotFoundError: If the file does not exist.
        DamagedError: If the file is larger, is a link, or is not a regular file.
        StorageError: If the file cannot be read.
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
        FileNotFoundError: If the file does not exist.
        DamagedError: If the file is a link, is not a regular file, or is larger than `most`.
        StorageError: If the file cannot be read.
    """
    try:
        with open_regular(path, most) as file:
            return hashlib.file_digest(file, "sha256").digest()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageError(f"cannot read {path}: {reason_of(error)}") from error


def check_sha256(path: Path, sha256: bytes) -> None:
    """Check that a file still holds what was written, before its content is used.

    Raises:
        FileNotFoundError: If the file does not exist.
        DamagedError: If the file has changed.
        StorageError: If the file cannot be read.
    """
    if sha256_of(path) != sha256:
        raise DamagedError(f"{path} has changed since it was written; {REPAIR_IT}")


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Hold the lock of a collection, as its only writer.

    The operating system releases the lock when its holder dies.

    Raises:
        BusyError: If another writer holds the lock.
        DamagedError: If the lock file is a link or is not a regular file.
        StorageError: If the lock file cannot be written.
    """
    with ExitStack() as opened:
        try:
            check_regular(directory / _LOCK)
            lock = opened.enter_context(_locked(directory))
        except OSError as error:
            raise StorageError(f"cannot lock {directory}: {reason_of(error)}") from error
        if lock is None:
            raise BusyError(
                f"another imgsearch is writing to {directory}, or is verifying it; try again when "
                f"it is done"
            )
        yield


@contextmanager
def undisturbed(directory: Path) -> Iterator[None]:
    """Keep writers out while a collection is inspected; other inspections may run as well.

    If the lock file is missing or cannot even be read, writers cannot be kept out.

    Raises:
        BusyError: If a writer is at work.
        DamagedError: If the lock file is a link or is not a regular file.
    """
    with ExitStack() as opened:
        with suppress(OSError):
            lock = opened.enter_context(open_regular(directory / _LOCK))
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # the writer's lock, but shared
            except BlockingIOError:
                raise BusyError(
                    f"another imgsearch is writing to {directory}; try again when it is done"
                ) from None
        yield


def user_cache(name: str) -> Path:
    """Return a folder of the user's cache (`XDG_CACHE_HOME`), which may not exist."""
    above = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(above, "imgsearch", name)


@contextmanager
def _locked(directory: Path) -> Iterator[BinaryIO | None]:
    """Open and lock the lock file; yield None if another process holds the lock.

    A check for writers holds the lock briefly, too (see `undisturbed`), so this waits briefly. The
    lock of a file that was deleted in the meantime keeps nobody out.
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
    """Tell whether the open lock file is the one in its folder."""
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
