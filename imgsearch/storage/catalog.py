"""The catalog: a SQLite database that describes the contents of a collection, as readers see it.

Paths are bytes (`os.fsencode`): absolute for roots, relative to their root for folders.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from imgsearch.errors import REPAIR_IT, DamagedError
from imgsearch.files.paths import relative, upwards
from imgsearch.storage.database import Database
from imgsearch.storage.layout import FORMAT_VERSION, Layout
from imgsearch.storage.records import (
    Entry,
    Facts,
    ModelRecord,
    PrintFile,
    Root,
    Settings,
    Shard,
    Snapshot,
    records_of,
    settings_of,
    snapshot_of,
)
from imgsearch.storage.schema import SCHEMA, check_shape, version_of
from imgsearch.storage.selection import Selection, failures_where, images_where

if TYPE_CHECKING:
    from imgsearch.storage.changes import Counts, FileLocation, FileRecord, Holder

__all__ = ["Catalog", "open_catalog"]

_URL = re.compile(rb"[a-z][a-z0-9+.-]*://", re.DOTALL)
_ODD = frozenset({b"", b".", b".."})

_Record = TypeVar("_Record")

_MODEL = "SELECT * FROM model"
_SHARDS = "SELECT * FROM shards ORDER BY first_id"
_SETTINGS = "SELECT * FROM settings"

#: The queries whose rows form a snapshot: see `snapshot_of`.
_SNAPSHOT = (
    _MODEL,
    _SHARDS,
    "SELECT * FROM segments ORDER BY first_id",
    "SELECT id, stale FROM removed ORDER BY id",
    "SELECT * FROM ivf",
    "SELECT * FROM curve ORDER BY up_to, nprobe",
    _SETTINGS,
    "SELECT * FROM layers ORDER BY number",
    "SELECT * FROM ranking",
)


class Catalog:
    """An open catalog. Its methods may be called from any thread."""

    _writes: ClassVar[bool] = False

    def __init__(self, path: Path, *, create: bool = False) -> None:
        """Open the catalog at `path`.

        Raises:
            DamagedError: If the file is missing or is not a catalog.
            StorageError: If the file cannot be opened.
        """
        self._use(Database(path, create=SCHEMA if create else None, writable=self._writes))

    def _use(self, database: Database) -> None:
        """Read from a database, after checking its schema."""
        try:
            check_shape(database)
        except BaseException:
            database.close()
            raise
        self._database = database
        self._rows = database.rows

    def check_open(self) -> None:
        """Raise `InputError` if the catalog was closed."""
        self._database.check_open()

    def close(self) -> None:
        """Close the catalog; other methods raise `InputError` afterwards."""
        self._database.close()

    def version(self) -> int:
        """Return a number that changes when another connection has committed."""
        return int(self._rows("PRAGMA data_version")[0][0])

    def format_version(self) -> int:
        """Return the format version of the catalog."""
        return version_of(self._database)

    def is_sound(self) -> bool:
        """Tell whether SQLite finds no fault; it misses most damage (see `storage.seal`)."""
        try:
            found = self._rows("PRAGMA integrity_check(1)")
            return found == [("ok",)] and not self._rows("PRAGMA foreign_key_check")
        except DamagedError:
            return False

    def image_ids(self, first: int = 0, last: int = 2**63 - 1) -> list[int]:
        """Return the ids of all images from `first` to `last`, in ascending order."""
        statement = "SELECT id FROM images WHERE id BETWEEN ? AND ? ORDER BY id"
        return [id_ for (id_,) in self._rows(statement, first, last)]

    def replaced(self) -> dict[str, bytes]:
        """Return the replaced files that may still exist: their names, each with its SHA-256."""
        return dict(self._rows("SELECT file, sha256 FROM replaced"))

    def removed_digests(self) -> dict[int, bytes]:
        """Return the removed ids that have a row in a shard, with the digests of their files."""
        return dict(self._rows("SELECT id, digest FROM removed"))

    def snapshot(self) -> Snapshot:
        """Return everything that a search needs, as of one moment.

        Raises:
            DamagedError: If the catalog names no model.
        """
        with self._database.transaction("DEFERRED"):
            tables = [self._rows(statement) for statement in _SNAPSHOT]
        if not tables[0] or not tables[_SNAPSHOT.index(_SETTINGS)]:
            raise DamagedError(f"{self._database.path} names no model; {REPAIR_IT}")
        size = self._database.path.stat().st_size
        try:
            return snapshot_of(tables, size)
        except (TypeError, ValueError) as error:
            raise self._damaged(str(error)) from error

    def model(self) -> ModelRecord | None:
        """Return the model of the collection, or None before it has one."""
        return next(iter(self._records(ModelRecord, _MODEL)), None)

    def settings(self) -> Settings | None:
        """Return the settings of the collection, or None before there is a model."""
        rows = self._rows(_SETTINGS)
        try:
            return settings_of(rows[0]) if rows else None
        except (TypeError, ValueError) as error:
            raise self._damaged(str(error)) from error

    def shards(self) -> list[Shard]:
        """Return all shards, ordered by id."""
        return self._records(Shard, _SHARDS)

    def shard_of(self, id_: int) -> Shard:
        """Return the shard that holds the embedding of an image, present or removed."""
        shards = self._records(
            Shard,
            "SELECT * FROM shards WHERE first_id <= ?1 AND last_id >= ?1 "
            "ORDER BY first_id DESC LIMIT 1",
            id_,
        )
        if not shards:
            raise DamagedError(f"{self._database.path} names no shard of image {id_}; {REPAIR_IT}")
        return shards[0]

    def prints(self) -> list[PrintFile]:
        """Return all files of fingerprints, in the order in which they were written."""
        files = self._records(PrintFile, "SELECT * FROM fingerprints ORDER BY number")
        most = self._database.path.stat().st_size  # bytes, which bound the number of images
        for file in files:
            if file.number < 1 or not 1 <= file.count <= most:
                raise self._damaged(f"fingerprints {file.number}: {file.count:,} images")
        return files

    def facts_of(self, id_: int) -> Facts:
        """Return what the file of an image states; nothing is known of a removed image."""
        statement = "SELECT width, height, taken, camera FROM images WHERE id = ?"
        return next(iter(self._records(Facts, statement, id_)), Facts())

    def roots(self) -> list[Root]:
        """Return all roots."""
        rows = self._rows("SELECT id, path, recursive FROM roots ORDER BY id")
        return [Root(id_, self._root(path), bool(recursive)) for id_, path, recursive in rows]

    def excluded_folders(self) -> list[bytes]:
        """Return the absolute paths of the folders that were excluded."""
        rows = self._rows(
            "SELECT roots.path, folders.path FROM excluded "
            "JOIN folders ON folders.id = folder JOIN roots ON roots.id = root WHERE name = x''"
        )
        return [self._joined(*row) for row in rows]

    def excluded_files(self) -> list[bytes]:
        """Return the absolute paths of the files that were excluded."""
        rows = self._rows(
            "SELECT roots.path, folders.path, name FROM excluded "
            "JOIN folders ON folders.id = folder JOIN roots ON roots.id = root WHERE name > x''"
        )
        return [self._file(*row) for row in rows]

    def count_in(self, root: int) -> int:
        """Count the images of a root."""
        rows = self._rows(
            "SELECT count(*) FROM images JOIN folders ON folders.id = folder WHERE root = ?", root
        )
        return int(rows[0][0])

    def mounts(self, root: int) -> list[bytes]:
        """Return the absolute paths of the mount points in a root."""
        rows = self._rows(
            "SELECT roots.path, mounts.path FROM mounts JOIN roots ON id = root WHERE root = ?",
            root,
        )
        return [self._joined(*row) for row in rows]

    def counts(self) -> Counts:
        """Count images, failed, skipped and excluded files."""
        from imgsearch.storage.changes import Counts

        # Conditions that every row meets: without one, SQLite counts without checking how long it
        # takes.
        (images,) = self._rows("SELECT count(*) FROM images WHERE id > 0")[0]
        tried = self._rows("SELECT count(*), count(reason) FROM failures")[0]
        (excluded,) = self._rows("SELECT count(*) FROM excluded WHERE folder > 0")[0]
        return Counts(images, tried[1], tried[0] - tried[1], excluded)

    def folder(self, root: int, path: bytes) -> int | None:
        """Return the id of a folder that has known files, or None if it has none."""
        rows = self._rows("SELECT id FROM folders WHERE root = ? AND path = ?", root, path)
        return int(rows[0][0]) if rows else None

    def last_folder(self) -> int:
        """Return the highest folder id; the next folder added gets a higher one."""
        return int(self._rows("SELECT coalesce(max(id), 0) FROM folders")[0][0])

    def folders_below(self, root: int, path: bytes) -> list[tuple[int, bytes]]:
        """Return the id and path of each folder of a root at or below `path`."""
        if not path:
            rows = self._rows("SELECT id, path FROM folders WHERE root = ?", root)
        else:
            rows = self._rows(
                "SELECT id, path FROM folders WHERE root = ?1 "
                "AND (path = ?2 OR (path >= ?3 AND path < ?4))",
                *(root, path, path + b"/", path + b"0"),  # "0" is the byte after "/"
            )
        if rows:
            above = self._rows("SELECT path FROM roots WHERE id = ?", root)
            for (root_path,) in above:
                for _, folder in rows:
                    self._joined(root_path, folder)
        return rows

    def known(
        self, folder: int, first: bytes = b"", upto: bytes | None = None
    ) -> dict[bytes, FileRecord]:
        """Return the known files of a folder from `first` to `upto` (None: to the end)."""
        from imgsearch.storage.changes import FileRecord

        rows = self._rows(
            "SELECT name, size, mtime_ns, id, NULL, 0, ctime_ns, inode, NULL FROM images "
            "WHERE folder = ?1 AND name >= ?2 AND (?3 IS NULL OR name <= ?3) "
            "UNION ALL SELECT name, size, mtime_ns, NULL, reason, 0, ctime_ns, inode, kind "
            "FROM failures "
            "WHERE folder = ?1 AND name >= ?2 AND (?3 IS NULL OR name <= ?3) "
            "UNION ALL SELECT name, 0, NULL, NULL, NULL, 1, NULL, NULL, NULL FROM excluded "
            "WHERE folder = ?1 AND name >= ?2 AND (?3 IS NULL OR name <= ?3) AND name > x''",
            folder,
            first,
            upto,
        )
        return {self._name(row[0]): FileRecord(*row[1:]) for row in rows}

    def files_of(self, root: int) -> list[bytes]:
        """Return the absolute paths of the known files directly in a root, including failures."""
        rows = self._rows(
            "SELECT roots.path, name FROM roots JOIN folders ON folders.root = roots.id "
            "JOIN (SELECT folder, name FROM images UNION SELECT folder, name FROM failures) "
            "ON folder = folders.id WHERE roots.id = ? AND folders.path = x'' ORDER BY name",
            root,
        )
        return [self._file(root_path, b"", name) for root_path, name in rows]

    def holders(self, digest: bytes, limit: int) -> list[Holder]:
        """Return up to `limit` images with this content; a removed one if there is no other."""
        from imgsearch.storage.changes import Holder

        rows = self._rows(
            "SELECT images.id, roots.path, folders.path, name FROM images "
            "JOIN folders ON folders.id = folder JOIN roots ON roots.id = root "
            "WHERE digest = ? ORDER BY images.id LIMIT ?",
            digest,
            limit,
        )
        if rows:
            return [Holder(id_, self._file(*place)) for id_, *place in rows]
        removed = self._rows("SELECT id FROM removed WHERE digest = ? LIMIT 1", digest)
        return [Holder(id_, None) for (id_,) in removed]

    def holds(self, digest: bytes) -> bool:
        """Tell whether there is an embedding of this content."""
        return bool(
            self._rows(
                "SELECT 1 WHERE EXISTS (SELECT 1 FROM images WHERE digest = ?1) "
                "OR EXISTS (SELECT 1 FROM removed WHERE digest = ?1)",
                digest,
            )
        )

    def digest_of(self, id_: int) -> bytes | None:
        """Return the digest of an image, or None if it no longer exists."""
        rows = self._rows("SELECT digest FROM images WHERE id = ?", id_)
        return bytes(rows[0][0]) if rows else None

    def contents(self, first: int = 0, last: int = 2**63 - 1) -> list[tuple[int, bytes]]:
        """Return the ids in a range, ascending, and the digests of their files."""
        statement = "SELECT id, digest FROM images WHERE id BETWEEN ? AND ? ORDER BY id"
        return self._rows(statement, first, last)

    def digests(self, root: int, limit: int) -> Iterator[tuple[FileLocation, bytes]]:
        """Yield the location and digest of up to `limit` images of a root, drawn at random."""
        from imgsearch.storage.changes import FileLocation

        rows = self._rows(
            "SELECT root, path, name, digest FROM images JOIN folders ON folders.id = folder "
            "WHERE root = ? ORDER BY random() LIMIT ?",
            root,
            limit,
        )
        for root_id, folder, name, digest in rows:
            yield FileLocation(root_id, folder, self._name(name)), digest

    def paths(self, ids: Sequence[int]) -> dict[int, str]:
        """Return the absolute path of each id that still exists."""
        rows = self._rows(
            "SELECT images.id, roots.path, folders.path, name FROM json_each(?) "
            "JOIN images ON images.id = value JOIN folders ON folders.id = folder "
            "JOIN roots ON roots.id = folders.root",
            json.dumps(ids),
        )
        folders = {row[1:3] for row in rows}
        above = {
            folder: os.fsdecode(os.path.join(self._joined(*folder), b"")) for folder in folders
        }
        return {
            id_: above[root, folder] + os.fsdecode(self._name(name))
            for id_, root, folder, name in rows
        }

    def entries_of(self, ids: Sequence[int]) -> list[Entry]:
        """Return the entry of each id that still exists, in ascending order."""
        rows = self._rows(
            "SELECT images.id, roots.path, folders.path, name, size, mtime_ns, digest, "
            "width, height, taken, camera FROM json_each(?) JOIN images ON images.id = value "
            "JOIN folders ON folders.id = folder JOIN roots ON roots.id = folders.root "
            "ORDER BY images.id",
            json.dumps(ids),
        )
        return [
            Entry(id_, os.fsdecode(self._file(*place)), size, mtime_ns, digest, Facts(*facts))
            for id_, *place, size, mtime_ns, digest, facts in ((*r[:7], r[7:]) for r in rows)
        ]

    def select(self, selection: Selection, *columns: str) -> list[tuple[Any, ...]]:
        """Return columns of the images that meet a selection: see `storage.selection`."""
        statement, values = images_where(selection, *columns)
        return self._rows(statement, *values)

    def count_unread(self) -> int:
        """Count the images whose pixels, capture time and camera no run has read yet."""
        return int(self._rows("SELECT count(*) FROM images WHERE width IS NULL")[0][0])

    def cameras(self) -> list[str]:
        """Return the cameras that took the images."""
        rows = self._rows("SELECT DISTINCT camera FROM images WHERE camera IS NOT NULL")
        return [camera for (camera,) in rows]

    def camera_counts(self) -> list[tuple[str, int]]:
        """Return each camera and the number of its images, by name."""
        return self._rows(
            "SELECT camera, count(*) FROM images WHERE camera IS NOT NULL "
            "GROUP BY camera ORDER BY camera"
        )

    def folder_counts(self) -> list[tuple[bytes, int]]:
        """Return the absolute path of each folder that has images, and their number."""
        rows = self._rows(
            "SELECT roots.path, folders.path, amount "
            "FROM (SELECT folder, count(*) AS amount FROM images GROUP BY folder) "
            "JOIN folders ON folders.id = folder JOIN roots ON roots.id = folders.root"
        )
        return [(self._joined(root, folder), count) for root, folder, count in rows]

    def sizes(self, ids: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Return width and height of those images whose size is known."""
        rows = self._rows(
            "SELECT images.id, width, height FROM json_each(?) JOIN images ON images.id = value "
            "WHERE width > 0 AND height > 0",
            json.dumps(ids),
        )
        return {id_: (width, height) for id_, width, height in rows}

    def select_failures(self, folders: Sequence[int] | None) -> list[tuple[int, bytes, str]]:
        """Return folder, name and reason of the files that failed in some folders; None: in all."""
        statement, values = failures_where(folders)
        return [
            (folder, self._name(name), why) for folder, name, why in self._rows(statement, *values)
        ]

    def locations_of(self, ids: Sequence[int]) -> list[FileLocation]:
        """Return the location of each of those images that exist."""
        from imgsearch.storage.changes import FileLocation

        rows = self._rows(
            "SELECT root, path, name FROM images JOIN folders ON folders.id = folder "
            "WHERE images.id IN (SELECT value FROM json_each(?))",
            json.dumps(ids),
        )
        return [FileLocation(root, folder, self._name(name)) for root, folder, name in rows]

    def ids_after(self, id_: int, limit: int) -> list[int]:
        """Return up to `limit` ids higher than `id_`, in ascending order."""
        statement = "SELECT id FROM images WHERE id > ? ORDER BY id LIMIT ?"
        return [after for (after,) in self._rows(statement, id_, limit)]

    def id_at(self, location: FileLocation) -> int | None:
        """Return the id of the image at a location, or None if there is none."""
        rows = self._rows(
            "SELECT images.id FROM images JOIN folders ON folders.id = folder "
            "WHERE root = ? AND path = ? AND name = ?",
            *(location.root, location.folder, location.name),
        )
        return int(rows[0][0]) if rows else None

    def id_of(self, path: bytes) -> int | None:
        """Return the id of the image at an absolute path or URL, or None if there is none."""
        folder, name = os.path.split(path)
        for root, below in [(above, relative(folder, above)) for above in upwards(folder)]:
            rows = self._rows(
                "SELECT images.id FROM roots JOIN folders ON folders.root = roots.id "
                "JOIN images ON folder = folders.id "
                "WHERE roots.path = ? AND folders.path = ? AND name = ?",
                *(root, below, name),
            )
            if rows:
                return int(rows[0][0])
        return None

    def _records(self, kind: type[_Record], statement: str, *values: object) -> list[_Record]:
        rows = self._rows(statement, *values)
        try:
            return records_of(kind, rows)
        except TypeError as error:
            raise self._damaged(str(error)) from error

    def _root(self, path: bytes) -> bytes:
        if not _is_root(path):
            raise self._damaged(f"{path!r} is not an absolute path")
        return path

    def _joined(self, root: bytes, folder: bytes) -> bytes:
        """Return the absolute path of a folder."""
        if not _is_folder(folder, self._root(root)):
            raise self._damaged(f"{folder!r} is not a folder of {root!r}")
        return os.path.join(root, folder) if folder else root

    def _name(self, name: bytes) -> bytes:
        if not _is_name(name):
            raise self._damaged(f"{name!r} is not the name of a file")
        return name

    def _file(self, root: bytes, folder: bytes, name: bytes) -> bytes:
        """Return the absolute path of a file."""
        return os.path.join(self._joined(root, folder), self._name(name))

    def _damaged(self, reason: str) -> DamagedError:
        return DamagedError(f"{self._database.path} is damaged ({reason}); {REPAIR_IT}")


