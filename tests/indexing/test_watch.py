"""Folders are indexed as they change."""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from imgsearch.collection import Collection
from imgsearch.errors import BusyError, GoneError, PackageError, SettingError
from imgsearch.images.limits import LIMITS
from imgsearch.indexing import watch as watching
from imgsearch.indexing.engine import ModelFile, WarmEngine
from imgsearch.indexing.report import IndexReport
from imgsearch.indexing.watch import Changes, Patience, Seen, watch
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import Root
from tests.support.commands import Run, imgsearch_command
from tests.support.embedding_here import EngineInProcess
from tests.support.outcomes import did
from tests.support.pictures import picture, save_pictures

IMPATIENT = Patience(quiet=0.02, most=0.1, look=0.02, poll=0.0, busy=0.01)
NOTHING = IndexReport(0, 0, 0, 0, 0, 0, 0, (), 0, 0, 0, (), (), 0.0)


class Told:
    """An observer that tells of nothing by itself, and notes what it is asked to observe."""

    def __init__(self, changes: Changes) -> None:
        self.changes = changes
        self.observed: dict[bytes, bool] = {}
        self.refuses = False
        self.begun = 0

    def observe(self, folder: bytes, *, recursive: bool) -> None:
        if self.refuses:
            raise OSError(28, "inotify watch limit reached")
        self.observed[folder] = recursive
        self.begun += 1

    def forget(self, folder: bytes) -> None:
        self.observed.pop(folder, None)

    def close(self) -> None:
        self.observed.clear()


class Runs:
    """Runs that index nothing, and note what they were asked to look through."""

    def __init__(self) -> None:
        self.asked: list[set[bytes] | None] = []
        self.raises: list[Exception] = []

    def __call__(self, folders: Iterable[bytes] | None) -> IndexReport:
        self.asked.append(None if folders is None else set(folders))
        if self.raises:
            raise self.raises.pop(0)
        return NOTHING


def begun(runs: Runs, top: Path) -> tuple[Told, Iterator[Seen]]:
    observer = Told(Changes(b"/own"))
    roots = [Root(1, bytes(top), recursive=True), Root(2, b"s3://bucket", recursive=True)]
    return observer, watch(runs, lambda: roots, observer, observer.changes, IMPATIENT)


# -- what is looked through, and when -----------------------------------------------------------


def test_everything_is_looked_through_first_and_then_what_changes(tmp_path: Path) -> None:
    runs = Runs()
    observer, seen = begun(runs, tmp_path)
    assert next(seen) == Seen(NOTHING)
    assert (runs.asked, observer.observed) == ([None], {bytes(tmp_path): True})
    observer.changes.add(bytes(tmp_path / "a" / "1.jpg"))
    observer.changes.add(bytes(tmp_path / "a" / "2.jpg"))
    observer.changes.add(b"/own/catalog.sqlite")  # or the collection would be watched for ever
    observer.changes.add(b"/own")
    next(seen)
    assert runs.asked[1:] == [{bytes(tmp_path / "a")}]


def test_a_run_waits_until_it_is_quiet_but_not_for_ever() -> None:
    changes = Changes(b"/own")
    patience = Patience(quiet=0.2, most=0.6, look=5)
    ended = threading.Event()

    def disturb() -> None:
        while not ended.wait(0.02):
            changes.add(b"/a/1.jpg")

    began = time.monotonic()
    with closing(_Thread(disturb, ended)):
        assert changes.take(patience) == {b"/a"}
    assert time.monotonic() - began >= 0.5
    assert changes.take(Patience(look=0.01)) in (set(), {b"/a"})


class _Thread:
    def __init__(self, target: Callable[[], None], ended: threading.Event) -> None:
        self._thread, self._ended = threading.Thread(target=target), ended
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()


