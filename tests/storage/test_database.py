"""The connection to SQLite: all or nothing, one thread at a time, errors that say what to do."""

from __future__ import annotations

import sqlite3
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from imgsearch.errors import BusyError, DamagedError, InputError, StorageError
from imgsearch.storage.database import Database, check_beside
from tests.support.privileges import ordinary_folder, ordinary_user

SCHEMA = """
CREATE TABLE numbers (value INTEGER PRIMARY KEY) STRICT;
CREATE TABLE signs (value INTEGER REFERENCES numbers) STRICT;
"""


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "numbers.sqlite", create=SCHEMA)
    opened.run("PRAGMA busy_timeout = 50")  # not the ten seconds of real life
    yield opened
    opened.close()


def numbers(database: Database) -> list[int]:
    return [value for (value,) in database.rows("SELECT value FROM numbers ORDER BY value")]


def test_what_was_written_is_read(database: Database) -> None:
    database.run("INSERT INTO numbers VALUES (?)", 3)
    database.run_many("INSERT INTO numbers VALUES (?)", [(1,), (2,)])
    assert numbers(database) == [1, 2, 3]
    assert database.rows("SELECT value FROM numbers WHERE value > ?", 9) == []


def test_a_database_is_opened_again_with_what_it_held(database: Database) -> None:
    database.run("INSERT INTO numbers VALUES (7)")
    database.close()
    again = Database(database.path)
    assert numbers(again) == [7]
    again.close()


@pytest.mark.parametrize("name", ["100% ?&#.sqlite", "%41.sqlite", "a b.sqlite", "fotos-é.sqlite"])
def test_a_database_may_have_any_name(tmp_path: Path, name: str) -> None:
    Database(tmp_path / name, create=SCHEMA).close()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    Database(tmp_path / name).close()


def test_a_transaction_shows_to_others_when_it_is_over(database: Database) -> None:
    other = Database(database.path)
    with database.transaction():
        database.run("INSERT INTO numbers VALUES (1)")
        assert numbers(other) == []
    assert numbers(other) == [1]
    other.close()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_transaction_that_fails_leaves_nothing(
    database: Database, error: type[BaseException]
) -> None:
    def fail() -> None:
        with database.transaction():
            database.run("INSERT INTO numbers VALUES (1)")
            raise error

    with pytest.raises(error):
        fail()
    assert numbers(database) == []
    with database.transaction():
        database.run("INSERT INTO numbers VALUES (2)")
    assert numbers(database) == [2]


def test_a_transaction_that_cannot_be_committed_leaves_nothing(database: Database) -> None:
    reading = sqlite3.connect(database.path, isolation_level=None)
    reading.execute("BEGIN")
    reading.execute("SELECT * FROM numbers").fetchall()
    with pytest.raises(BusyError), database.transaction():
        database.run("INSERT INTO numbers VALUES (1)")
    reading.close()
    assert numbers(database) == []
    with database.transaction():
        database.run("INSERT INTO numbers VALUES (2)")
    assert numbers(database) == [2]


def test_a_transaction_that_sqlite_took_back_itself_fails(database: Database) -> None:
    def fail() -> None:
        with database.transaction():
            database.run("INSERT INTO numbers VALUES (1)")
            database.run("ROLLBACK")

    with pytest.raises(DamagedError, match="no transaction is active"):
        fail()
    assert numbers(database) == []


def test_a_transaction_for_reading_sees_one_moment(database: Database) -> None:
    other = Database(database.path)
    with other.transaction("DEFERRED"):
        assert numbers(other) == []
        with pytest.raises(BusyError):
            database.run("INSERT INTO numbers VALUES (1)")
        assert numbers(other) == []
    database.run("INSERT INTO numbers VALUES (1)")
    assert numbers(other) == [1]
    other.close()


def test_another_thread_waits_until_a_transaction_is_over(database: Database) -> None:
    writer = threading.Thread(target=lambda: database.run("INSERT INTO numbers VALUES (2)"))

    def fail() -> None:
        with database.transaction():
            database.run("INSERT INTO numbers VALUES (1)")
            writer.start()
            writer.join(0.05)
            assert writer.is_alive()
            raise ValueError("oops")

    with pytest.raises(ValueError, match="oops"):
        fail()
    writer.join()
    assert numbers(database) == [2]  # not taken back with the transaction of the other thread


