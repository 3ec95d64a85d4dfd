"""Readers never wait for a writer, and always see what was committed last."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from imgsearch.collection import Collection
from imgsearch.indexing.policy import FoldPolicy
from imgsearch.querying.view import open_view
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.records import Snapshot
from tests.support.commands import imgsearch_command, run_python
from tests.support.depth import Harm
from tests.support.grower import Grower, clustered
from tests.support.injection import begin_with
from tests.support.pictures import picture, save_pictures

# `imgsearch` that commits every few images, so that a short run has many commits.
OFTEN = f"""
{begin_with(FoldPolicy(commit_files=10))}
from imgsearch.cli import main
main()
"""

# The same, at a pace at which readers get their turn between the commits.
SLOWLY = """
import sys, time
from imgsearch import Collection
from imgsearch.indexing.policy import FoldPolicy
policy = FoldPolicy(commit_files=10, tail_most=50)
with Collection.open(sys.argv[1], device="cpu") as collection:
    collection.index(
        sys.argv[2], nlist=4, policy=policy, progress=lambda _: time.sleep(0.004)
    )
"""

# Opens the collection anew each time, or keeps it open; prints how many hits it had each time.
ASKING = """
import os, sys
import numpy
from imgsearch import Collection
directory, stop, anew = sys.argv[1:]
pixels = numpy.arange(48, dtype=numpy.uint8).reshape(4, 4, 3)
counts, kept = [], Collection.open(directory, device="cpu")
while not os.path.exists(stop):
    opened = Collection.open(directory, device="cpu") if anew == "anew" else kept
    hits = opened.query(pixels, k=1000, exact=len(counts) % 2 == 0)
    assert len({hit.path for hit in hits}) == len(hits)
    counts.append(len(hits))
    if anew == "anew":
        opened.close()
print(*counts)
"""

# Dies while it holds the lock.
DYING = """
import os, sys
from pathlib import Path
from imgsearch.storage.files import exclusive
with exclusive(Path(sys.argv[1])):
    os.kill(os.getpid(), 9)
"""

# Everything is imported before it becomes somebody who may not even read this Python.
AS_NOBODY = """
import mmap, os, sys
import numpy, onnxruntime
import imgsearch.ann.flat, imgsearch.collection, imgsearch.indexing.update
import imgsearch.maintenance.describe, imgsearch.storage.migrations, imgsearch.storage.writer
from imgsearch import Collection, StorageError
if os.geteuid() == 0:
    os.setuid(65534)
with Collection.open(sys.argv[1], device="cpu") as collection:
    pixels = numpy.arange(48, dtype=numpy.uint8).reshape(4, 4, 3)
    print(len(collection.query(pixels, k=40)), collection.info().images)
    try:
        collection.index()
    except StorageError as error:
        print(error)