def test_what_could_not_be_done_is_done_later_and_told_once(tmp_path: Path) -> None:
    runs = Runs()
    observer, seen = begun(runs, tmp_path)
    next(seen)
    runs.raises = [BusyError("busy"), BusyError("busy")]
    observer.changes.add(bytes(tmp_path / "1.jpg"))
    assert next(seen) == Seen(None, "busy; waiting")
    assert next(seen) == Seen(NOTHING)
    assert runs.asked[1:] == [{bytes(tmp_path)}] * 3
    runs.raises = [GoneError("gone", NOTHING), GoneError("gone", NOTHING)]
    problems = []
    for _ in range(3):
        observer.changes.add(bytes(tmp_path / "1.jpg"))
        problems.append(next(seen).problem)
    assert problems == ["gone", None, None]


def test_a_root_that_comes_back_is_observed_again(tmp_path: Path) -> None:
    top = tmp_path / "drive"
    top.mkdir()
    runs = Runs()
    observer, seen = begun(runs, top)
    next(seen)
    top.rmdir()
    next(seen)
    assert (runs.asked[-1], observer.observed) == ({bytes(top)}, {})
    top.mkdir()
    next(seen)
    assert (runs.asked[-1], observer.observed) == ({bytes(top)}, {bytes(top): True})
    assert observer.begun == 2


def test_a_root_that_cannot_be_observed_is_looked_through_now_and_then(tmp_path: Path) -> None:
    runs = Runs()
    observer, seen = begun(runs, tmp_path)
    observer.refuses = True
    problem = next(seen).problem
    assert problem is not None
    assert problem.startswith(f"cannot watch {tmp_path}: inotify watch limit reached")
    next(seen)
    next(seen)
    assert runs.asked == [None, {bytes(tmp_path)}]


# -- in a collection ----------------------------------------------------------------------------


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Told]:
    """The observers that were made in place of real ones."""
    made: list[Told] = []

    def make(changes: Changes) -> Told:
        made.append(Told(changes))
        return made[-1]

    monkeypatch.setattr(watching, "WatchdogObserver", make)
    return made


def test_only_what_may_be_in_the_collection_is_indexed(
    collection: Collection, tree: Path, told: list[Told]
) -> None:
    collection.index(tree, exclude=["*.gif"])
    collection.remove([tree / "0003.png", tree / "below"])
    with closing(collection.watch(engine=EngineInProcess())) as seen:
        assert did(next(seen).report) == {"unchanged": 7, "excluded": 1}
        (observer,) = told
        picture(3).save(tree / "0003.png")
        picture(20).save(tree / "below" / "new.png")
        picture(21).save(tree / "new.gif")
        picture(22).save(tree / "new.png")
        (tree / "0001.png").unlink()
        for path in ("0003.png", "below/new.png", "new.gif", "new.png", "0001.png"):
            observer.changes.add(bytes(tree / path))
        fates = did(next(seen).report)
        assert (fates["indexed"], fates["removed"], fates["excluded"]) == (1, 1, 1)
        assert tree / "new.png" in collection
        assert tree / "below" / "new.png" not in collection
        save_pictures(tree / "deeper" / "still", 2, first=30)
        observer.changes.add(bytes(tree / "deeper" / "gone" / "x.png"))
        assert did(next(seen).report) == {"indexed": 2}  # of nothing but that folder
    assert told[0].observed == {}


def test_folders_that_were_given_are_added_and_watched(
    collection: Collection, tree: Path, told: list[Told]
) -> None:
    with pytest.raises(SettingError, match="nothing to index yet"):
        next(collection.watch(engine=EngineInProcess()))
    with pytest.raises(SettingError, match="one run"):
        collection.watch(moved=(tree, tree))
    with closing(collection.watch(tree, engine=EngineInProcess())) as seen:
        assert did(next(seen).report) == {"indexed": 12}
        assert did(next(seen).report) == {"unchanged": 12}
        assert told[-1].observed == {bytes(tree): True}


