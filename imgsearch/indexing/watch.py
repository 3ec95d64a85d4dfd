"""Index folders as they change: observe → wait until it is quiet → run → report."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from imgsearch.errors import BusyError, GoneError, InputError, PackageError, StorageError
from imgsearch.files.mounts import Mounts
from imgsearch.files.paths import is_at, is_url
from imgsearch.indexing.report import IndexReport
from imgsearch.storage.records import Root

__all__ = [
    "PATIENCE",
    "Changes",
    "Observer",
    "Patience",
    "Seen",
    "WatchdogObserver",
    "check_watchdog",
    "watch",
]

#: Looks through folders of the roots, or through all roots if None.
Run: TypeAlias = "Callable[[Iterable[bytes] | None], IndexReport]"

_TELLING = ("created", "modified", "moved", "deleted", "closed")  # not that a file was read


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait for what, in seconds.

    Attributes:
        quiet: How long nothing may change before a run begins.
        most: How long a run waits for that at most.
        look: Time between two looks for drives that went or came, and for new roots.
        poll: Time between two runs over roots that cannot be observed.
        again: Time between two runs over all roots, for changes that no system tells of.
        busy: Time until another try if another process is writing to the collection.
    """

    quiet: float = 0.25
    most: float = 1.0
    look: float = 2.0
    poll: float = 30.0
    again: float = 900.0
    busy: float = 1.0


PATIENCE = Patience()


@dataclass(frozen=True, slots=True)
class Seen:
    """What a run of `watch` did, what kept it from doing more, or both."""

    report: IndexReport | None
    problem: str | None = None


class Changes:
    """The folders that have changed; any thread may add to them."""

    def __init__(self, own: bytes) -> None:
        """Ignore changes at and below the collection's `own` directory."""
        self._own = own
        self._folders: set[bytes] = set()
        self._first = self._last = 0.0
        self._changed = threading.Condition()

    def add(self, path: bytes) -> None:
        """Note that the entry at an absolute path has changed."""
        if not is_at(path, self._own):
            self.add_folder(os.path.dirname(path))

    def add_folder(self, folder: bytes) -> None:
        """Note that the entries of a folder have changed."""
        with self._changed:
            self._last = time.monotonic()
            if not self._folders:
                self._first = self._last
            self._folders.add(folder)
            self._changed.notify()

    def take(self, patience: Patience) -> set[bytes]:
        """Wait until something has changed and it is quiet again; return the changed folders.

        Nothing is returned if nothing changes for as long as `patience.look`.
        """
        end = time.monotonic() + patience.look
        with self._changed:
            while True:
                now, due = time.monotonic(), end
                if self._folders:
                    due = min(self._last + patience.quiet, self._first + patience.most)
                if now >= due:
                    taken, self._folders = self._folders, set()
                    return taken
                self._changed.wait(due - now)


def check_watchdog() -> None:
    """Raise `PackageError` if watchdog is not installed."""
    try:
        import watchdog.observers  # noqa: F401 - to see whether it is there
    except ImportError as error:
        what = "watching folders needs watchdog, which is not installed"
        raise PackageError(what, "watch") from error


class Observer(Protocol):
    """What tells of changes in folders."""

    def observe(self, folder: bytes, *, recursive: bool) -> None:
        """Observe a folder, afresh if it already is observed; raise `OSError` if that fails."""
        ...

    def forget(self, folder: bytes) -> None:
        """Stop observing a folder."""
        ...

    def close(self) -> None:
        """Stop observing."""
        ...


class WatchdogObserver:
    """Observes folders by what the system offers: inotify on Linux, FSEvents on macOS."""

    def __init__(self, changes: Changes) -> None:
        """Tell of changes from now on, or raise `PackageError` if watchdog is not installed."""
        check_watchdog()
        from watchdog.events import FileSystemEvent, FileSystemEventHandler
        from watchdog.observers import Observer as System

        class Handler(FileSystemEventHandler):
            def dispatch(self, event: FileSystemEvent) -> None:
                if event.event_type not in _TELLING:
                    return
                if event.is_directory and event.event_type == "modified":
                    return
                changes.add(os.fsencode(event.src_path))
                if event.dest_path:
                    changes.add(os.fsencode(event.dest_path))

        self._handler = Handler()
        self._system = System()
        self._system.start()
        self._watches: dict[bytes, Any] = {}

    def observe(self, folder: bytes, *, recursive: bool) -> None:
        """Observe a folder, afresh if it already is observed; raise `OSError` if that fails."""
        self.forget(folder)
        path = os.fsdecode(folder)
        self._watches[folder] = self._system.schedule(self._handler, path, recursive=recursive)

    def forget(self, folder: bytes) -> None:
        """Stop observing a folder."""
        watch = self._watches.pop(folder, None)
        if watch is not None:
            try:
                self._system.unschedule(watch)
            except (KeyError, OSError):
                return  # its drive took it along

    def close(self) -> None:
        """Stop observing."""
        self._system.stop()
        self._system.join()


