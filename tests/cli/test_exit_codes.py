"""The exit codes that are no answer: 4 damaged, 5 busy, 6 no model, 7 no disk, 130 interrupted."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from imgsearch.collection import Collection
from imgsearch.indexing.policy import FoldPolicy
from imgsearch.storage.files import exclusive
from tests.robustness.test_readers import OFTEN
from tests.support.commands import Run, run_python
from tests.support.injection import begin_with
from tests.support.pictures import save_pictures

Invoke = Callable[..., Result]


@pytest.mark.parametrize(
    ("victim", "command"),
    [
        ("collection.json", ["info"]),
        ("catalog.sqlite", ["info"]),
        ("vectors/*.npy", ["query", "PHOTO"]),
        ("segments/*.faiss", ["query", "PHOTO"]),
        ("segments/*.faiss", ["info"]),
        ("model.onnx", ["query", "PHOTO"]),
    ],
)
def test_a_damaged_collection_ends_with_4(
    invoke: Invoke, indexed: Path, photos: Path, victim: str, command: list[str]
) -> None:
    if victim.startswith("segments"):
        invoke("-c", indexed, "index", "--nlist", "4")
    damaged = next(indexed.glob(victim))
    damaged.write_bytes(b"garbage" * 200)
    command = [str(photos / "0003.png") if part == "PHOTO" else part for part in command]
    ended = invoke("-c", indexed, *command)
    assert ended.exit_code == 4
    (line,) = ended.stderr.splitlines()
    assert line.startswith("imgsearch: ")
    assert str(damaged) in line
    assert "restore" in line
    assert ended.stdout == ""


def test_a_newer_format_ends_with_4(invoke: Invoke, indexed: Path) -> None:
    manifest = {"format": "imgsearch collection", "version": 99}
    (indexed / "collection.json").write_text(json.dumps(manifest))
    ended = invoke("-c", indexed, "info")
    assert ended.exit_code == 4
    assert "has format version 99" in ended.stderr
    assert "update imgsearch" in ended.stderr


def test_a_collection_that_is_being_written_to_ends_with_5(
    run: Run, indexed: Path, photos: Path
) -> None:
    with exclusive(indexed):
        ended = run("-c", indexed, "index", photos)
        assert (ended.code, ended.err) == (
            5,
            f"imgsearch: another imgsearch is writing to {indexed}, or is verifying it; "
            "try again when it is done\n",
        )
        assert run("-c", indexed, "query", photos / "0003.png").code == 0


@pytest.mark.whole("test_weights_are_downloaded_once_and_checked")
def test_weights_that_cannot_be_fetched_end_with_6_and_say_where_to_put_them(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    nowhere = "http://127.0.0.1:9"  # the discard port: nobody listens, the refusal comes at once
    env = {"TORCH_HOME": str(tmp_path / "torch"), "https_proxy": nowhere}
    ended = run("-c", "new", "index", photos, "--model", "inception_v3", cwd=tmp_path, env=env)
    assert ended.code == 6
    place = tmp_path / "torch" / "hub" / "checkpoints" / "inception_v3_google-0cc3c7bd.pth"
    (line,) = [line for line in ended.err.splitlines() if line.startswith("imgsearch: ")]
    assert "cannot fetch the weights IMAGENET1K_V1 of inception_v3 from https://" in line
    assert f"put the file at {place} by hand" in line
    assert not (tmp_path / "new").exists()


def test_a_device_that_is_not_there_ends_with_6(invoke: Invoke, indexed: Path) -> None:
    ended = invoke("-c", indexed, "index", "--device", "mps")
    assert ended.exit_code == 6
    assert "there is no mps device" in ended.stderr
    assert "use --device cpu" in ended.stderr


def small_disk(size: int) -> Callable[[], None]:
    """Return what lets a process write no file above `size` bytes, as on a full disk."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


#: The command line on a machine that is never so busy that it commits before it is done.
AT_ONCE = f"""
{begin_with(FoldPolicy(commit_seconds=3600))}
from imgsearch.cli import main
main()
"""


# A shard of 400 embeddings has 77,000 bytes. A segment of 840 with 800 centroids has 328,000, and
# their catalog 246,000.
@pytest.mark.whole("test_a_quota_ends_in_one_line_and_loses_nothing")
@pytest.mark.parametrize(
    ("full", "count", "size"), [("vectors", 400, 60_000), ("segments", 800, 290_000)]
)
@pytest.mark.usefixtures("uncovered")
def test_a_full_disk_ends_with_7_and_loses_nothing(
    run: Run, indexed: Path, tmp_path: Path, full: str, count: int, size: int
) -> None:
    save_pictures(tmp_path / "more", count, first=100)
    run("-c", indexed, "index", *([tmp_path / "more"] if full == "segments" else []))
    run("-c", indexed, "index")  # nothing is left to be cleaned up
    before = images_in(indexed)
    command = [sys.executable, "-c", AT_ONCE, "-c", str(indexed), "index", str(tmp_path / "more")]
    ended = run_python([*command, "--nlist", f"{count}"], cwd=tmp_path, before=small_disk(size))
    assert ended.code == 7
    (line,) = ended.err.splitlines()
    assert line.startswith(f"imgsearch: cannot write {indexed / full}/0000000")
    assert images_in(indexed) == before
    assert not list(indexed.rglob("*.tmp"))
    assert run("-c", indexed, "index", "--nlist", f"{count}").code == 0
    assert images_in(indexed) == 40 + count


def images_in(directory: Path) -> int:
    with Collection.open(directory, device="cpu") as collection:
        return collection.info().images


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Enough images for a run of some seconds."""
    save_pictures(tmp_path / "many", 600)
    return tmp_path / "many"


@pytest.mark.whole("test_a_run_that_is_ended_takes_its_workers_along_and_the_same_command_resumes")
def test_ctrl_c_ends_with_130_and_the_same_command_resumes(
    empty: Path, many: Path, run: Run
) -> None:
    arguments = ["-c", str(empty), "index", str(many)]
    with subprocess.Popen(
        [sys.executable, "-c", OFTEN, *arguments],
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    ) as process:
        while images_in(empty) == 0:
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the workers, too
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err == (
        "imgsearch: interrupted; everything indexed so far is kept; run the same command again to "
        "resume"
        "\n"
    )
    before = images_in(empty)
    assert 0 < before < 600
    report = json.loads(run(*arguments, "--json").out)
    assert (report["unchanged"], report["indexed"]) == (before, 600 - before)
