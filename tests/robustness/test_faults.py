"""Killed at any one step, or told by the disk that it fails, a collection stays whole."""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.commands import Run, imgsearch_command
from tests.support.depth import Harm
from tests.support.integrity import check, check_alike, check_tidy
from tests.support.strace import Fault, Life, run_traced

pytestmark = pytest.mark.processes

MOST = 20  # moments of one system call; they are spread over all of its calls

KILL = "signal=KILL"
KILLS = [
    (call, KILL)
    for call in ("renameat", "unlink", "unlinkat", "fsync", "fdatasync", "pwrite64", "mkdir")
]

ERRORS = [
    ("write", "error=ENOSPC"),
    ("pwrite64", "error=ENOSPC"),
    ("pwrite64", "error=EIO"),
    ("fsync", "error=EIO"),
    ("fdatasync", "error=EIO"),
    ("renameat", "error=EACCES"),
    ("unlink", "error=EIO"),
    ("unlinkat", "error=EIO"),
    ("mkdir", "error=ENOSPC"),
    ("openat", "error=EMFILE"),
    ("openat", "error=EIO"),
    ("pread64", "error=ESTALE"),
]


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Life:
    """A life with a collection, to be lived again and again."""
    return Life(tmp_path_factory.mktemp("life"))


@pytest.fixture(scope="module")
def undisturbed(life: Life, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection after a life in which nothing went wrong."""
    directory = tmp_path_factory.mktemp("undisturbed") / "collection"
    life.live(directory)
    return directory


def faults_of(
    life: Life, directory: Path, kinds: Sequence[tuple[str, str]], count: int
) -> tuple[list[Fault], tuple[Path, ...]]:
    """Return `count` faults of some kinds, drawn from all steps, and the files they concern."""
    calls = sorted({call for call, _ in kinds})
    traced = life.trace(directory, ",".join(calls))
    assert (traced.code, traced.complaints()) == (0, [])
    shutil.rmtree(directory)
    all_ = []
    for call, what in kinds:
        times = traced.count(call)
        assert times
        step = max(1, times // MOST)
        all_ += [Fault(call, when, what) for when in range(1, times + 1, step)]
    drawn = random.Random(1234).sample(all_, min(count, len(all_)))
    return drawn, tuple(Path(name) for name in traced.touched())


@pytest.mark.whole("test_any_history_of_files_ends_as_a_collection_made_afresh")
def test_killed_at_any_step_it_is_whole_and_ends_as_undisturbed(
    life: Life, undisturbed: Path, tmp_path: Path, harm: Harm
) -> None:
    directory = tmp_path / "collection"
    faults, files = faults_of(life, directory, KILLS, harm.times(3, 60))
    for fault in faults:
        traced = life.trace(directory, fault.call, fault=fault, only=files)
        assert traced.code == -9, fault
        if (directory / "collection.json").exists():
            check(directory)
        life.live(directory)
        check_alike(directory, undisturbed)
        check_tidy(directory)
        shutil.rmtree(directory)
        harm.done("kills")


@pytest.mark.whole("test_a_quota_ends_in_one_line_and_loses_nothing")
def test_whatever_the_disk_refuses_is_told_in_one_line_and_loses_nothing(
    life: Life, undisturbed: Path, tmp_path: Path, harm: Harm
) -> None:
    directory = tmp_path / "collection"
    faults, files = faults_of(life, directory, ERRORS, harm.times(4, 60, fast=1))
    for fault in faults:
        traced = life.trace(directory, fault.call, fault=fault, only=files)
        assert any("(INJECTED)" in line for line in traced.lines), fault
        if traced.code:  # SQLite makes do without the sync of a folder
            (line,) = traced.complaints()
            assert (traced.code, line[:10]) == (7, "imgsearch:"), fault
            assert str(directory) in line
        else:
            assert traced.complaints() == []
        if (directory / "collection.json").exists():
            check(directory)
        life.live(directory)
        check_alike(directory, undisturbed)
        check_tidy(directory)
        shutil.rmtree(directory)
        harm.done("file faults")


@pytest.mark.whole("test_any_history_of_files_ends_as_a_collection_made_afresh")
@pytest.mark.parametrize(("call", "error"), [("mmap", "ENOMEM"), ("openat", "EMFILE")])
def test_an_index_that_cannot_be_mapped_is_not_taken_for_damaged(
    indexed: Path, photos: Path, tmp_path: Path, run: Run, call: str, error: str
) -> None:
    assert run("-c", indexed, "index", "--nlist", "4").code == 0
    (segment,) = (indexed / "segments").glob("*.faiss")
    command = imgsearch_command("-c", indexed, "query", photos / "0003.png")
    only = segment if call == "mmap" else segment.parent  # relative to which it is opened
    ended = run_traced(
        command,
        tmp_path / "strace",
        call,
        fault=Fault(call, 1, f"error={error}"),
        only=(only,),
    )
    assert ended.code == 7
    assert ended.err == f"imgsearch: cannot read {segment}: {os.strerror(getattr(errno, error))}\n"