def open_catalog(layout: Layout) -> Catalog:
    """Open the catalog of a collection for reading, whatever its format version.

    Raises:
        NoCollectionError: If there is no collection.
        DamagedError: If the collection is damaged, has a version that cannot be read, or has a link
            for one of its parts.
        StorageError: If the collection cannot be read.
    """
    version = layout.version()
    layout.check_parts()
    if version == FORMAT_VERSION:
        return Catalog(layout.catalog)
    from imgsearch.storage.migrations import OlderCatalog

    return OlderCatalog(layout)


def _is_root(path: object) -> bool:
    """Tell whether this is the path of a root: an absolute, normalised path, or a URL."""
    if not isinstance(path, bytes) or b"\0" in path:
        return False
    if _URL.match(path):
        return True
    return path == b"/" or (path[:1] == b"/" and _ODD.isdisjoint(path[1:].split(b"/")))


def _is_folder(path: object, root: bytes) -> bool:
    """Tell whether this is a path relative to a root that only leads downwards."""
    if not isinstance(path, bytes) or b"\0" in path or path[:1] == b"/":
        return False
    return not path or _URL.match(root) is not None or _ODD.isdisjoint(path.split(b"/"))


def _is_name(name: object) -> bool:
    """Tell whether this is the name of a file in its folder."""
    return isinstance(name, bytes) and name not in _ODD and b"/" not in name and b"\0" not in name
