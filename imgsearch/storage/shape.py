"""The shape of a catalog: its tables and indexes must match ours exactly.

A schema may hold endless views, triggers, virtual tables and generated columns, all of which run as
part of a reader's statements. Ours has none of these, so any other schema counts as damage.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from functools import cache

from imgsearch.errors import REPAIR_IT, DamagedError
from imgsearch.storage.database import Database
from imgsearch.storage.layout import FORMAT_VERSION, OLDEST
from imgsearch.storage.schema import SCHEMA

__all__ = ["KNOWN", "check_shape", "version_of"]

_ROWS = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name"

#: The SHA-256 (hex) of the shape of each format version, including the current one for later.
_SHAPES = {
    2: "5938bf36c3daf491b6bf4e9794f069524d14ddaf4aa0a4b382181830e9549a2e",
    3: "fb5a3da318daa0bcb94a7e19a3c589dfc7c38e94fe9c0af128597a20fc715ca7",
    4: "75dcd04294e69a5f695180970a7f7742158091c237f9a6479eaa3d10647155b2",
    5: "8bf5b93e8dae702e0283deafe056e66dfc94c344256c8f860e8367b5879f8ec5",
}

#: The format versions whose shape is known even when they are not current.
KNOWN = frozenset(_SHAPES)


def check_shape(database: Database) -> int:
    """Check the schema of a catalog, and return its format version.

    Raises:
        DamagedError: If the schema is not that of the format version.
    """
    version = version_of(database)
    shape = _shape(database.rows(_ROWS))
    if shape != (_shape_of(SCHEMA) if version == FORMAT_VERSION else _SHAPES.get(version)):
        path = database.path
        raise DamagedError(
            f"{path} is damaged (it does not have the tables of a catalog); {REPAIR_IT}"
        )
    return version


def version_of(database: Database) -> int:
    """Return the format version that a catalog claims."""
    return max(OLDEST, int(database.rows("PRAGMA user_version")[0][0]))  # format 2 did not say


def _shape(rows: Sequence[tuple[str | None, ...]]) -> str:
    """Return a digest of a schema that ignores white space."""
    text = repr([["".join(str(part).split()) for part in row] for row in rows])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@cache
def _shape_of(schema: str) -> str:
    with closing(sqlite3.connect(":memory:")) as made:
        made.executescript(schema)
        return _shape(made.execute(_ROWS).fetchall())