def watch(
    run: Run,
    roots: Callable[[], Sequence[Root]],
    observer: Observer,
    changes: Changes,
    patience: Patience = PATIENCE,
) -> Iterator[Seen]:
    """Index all roots, and then the folders in which something changes, for ever.

    Args:
        run: Function that indexes. If it raises an error that time or the user may put right, the
            same folders are indexed again later.
        roots: Function that returns the present roots.
        observer: What tells of changes.
        changes: Where it tells of them.
        patience: How long to wait for what.

    Yields:
        What each run did; a problem is told once, until there is another one or none.
    """
    watching = _Watching(run, roots, observer, changes, patience)
    while True:
        yield from watching.step()


class _Watching:
    """The state between two runs."""

    def __init__(
        self,
        run: Run,
        roots: Callable[[], Sequence[Root]],
        observer: Observer,
        changes: Changes,
        patience: Patience,
    ) -> None:
        self._run = run
        self._roots = roots
        self._observer = observer
        self._changes = changes
        self._patience = patience
        self._observed: dict[bytes, object] = {}  # roots, with what is there
        self._unobservable: set[bytes] = set()
        self._everything = True  # whether to look through all roots next
        self._looked_at = self._polled_at = time.monotonic()
        self._told: str | None = None

    def step(self) -> Iterator[Seen]:
        """Wait for changes, and index them."""
        for problem in self._observe():  # before the run: no change is lost between the two
            yield Seen(None, problem)
        now = time.monotonic()
        everything = self._everything or now - self._looked_at >= self._patience.again
        folders = set() if everything else self._changes.take(self._patience)
        now = time.monotonic()
        if self._unobservable and now - self._polled_at >= self._patience.poll:
            self._polled_at = now
            folders |= self._unobservable
        if everything:
            self._looked_at = now
        if everything or folders:
            yield from self._indexed(None if everything else folders)

    def _indexed(self, folders: set[bytes] | None) -> Iterator[Seen]:
        try:
            seen = Seen(self._run(folders))
            self._everything = False
        except GoneError as error:  # all else is done
            report = error.report if isinstance(error.report, IndexReport) else None
            seen = Seen(report, str(error))
            self._everything = False
        except BusyError as error:
            seen = Seen(None, f"{error}; waiting")
            self._later(folders)
        except (InputError, StorageError) as error:
            seen = Seen(None, str(error))
            self._later(folders)
        if seen.problem is not None and seen.problem == self._told:
            seen = Seen(seen.report)
        else:
            self._told = seen.problem
        if seen.report is not None or seen.problem is not None:
            yield seen

    def _later(self, folders: set[bytes] | None) -> None:
        time.sleep(self._patience.busy)
        for folder in folders or ():
            self._changes.add_folder(folder)

    def _observe(self) -> Iterator[str]:
        """Observe the roots that are new or have come back; yield why one cannot be observed."""
        mounts = Mounts()
        roots = {root.path: root for root in self._roots() if not is_url(root.path)}
        for path in self._observed.keys() - roots.keys():
            self._observer.forget(path)
            del self._observed[path]
        for path, root in roots.items():
            there = _identity(path, mounts)
            known = path in self._observed
            if known and self._observed[path] == there:
                continue
            self._observed[path] = there
            self._unobservable.discard(path)
            self._observer.forget(path)
            if there is not None:
                try:
                    self._observer.observe(path, recursive=root.recursive)
                except OSError as error:
                    self._unobservable.add(path)
                    yield (
                        f"cannot watch {os.fsdecode(path)}: {error.strerror or error}; it is "
                        f"looked through every {self._patience.poll:g} s instead"
                    )
            if known or not self._everything:
                self._changes.add_folder(path)


def _identity(root: bytes, mounts: Mounts) -> object:
    """Return what tells a root from the one that was there before a drive went or came."""
    try:
        status = os.stat(root)
    except OSError:
        return None
    return status.st_dev, status.st_ino, frozenset(mounts.at(root))
