"""Look at what lies beside a SQLite file before SQLite does, which believes it.

A rollback journal that is left behind is played back by whoever opens the database next, and at its
end it may name a super-journal: any file, which SQLite then reads and deletes. A database in WAL
mode makes it open, create and write two more files by their names, links or not. imgsearch makes
neither, so both are damage. (SQLite, "Database File Format", sections 1.3.4, 3 and 4.)
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

#: What SQLite may put beside a database, by the end of its name.
BESIDE = ("-journal", "-wal", "-shm")

_MAGIC = bytes.fromhex("d9d505f920a163d7")
_HEADER = struct.Struct(">8sIIIII")  # magic, records, nonce, pages, sector, page size
_SUPER = struct.Struct(">II8s")  # length and checksum of a name that ends here, magic
_ALL = 0xFFFFFFFF  # as the number of records: to the end of the file
_DATABASE = b"SQLite format 3\0"
_ROLLBACK = b"\x01\x01"  # read and write version; 2 is WAL
_VERSIONS = 18  # where they are
_LEAST = 4 << 20  # bytes that a journal may have in any case
_TIMES = 4  # times as large as its database that it may be beyond that


def check_beside(path: Path) -> None:
    """Check a database and what lies beside it; none of it is read but a journal.

    Raises:
        DamagedError: it is no regular file; or there is what imgsearch never leaves.
        StorageError: it cannot be read.
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

    It is opened and closed here, which takes the locks from all of this process that have it open.

    Raises:
        FileNotFoundError: it is missing.
        DamagedError: it is in WAL mode, or no regular file.
        StorageError: it cannot be read.
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
        with suppress(FileNotFoundError), open_regular(path) as file:  # else it is committed
            if _has_super_journal(file, status.st_size):
                wrong = "names another file, which SQLite would delete"
            elif _asks_for_wal(file, status.st_size):
                wrong = "asks for a write-ahead log"
    if wrong is not None:
        raise DamagedError(f"{path} {wrong}; {REPAIR_IT}")


def _has_super_journal(file: BinaryIO, size: int) -> bool:
    """Tell whether SQLite finds the name of a super-journal at the end."""
    if size < _SUPER.size:
        return False
    file.seek(size - _SUPER.size)
    length, checksum, magic = _SUPER.unpack(file.read(_SUPER.size))
    if magic != _MAGIC or not 0 < length <= size - _SUPER.size:
        return False
    file.seek(size - _SUPER.size - length)
    name = file.read(length)
    unsigned = sum(name)
    signed = unsigned - 256 * sum(byte > 127 for byte in name)  # as char is on most machines
    return checksum in (unsigned & _ALL, signed & _ALL)


def _asks_for_wal(file: BinaryIO, size: int) -> bool:
    """Tell whether SQLite would write a page 1 in WAL mode."""
    offset = sector = page = 0
    while offset + _HEADER.size <= size:
        file.seek(offset)
        magic, records, _, _, *sizes = _HEADER.unpack(file.read(_HEADER.size))
        if magic != _MAGIC:
            return False
        if not offset:  # those of the first header count for all
            sector, page = sizes
            if not page:  # SQLite would take that of the database; it never writes this
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
    """Tell whether the beginning of page 1 is that of a database in WAL mode."""
    versions = head[_VERSIONS : _VERSIONS + 2]
    return head.startswith(_DATABASE) and versions != _ROLLBACK
