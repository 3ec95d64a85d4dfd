"""`imgsearch verify`: what it prints, and its exit codes."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.support.commands import Run, run_python
from tests.support.privileges import ordinary_folder

# Everything is imported before it becomes somebody who may not even read this Python.
AS_NOBODY = """
import mmap, os, sys
import onnxruntime
import imgsearch.collection
from imgsearch import StorageError, verify
if os.geteuid() == 0:
    os.setuid(65534)
print(verify(sys.argv[1], sample=0).damages)
try:
    verify(sys.argv[1], repair=True)
except StorageError as error:
    print(error)
"""


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_sound_collection_ends_with_0_and_one_line(indexed: Path, run: Run) -> None:
    ended = run("-c", indexed, "verify")
    assert (ended.code, ended.err) == (0, "")
    assert re.fullmatch(
        r"40 images, \d files of \d+\.\d MB; 20 searched for, 20 of them embedded again; "
        r"in \d+\.\d s: all is well\n",
        ended.out,
    )


@pytest.mark.whole("test_damage_ends_with_4_and_names_the_file_and_the_remedy")
def test_files_that_are_not_what_was_indexed_are_named_and_are_no_damage(
    empty: Path, tree: Path, run: Run
) -> None:
    run("-c", empty, "index", tree)
    path = tree / "0000.jpg"
    shutil.copyfile(tree / "0002.jpg", path)
    ended = run("-c", empty, "verify")
    assert ended.code == 0
    first, *_, last = ended.out.splitlines()
    assert first == f"changed: {path}"
    assert last.endswith(
        "the collection is sound, but 1 file is not what was indexed; "
        "`imgsearch index` brings it up to date"
    )
    assert json.loads(run("-c", empty, "verify", "--json").out)["changed"] == [{"path": str(path)}]
    run("-c", empty, "index")
    assert run("-c", empty, "verify").out.endswith("all is well\n")


def test_damage_ends_with_4_and_names_the_file_and_the_remedy(indexed: Path, run: Run) -> None:
    shard = next((indexed / "vectors").iterdir())  # on a busy machine there are several
    _flip(shard)
    ended = run("verify", "-c", indexed)
    assert ended.code == 4
    assert ended.out.startswith(
        f"damaged: vectors/{shard.name}: has changed since it was written: its SHA-256 differs\n"
    )
    assert ended.err == (
        f"imgsearch: {indexed} is damaged; `imgsearch verify --repair` may repair it\n"
    )


def test_a_repair_ends_with_8_and_says_what_it_did(indexed: Path, run: Run) -> None:
    shard = next((indexed / "vectors").iterdir())  # on a busy machine there are several
    _flip(shard)
    ended = run("verify", "-c", indexed, "--repair")
    assert (ended.code, ended.err) == (8, "")
    assert re.search(rf"repaired: vectors/{shard.name}: \d+ embedded again\n", ended.out)
    assert ended.out.endswith(": repaired\n")
    assert run("verify", "-c", indexed).code == 0


def test_what_cannot_be_repaired_ends_with_4(indexed: Path, run: Run) -> None:
    _flip(indexed / "catalog.sqlite")
    _flip(indexed / "catalog.copy")
    ended = run("verify", "-c", indexed, "--repair")
    assert ended.code == 4
    assert ended.out.startswith("damaged: catalog.sqlite: has changed since it was written")
    assert ended.err == f"imgsearch: {indexed} is damaged; restore it from a backup\n"


def test_json_tells_all_of_it(indexed: Path, run: Run) -> None:
    _flip(indexed / "catalog.seal")
    ended = run("verify", "-c", indexed, "--json", "--repair", "--sample", "3")
    assert ended.code == 8
    report = json.loads(ended.out)
    assert report["collection"] == str(indexed)
    assert report["damages"] == [
        {"part": "seal", "file": "catalog.seal", "reason": "has changed since it was written"}
    ]
    assert report["repairs"] == ["catalog.sqlite: sealed and copied again"]
    assert report["left"] == []
    assert (report["images"], report["sampled"], report["embedded"]) == (40, 3, 3)


def test_where_there_is_no_collection_verify_ends_with_3(tmp_path: Path, run: Run) -> None:
    ended = run("verify", "-c", tmp_path / "nowhere")
    assert ended.code == 3
    assert ended.err.startswith("imgsearch: there is no collection at ")


@pytest.mark.whole("test_a_collection_that_may_only_be_read_can_be_queried_and_not_changed")
def test_a_collection_that_may_only_be_read_is_verified_and_not_repaired(
    indexed: Path,
) -> None:
    with ordinary_folder() as folder:
        directory = shutil.copytree(indexed, folder / "collection").resolve()
        paths = [directory, *directory.rglob("*")]
        for path in paths:
            path.chmod(0o555 if path.is_dir() else 0o444)
        ended = run_python([sys.executable, "-c", AS_NOBODY, str(directory)], cwd=Path("/"))
        for path in paths:
            path.chmod(0o755)
    assert ended.out == f"()\ncannot lock {directory}: Permission denied\n", ended.err