"""


def test_a_long_lived_collection_sees_what_another_process_commits(
    indexed: Path, tmp_path: Path
) -> None:
    (new,) = save_pictures(tmp_path / "new", 1, first=100)
    with Collection.open(indexed, device="cpu") as collection:
        assert collection.query(new, k=1, include_self=True)[0].distance > 0
        command = imgsearch_command("-c", indexed, "index", new, "--nlist", "4")
        assert run_python(command, cwd=tmp_path).code == 0
        best = collection.query(new, k=1, include_self=True)[0]
        assert (best.path, best.distance) == (str(new), 0)
        assert len(collection.info().list_sizes) == 4


@pytest.mark.whole("test_a_long_lived_collection_sees_what_another_process_commits")
def test_threads_query_while_another_process_indexes_and_their_answers_grow(
    collection: Collection, empty: Path, tmp_path: Path, harm: Harm
) -> None:
    paths = save_pictures(tmp_path / "many", harm.times(400, 400, fast=200))
    command = [sys.executable, "-c", SLOWLY, str(empty), str(tmp_path / "many")]
    errors: list[BaseException] = []
    seen: list[list[int]] = [[], [], []]
    done = threading.Event()

    def read(counts: list[int]) -> None:
        try:
            while not done.is_set():
                hits = collection.query(picture(7), k=1000, exact=len(counts) % 2 == 0)
                assert len({hit.path for hit in hits}) == len(hits)
                counts.append(len(hits))
        except BaseException as error:
            errors.append(error)

    readers = [threading.Thread(target=read, args=(counts,)) for counts in seen]
    with subprocess.Popen(command) as writer:
        for reader in readers:
            reader.start()
        assert writer.wait(timeout=100) == 0
    done.set()
    for reader in readers:
        reader.join()
    assert errors == []
    assert all(counts == sorted(counts) for counts in seen)
    assert len({count for counts in seen for count in counts}) > 5
    assert len(collection.query(picture(7), k=1000)) == len(paths)


@pytest.mark.whole("test_a_long_lived_collection_sees_what_another_process_commits")
def test_several_processes_query_without_an_error_while_another_indexes_and_their_answers_grow(
    empty: Path, tmp_path: Path, harm: Harm
) -> None:
    paths = save_pictures(tmp_path / "many", 400)
    stop = tmp_path / "stop"
    asking = [sys.executable, "-c", ASKING, str(empty), str(stop)]
    readers = [
        subprocess.Popen([*asking, how], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for how in ("anew", "kept") * harm.times(2, 2, fast=1)
    ]
    try:
        writer = [sys.executable, "-c", SLOWLY, str(empty), str(tmp_path / "many")]
        assert run_python(writer, cwd=tmp_path).code == 0
        assert (
            run_python(imgsearch_command("-c", empty, "index", "--nlist", "9"), cwd=tmp_path).code
            == 0
        )
    finally:
        stop.touch()
    for reader in readers:
        out, err = reader.communicate(timeout=60)
        assert (reader.returncode, err) == (0, "")
        counts = [int(count) for count in out.split()]
        assert counts == sorted(counts)
        assert len(set(counts)) > 3
        assert counts[-1] == len(paths)


def test_an_image_is_found_within_a_second_of_its_commit(
    collection: Collection, tmp_path: Path
) -> None:
    paths = save_pictures(tmp_path / "many", 3)
    assert collection.query(paths[0]) == []
    with Collection.open(tmp_path / "empty", device="cpu") as other:
        other.index(tmp_path / "many")
        started = time.monotonic()
        while len(collection.query(paths[0], include_self=True)) < len(paths):
            assert time.monotonic() - started < 1


def age(catalog: Path, seconds: float) -> None:
    """Make a catalog look as if it was last written so many seconds ago."""
    then = time.time() - seconds
    os.utime(catalog, (then, then))


@pytest.mark.parametrize("age_of_catalog", [0, 1, 1_000])
def test_every_commit_is_seen_by_the_next_query(empty: Path, age_of_catalog: float) -> None:
    query = clustered(1, seed=2)
    with Grower(empty) as grower, Collection.open(empty, device="cpu") as collection:
        for number in range(1, 30):
            grower.add(clustered(1, seed=number))
            age(grower.layout.catalog, age_of_catalog)
            for _ in range(3):  # the last two find the catalog as they left it
                assert len(collection.query_many(query, k=100)[0]) == number


def test_a_commit_is_seen_even_if_it_leaves_the_times_of_the_catalog_as_they_were(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, query = os.stat, clustered(1, seed=2)
    frozen: dict[str, os.stat_result] = {}

    def stat(path: Any, *args: Any, **kwargs: Any) -> os.stat_result:
        found = real(path, *args, **kwargs)
        is_catalog = str(path).endswith("catalog.sqlite")
        return frozen.setdefault(str(path), found) if is_catalog else found

    with Grower(empty) as grower, Collection.open(empty, device="cpu") as collection:
        grower.add(clustered(1, seed=1))
        age(grower.layout.catalog, -3_600)  # as recent as the clock of a file server tells it
        monkeypatch.setattr(os, "stat", stat)
        for number in range(2, 6):
            assert len(collection.query_many(query, k=100)[0]) == number - 1
            grower.add(clustered(1, seed=number))


def test_a_reader_between_the_catalog_and_its_files_reads_the_catalog_again(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Grower(empty) as grower:
        grower.add(clustered(300, seed=1))
        grower.fold()
        reader = Catalog(grower.layout.catalog)
        read = Catalog.snapshot
        snapshots: list[Snapshot] = []

        def then_replace(self: Catalog) -> Snapshot:
            snapshot = read(self)
            if self is reader and not snapshots:
                snapshots.append(snapshot)
                grower.add(clustered(400, seed=2))
                for _ in range(3):  # what is replaced goes with the second
                    grower.fold()
            return snapshot

        monkeypatch.setattr(Catalog, "snapshot", then_replace)
        view = open_view(grower.layout, reader)
        assert not grower.layout.segment(snapshots[0].segments[0].number).exists()
        assert view.count == 700
        reader.close()


def test_a_reader_in_the_middle_of_a_query_is_not_hurt_by_a_swap(empty: Path) -> None:
    with Grower(empty) as grower:
        vectors = clustered(300, seed=1)
        grower.add(vectors)
        grower.fold()
        view = grower.view()
        grower.add(clustered(400, seed=2))
        for _ in range(3):
            grower.fold()
        found = view.search(vectors[:5], 3, recall=None, nprobe=None, exact=False)
        assert found[0][:, 0].tolist() == [0] * 5


@pytest.mark.whole("test_a_reader_in_the_middle_of_a_query_is_not_hurt_by_a_swap")
def test_the_segments_that_stay_are_not_opened_again(empty: Path) -> None:
    with Grower(empty) as grower:
        grower.add(clustered(3_000, seed=1))
        grower.fold()
        before = grower.view()
        grower.add(clustered(400, seed=2))
        grower.fold()
        after = open_view(grower.layout, grower.catalog, previous=before)
        assert after.segments[0] is before.segments[0]
        assert len(after.segments) == 2


def test_a_lock_left_by_a_dead_process_does_not_block(indexed: Path, tmp_path: Path) -> None:
    ended = run_python([sys.executable, "-c", DYING, str(indexed)], cwd=tmp_path)
    assert ended.code == -9
    assert (indexed / "lock").exists()
    with Collection.open(indexed, device="cpu") as collection:
        assert collection.index().unchanged == 40


@pytest.mark.whole("test_a_reader_in_the_middle_of_a_query_is_not_hurt_by_a_swap")
def test_segments_may_be_replaced_under_a_reader(collection: Collection, tmp_path: Path) -> None:
    save_pictures(tmp_path / "many", 60)
    collection.index([tmp_path / "many"], nlist=3)
    errors: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                assert len(collection.query(picture(7), k=60)) == 60
        except BaseException as error:
            errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for nlist in (4, 5, 6, 7, 8):
        collection.index(nlist=nlist)
    done.set()
    for reader in readers:
        reader.join()
    assert errors == []


def test_a_collection_that_may_only_be_read_can_be_queried_and_not_changed(indexed: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is closed to others
        Path(folder).chmod(0o755)
        directory = shutil.copytree(indexed, Path(folder, "collection")).resolve()
        for path in [directory, *directory.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        ended = run_python([sys.executable, "-c", AS_NOBODY, str(directory)], cwd=Path("/"))
        for path in [directory, *directory.rglob("*")]:
            path.chmod(0o755)
    assert ended.out == f"40 40\ncannot lock {directory}: Permission denied\n"
