"""Killed at any moment, nothing committed is lost, and the same command resumes."""

from __future__ import annotations

import random
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
import pytest

from imgsearch.collection import Collection
from tests.pictures import picture, save_pictures
from tests.running import imgsearch_command
from tests.test_readers import OFTEN

IMAGES = 200


def committed(directory: Path) -> tuple[list[str], npt.NDArray[np.float32]]:
    """Return the path and the embedding of each image that is found, ordered by id from 1 on."""
    with Collection.open(directory, device="cpu") as collection:
        hits = collection.query(picture(0), k=10 * IMAGES, exact=True)
        paths = [hit.path for hit in sorted(hits, key=lambda hit: hit.id)]
        assert sorted(hit.id for hit in hits) == list(range(1, len(hits) + 1))
        assert collection.info().images == len(hits)
    catalog = sqlite3.connect(directory / "catalog.sqlite")
    numbers = [row[0] for row in catalog.execute("SELECT number FROM shards ORDER BY first_id")]
    assert catalog.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    catalog.close()
    shards = [np.load(directory / "vectors" / f"{number:08}.npy") for number in numbers]
    return paths, np.concatenate(shards) if shards else np.empty((0, 1280), np.float32)


@pytest.mark.slow
def test_killed_five_times_the_collection_ends_as_undisturbed(
    mobilenet_empty: Path, tmp_path: Path
) -> None:
    save_pictures(tmp_path / "many", IMAGES)
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    shutil.copytree(mobilenet_empty, undisturbed)
    shutil.copytree(mobilenet_empty, disturbed)

    def start(directory: Path) -> subprocess.Popen[bytes]:
        arguments = ["-c", str(directory), "index", str(tmp_path / "many"), "--nlist", "8"]
        return subprocess.Popen([sys.executable, "-c", OFTEN, *arguments])

    started = time.monotonic()
    with start(undisturbed) as process:
        assert process.wait() == 0
    whole = time.monotonic() - started

    moments = random.Random(1234)
    progress = []
    for _ in range(5):
        with start(disturbed) as process:
            time.sleep(moments.uniform(0.2, 0.7) * whole)
            workers = psutil.Process(process.pid).children() if process.poll() is None else []
            process.kill()
        _, alive = psutil.wait_procs(workers, timeout=10)
        assert not alive
        paths, vectors = committed(disturbed)
        assert len(vectors) == len(paths)
        progress.append(len(paths))
        with Collection.open(disturbed, device="cpu") as collection:
            best = collection.query_many(vectors, k=1) if len(vectors) else []
        assert [hits[0].path for hits in best] == paths
    assert progress == sorted(progress)
    assert progress[-1] > 0

    with start(disturbed) as process:
        assert process.wait() == 0
    expected, got = committed(undisturbed), committed(disturbed)
    assert got[0] == expected[0]
    assert len(got[0]) == IMAGES
    np.testing.assert_allclose(got[1], expected[1], atol=1e-6)
    with (
        Collection.open(undisturbed, device="cpu") as one,
        Collection.open(disturbed, device="cpu") as other,
    ):
        queries = expected[1][::10]
        answers = other.query_many(queries, k=3)
        for hits, same in zip(answers, one.query_many(queries, k=3), strict=True):
            assert [hit.id for hit in hits] == [hit.id for hit in same]
        assert other.info().list_sizes == one.info().list_sizes


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_a_shard_is_on_the_disk_before_the_catalog_names_it(
    empty: Path, photos: Path, tmp_path: Path
) -> None:
    log = tmp_path / "strace"
    calls = "fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat"
    strace = ["strace", "-f", "-y", "-o", str(log), "-e", f"trace={calls}", "-e", "signal=none"]
    index = imgsearch_command("-c", empty, "index", photos, "--nlist", "4")
    ended = subprocess.run([*strace, *index], capture_output=True, timeout=100, check=False)
    if b"ptrace" in ended.stderr:
        pytest.skip("strace may not trace here")
    assert ended.returncode == 0
    steps = [line for line in log.read_text().splitlines() if str(empty) in line]

    def first(pattern: str, after: int = 0) -> int:
        found = (n for n, line in enumerate(steps) if n >= after and re.search(pattern, line))
        return next(found)

    for folder, file in (("vectors", r"00000001\.npy"), ("segments", r"00000001\.faiss")):
        synced = first(rf"sync\(.*{file}\.tmp>")
        renamed = first(rf"rename.*{file}\.tmp.*{file}\"", synced)
        durable = first(rf"sync\(.*/{folder}>", renamed)
        # In SQLite's journal mode DELETE, a transaction is committed when its journal is unlinked.
        before = [n for n in range(synced) if re.search(r"unlink.*-journal", steps[n])]
        written = first(r"sync\(.*catalog\.sqlite>", durable)
        journal_gone = first(r"unlink.*catalog\.sqlite-journal", written)
        assert synced < renamed < durable < written < journal_gone
        assert not any(renamed > n > synced for n in before)
        between = steps[synced:durable]
        assert not any("unlink" in line and "-journal" in line for line in between)
