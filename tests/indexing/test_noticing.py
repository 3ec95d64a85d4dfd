"""What has changed is noticed, however it looks from outside; one file never hurts another."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imgsearch.collection import Collection
from imgsearch.files.listing import File, Kind
from imgsearch.files.stamps import LARGEST
from imgsearch.indexing.scan import MANY, Changes
from imgsearch.maintenance.verify import verify
from imgsearch.storage.changes import FileRecord
from tests.support.memory_urls import bucket
from tests.support.outcomes import age, did, files_in, holds, ids_in
from tests.support.pictures import picture
from tests.support.tiny_pictures import content_of

pytestmark = pytest.mark.usefixtures("here")

LONG_AGO = 1_600_000_000 * 10**9


def put(path: Path, seed: int) -> None:
    """Write one of the contents that all have one size, at one time."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content_of(seed))
    os.utime(path, ns=(LONG_AGO, LONG_AGO))


def in_place(path: Path, other: Path) -> None:
    del other
    put(path, 3)


def renamed_over(path: Path, other: Path) -> None:
    del other
    new = path.with_suffix(".new")
    put(new, 3)
    new.replace(path)


def swapped(path: Path, other: Path) -> None:
    aside = path.with_suffix(".aside")
    path.rename(aside)
    other.rename(path)
    aside.rename(other)


@pytest.mark.parametrize("change", [in_place, renamed_over, swapped])
def test_a_change_that_keeps_size_and_time_is_noticed(
    collection: Collection, tmp_path: Path, change: Callable[[Path, Path], None]
) -> None:
    path, other = tmp_path / "photos" / "a.png", tmp_path / "photos" / "b.png"
    put(path, 1)
    put(other, 2)
    collection.index(path.parent)
    change(path, other)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (len(content_of(1)), LONG_AGO)
    assert "unchanged" not in did(collection.index()) or change is not swapped
    assert holds(collection, [path, other])


def test_a_file_that_failed_is_tried_again_when_it_is_mended_with_its_time_kept(
    collection: Collection, tmp_path: Path
) -> None:
    path = tmp_path / "photos" / "a.png"
    put(path, 1)
    path.write_bytes(b"x" * len(content_of(1)))
    os.utime(path, ns=(LONG_AGO, LONG_AGO))
    assert did(collection.index(path.parent)) == {"failed": 1}
    put(path, 1)
    assert did(collection.index()) == {"indexed": 1}


def test_other_permissions_cost_a_look_and_change_nothing(
    collection: Collection, indexed_tree: Path
) -> None:
    before = ids_in(collection)
    for path in files_in(indexed_tree):
        path.chmod(0o600)
    assert did(collection.index()) == {"unchanged": 12}
    assert ids_in(collection) == before


