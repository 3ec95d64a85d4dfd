"""Read a catalog that somebody else may have made: what it says is checked where it is read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, TypeVar

from imgsearch.errors import MEND, DamagedError
from imgsearch.storage.database import Database
from imgsearch.storage.records import records_of
from imgsearch.storage.rows import is_folder, is_name, is_root
from imgsearch.storage.schema import SCHEMA
from imgsearch.storage.shape import check_shape, version_of

__all__ = ["Reader"]

_Record = TypeVar("_Record")


class Reader:
    """An open catalog, and what its rows are read with."""

    _writes: ClassVar[bool] = False

    def __init__(self, path: Path, *, create: bool = False) -> None:
        """Open the catalog at `path`.

        Raises:
            DamagedError: it is missing or is no catalog.
            StorageError: it cannot be opened.
        """
        self._use(Database(path, create=SCHEMA if create else None, writable=self._writes))

    def _use(self, database: Database) -> None:
        """Read a database, whose schema is checked first."""
        try:
            check_shape(database)
        except BaseException:
            database.close()
            raise
        self._database = database
        self._rows = database.rows

    def check_open(self) -> None:
        """Raise `InputError` if it was closed."""
        self._database.check_open()

    def close(self) -> None:
        """Close it; other methods raise `InputError` then."""
        self._database.close()

    def version(self) -> int:
        """Return a number that changes when another connection has committed."""
        return int(self._rows("PRAGMA data_version")[0][0])

    def format_version(self) -> int:
        """Return the format version that the catalog is of."""
        return version_of(self._database)

    def is_sound(self) -> bool:
        """Tell whether SQLite finds nothing wrong. It misses most damage: see `storage.seal`."""
        try:
            found = self._rows("PRAGMA integrity_check(1)")
            return found == [("ok",)] and not self._rows("PRAGMA foreign_key_check")
        except DamagedError:
            return False

    def _records(self, kind: type[_Record], statement: str, *values: object) -> list[_Record]:
        return self._made(kind, self._rows(statement, *values))

    def _made(self, kind: type[_Record], rows: Iterable[Sequence[object]]) -> list[_Record]:
        try:
            return records_of(kind, rows)
        except TypeError as error:
            raise self._damaged(str(error)) from error

    def _root(self, path: bytes) -> bytes:
        if not is_root(path):
            raise self._damaged(f"{path!r} is no absolute path")
        return path

    def _joined(self, root: bytes, folder: bytes) -> bytes:
        """Return the absolute path of a folder."""
        if not is_folder(folder, self._root(root)):
            raise self._damaged(f"{folder!r} is no folder of {root!r}")
        return os.path.join(root, folder) if folder else root

    def _name(self, name: bytes) -> bytes:
        if not is_name(name):
            raise self._damaged(f"{name!r} is no name of a file")
        return name

    def _file(self, root: bytes, folder: bytes, name: bytes) -> bytes:
        """Return the absolute path of a file."""
        return os.path.join(self._joined(root, folder), self._name(name))

    def _damaged(self, reason: str) -> DamagedError:
        return DamagedError(f"{self._database.path} is damaged ({reason}); {MEND}")
