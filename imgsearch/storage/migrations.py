"""Bring a collection of an older format version up to date, a version a step.

Commands that write do so on the disk. Whoever only reads gets a copy of the catalog in memory that
was brought up to date, and leaves the disk alone.

To change the format: raise `FORMAT_VERSION` and the `user_version` of the schema, change the
schema, docs/format.md, and what reads and writes it, and add to `_STEPS` the function that makes a
collection of the version before one of the new. It gets the catalog within a transaction: all of it
happens, or nothing. It may read files and must write none, for the catalog may be a copy.
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
from imgsearch.storage.seal import seal, writing
from imgsearch.storage.shape import check_shape, version_of

__all__ = ["OlderCatalog", "check_present", "migrate"]


def check_present(layout: Layout) -> None:
    """Check that a collection is of the present format version.

    Raises:
        DamagedError: it is not.
    """
    version = layout.version()
    layout.check_parts()
    if version != FORMAT_VERSION:
        raise DamagedError(
            f"{layout.directory} has format version {version}; `imgsearch index` brings it up to "
            f"date, to {FORMAT_VERSION}"
        )


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
        layout.check_parts()
        return
    with writing(layout):
        seal(layout)  # from here on, what is committed and not sealed yet is told from damage
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
    """A catalog of an older format, read from a copy that follows it, and is brought up to date."""

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
        """Close it and its copy."""
        super().close()
        self._source.close()

    def version(self) -> int:
        """See `Reader.version`; the copy is made anew where another has committed."""
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
            self._follows = False  # a writer has brought up to date what is on the disk
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
    # What an older decoder could not read is tried once more.
    catalog.run("UPDATE failures SET mtime_ns = NULL")
    catalog.run("UPDATE failures SET kind = 'other' WHERE reason IS NULL")


def _size(path: Path) -> int:
    status = check_regular(path)
    return status.st_size if status else 0  # as nobody will find it


#: By the version that each makes one of the next.
_STEPS: dict[int, Callable[[Layout, Database], None]] = {
    2: _from_2,
    3: _from_3,
    4: _from_4,
}
