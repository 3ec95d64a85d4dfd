"""A SQLite connection that several threads may share, and that raises imgsearch's exceptions.

The file may come from somebody else (`docs/security.md`). Its schema is not trusted: a statement
may do only what our own statements do, and may take no more steps than the number of possible rows
justifies. Nor are the files beside it. Whoever opens a database next plays back a rollback journal
that was left behind. At its end, the journal may name a super-journal: any file, which SQLite then
reads and deletes. For a database in WAL mode, SQLite opens, creates and writes two more files by
name, even if these are links. imgsearch creates neither, so both count as damage.
(SQLite, "Database File Format", sections 1.3.4, 3 and 4.)
"""

from __future__ import annotations

import os
import sqlite3
import struct
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from imgsearch.errors import (
    REPAIR_IT,
    BusyError,
    DamagedError,
    ImgsearchError,
    InputError,
    StorageError,
    reason_of,
)
from imgsearch.files.opening import check_regular, open_regular

__all__ = ["BESIDE", "Database", "check_beside"]

_T = TypeVar("_T")

STEPS = 10_000  # of SQLite's virtual machine, between two checks of their number
FREE = 2_000_000  # steps that a statement may take whatever the size of the database
EACH = 16  # steps for each byte of the database: no row is so short that it takes more
PER_VALUE = 200  # steps for each byte of a value passed to a statement
LENGTH = 64 << 20  # bytes of the longest value, whatever the size of the database

_SCHEMA_CHANGES = frozenset(
    getattr(sqlite3, f"SQLITE_{name}")
    for name in (
        *("CREATE_INDEX", "CREATE_TABLE", "CREATE_TRIGGER", "CREATE_VIEW", "CREATE_VTABLE"),
        *("DROP_INDEX", "DROP_TABLE", "DROP_TRIGGER", "DROP_VIEW", "DROP_VTABLE"),
        *("ALTER_TABLE", "REINDEX", "ANALYZE"),
    )
)
_NEVER = frozenset({sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH, sqlite3.SQLITE_RECURSIVE})
_NO_PRAGMAS = frozenset({"writable_schema", "temp_store_directory", "data_store_directory"})
_FUNCTIONS = frozenset(
    {
        *("abs", "avg", "coalesce", "count", "hex", "ifnull", "iif", "instr", "json_each"),
        *("length", "lower", "max", "min", "nullif", "quote", "random", "replace", "round"),
        *("substr", "sum", "total", "typeof", "upper"),
    }
)

#: The suffixes of the files that SQLite may create beside a database.
BESIDE = ("-journal", "-wal", "-shm")

_MAGIC = bytes.fromhex("d9d505f920a163d7")
_HEADER = struct.Struct(">8sIIIII")  # magic, records, nonce, pages, sector, page size
_SUPER = struct.Struct(">II8s")  # length and checksum of the name that ends here, magic
_ALL = 0xFFFFFFFF  # number of records that stands for all up to the end of the file
_DATABASE = b"SQLite format 3\0"
_ROLLBACK = b"\x01\x01"  # read and write version; 2 is WAL
_VERSIONS = 18  # offset of these versions
_LEAST = 4 << 20  # bytes that a journal may have whatever the size of its database
_TIMES = 4  # further bytes that a journal may have for each byte of its database

#: The databases that are open in this process.
_open: weakref.WeakSet[Database] = weakref.WeakSet()
_opening = threading.Lock()


