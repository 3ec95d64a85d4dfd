"""A SQLite connection that several threads may use, and whose errors are imgsearch's."""

from __future__ import annotations

import sqlite3
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from imgsearch.errors import MEND, BusyError, DamagedError, ImgsearchError, StorageError

__all__ = ["Database"]


class Database:
    """An open SQLite file."""

    def __init__(self, path: Path, *, create: str | None = None) -> None:
        """Open the database at `path`, or create it with a schema.

        Raises:
            DamagedError: it is missing or is no database.
            StorageError: it cannot be opened.
        """
        self.path = path
        self._lock = threading.RLock()
        if create is None and not path.exists():
            raise DamagedError(f"{path} is missing; {MEND}")
        mode = "rw" if create is None else "rwc"  # SQLite reads only where it cannot write
        uri = f"{path.absolute().as_uri()}?mode={mode}"
        with self._translated():
            self._connection = sqlite3.connect(
                uri, uri=True, timeout=10, isolation_level=None, check_same_thread=False
            )
        try:
            self._prepare(create)
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self, create: str | None) -> None:
        self.run("PRAGMA synchronous = EXTRA")
        self.run("PRAGMA foreign_keys = ON")
        if sys.platform == "darwin":
            self.run("PRAGMA fullfsync = ON")
        if create is not None:
            with self._translated():
                self._connection.executescript(f"BEGIN IMMEDIATE; {create} COMMIT;")

    def close(self) -> None:
        """Close it; no other method may be called then."""
        with self._lock:
            self._connection.close()

    def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        with self._lock, self._translated():
            return self._connection.execute(statement, values).fetchall()

    def run(self, statement: str, *values: object) -> None:
        """Run a statement."""
        with self._lock, self._translated():
            self._connection.execute(statement, values)

    def run_many(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        """Run a statement once a row."""
        with self._lock, self._translated():
            self._connection.executemany(statement, rows)

    @contextmanager
    def transaction(self, kind: str = "IMMEDIATE") -> Iterator[None]:
        """Make what happens within happen as a whole or not at all."""
        with self._lock:
            self.run(f"BEGIN {kind}")
            try:
                yield
                self.run("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.rollback()
                raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.ProgrammingError:  # such as the use of a closed collection: a bug, no damage
            raise
        except sqlite3.Error as error:
            raise _translate(error, self.path) from error
        except UnicodeDecodeError as error:  # in SQLite's own message, of a damaged name
            raise DamagedError(f"{self.path} is damaged; {MEND}") from error


def _translate(error: sqlite3.Error, path: Path) -> ImgsearchError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return BusyError(f"{path} is locked by another process; try again")
    if code in (
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
    ):
        return StorageError(f"cannot read or write {path}: {error}")
    return DamagedError(f"{path} is damaged ({error}); {MEND}")