def test_many_threads_write_through_one_connection(database: Database) -> None:
    def write(start: int) -> None:
        for number in range(start, start + 10):
            with database.transaction():
                database.run("INSERT INTO numbers VALUES (?)", number)

    threads = [threading.Thread(target=write, args=(start,)) for start in (0, 10, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert numbers(database) == list(range(30))


def test_a_commit_is_on_the_disk_before_it_returns(database: Database) -> None:
    assert database.rows("PRAGMA synchronous") == [(3,)]  # EXTRA
    assert database.rows("PRAGMA journal_mode") == [("delete",)]


def test_macos_is_told_to_flush_the_drive_too(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    mac = Database(database.path)
    assert mac.rows("PRAGMA fullfsync") == [(1,)]
    mac.close()


def test_a_row_that_refers_to_nothing_is_refused(database: Database) -> None:
    with pytest.raises(DamagedError, match="FOREIGN KEY constraint failed"):
        database.run("INSERT INTO signs VALUES (5)")


def test_a_missing_database_is_damage_and_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(
        DamagedError, match=r"numbers\.sqlite is missing; `imgsearch verify --repair`"
    ):
        Database(tmp_path / "numbers.sqlite")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"no database" * 100, b"SQLite format 3\0" + b"z" * 99])
def test_what_is_no_database_is_damaged(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "numbers.sqlite"
    path.write_bytes(content)
    with pytest.raises(DamagedError, match=f"{path} is damaged .*; `imgsearch verify --repair`"):
        Database(path)
    assert path.read_bytes() == content


def test_a_database_that_is_there_is_not_made_again(database: Database) -> None:
    database.run("INSERT INTO numbers VALUES (1)")
    with pytest.raises(DamagedError, match="already exists"):
        Database(database.path, create=SCHEMA)
    assert numbers(database) == [1]


def test_a_database_that_another_program_locks_is_busy(database: Database) -> None:
    other = sqlite3.connect(database.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(BusyError, match=f"{database.path} is locked by another process"):
        numbers(database)
    with pytest.raises(BusyError), database.transaction():
        pytest.fail("began")
    other.close()
    assert numbers(database) == []


def test_a_database_in_a_folder_that_is_missing_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot read or write .*unable to open"):
        Database(tmp_path / "missing" / "numbers.sqlite", create=SCHEMA)


def test_a_full_disk_is_a_storage_error_and_leaves_what_was_there(database: Database) -> None:
    database.run("INSERT INTO numbers VALUES (-1)")
    database.run("PRAGMA max_page_count = 3")  # no room for another
    with pytest.raises(StorageError, match="full"), database.transaction():
        database.run_many("INSERT INTO numbers VALUES (?)", ((n,) for n in range(10_000)))
    assert numbers(database) == [-1]


def test_a_database_that_may_only_be_read_is_read() -> None:
    with ordinary_folder() as folder:
        path = folder / "numbers.sqlite"
        Database(path, create=SCHEMA).close()
        path.chmod(0o444)
        with ordinary_user():
            database = Database(path)
            assert numbers(database) == []
            with pytest.raises(StorageError, match=f"cannot read or write {path}: .*readonly"):
                database.run("INSERT INTO numbers VALUES (1)")
            database.close()


def test_a_database_that_may_not_be_read_is_a_storage_error() -> None:
    with ordinary_folder() as folder:
        path = folder / "numbers.sqlite"
        Database(path, create=SCHEMA).close()
        path.chmod(0)
        with ordinary_user(), pytest.raises(StorageError, match="cannot read or write"):
            Database(path)


def test_the_use_of_a_closed_database_is_no_damage(database: Database) -> None:
    database.close()
    with pytest.raises(InputError, match="is closed; open it again"):
        numbers(database)


def test_a_journal_that_a_writer_truncates_while_it_is_read_is_not_damage(tmp_path: Path) -> None:
    database, journal = tmp_path / "catalog.sqlite", tmp_path / "catalog.sqlite-journal"
    database.write_bytes(bytes(4096))
    done = threading.Event()

    def commit_again_and_again() -> None:
        with journal.open("wb", buffering=0) as file:
            while not done.is_set():
                file.write(bytes(4096))
                file.truncate(0)
                file.seek(0)

    writer = threading.Thread(target=commit_again_and_again)
    writer.start()
    try:
        for _ in range(300):
            check_beside(database)
    finally:
        done.set()
        writer.join()
