"""The catalog: a SQLite database of what a collection holds. Its commit is the only commit point.

Paths are bytes (`os.fsencode`), absolute for roots, relative to their root for folders.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from imgsearch.errors import BusyError, DamagedError, ImgsearchError, StorageError
from imgsearch.storage.records import (
    Counts,
    IvfRecord,
    Known,
    ModelRecord,
    NewFailure,
    NewImage,
    Root,
    Segment,
    Snapshot,
)
from imgsearch.storage.schema import SCHEMA
from imgsearch.storage.shards import Shard

__all__ = ["Catalog"]


class Catalog:
    """An open catalog. Its methods may be called from any thread."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        """Open the catalog at `path`.

        Raises:
            DamagedError: it is missing or is no catalog.
            StorageError: it cannot be opened.
        """
        self._path = path
        self._lock = threading.RLock()
        if not create and not path.exists():
            raise DamagedError(f"{path} is missing; restore the collection from a copy")
        mode = "rwc" if create else "rw"  # SQLite falls back to reading where it cannot write
        uri = f"{path.absolute().as_uri()}?mode={mode}"
        with self._translated():
            self._connection = sqlite3.connect(
                uri, uri=True, timeout=10, isolation_level=None, check_same_thread=False
            )
            self._run("PRAGMA synchronous = EXTRA")
            self._run("PRAGMA foreign_keys = ON")
            if sys.platform == "darwin":
                self._run("PRAGMA fullfsync = ON")
            if create:
                self._connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} COMMIT;")

    def close(self) -> None:
        """Close the database; no other method may be called then."""
        with self._lock:
            self._connection.close()

    # Reading

    def version(self) -> int:
        """Return a number that changes when another connection has committed."""
        return int(self._rows("PRAGMA data_version")[0][0])

    def snapshot(self) -> Snapshot:
        """Return what there is to be searched, as of one moment.

        Raises:
            DamagedError: the catalog names no model.
        """
        with self._transaction("DEFERRED"):
            model = self.model()
            shards = self.shards()
            segments = [Segment(*row) for row in self._rows("SELECT * FROM segments")]
            removed = self._rows("SELECT id, stale FROM removed ORDER BY id")
            ivf = [IvfRecord(*row) for row in self._rows("SELECT * FROM ivf")]
        if model is None:
            raise DamagedError(f"{self._path} names no model; restore it from a copy")
        return Snapshot(
            model,
            tuple(shards),
            tuple(segments),
            removed=tuple(id_ for id_, _ in removed),
            stale=tuple(id_ for id_, stale in removed if stale),
            ivf=ivf[0] if ivf else None,
        )

    def model(self) -> ModelRecord | None:
        """Return the model of the collection, None before it has one."""
        rows = self._rows("SELECT * FROM model")
        return ModelRecord(*rows[0]) if rows else None

    def shards(self) -> list[Shard]:
        """Return all shards, ordered by id."""
        return [Shard(*row) for row in self._rows("SELECT * FROM shards ORDER BY first_id")]

    def roots(self) -> list[Root]:
        """Return all roots."""
        rows = self._rows("SELECT id, path, recursive FROM roots ORDER BY id")
        return [Root(id_, path, bool(recursive)) for id_, path, recursive in rows]

    def counts(self) -> Counts:
        """Count images, failed and skipped files."""
        (images,) = self._rows("SELECT count(*) FROM images")[0]
        failed, skipped = self._rows(
            "SELECT count(reason), count(*) - count(reason) FROM failures"
        )[0]
        return Counts(images, failed, skipped)

    def known(self, root: int, folder: bytes, first: bytes, last: bytes) -> dict[bytes, Known]:
        """Return what is known of the files of one folder from the name `first` to `last`."""
        found = self._rows("SELECT id FROM folders WHERE root = ? AND path = ?", root, folder)
        if not found:
            return {}
        rows = self._rows(
            "SELECT name, size, mtime_ns, id, NULL FROM images "
            "WHERE folder = ?1 AND name BETWEEN ?2 AND ?3 "
            "UNION ALL SELECT name, size, mtime_ns, NULL, reason FROM failures "
            "WHERE folder = ?1 AND name BETWEEN ?2 AND ?3",
            found[0][0],
            first,
            last,
        )
        return {row[0]: Known(*row[1:]) for row in rows}

    def files_of(self, root: int) -> list[bytes]:
        """Return the absolute paths of the files known directly in a root, failures included."""
        rows = self._rows(
            "SELECT roots.path, name FROM roots JOIN folders ON folders.root = roots.id "
            "JOIN (SELECT folder, name FROM images UNION SELECT folder, name FROM failures) "
            "ON folder = folders.id WHERE roots.id = ? AND folders.path = x'' ORDER BY name",
            root,
        )
        return [os.path.join(*row) for row in rows]

    def paths(self, ids: Sequence[int]) -> dict[int, str]:
        """Return the absolute path of each id that is still there."""
        rows = self._rows(
            "SELECT images.id, folder, name FROM json_each(?) JOIN images ON images.id = value",
            json.dumps(ids),
        )
        above = self._rows(
            "SELECT folders.id, roots.path, folders.path FROM json_each(?) "
            "JOIN folders ON folders.id = value JOIN roots ON roots.id = folders.root",
            json.dumps(list({folder for _, folder, _ in rows})),
        )
        decode = os.fsdecode
        prefixes = {id_: decode(os.path.join(*parts, b"")) for id_, *parts in above}
        return {id_: prefixes[folder] + decode(name) for id_, folder, name in rows}

    def id_at(self, root: int, folder: bytes, name: bytes) -> int | None:
        """Return the id of the image at a path, None if there is none."""
        rows = self._rows(
            "SELECT images.id FROM images JOIN folders ON folders.id = folder "
            "WHERE root = ? AND path = ? AND name = ?",
            root,
            folder,
            name,
        )
        return int(rows[0][0]) if rows else None

    # Writing: for the one writer only

    def set_model(self, model: ModelRecord) -> None:
        """Record the model that makes this collection."""
        with self._transaction("IMMEDIATE"):
            self._run("DELETE FROM model")
            self._run(
                "INSERT INTO model VALUES (?, ?, ?, ?, ?, ?)",
                model.name,
                model.dim,
                model.input_size,
                model.weights,
                model.weights_sha256,
                model.onnx_sha256,
            )

    def add_root(self, path: bytes, *, recursive: bool) -> None:
        """Add a root; one that is there becomes recursive if asked to, and never the reverse."""
        self._run(
            "INSERT INTO roots (path, recursive) VALUES (?, ?) "
            "ON CONFLICT (path) DO UPDATE SET recursive = max(recursive, excluded.recursive)",
            path,
            recursive,
        )

    def next_shard(self) -> tuple[int, int]:
        """Return the number and the first id of the next shard; neither was used before."""
        last = dict(self._rows("SELECT name, seq FROM sqlite_sequence"))
        return last.get("shards", 0) + 1, last.get("images", 0) + 1

    def next_segment(self) -> int:
        """Return the number of the next segment; it was not used before."""
        last = dict(self._rows("SELECT name, seq FROM sqlite_sequence"))
        return int(last.get("segments", 0)) + 1

    def commit(
        self, shard: Shard | None, images: Sequence[NewImage], failures: Sequence[NewFailure]
    ) -> None:
        """Make a shard's images visible, and remember failures, all or nothing.

        Args:
            shard: written and synced; None if there are no images.
            images: of its rows, in order.
            failures: of the same run.
        """
        with self._transaction("IMMEDIATE"):
            folders: dict[tuple[int, bytes], int] = {}
            entries: list[NewImage | NewFailure] = [*images, *failures]
            for entry in entries:
                place = (entry.root, entry.folder)
                if place not in folders:
                    folders[place] = self._folder(*place)
                row = (folders[place], entry.name)
                self._run("DELETE FROM failures WHERE folder = ? AND name = ?", *row)
                if entry.replaces is not None:
                    self._run("DELETE FROM images WHERE id = ?", entry.replaces)
                    self._run("INSERT INTO removed VALUES (?, 1)", entry.replaces)
            if shard is not None:
                self._insert("shards", shard.number, shard.first_id, shard.count, shard.sha256)
                for id_, new in enumerate(images, shard.first_id):
                    folder = folders[new.root, new.folder]
                    self._insert(
                        "images", id_, folder, new.name, new.size, new.mtime_ns, new.digest
                    )
            for failure in failures:
                folder = folders[failure.root, failure.folder]
                self._insert(
                    "failures", folder, failure.name, failure.size, failure.mtime_ns, failure.reason
                )

    def replace_segments(self, segments: Sequence[Segment], ivf: IvfRecord) -> None:
        """Put these segments, written and synced, in the place of those that there are."""
        with self._transaction("IMMEDIATE"):
            self._run("DELETE FROM segments")
            self._run("DELETE FROM ivf")
            self._run("UPDATE removed SET stale = 0 WHERE stale")
            for new in segments:
                self._insert(
                    "segments", new.number, new.first_id, new.last_id, new.count, new.sha256
                )
            self._insert(
                "ivf", ivf.nlist, ivf.requested_nlist, ivf.nprobe, ivf.recall, ivf.recall_bound
            )

    def _folder(self, root: int, path: bytes) -> int:
        self._run("INSERT OR IGNORE INTO folders (root, path) VALUES (?, ?)", root, path)
        rows = self._rows("SELECT id FROM folders WHERE root = ? AND path = ?", root, path)
        return int(rows[0][0])

    def _insert(self, table: str, *values: object) -> None:
        marks = ", ".join("?" * len(values))
        self._run(f"INSERT INTO {table} VALUES ({marks})", *values)  # noqa: S608 - our own names

    def _rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock, self._translated():
            return self._connection.execute(statement, values).fetchall()

    def _run(self, statement: str, *values: object) -> None:
        with self._lock, self._translated():
            self._connection.execute(statement, values)

    @contextmanager
    def _transaction(self, kind: str) -> Iterator[None]:
        with self._lock:
            self._run(f"BEGIN {kind}")
            try:
                yield
                self._run("COMMIT")
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
            raise _translate(error, self._path) from error


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
    return DamagedError(f"{path} is damaged ({error}); restore the collection from a copy")
