"""Bring a collection with an older format version up to date, one version per step.

Commands that write migrate the collection on disk. Readers migrate an in-memory copy of the catalog
and leave the disk alone.

To change the format: raise `FORMAT_VERSION` and the `user_version` of the schema; change the
schema, docs/format.md, and the code that reads and writes it; and add to `_STEPS` the function that
migrates a collection from the previous version to the new one. It gets the catalog within a
transaction, so that all of its changes happen or none. It may read files but must not write any,
because the catalog may be a copy.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from imgsearch.errors import DamagedError
from imgsearch.files.opening import check_regular
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.database import Database
from imgsearch.storage.layout import FORMAT_VERSION, Layout
from imgsearch.storage.records import Snapshot
from imgsearch.storage.schema import check_shape, version_of
from imgsearch.storage.seal import seal, writing

__all__ = ["OlderCatalog", "check_present", "migrate"]


def check_present(layout: Layout) -> None:
    """Check that a collection has the current format version.

    Raises:
        DamagedError: If the collection has another version.
    """
    version = layout.version()
    layout.check_parts()
    if version != FORMAT_VERSION:
        raise DamagedError(
            f"{layout.directory} has format version {version}; run `imgsearch index` to update it "
            f"to {FORMAT_VERSION}"
        )


def migrate(layout: Layout) -> None:
    """Bring a collection up to `FORMAT_VERSION`, unless it is up to date.

    A migration that was killed resumes where it stopped: the version of the catalog changes
    together with its content, and the version of the collection changes last.

    Raises:
        NoCollectionError: If there is no collection.
        DamagedError: If the collection is damaged, or its version cannot be brought up to date.
        BusyError: If another process is writing to the collection.
        StorageError: If the disk cannot be written.
    """
    if layout.version() == FORMAT_VERSION:
        layout.check_parts()
        return
    with writing(layout):
        seal(layout)  # from here on, unsealed commits can be told from damage
        with closing(Database(layout.catalog)) as catalog:
            _bring_up(layout, catalog)
        layout.write_manifest()


def _bring_up(layout: Layout, catalog: Database) -> None:
    """Bring a catalog up to date."""
    for version in range(check_shape(catalog), FORMAT_VERSION):
        with catalog.altering(), catalog.transaction():
            _STEPS[version](layout, catalog)
            catalog.run(f"PRAGMA user_version = {version + 1:d}")


class OlderCatalog(Catalog):
    """A catalog of an older format, read through an up-to-date copy that follows its changes."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._source = Database(layout.catalog, writable=False)
        self._seen: int | None = None
        self._follows = True
        try:
            self.version()
        except BaseException:
            self._source.close()
            raise

    def close(self) -> None:
        """Close the catalog and its copy."""
        super().close()
        self._source.close()

    def version(self) -> int:
        """See `Catalog.version`; copy the catalog again if another connection has committed."""
        found = int(self._source.rows("PRAGMA data_version")[0][0])
        if found != self._seen:
            if self._follows:
                self._load()
            self._seen = found
        return found

    def snapshot(self) -> Snapshot:
        """See `Catalog.snapshot`."""
        self.version()
        return super().snapshot()

    def _load(self) -> None:
        if self._seen is not None and version_of(self._source) == FORMAT_VERSION:
            self._follows = False  # a writer has migrated the catalog on disk
            self._use(Database(self._layout.catalog, writable=False))
            return
        copy = Database.in_memory(self._layout.catalog)
        try:
            _bring_up(self._layout, copy)
        except BaseException:
            copy.close()
            raise
        self._use(copy)


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
    # Files that an older decoder could not read are tried once more.
    catalog.run("UPDATE failures SET mtime_ns = NULL")
    catalog.run("UPDATE failures SET kind = 'other' WHERE reason IS NULL")


def _from_5(_: Layout, catalog: Database) -> None:
    catalog.run(
        "CREATE TABLE layers (number INTEGER PRIMARY KEY AUTOINCREMENT, count INTEGER NOT NULL, "
        "sha256 BLOB NOT NULL, size INTEGER NOT NULL) STRICT"
    )
    catalog.run(
        "CREATE TABLE ranking (trained INTEGER NOT NULL, mean BLOB NOT NULL, "
        "compared BLOB NOT NULL) STRICT"
    )


def _from_6(_: Layout, catalog: Database) -> None:
    for column in ("width INTEGER", "height INTEGER", "taken INTEGER", "camera TEXT"):
        catalog.run(f"ALTER TABLE images ADD COLUMN {column}")
    catalog.run(
        "CREATE TABLE fingerprints (number INTEGER PRIMARY KEY AUTOINCREMENT, "
        "count INTEGER NOT NULL, sha256 BLOB NOT NULL, size INTEGER NOT NULL) STRICT"
    )


def _from_7(_: Layout, catalog: Database) -> None:
    catalog.run("ALTER TABLE model ADD COLUMN words_sha256 TEXT")


def _size(path: Path) -> int:
    status = check_regular(path)
    return status.st_size if status else 0  # no reader will find the file


#: The migrations, by the version from which each leads to the next.
_STEPS: dict[int, Callable[[Layout, Database], None]] = {
    2: _from_2,
    3: _from_3,
    4: _from_4,
    5: _from_5,
    6: _from_6,
    7: _from_7,
}
