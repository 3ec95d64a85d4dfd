"""Check the files beside a SQLite database before SQLite opens and trusts them.

Whoever opens a database next plays back a rollback journal that was left behind. At its end, the
journal may name a super-journal: any file, which SQLite then reads and deletes. For a database in
WAL mode, SQLite opens, creates and writes two more files by name, even if these are links.
imgsearch creates neither, so both count as damage. (SQLite, "Database File Format", sections 1.3.4,
3 and 4.)
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from imgsearch.errors import REPAIR_IT, DamagedError, StorageError, reason_of
from imgsearch.files.opening import check_regular, open_regular

__all__ = ["BESIDE", "check_beside", "check_header"]

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


def check_beside(path: Path) -> None:
    """Check a database and the files beside it; only a journal is read.

    Raises:
        DamagedError: If the database is not a regular file, or if there is a file that imgsearch
            never leaves behind.
        StorageError: If a file cannot be read.
    """
    try:
        status = check_regular(path)
        for suffix in BESIDE[1:]:
            if os.path.lexists(f"{path}{suffix}"):
                raise DamagedError(
                    f"{path}{suffix} is not of imgsearch, but SQLite heeds it; {REPAIR_IT}"
                )
        if status is not None:
            _check_journal(Path(f"{path}-journal"), status)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {reason_of(error)}") from error


def check_header(path: Path) -> None:
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


def _check_journal(path: Path, database: os.stat_result) -> None:
    status = check_regular(path)
    if status is None or not status.st_size:
        return
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