def test_a_saved_file_is_found_within_two_seconds(empty: Path, tree: Path) -> None:
    found: queue.Queue[tuple[float, Seen]] = queue.Queue()
    inside = empty.rename(tree / ".imgsearch")  # whose own changes are none
    ended = threading.Event()

    def run() -> None:
        with (
            Collection.open(inside, device="cpu") as collection,
            closing(collection.watch(tree, engine=EngineInProcess())) as seen,
        ):
            for each in seen:
                found.put((time.monotonic(), each))
                if ended.is_set():
                    return

    thread = threading.Thread(target=run)
    thread.start()
    try:
        found.get(timeout=30)
        found.get(timeout=30)
        latencies = []
        for number in range(3):
            picture(40 + number).save(tree / "below" / f"new-{number}.png")
            saved = time.monotonic()
            while True:  # a busy machine may run once between two events of one file
                at, seen = found.get(timeout=30)
                if did(seen.report).get("indexed"):
                    break
            latencies.append(at - saved)
        assert min(latencies) < 2, latencies  # others may be busy
        time.sleep(1.5)
        assert found.qsize() <= 2, "its own changes keep it running"
    finally:
        ended.set()
        (tree / "end.png").touch()  # something has to change, or it would wait
        thread.join()


@pytest.mark.whole("test_a_saved_file_is_found_within_two_seconds")
@pytest.mark.processes
def test_workers_stay_between_runs_unless_one_is_left_unfinished(empty: Path, photos: Path) -> None:
    with Collection.open(empty) as collection:
        record = collection.info().model
    model = ModelFile.of(Layout(empty), record, trusted=False)
    paths = [str(path) for path in sorted(photos.iterdir())]

    def workers() -> set[int]:
        return {child.pid for child in psutil.Process().children()} - before

    before = {child.pid for child in psutil.Process().children()}
    with WarmEngine(workers=2) as engine:

        def embed(count: int, *, finish: bool = True) -> int:
            outcomes = engine.embed_files(
                paths[:count], lambda *_: True, model=model, limits=LIMITS
            )
            with closing(outcomes):
                return sum(1 for _ in outcomes) if finish else bool(next(outcomes))

        assert embed(0) == 0
        patience = time.monotonic() + 60
        while len(workers()) < 2:  # they start although there is nothing to do
            assert time.monotonic() < patience
            time.sleep(0.01)
        first = workers()
        for count in (3, 2, 1, 1):
            assert embed(count) == count
        assert workers() == first
        embed(30, finish=False)
        assert workers() == set()
        assert embed(2) == 2
    assert workers() == set()


# -- the command --------------------------------------------------------------------------------


@pytest.mark.whole("test_a_saved_file_is_found_within_two_seconds")
@pytest.mark.processes
def test_the_command_survives_being_killed_and_ends_with_ctrl_c(
    empty: Path, tree: Path, run: Run
) -> None:
    def started() -> subprocess.Popen[str]:
        command = imgsearch_command("watch", tree, "-c", empty, "--json")
        return subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    def until(process: subprocess.Popen[str], told: str) -> str:
        assert process.stderr
        for line in process.stderr:
            if told in line:
                return line
        raise AssertionError(f"it ended with {process.wait()} and never told: {told}")

    with started() as process:
        until(process, "watching for changes")
        picture(20).save(tree / "new.png")
        until(process, "1 indexed")
        save_pictures(tree / "more", 8, first=30)
        process.kill()
    (tree / "new.png").unlink()
    with started() as process:
        until(process, "watching for changes")
        picture(21).save(tree / "last.png")
        until(process, "1 indexed")
        process.send_signal(signal.SIGINT)
        until(process, "stopped; everything indexed so far is kept")
        assert process.wait(30) == 0
    with Collection.open(empty) as collection:
        assert set(collection.paths) == {str(path) for path in tree.rglob("*.*")}
    assert run("verify", "-c", empty).code == 0


def test_without_watchdog_the_command_says_what_to_install(
    invoke: Callable[..., Any], tree: Path, empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "watchdog.observers", None)
    ended = invoke("watch", tree, "-c", empty)
    assert ended.exit_code == PackageError.exit_code
    assert "pip install '.[watch]'" in ended.stderr
    assert invoke("watch", "-c", "milvus://127.0.0.1:1/a").exit_code == 2
