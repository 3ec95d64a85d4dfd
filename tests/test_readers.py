"""Readers never wait for a writer, and always see what was committed last."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from imgsearch.collection import Collection
from tests.pictures import picture, save_pictures
from tests.running import imgsearch_command, run_python

# `imgsearch` that commits every few images, so that a short run has many commits.
OFTEN = """
import sys
from imgsearch import updating
from imgsearch.cli import main
updating.COMMIT_IMAGES = 10
main()
"""

# The same, at a pace at which readers get their turn between the commits.
SLOWLY = """
import sys, time
from imgsearch import Collection, updating
updating.COMMIT_IMAGES = 10
with Collection.open(sys.argv[1], device="cpu") as collection:
    collection.index(sys.argv[2], nlist=4, progress=lambda _: time.sleep(0.004))
"""

# Everything is imported before it becomes somebody who may not even read this Python.
AS_NOBODY = """
import mmap, os, sys
import numpy, onnxruntime
import imgsearch.collection
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
        assert collection.query(new, k=1)[0].distance > 0
        command = imgsearch_command("-c", indexed, "index", new, "--nlist", "4")
        assert run_python(command, cwd=tmp_path).code == 0
        best = collection.query(new, k=1)[0]
        assert (best.path, best.distance) == (str(new), 0)
        assert len(collection.info().list_sizes) == 4


def test_threads_query_while_another_process_indexes_and_their_answers_grow(
    collection: Collection, empty: Path, tmp_path: Path
) -> None:
    paths = save_pictures(tmp_path / "many", 400)
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
