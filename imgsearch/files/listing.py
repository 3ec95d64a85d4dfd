"""List the files under a folder in sorted blocks and bounded memory."""

from __future__ import annotations

import os
import stat
import time
from collections import deque
from collections.abc import Container, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from typing import TYPE_CHECKING, Self

from imgsearch.files.exclusions import BY_DEFAULT, Exclusions
from imgsearch.files.paths import is_url
from imgsearch.files.sources import status_of
from imgsearch.files.stamps import LARGEST, stamp_of, trusted_time
from imgsearch.files.walk import Unreadable, walk

if TYPE_CHECKING:  # imported with the first URL
    from imgsearch.files.urls import RemoteFile

__all__ = [
    "File",
    "Kind",
    "Listing",
    "Unreadable",
    "list_files",
    "list_one",
    "list_urls",
    "look_at",
]

BLOCK = 1_000  # Maximum files per listing: a large folder must not become a million objects.

# On a network drive, the status of each file takes a round trip, so many are requested at once; on
# a local disk, that would be slower than one after another.
SLOW = 0.000_2  # Seconds.
RECENT = 8  # Statuses that must all be slow, as any single one may have met with a hiccup.
AT_ONCE = 16
PART = 8  # Files that a thread requests one after another.
SAMPLED = 64  # One in this many blocks is requested directly, to see if the drive is still slow.


class Kind(Enum):
    """The kind of file that a directory entry leads to."""

    REGULAR = "regular"
    SPECIAL = "special"  # A pipe, a socket or a device: never opened.
    LEFT_OUT = "left out"  # Excluded by a pattern: not examined.
    BROKEN = "broken"  # A dangling link, or a file that vanished after being listed.


@dataclass(frozen=True, slots=True)
class File:
    """One file of a folder: its name, its size in bytes and its `trusted_time`.

    `ctime_ns` is the time of the last change of its content or metadata, and `inode` is its number
    on its file system; both are None at URLs.
    """

    name: bytes
    size: int
    mtime_ns: int | None
    kind: Kind = Kind.REGULAR
    ctime_ns: int | None = None
    inode: int | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """Up to `BLOCK` files of one folder (its absolute path), sorted by name.

    They are all files of the folder whose names lie between `first` and `upto`, both included
    (None: no upper bound).
    """

    folder: bytes
    files: tuple[File, ...]
    first: bytes = b""
    upto: bytes | None = None


def list_one(path: bytes) -> Listing:
    """Return the listing of a single file, given by its absolute path."""
    folder, name = os.path.split(path)
    if is_url(path):
        return Listing(folder, (_remote(path, name),), first=name, upto=name)
    return Listing(folder, (_stat(os.path.join(folder, b""), name),), first=name, upto=name)


def look_at(folder: bytes, names: Iterable[bytes]) -> list[File]:
    """Return files of a folder, given its absolute path and their names."""
    above = os.path.join(folder, b"")
    return [_stat(above, name) for name in names]


def list_files(
    tops: Iterable[bytes],
    seen: set[tuple[int, int]],
    skipped: Container[bytes] = (),
    exclusions: Exclusions = BY_DEFAULT,
) -> Iterator[Listing | Unreadable]:
    """Yield the files under the folders `tops`, with the arguments and in the order of `walk`.

    On a slow drive, up to `BLOCK` files are examined ahead. URLs come last.
    """
    tops = list(tops)
    with _Statuses(exclusions) as statuses:
        for found in walk([top for top in tops if not is_url(top)], seen, skipped, exclusions):
            if isinstance(found, Unreadable):
                yield from statuses.take()
                yield found
                continue
            for names, first, upto in _blocks(found.names):
                yield from statuses.ask(_Block(found.folder, names, first, upto))
        yield from statuses.take()
    yield from list_urls([top for top in tops if is_url(top)], skipped, exclusions)


def list_urls(
    tops: Iterable[bytes],
    skipped: Container[bytes] = (),
    exclusions: Exclusions = BY_DEFAULT,
) -> Iterator[Listing | Unreadable]:
    """Yield the files under folders at URLs, with the arguments of `walk_urls`."""
    tops = list(tops)
    if not tops:
        return
    from imgsearch.files.urls import walk_urls

    for found in walk_urls(tops, skipped, exclusions):
        if isinstance(found, Unreadable):
            yield found
            continue
        files = {
            file.name: _left_out(file.name)
            if exclusions.has_file(found.url, file.name)
            else _as_file(file, found.asked_ns)
            for file in found.files
        }
        for names, first, upto in _blocks(list(files)):
            yield Listing(found.url, tuple(files[name] for name in names), first, upto)