def test_rehash_reads_every_file(
    collection: Collection, indexed_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contents that changed while the file system told nothing of it, as on a drive of FAT."""
    path = indexed_tree / "0000.jpg"
    status = path.stat()
    stat = os.stat
    path.write_bytes(path.read_bytes()[:-2] + b"\0\0")
    picture(33).save(path)
    monkeypatch.setattr(
        os, "stat", lambda *a, **k: status if os.fsdecode(a[0]) == str(path) else stat(*a, **k)
    )
    assert did(collection.index()) == {"unchanged": 12}
    assert did(collection.index(rehash=True)) == {"indexed": 1, "unchanged": 11}


@pytest.mark.few(1)
@pytest.mark.parametrize(
    "time", [-(2**63) - 1, -(2**63), -LARGEST, 0, LARGEST, 2**63, 10_413_792_000 * 10**9]
)
def test_a_file_with_any_time_is_indexed_and_hurts_no_other(
    collection: Collection, tree: Path, monkeypatch: pytest.MonkeyPatch, time: int
) -> None:
    age(tree)
    odd = os.fsencode(tree / "0001.png")
    stat = os.stat

    def said(path: Any, **options: Any) -> os.stat_result:
        found = stat(path, **options)
        if path != odd:
            return found
        times = {"st_atime_ns": 0, "st_mtime_ns": time, "st_ctime_ns": time}
        plain = [found.st_mode, 2**64 - 1, 2**64 - 1, 1, 0, 0, found.st_size]
        return os.stat_result([*plain, 0, 0, 0], times)

    monkeypatch.setattr(os, "stat", said)
    assert did(collection.index(tree)) == {"indexed": 12}
    monkeypatch.undo()
    assert did(collection.index()) == {"unchanged": 12}


@pytest.mark.parametrize("seconds", [10_413_792_000, 15_000_000_000, -2_208_988_800])
def test_a_file_of_another_century_is_indexed_and_unchanged_later(
    collection: Collection, tree: Path, seconds: int
) -> None:
    os.utime(tree / "0001.png", (seconds, seconds))
    collection.index(tree)
    age(*(path for path in files_in(tree) if path.name != "0001.png"))
    for _ in range(2):
        assert did(collection.index()) == {"unchanged": 12}


@pytest.mark.parametrize(
    "info",
    [
        {"size": -1},
        {"size": 2**70},
        {"size": float("nan")},
        {"size": "12"},
        {"size": "many"},
        {"size": None},
        {"mtime": float("nan")},
        {"mtime": float("inf")},
        {"mtime": 1e300},
        {"mtime": -1e300},
        {"mtime": "yesterday"},
        {"LastModified": "0001-01-01T00:00:00+14:00"},
    ],
)
def test_a_file_at_a_url_with_odd_facts_hurts_no_other(
    collection: Collection, monkeypatch: pytest.MonkeyPatch, info: dict[str, object]
) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    with bucket() as files:
        files.put("a.png", 1)
        files.put("b.png", 2)
        ls = MemoryFileSystem.ls

        def odd(self: object, path: str, **options: object) -> list[dict[str, object]]:
            rows = ls(self, path, **options)
            return [{**row, **info} if row["name"].endswith("a.png") else row for row in rows]

        monkeypatch.setattr(MemoryFileSystem, "ls", odd)
        assert did(collection.index(files.url)) == {"indexed": 2}


def _pairs(count: int, changed: int) -> tuple[list[File], dict[bytes, FileRecord]]:
    files = [File(b"%d" % n, 1, 2, Kind.REGULAR, 3, 100 + n) for n in range(count)]
    known = {
        file.name: FileRecord(1, 2, 1, None, False, 3, (file.inode or 0) + 1_000 * (n < changed))
        for n, file in enumerate(files)
    }
    return files, known


def test_a_file_with_another_inode_is_looked_at() -> None:
    files, known = _pairs(100, 3)
    changes = Changes(files, known, rehash=False)
    assert [changes.are_possible(file, known[file.name]) for file in files] == (
        [True] * 3 + [False] * 97
    )


def test_a_file_system_that_numbers_its_files_at_each_mount_costs_no_reading() -> None:
    files, known = _pairs(MANY, MANY)
    changes = Changes(files, known, rehash=False)
    assert not any(changes.are_possible(file, known[file.name]) for file in files)


def test_what_is_not_known_of_a_file_since_format_4_is_learnt_without_reading_it(
    collection: Collection, indexed_tree: Path, empty: Path
) -> None:
    import sqlite3

    with sqlite3.connect(empty / "catalog.sqlite") as catalog:
        catalog.execute("UPDATE images SET ctime_ns = NULL, inode = NULL")
    catalog.close()
    assert did(collection.index()) == {"unchanged": 12}
    with sqlite3.connect(empty / "catalog.sqlite") as catalog:
        rows = catalog.execute("SELECT name, ctime_ns, inode FROM images").fetchall()
    catalog.close()
    there = {os.fsencode(path.name): path.stat() for path in files_in(indexed_tree)}
    assert {name: (ctime_ns, inode) for name, ctime_ns, inode in rows} == {
        name: (status.st_ctime_ns, status.st_ino) for name, status in there.items()
    }


def test_verify_names_the_files_that_are_not_what_was_indexed(
    collection: Collection, indexed_tree: Path, empty: Path
) -> None:
    path, gone, touched = (indexed_tree / name for name in ("0000.jpg", "0002.jpg", "0004.jpg"))
    status = path.stat()
    picture(33).save(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    gone.unlink()
    os.utime(touched)
    collection.close()
    report = verify(empty, sample=0)
    assert (report.damages, report.changed, report.gone) == ((), (str(path),), 1)
