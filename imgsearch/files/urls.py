"""Files at URLs that fsspec supports, such as `s3://bucket/photos/a.jpg`.

This module needs the extra `fsspec`.

To all other modules, a URL is an absolute path: bytes in the catalog, with `/` between its parts.
Any exception of a storage becomes an `OSError` here, and a `FileNotFoundError` only if the storage
has reported that the file does not exist.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BufferedReader, BytesIO
from typing import Any, BinaryIO

from imgsearch.errors import ImgsearchError, SettingError, reason_of, url_package_error
from imgsearch.files.exclusions import BY_DEFAULT, Exclusions
from imgsearch.files.stamps import bounded_size, bounded_time
from imgsearch.files.walk import Unreadable

__all__ = [
    "RemoteFile",
    "RemoteFolder",
    "exists",
    "fetch",
    "is_empty",
    "is_folder",
    "status_of",
    "walk_urls",
]

HEAD = 4_096  # Bytes that decide whether the rest is worth fetching.

_TIMES = ("mtime", "LastModified", "last_modified", "updated", "modified", "created")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file: its name, its size in bytes (0 if unknown), its time in ns (None if unknown)."""

    name: bytes
    size: int
    mtime_ns: int | None
    regular: bool = True


@dataclass(frozen=True, slots=True)
class RemoteFolder:
    """The URL of a folder, its files sorted by name, and `time.time_ns()` before the listing."""

    url: bytes
    files: list[RemoteFile]
    asked_ns: int


def status_of(url: str) -> RemoteFile:
    """Return the file at a URL.

    Raises:
        FileNotFoundError: If nothing is there.
        OSError: If this cannot be determined.
        PackageError: If a package for this kind of URL is not installed.
        SettingError: If there is no such kind of URL.
    """
    files, path = _open(url)
    with _speaking_plainly():
        return _file(files.info(path))


def exists(url: bytes) -> bool:
    """Tell whether anything is at a URL; raise as `status_of` except when nothing is there."""
    try:
        status_of(os.fsdecode(url))
    except FileNotFoundError:
        return False
    return True


def is_folder(url: bytes) -> bool:
    """Tell whether there is a folder at a URL.

    Raises:
        OSError: If this cannot be determined.
        PackageError: If a package for this kind of URL is not installed.
        SettingError: If there is no such kind of URL.
    """
    files, path = _open(os.fsdecode(url))
    with _speaking_plainly():
        files.invalidate_cache(path)  # Drop listings of an earlier run.
        return bool(files.isdir(path))


def is_empty(url: bytes) -> bool:
    """Tell whether a folder is empty; raise as `status_of`."""
    return not any(_entries(url))


def walk_urls(
    tops: Iterable[bytes],
    skipped: Container[bytes] = (),
    exclusions: Exclusions = BY_DEFAULT,
) -> Iterator[RemoteFolder | Unreadable]:
    """Yield the folders at and below `tops`, as `imgsearch.files.walk.walk` does.

    Each folder is listed as a whole, so memory depends on the largest folder.

    Args:
        tops: URLs of folders.
        skipped: URLs of folders to skip, unless they are among `tops`.
        exclusions: Patterns of folders to exclude, unless they are among `tops`.

    Raises:
        PackageError: If a package for this kind of URL is not installed.
        SettingError: If there is no such kind of URL.
    """
    folders = [*tops][::-1]
    fresh = frozenset(folders)
    seen: set[bytes] = set()
    while folders:
        folder = folders.pop()
        if folder in seen:
            continue
        seen.add(folder)
        now = time.time_ns()
        try:
            if folder in fresh:
                _open(os.fsdecode(folder))[0].invalidate_cache()  # Drop listings of an earlier run.
            entries = sorted(_entries(folder), key=lambda entry: entry[1].name)
        except OSError as error:
            yield Unreadable(folder, reason_of(error))
            continue
        below = [folder + b"/" + file.name for deeper, file in entries if deeper]
        shown = (url for url in below if not exclusions.has_folder(url))
        folders += [url for url in shown if url not in skipped][::-1]
        yield RemoteFolder(folder, [file for deeper, file in entries if not deeper], now)


