"""Bring a collection of an older format version up to date, a version a step.

To change the format: raise `FORMAT_VERSION` and the `user_version` of the schema, change the
schema, docs/format.md, and what reads and writes it, and add to `_STEPS` the function that makes a
collection of the version before one of the new. It gets the catalog within a transaction: all of it
happens, or nothing. It writes files under new names only; what they replace is left to `index`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from imgsearch.storage.database import Database
from imgsearch.storage.layout import FORMAT_VERSION, OLDEST, Layout
from imgsearch.storage.seal import seal, writing

__all__ = ["migrate"]


def migrate(layout: Layout) -> None:
    """Bring a collection to `FORMAT_VERSION`; one that is of it is left alone.

    Killed at any moment, it goes on from there: the version of the catalog is changed with its
    content, and that of the collection last.

    Raises:
        NoCollectionError: there is no collection.
        DamagedError: it is damaged, or of a version that cannot be brought up to date.
        BusyError: another process is writing to it.
        StorageError: the disk cannot be written.
    """
    if layout.version() == FORMAT_VERSION:
        return
    with writing(layout):
        seal(layout)  # from here on, what is committed and not sealed yet is told from damage
        with closing(Database(layout.catalog)) as catalog:
            for version in range(layout.version(), FORMAT_VERSION):
                with catalog.transaction():
                    # Format 2 did not number its catalog.
                    if max(OLDEST, catalog.rows("PRAGMA user_version")[0][0]) == version:
                        _STEPS[version](layout, catalog)
                        catalog.run(f"PRAGMA user_version = {version + 1:d}")
        layout.write_manifest()


def _from_2(layout: Layout, catalog: Database) -> None:
    catalog.run("ALTER TABLE segments ADD COLUMN size INTEGER NOT NULL DEFAULT 0")
    for (number,) in catalog.rows("SELECT number FROM segments"):
        size = _size(layout.segment(number))
        catalog.run("UPDATE segments SET size = ? WHERE number = ?", size, number)
    catalog.run(
        "CREATE TABLE replaced (file TEXT PRIMARY KEY, sha256 BLOB NOT NULL) STRICT, WITHOUT ROWID"
    )


def _from_3(_: Layout, catalog: Database) -> None:
    catalog.run("ALTER TABLE settings ADD COLUMN storage TEXT NOT NULL DEFAULT 'flat'")
    catalog.run("ALTER TABLE settings ADD COLUMN pca INTEGER NOT NULL DEFAULT 256")
    catalog.run("ALTER TABLE ivf ADD COLUMN pca INTEGER")


def _from_4(_: Layout, catalog: Database) -> None:
    catalog.run("ALTER TABLE model ADD COLUMN decoder INTEGER NOT NULL DEFAULT 1")
    for column in ("exclude", "include"):
        catalog.run(f"ALTER TABLE settings ADD COLUMN {column} TEXT NOT NULL DEFAULT '[]'")
    for table in ("images", "failures"):
        for column in ("ctime_ns", "inode"):
            catalog.run(f"ALTER TABLE {table} ADD COLUMN {column} INTEGER")
    catalog.run("ALTER TABLE failures ADD COLUMN kind TEXT")
    # What an older decoder could not read is tried once more.
    catalog.run("UPDATE failures SET mtime_ns = NULL")
    catalog.run("UPDATE failures SET kind = 'other' WHERE reason IS NULL")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0  # as nobody will find it


#: By the version that each makes one of the next.
_STEPS: dict[int, Callable[[Layout, Database], None]] = {
    2: _from_2,
    3: _from_3,
    4: _from_4,
}
