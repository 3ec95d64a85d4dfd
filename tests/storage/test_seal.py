"""The seal of the catalog: set at the end of each run, and never on damage."""

from __future__ import annotations

import hashlib
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from imgsearch.collection import Collection
from imgsearch.errors import DamagedError, StorageError
from imgsearch.maintenance.verify import verify
from imgsearch.storage.layout import Layout
from imgsearch.storage.seal import check_sealed, read_seal, restore, seal, writing

# Dies in the middle of a transaction, so that its journal is left.
DYING = """
import os, sqlite3, sys
catalog = sqlite3.connect(sys.argv[1], isolation_level=None)
catalog.execute("PRAGMA cache_size = 1")
catalog.execute("BEGIN IMMEDIATE")
catalog.executemany("UPDATE images SET size = ? WHERE id = ?", [(7, id_) for id_ in range(1, 41)])
catalog.executemany("INSERT INTO removed VALUES (?, ?, 0)", [(n, b"x" * 99) for n in range(9000)])
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def layout(indexed: Path) -> Layout:
    return Layout(indexed)


def commit(layout: Layout) -> None:
    with sqlite3.connect(layout.catalog) as catalog:
        catalog.execute("UPDATE settings SET recall = 0.9 * recall")
    catalog.close()


def run_that_ends_with(layout: Layout, error: BaseException) -> None:
    with writing(layout):
        commit(layout)
        raise error


def test_a_run_leaves_its_catalog_sealed_and_copied(layout: Layout) -> None:
    content = layout.catalog.read_bytes()
    assert layout.copy.read_bytes() == content
    sealed = read_seal(layout)
    assert sealed.sha256 == hashlib.sha256(content).hexdigest()
    assert sealed.changes == int.from_bytes(content[24:28], "big")
    assert check_sealed(layout)


def test_what_removes_and_what_fails_seals_too(layout: Layout, photos: Path) -> None:
    with Collection.open(layout.directory, device="cpu") as collection:
        collection.remove(photos / "0003.png")
        assert check_sealed(layout)
    for error in (KeyboardInterrupt(), StorageError("the disk is full")):
        with pytest.raises(type(error)):
            run_that_ends_with(layout, error)
        assert check_sealed(layout)


def test_nothing_is_sealed_once_damage_was_met(layout: Layout) -> None:
    before = layout.seal.read_bytes(), layout.copy.read_bytes()
    with pytest.raises(DamagedError, match="in the middle of a run"):
        run_that_ends_with(layout, DamagedError("met in the middle of a run"))
    assert (layout.seal.read_bytes(), layout.copy.read_bytes()) == before


def test_what_has_not_changed_is_not_sealed_again(layout: Layout) -> None:
    before = layout.seal.stat().st_mtime_ns, layout.copy.stat().st_mtime_ns
    seal(layout)
    assert (layout.seal.stat().st_mtime_ns, layout.copy.stat().st_mtime_ns) == before


def test_a_later_commit_is_told_from_damage(layout: Layout) -> None:
    commit(layout)
    assert not check_sealed(layout)
    content = bytearray(layout.catalog.read_bytes())
    content[24:28] = (int.from_bytes(content[24:28], "big") + 1).to_bytes(4, "big")
    layout.catalog.write_bytes(content)  # the number at 92 is that of the last commit yet
    with pytest.raises(DamagedError, match="does not match its seal"):
        check_sealed(layout)


def die_in_a_transaction(layout: Layout) -> None:
    before = layout.catalog.read_bytes()
    command = [sys.executable, "-c", DYING, str(layout.catalog)]
    assert subprocess.run(command, check=False, timeout=60).returncode == -9
    assert layout.journal.exists()
    assert layout.catalog.read_bytes() != before


def test_a_transaction_that_was_killed_is_taken_back_and_is_no_damage(layout: Layout) -> None:
    before = layout.catalog.read_bytes()
    die_in_a_transaction(layout)
    report = verify(layout.directory)
    assert (report.damages, report.sealed) == ((), True)
    assert layout.catalog.read_bytes() == before


def test_a_failed_transaction_is_taken_back_before_the_catalog_is_sealed(layout: Layout) -> None:
    before = layout.catalog.read_bytes()
    with writing(layout):
        die_in_a_transaction(layout)
    assert layout.catalog.read_bytes() == layout.copy.read_bytes() == before
    assert not layout.journal.exists()
    assert check_sealed(layout)


def test_a_damaged_seal_is_no_seal(layout: Layout) -> None:
    content = layout.seal.read_bytes()
    altered = content[:-1], content + b" ", content.replace(b"a", b"b")
    for other in (b"", b"{}", b"[]", b"\xff", *altered):
        layout.seal.write_bytes(other)
        with pytest.raises(DamagedError, match=r"catalog\.seal is damaged"):
            read_seal(layout)
        with pytest.raises(DamagedError), writing(layout):
            raise AssertionError


def test_a_catalog_is_put_back_from_a_copy_that_is_what_was_sealed_and_from_no_other(
    layout: Layout,
) -> None:
    content = layout.catalog.read_bytes()
    layout.catalog.write_bytes(b"lost")
    layout.journal.write_bytes(b"of another catalog")
    assert restore(layout)
    assert layout.catalog.read_bytes() == content
    assert not layout.journal.exists()
    layout.copy.write_bytes(content[:-1])
    layout.catalog.write_bytes(b"lost")
    assert not restore(layout)
    assert layout.catalog.read_bytes() == b"lost"