def fetch(
    url: str, accept: Callable[[BinaryIO], object] | None = None
) -> tuple[RemoteFile, BufferedReader]:
    """Return a file's status before reading, and its content in an unnamed temporary file.

    Args:
        url: URL of the file.
        accept: Function that checks the first bytes; its exceptions are raised, and no more is
            fetched.

    Raises:
        FileNotFoundError: If nothing is there.
        OSError: If the file cannot be read, or the temporary folder is full.
        PackageError: If a package for this kind of URL is not installed.
        SettingError: If there is no such kind of URL.
    """
    files, path = _open(url)
    with _speaking_plainly(), files.open(path, "rb") as source:
        # Most kinds of storage have already requested it in order to open the file.
        found = _file(getattr(source, "details", None) or files.info(path))
        head = source.read(HEAD)
        if accept:
            accept(BytesIO(head))
        with tempfile.TemporaryFile() as copy:
            copy.write(head)
            shutil.copyfileobj(source, copy)
            copy.seek(0)
            return found, open(os.dup(copy.fileno()), "rb")


def _open(url: str) -> tuple[Any, str]:
    """Return the file system of a URL and the path in it."""
    try:
        from fsspec.core import url_to_fs

        files, path = url_to_fs(url)
    except ImportError as error:
        raise url_package_error(url, error) from error
    except ValueError as error:
        raise SettingError(f"cannot use {url}: {reason_of(error)}") from error
    except Exception as error:  # Some storages connect at once.
        raise OSError(reason_of(error)) from error
    return files, path


def _entries(folder: bytes) -> Iterator[tuple[bool, RemoteFile]]:
    """Yield, for each entry of a folder, whether it is a folder, and the entry."""
    files, path = _open(os.fsdecode(folder))
    with _speaking_plainly():
        infos = files.ls(path, detail=True)
    above = path.rstrip("/") + "/"
    for info in infos:
        name = info["name"].rstrip("/")
        # An object store may list the folder itself, and a web page may link to other places.
        if name.startswith(above) and "/" not in name[len(above) :]:
            yield info.get("type") == "directory", _file(info)


def _file(info: dict[str, Any]) -> RemoteFile:
    name = _encoded(info["name"].rstrip("/").rpartition("/")[2])
    times = (_nanoseconds(info.get(key)) for key in _TIMES)
    mtime_ns = next((time for time in times if time is not None), None)
    return RemoteFile(name, _bytes(info.get("size")), mtime_ns, info.get("type", "file") == "file")


def _encoded(name: str) -> bytes:
    try:
        return os.fsencode(name)
    except UnicodeEncodeError:  # Half of a surrogate pair: nothing can be there.
        return name.encode("utf-8", "surrogatepass")


def _bytes(size: object) -> int:
    """Return a size, or 0 if a file cannot have it."""
    try:
        return bounded_size(int(size)) if isinstance(size, str | int | float) else 0
    except (ValueError, OverflowError):
        return 0


def _nanoseconds(time: object) -> int | None:
    """Return a time in nanoseconds since 1970, or None; each storage has its own format."""
    try:
        if isinstance(time, str):
            time = datetime.fromisoformat(time)
        if isinstance(time, datetime):
            time = (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
        return bounded_time(round(time * 1e9)) if isinstance(time, int | float) else None
    except (ValueError, OverflowError):  # Not a number, or an infinite one.
        return None


@contextmanager
def _speaking_plainly() -> Iterator[None]:
    """Turn every exception of a storage into an `OSError`; see the module's docstring."""
    try:
        yield
    except ImgsearchError:
        raise
    except FileNotFoundError as error:
        # fsspec raises this for an unreachable server as well, but then with another cause.
        if error.__cause__ is None or isinstance(error.__cause__, FileNotFoundError):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from error
        raise OSError(reason_of(error.__cause__)) from error
    except Exception as error:
        raise OSError(reason_of(error)) from error
