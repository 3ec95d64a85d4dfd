"""The report of an indexing run, and its progress."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from imgsearch.files.paths import is_url, upwards
from imgsearch.indexing.scope import Scope, count_scope

__all__ = ["Failure", "IndexReport", "Progress", "Reporter", "Tally"]


@dataclass(frozen=True, slots=True)
class Failure:
    """A file (or folder) that could not be used, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class IndexReport:
    """The report of an indexing run.

    `found = indexed + copied + moved + unchanged + failed + skipped + excluded`.

    Attributes:
        found: Files listed.
        indexed: Images embedded in this run.
        copied: Images whose content had already been embedded, at another path.
        moved: Images that were at another path before, where there is no file any more.
        unchanged: Images that were already there, with the same content.
        failed: Files that are or should be images and could not be used; see `failures`.
        skipped: Files that are plainly not images, and those that a pattern leaves out.
        skipped_kinds: The kinds of the skipped files and the number of each, most first.
        excluded: Files that were removed from the collection and are kept out.
        removed: Images that left the collection because their files are missing.
        left_out: Images that left the collection because a pattern leaves them out now.
        failures: The failed files, including those of earlier runs that have not changed.
        unreadable: Folders that could not be listed.
        seconds: The duration of the run.
    """

    found: int
    indexed: int
    copied: int
    moved: int
    unchanged: int
    failed: int
    skipped: int
    skipped_kinds: tuple[tuple[str, int], ...]
    excluded: int
    removed: int
    left_out: int
    failures: tuple[Failure, ...]
    unreadable: tuple[Failure, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a run: `done` files of `total`, which is None while they are counted.

    `training` is set once all files are done and the index is being built, and `assigned` is then
    the number of images in its lists, if these are made anew; `fingerprints` is set while those of
    images from an older version are made, and then `done` and `total` count them.
    """

    done: int
    total: int | None
    training: bool = False
    fingerprints: bool = False
    assigned: int = 0


@dataclass(slots=True)
class Tally:
    """The counts of a run so far; see `imgsearch.indexing.report.IndexReport`."""

    found: int = 0
    indexed: int = 0
    copied: int = 0
    moved: int = 0
    unchanged: int = 0
    excluded: int = 0
    skipped: Counter[str] = field(default_factory=Counter)  # by kind
    failures: list[Failure] = field(default_factory=list)
    unreadable: list[Failure] = field(default_factory=list)

    @property
    def done(self) -> int:
        """The number of files accounted for."""
        images = self.indexed + self.copied + self.moved + self.unchanged
        return images + self.skipped.total() + self.excluded + len(self.failures)

    def unread(self) -> list[bytes]:
        """Return the files that failed, and the folders that could not be listed."""
        return [os.fsencode(each.path) for each in [*self.failures, *self.unreadable]]

    def leave_out(self, places: Iterable[bytes]) -> None:
        """Drop the failures in folders that are no longer there."""
        gone = frozenset(places)

        def kept(rows: list[Failure]) -> list[Failure]:
            return [row for row in rows if gone.isdisjoint(upwards(os.fsencode(row.path)))]

        failures, self.failures = self.failures, kept(self.failures)
        self.found -= len(failures) - len(self.failures)
        self.unreadable = kept(self.unreadable)

    def leave_out_vanished(self) -> None:
        """Drop the files that failed because they were deleted or moved after they were listed."""
        kept = [each for each in self.failures if not _has_vanished(each.path)]
        self.found -= len(self.failures) - len(kept)
        self.failures = kept

    def report(self, *, removed: int, left_out: int, seconds: float) -> IndexReport:
        """Return the report of the run."""
        return IndexReport(
            found=self.found,
            indexed=self.indexed,
            copied=self.copied,
            moved=self.moved,
            unchanged=self.unchanged,
            failed=len(self.failures),
            skipped=self.skipped.total(),
            skipped_kinds=tuple(self.skipped.most_common()),
            excluded=self.excluded,
            removed=removed,
            left_out=left_out,
            failures=tuple(self.failures),
            unreadable=tuple(self.unreadable),
            seconds=seconds,
        )


def _has_vanished(path: str) -> bool:
    """Tell whether there is certainly no entry at a path; a link that leads nowhere is one."""
    if is_url(path):
        return False
    try:
        os.lstat(path)
    except FileNotFoundError:
        return True
    except OSError:  # it is there, but cannot be looked at
        return False
    return False


class Reporter:
    """The progress of a run, reported to a callback; a context manager that ends the counting.

    `tally` holds the counts so far. The total is counted in a thread of its own, once there is
    something to embed: a run with nothing to embed ends before it is counted.
    """

    def __init__(
        self, scope: Scope, collection: Path, progress: Callable[[Progress], None] | None
    ) -> None:
        """Prepare to call `progress` from time to time, without counting yet."""
        self.tally = Tally()
        self._progress = progress
        self._total: int | None = None
        self._scope = scope
        self._collection = collection
        self._started = False
        self._over = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()

    def tell(self) -> None:
        """Report how many files are done."""
        if self._progress:
            self._progress(Progress(self.tally.done, self._total))

    def tell_training(self, assigned: int = 0) -> None:
        """Report that all files are done and the index is being built."""
        if self._progress:
            done = self.tally.done
            self._progress(Progress(done, done, training=True, assigned=assigned))

    def tell_fingerprints(self, done: int, total: int) -> None:
        """Report how many fingerprints were made of those that were missing."""
        if self._progress:
            self._progress(Progress(done, total, fingerprints=True))

    def count_ahead(self) -> None:
        """Start counting the files, unless counting has begun or there is no callback."""
        if self._progress and not self._started:
            self._started = True
            threading.Thread(target=self._count, daemon=True).start()  # it may hang on a slow drive

    def _count(self) -> None:
        total = 0
        with suppress(OSError):
            for files in count_scope(self._scope, self._collection):
                total += files
                if self._over.is_set():
                    return
            self._total = total