def _blocks(names: list[bytes]) -> Iterator[tuple[list[bytes], bytes, bytes | None]]:
    """Split sorted names into blocks; yield each with `first` and `upto` of its listing."""
    first = b""
    for start in range(0, len(names), BLOCK):
        block = names[start : start + BLOCK]
        yield block, first, block[-1] if start + BLOCK < len(names) else None
        first = block[-1] + b"\0"  # The smallest possible next name.


def _remote(url: bytes, name: bytes) -> File:
    from imgsearch.files.urls import RemoteFile

    now = time.time_ns()
    try:
        stamp = status_of(os.fsdecode(url))
    except OSError:
        return File(name, 0, 0, Kind.BROKEN)
    return _as_file(RemoteFile(name, stamp.size, stamp.mtime_ns), now)


def _as_file(file: RemoteFile, now: int) -> File:
    mtime_ns = None if file.mtime_ns is None else trusted_time(file.mtime_ns, now)
    return File(file.name, file.size, mtime_ns, Kind.REGULAR if file.regular else Kind.SPECIAL)


@dataclass(frozen=True, slots=True)
class _Block:
    """The attributes of a future listing."""

    folder: bytes
    names: list[bytes]
    first: bytes
    upto: bytes | None


class _Statuses:
    """A context manager that requests the status of files, of several at once on slow drives."""

    def __init__(self, exclusions: Exclusions) -> None:
        self._exclusions = exclusions
        self._pool = ThreadPoolExecutor(AT_ONCE)
        self._waiting: deque[tuple[_Block, list[Future[list[File]]]]] = deque()
        self._ahead = 0  # Number of files in these.
        self._recent = deque([0.0], maxlen=RECENT)  # Seconds.
        self._asked = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def ask(self, block: _Block) -> Iterator[Listing]:
        """Request the files of a block; yield the listings ready so far, in order of request."""
        self._asked += 1
        if min(self._recent) <= SLOW or self._asked % SAMPLED == 0:
            if self._waiting:
                yield from self.take()
            yield Listing(block.folder, tuple(self._timed(block)), block.first, block.upto)
            return
        starts = range(0, len(block.names), PART)
        parts = [block.names[start : start + PART] for start in starts]
        asked = [self._pool.submit(self._stat_all, block.folder, part) for part in parts]
        self._waiting.append((block, asked))
        self._ahead += len(block.names)
        yield from self.take(BLOCK)

    def take(self, ahead: int = 0) -> Iterator[Listing]:
        """Wait for requested listings and yield them until at most `ahead` files are pending."""
        while self._ahead > ahead:
            block, asked = self._waiting.popleft()
            self._ahead -= len(block.names)
            files = chain.from_iterable(part.result() for part in asked)
            yield Listing(block.folder, tuple(files), block.first, block.upto)

    def _stat_all(self, folder: bytes, names: list[bytes]) -> list[File]:
        above = os.path.join(folder, b"")
        out = self._exclusions.files_of(folder, names)
        return [_left_out(name) if name in out else _stat(above, name) for name in names]

    def _timed(self, block: _Block) -> list[File]:
        above = os.path.join(block.folder, b"")
        out = self._exclusions.files_of(block.folder, block.names)
        files = []
        for name in block.names:
            if name in out:  # This says nothing about the speed of the drive.
                files.append(_left_out(name))
                continue
            started = time.perf_counter()
            files.append(_stat(above, name))
            self._recent.append(time.perf_counter() - started)
        return files


def _left_out(name: bytes) -> File:
    return File(name, 0, None, Kind.LEFT_OUT)


def _stat(above: bytes, name: bytes) -> File:
    """Return a file; `above` is the path of its folder with a trailing slash."""
    now = time.time_ns()  # Per file, as a block on a slow disk takes too long for a common time.
    try:
        status = os.stat(above + name)
    except OSError:
        return File(name, 0, 0, Kind.BROKEN)
    kind = Kind.REGULAR if stat.S_ISREG(status.st_mode) else Kind.SPECIAL
    mtime_ns = trusted_time(status.st_mtime_ns, now)
    size, ctime_ns, inode = status.st_size, status.st_ctime_ns, status.st_ino
    # Otherwise unchanged: a run that finds no changes spends most of its time here.
    if not (0 <= size <= LARGEST and -LARGEST <= ctime_ns <= LARGEST and inode <= LARGEST):
        stamp = stamp_of(status)
        return File(name, stamp.size, mtime_ns, kind, stamp.ctime_ns, stamp.inode)
    return File(name, size, mtime_ns, kind, ctime_ns, inode)
