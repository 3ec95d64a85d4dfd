"""Files at URLs that fsspec knows, such as `s3://bucket/photos/a.jpg`. Needs the extra `fsspec`.

To all else a URL is an absolute path: bytes in the catalog, with `/` between its parts. Whatever a
kind of storage raises becomes an `OSError` here, and `FileNotFoundError` only where it has said so.
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

HEAD = 4_096  # bytes by which it is told whether the rest is worth fetching

_TIMES = ("mtime", "LastModified", "last_modified", "updated", "modified", "created")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file: its name, its size in bytes (0 if unknown), its time in nanoseconds (None if so)."""

    name: bytes
    size: int
    mtime_ns: int | None
    regular: bool = True


@dataclass(frozen=True, slots=True)
class RemoteFolder:
    """A folder, by its URL, its files, sorted by name, and `time.time_ns()` just before."""

    url: bytes
    files: list[RemoteFile]
    asked_ns: int


def status_of(url: str) -> RemoteFile:
    """Return what is at a URL.

    Raises:
        FileNotFoundError: nothing.
        OSError: that cannot be told.
        PackageError: a package for this kind of URL is not installed.
        SettingError: there is no such kind of URL.
    """
    files, path = _open(url)
    with _speaking_plainly():
        return _file(files.info(path))


def exists(url: bytes) -> bool:
    """Tell whether there is anything at a URL; raises as `status_of`, but when there is nothing."""
    try:
        status_of(os.fsdecode(url))
    except FileNotFoundError:
        return False
    return True


def is_folder(url: bytes) -> bool:
    """Tell whether there is a folder at a URL.

    Raises:
        OSError: that cannot be told.
        PackageError: a package for this kind of URL is not installed.
        SettingError: there is no such kind of URL.
    """
    files, path = _open(os.fsdecode(url))
    with _speaking_plainly():
        files.invalidate_cache(path)  # what an earlier run has listed
        return bool(files.isdir(path))


def is_empty(url: bytes) -> bool:
    """Tell whether nothing is in a folder; raises as `status_of`."""
    return not any(_entries(url))


def walk_urls(
    tops: Iterable[bytes],
    skipped: Container[bytes] = (),
    exclusions: Exclusions = BY_DEFAULT,
) -> Iterator[RemoteFolder | Unreadable]:
    """Yield the folders at and under `tops`, as `imgsearch.files.walk.walk` does.

    A folder is listed as a whole: memory is that of the largest.

    Args:
        tops: URLs.
        skipped: URLs of folders that are passed over, unless they are of `tops`.
        exclusions: leave folders out, unless they are of `tops`.

    Raises:
        PackageError: a package for this kind of URL is not installed.
        SettingError: there is no such kind of URL.
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
                _open(os.fsdecode(folder))[0].invalidate_cache()  # what an earlier run has listed
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
    """Return what is at a URL, as it was before, and its content, in a temporary file with no name.

    Args:
        url: of the file.
        accept: is shown the first bytes; what it raises is raised, and no more is fetched.

    Raises:
        FileNotFoundError: there is nothing.
        OSError: it cannot be read, or the temporary folder is full.
        PackageError: a package for this kind of URL is not installed.
        SettingError: there is no such kind of URL.
    """
    files, path = _open(url)
    with _speaking_plainly(), files.open(path, "rb") as source:
        # Most kinds of storage have asked for it to open the file.
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
    """Return the file system of a URL, and the path in it."""
    try:
        from fsspec.core import url_to_fs

        files, path = url_to_fs(url)
    except ImportError as error:
        raise url_package_error(url, error) from error
    except ValueError as error:
        raise SettingError(f"cannot use {url}: {reason_of(error)}") from error
    except Exception as error:  # some connect at once
        raise OSError(reason_of(error)) from error
    return files, path


def _entries(folder: bytes) -> Iterator[tuple[bool, RemoteFile]]:
    """Yield what is in a folder, and whether that is a folder."""
    files, path = _open(os.fsdecode(folder))
    with _speaking_plainly():
        infos = files.ls(path, detail=True)
    above = path.rstrip("/") + "/"
    for info in infos:
        name = info["name"].rstrip("/")
        # An object store may list the folder itself, a web page may link to elsewhere.
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
    except UnicodeEncodeError:  # half of a surrogate pair: nothing will be found there
        return name.encode("utf-8", "surrogatepass")


def _bytes(size: object) -> int:
    """Return a size, 0 if it is none that a file can have."""
    try:
        return bounded_size(int(size)) if isinstance(size, str | int | float) else 0
    except (ValueError, OverflowError):
        return 0


def _nanoseconds(time: object) -> int | None:
    """Return a time in nanoseconds since 1970, None if it is none; each storage has its own."""
    try:
        if isinstance(time, str):
            time = datetime.fromisoformat(time)
        if isinstance(time, datetime):
            time = (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
        return bounded_time(round(time * 1e9)) if isinstance(time, int | float) else None
    except (ValueError, OverflowError):  # not a number, or no end of it
        return None


@contextmanager
def _speaking_plainly() -> Iterator[None]:
    """Raise an `OSError` whatever a storage raises; see the module's docstring."""
    try:
        yield
    except ImgsearchError:
        raise
    except FileNotFoundError as error:
        # Of a server that cannot be reached fsspec says the same; then there is another cause.
        if error.__cause__ is None or isinstance(error.__cause__, FileNotFoundError):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from error
        raise OSError(reason_of(error.__cause__)) from error
    except Exception as error:
        raise OSError(reason_of(error)) from error