class Database:
    """An open SQLite file, or an in-memory copy of one."""

    _closed = False

    def __init__(self, path: Path, *, create: str | None = None, writable: bool = True) -> None:
        """Open the database at `path`, or create it with a schema.

        Args:
            path: Path of the file.
            create: Schema of a database to create; None to open an existing one.
            writable: Whether the database may be written to. Even if not, a transaction that was
                killed is rolled back.

        Raises:
            DamagedError: If the file is missing or is not a database, or if it or a file beside it
                has something that imgsearch never writes.
            StorageError: If the file cannot be opened.
        """
        self.path = path
        self._lock = threading.RLock()
        self._writable = writable or create is not None
        self._alterable = create is not None
        self._identity: tuple[int, int] | None = None
        self._left, self._stopped = 0, False
        with _opening:
            self._check(missing_ok=create is not None)
            if create is not None:
                self._make_private()
            with self._translated():
                self._connection = self._connect("rw" if self._writable else "ro")
            _open.add(self)
        try:
            self._prepare(create)
        except BaseException:
            self.close()
            raise
        self._alterable = False

    def _check(self, *, missing_ok: bool) -> None:
        """Check the file before SQLite opens it, unless this process already has it open."""
        check_beside(self.path)
        try:
            status = self.path.stat()
            identity = status.st_dev, status.st_ino
            if all(other._identity != identity for other in _open):
                _check_header(self.path)
            self._identity = identity
        except FileNotFoundError as error:
            if not missing_ok:
                raise DamagedError(f"{self.path} is missing; {REPAIR_IT}") from error
        except OSError as error:
            raise StorageError(f"cannot read or write {self.path}: {error.strerror}") from error

    def _make_private(self) -> None:
        """Create the file with the permissions of its folder, as far as they apply to a file."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            mode = self.path.parent.stat().st_mode & 0o666
            os.close(os.open(self.path, flags, mode))
        except OSError as error:
            reason = f"unable to open database file ({error.strerror})"
            raise StorageError(f"cannot read or write {self.path}: {reason}") from error

    def _connect(self, mode: str) -> sqlite3.Connection:
        # Where it cannot write, SQLite falls back to reading only.
        uri = f"{self.path.absolute().as_uri()}?mode={mode}"
        return sqlite3.connect(
            uri, uri=True, timeout=10, isolation_level=None, check_same_thread=False
        )

    def _prepare(self, create: str | None) -> None:
        self._guard(self._connection)
        self.run("PRAGMA trusted_schema = OFF")
        self.run("PRAGMA cell_size_check = ON")
        self.run("PRAGMA synchronous = EXTRA")
        self.run("PRAGMA foreign_keys = ON")
        if sys.platform == "darwin":
            self.run("PRAGMA fullfsync = ON")
        if create is not None:
            with self._translated():
                self._connection.executescript(f"BEGIN IMMEDIATE; {create} COMMIT;")

    def _guard(self, connection: sqlite3.Connection) -> None:
        """Let statements do what our own statements do, and no more."""
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, max(LENGTH, self._size()))
        connection.set_authorizer(_authorizer(weakref.ref(self)))
        connection.set_progress_handler(_progress(weakref.ref(self)), STEPS)
        self._left = FREE

    @contextmanager
    def altering(self) -> Iterator[None]:
        """Let statements change the schema within this context."""
        self._alterable = True
        try:
            yield
        finally:
            self._alterable = False

    @classmethod
    def in_memory(cls, path: Path) -> Database:
        """Return a writable in-memory copy of a database; raises as `Database`."""
        with closing(cls(path, writable=False)) as source, source.transaction("DEFERRED"):
            copy = cls.__new__(cls)
            copy.path, copy._lock, copy._identity = path, threading.RLock(), None
            copy._writable, copy._alterable = True, False
            copy._left, copy._stopped = FREE, False
            source.rows("PRAGMA schema_version")  # holds off writers: the copy would wait for them
            with copy._translated():
                copy._connection = sqlite3.connect(
                    ":memory:", isolation_level=None, check_same_thread=False
                )
                source._connection.backup(copy._connection)
        copy._prepare(None)
        return copy

    def close(self) -> None:
        """Close the database; other methods raise `InputError` afterwards."""
        with self._lock:
            self._connection.close()
            _open.discard(self)
            self._closed = True

    def check_open(self) -> None:
        """Raise `InputError` if the database was closed."""
        if self._closed:
            where = self.path.parent
            raise InputError(f"the collection at {where} is closed; open it again")

    def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        return self._run(values, lambda: self._connection.execute(statement, values).fetchall())

    def run(self, statement: str, *values: object) -> None:
        """Run a statement."""
        self._run(values, lambda: self._connection.execute(statement, values))

    def run_many(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        """Run a statement once per row."""
        rows = list(rows)
        self._run((), lambda: self._connection.executemany(statement, rows), PER_VALUE * len(rows))

    def _run(self, values: Sequence[object], work: Callable[[], _T], more: int = 0) -> _T:
        """Run a statement, after rolling back a transaction that was killed, if there is one."""
        with self._lock:
            for value in values:
                if isinstance(value, str | bytes):
                    more += PER_VALUE * len(value)
                    if len(value) > LENGTH:
                        self._allow(2 * len(value))
            self._left, self._stopped = FREE + more, False
            try:
                with self._translated():
                    return work()
            except _KilledError:
                self._roll_back()
            with self._translated():
                return work()

    def _allow(self, length: int) -> None:
        """Allow values of this length."""
        limit = sqlite3.SQLITE_LIMIT_LENGTH
        if self._connection.getlimit(limit) < length:
            self._connection.setlimit(limit, length)

    def _roll_back(self) -> None:
        """Let SQLite roll back a killed transaction from its journal."""
        check_beside(self.path)
        with closing(self._connect("rw")) as connection, self._translated():
            connection.execute("PRAGMA schema_version").fetchall()

    def _size(self) -> int:
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    @contextmanager
    def transaction(self, kind: str = "IMMEDIATE") -> Iterator[None]:
        """Run the statements of this context as one transaction: all of them or none."""
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
        self.check_open()
        try:
            yield
        except sqlite3.ProgrammingError:  # a bug, not damage
            raise
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0)
            if code in (sqlite3.SQLITE_AUTH, sqlite3.SQLITE_INTERRUPT) and not self._stopped:
                # Ctrl-C arrived during one of our callbacks: sqlite3 drops exceptions raised there.
                raise KeyboardInterrupt from error
            raise _translate(error, self.path) from error
        except UnicodeDecodeError as error:  # SQLite's own message quotes a damaged name
            raise DamagedError(f"{self.path} is damaged; {REPAIR_IT}") from error


class _KilledError(StorageError):
    """A transaction that was killed, as found by a connection that may only read."""


def _authorizer(database: weakref.ref[Database]) -> Callable[..., int]:
    """Return the callback that tells SQLite whether a statement may do something."""

    def allows(action: int, first: str | None, second: str | None, _: str, source: str) -> int:
        owner = database()
        alterable = owner is not None and owner._alterable
        refused = (
            action in _NEVER
            or source is not None  # a trigger or a view: our schema has none
            or (action in _SCHEMA_CHANGES and not alterable)
            or (action == sqlite3.SQLITE_FUNCTION and not alterable and second not in _FUNCTIONS)
            or (action == sqlite3.SQLITE_PRAGMA and first in _NO_PRAGMAS)
        )
        if refused and owner is not None:
            owner._stopped = True
        return sqlite3.SQLITE_DENY if refused else sqlite3.SQLITE_OK

    return allows


def _progress(database: weakref.ref[Database]) -> Callable[[], bool]:
    """Return the callback that tells SQLite whether a statement has run for too long."""

    def is_endless() -> bool:
        owner = database()
        if owner is None:
            return True
        owner._left -= STEPS
        if owner._left < 0 and owner._left < -EACH * owner._size():
            owner._stopped = True
        return owner._stopped

    return is_endless


def _translate(error: sqlite3.Error, path: Path) -> ImgsearchError:
    extended = getattr(error, "sqlite_errorcode", 0)
    code = extended & 0xFF
    if extended == sqlite3.SQLITE_READONLY_ROLLBACK:
        return _KilledError(f"cannot read or write {path}: a transaction was killed: {error}")
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
    return DamagedError(f"{path} is damaged ({error}); {REPAIR_IT}")


def check_beside(path: Path) -> None:
    """Check a database and the files beside it; only a journal is read.

    Raises:
        DamagedError: If the database is not a regular file, or if there is a file that imgsearch
            never leaves behind.
        StorageError: If a file cannot be read.
    """
    try:
        journal = Path(f"{path}-journal")
        status, left = check_regular(path), check_regular(journal)
        for suffix in BESIDE[1:]:
            if os.path.lexists(f"{path}{suffix}"):
                raise DamagedError(
                    f"{path}{suffix} was not made by imgsearch, but SQLite would use it; "
                    f"{REPAIR_IT}"
                )
        if status is not None and left is not None and left.st_size:
            _check_journal(journal, left, status)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {reason_of(error)}") from error


def _check_header(path: Path) -> None:
    """Check that a database is not in WAL mode.

    The file is opened and closed here, which releases the locks that any other connection of this
    process holds on it.

    Raises:
        FileNotFoundError: If the database is missing.
        DamagedError: If the database is in WAL mode or is not a regular file.
        StorageError: If the database cannot be read.
    """
    try:
        with open_regular(path) as file:
            head = file.read(100)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageError(f"cannot read or write {path}: {reason_of(error)}") from error
    if _is_foreign(head):
        raise DamagedError(f"{path} is damaged (it asks for a write-ahead log); {REPAIR_IT}")


def _check_journal(path: Path, status: os.stat_result, database: os.stat_result) -> None:
    wrong = None
    if status.st_size > _LEAST + _TIMES * database.st_size:
        wrong = f"has {status.st_size:,} bytes, which is more than its database calls for"
    elif status.st_uid not in (database.st_uid, os.geteuid(), 0):
        wrong = "belongs to another user than its database"
    else:
        with suppress(FileNotFoundError), open_regular(path) as file:  # a missing one was committed
            wrong = _wrong_content(file)
    if wrong is not None:
        raise DamagedError(f"{path} {wrong}; {REPAIR_IT}")


def _wrong_content(file: BinaryIO) -> str | None:
    """Return what must not be in a journal; None if SQLite may read it.

    A writer truncates its journal when it commits, perhaps while it is read here: what is left is
    then checked again.
    """
    while True:
        size = os.fstat(file.fileno()).st_size
        if _has_super_journal(file, size):
            return "names another file, which SQLite would delete"
        if _asks_for_wal(file, size):
            return "asks for a write-ahead log"
        if os.fstat(file.fileno()).st_size >= size:
            return None


def _has_super_journal(file: BinaryIO, size: int) -> bool:
    """Tell whether SQLite would find the name of a super-journal at the end."""
    if size < _SUPER.size:
        return False
    file.seek(size - _SUPER.size)
    end = file.read(_SUPER.size)
    if len(end) < _SUPER.size:  # truncated meanwhile
        return False
    length, checksum, magic = _SUPER.unpack(end)
    if magic != _MAGIC or not 0 < length <= size - _SUPER.size:
        return False
    file.seek(size - _SUPER.size - length)
    name = file.read(length)
    unsigned = sum(name)
    signed = unsigned - 256 * sum(byte > 127 for byte in name)  # char is signed on most machines
    return checksum in (unsigned & _ALL, signed & _ALL)


def _asks_for_wal(file: BinaryIO, size: int) -> bool:
    """Tell whether SQLite would restore a page 1 that is in WAL mode."""
    offset = sector = page = 0
    while offset + _HEADER.size <= size:
        file.seek(offset)
        head = file.read(_HEADER.size)
        if len(head) < _HEADER.size:  # truncated meanwhile
            return False
        magic, records, _, _, *sizes = _HEADER.unpack(head)
        if magic != _MAGIC:
            return False
        if not offset:  # the sizes in the first header apply to all
            sector, page = sizes
            if not page:  # SQLite would use the database's page size; it never writes 0
                return True
            if not (_is_size(sector, 32) and _is_size(page, 512)):
                return False
        offset += sector
        width = page + 8
        most = max(0, size - offset) // width
        records = most if records == _ALL else min(records, most)
        for start in range(offset, offset + records * width, width):
            file.seek(start)
            if file.read(4) == b"\0\0\0\1" and _is_foreign(file.read(100)):
                return True
        offset += records * width
        offset += -offset % sector
    return False


def _is_size(number: int, least: int) -> bool:
    return least <= number <= 1 << 16 and number & (number - 1) == 0


def _is_foreign(head: bytes) -> bool:
    """Tell whether this beginning of page 1 belongs to a database in WAL mode."""
    versions = head[_VERSIONS : _VERSIONS + 2]
    return head.startswith(_DATABASE) and versions != _ROLLBACK
