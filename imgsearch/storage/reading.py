"""Read a catalog that somebody else may have made, and check every value as it is read."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin, get_type_hints

from imgsearch.errors import REPAIR_IT, DamagedError
from imgsearch.storage.database import Database
from imgsearch.storage.records import IvfRecord, Snapshot
from imgsearch.storage.schema import SCHEMA
from imgsearch.storage.shape import check_shape, version_of
from imgsearch.storage.shards import Shard

__all__ = ["Reader", "patterns_of", "text_of", "wrong_number"]

_Record = TypeVar("_Record")

MOST_DIM = 1 << 16  # values of an embedding
MOST_EDGE = 1 << 13  # pixels along the edge of a model's input
LEAST_ROW = 16  # bytes of a catalog that each image takes, present or removed

_URL = re.compile(rb"[a-z][a-z0-9+.-]*://", re.DOTALL)
_ODD = frozenset({b"", b".", b".."})


class Reader:
    """An open catalog, and the methods that read its rows."""

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

    def _records(self, kind: type[_Record], statement: str, *values: object) -> list[_Record]:
        return self._made(kind, self._rows(statement, *values))

    def _made(self, kind: type[_Record], rows: Iterable[Sequence[object]]) -> list[_Record]:
        try:
            return _records_of(kind, rows)
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


def _records_of(kind: type[_Record], rows: Iterable[Sequence[object]]) -> list[_Record]:
    """Return a record for each row; the values of a row are in the order of the fields.

    Raises:
        TypeError: If a value does not have the type of its field: a catalog that was cut short
            returns NULL even where its schema does not allow it.
    """
    hints = get_type_hints(kind)
    rows = list(rows)
    for row in rows:
        for value, (field, hint) in zip(row, hints.items(), strict=False):
            if not _fits(value, hint):
                raise TypeError(f"{kind.__name__}.{field} is {value!r}")
    return [kind(*row) for row in rows]


def _fits(value: object, hint: Any) -> bool:
    origin = get_origin(hint)
    if origin is Literal:
        return value in get_args(hint)
    return isinstance(value, origin if origin is tuple else hint)


def text_of(patterns: Sequence[str]) -> str:
    """Return a list of patterns as stored, in ASCII: a pattern may not be valid UTF-8."""
    return json.dumps(list(patterns))


def patterns_of(value: object) -> object:
    """Return the patterns of a stored value as a tuple, or the value itself if it is damaged."""
    try:
        texts = json.loads(value) if isinstance(value, str) else None
    except ValueError:
        return value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        return value
    return tuple(texts)


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


def wrong_number(snapshot: Snapshot, size: int) -> str | None:
    """Return a description of an impossible number in a snapshot, or None if there is none.

    Args:
        snapshot: Snapshot of a catalog.
        size: Size of that catalog's file in bytes, which bounds the number of its images.
    """
    model = snapshot.model
    if not (1 <= model.dim <= MOST_DIM and 1 <= model.input_size <= MOST_EDGE):
        return f"a model of {model.dim} values, for images of {model.input_size} pixels"
    most = size // LEAST_ROW
    if (images := sum(shard.count for shard in snapshot.shards)) > most:
        return f"{images:,} images in shards"
    if shard := _wrong_shard(snapshot.shards):
        return (
            f"shard {shard.number}: {shard.count:,} images from {shard.first_id} to {shard.last_id}"
        )
    for segment in snapshot.segments:
        span = segment.last_id - segment.first_id + 1
        if segment.first_id < 1 or not 0 <= segment.count <= min(span, most):
            return (
                f"segment {segment.number}: {segment.count:,} images from {segment.first_id} "
                f"to {segment.last_id}"
            )
    return None if snapshot.ivf is None else _wrong_curve(snapshot.ivf)


def _wrong_shard(shards: Sequence[Shard]) -> Shard | None:
    """Return the first shard with impossible numbers; the shards are ordered by id."""
    last = 0
    for shard in shards:
        span = shard.last_id - shard.first_id + 1
        least = span if shard.ids_sha256 is None else 1
        if shard.number < 1 or shard.first_id <= last or not least <= shard.count <= span:
            return shard
        last = shard.last_id
    return None


def _wrong_curve(ivf: IvfRecord) -> str | None:
    if ivf.nlist < 1 or (ivf.pca is not None and not 1 <= ivf.pca <= MOST_DIM):
        return f"an index of {ivf.nlist} lists"
    for step in ivf.curve:
        if not (1 <= step.nprobe <= ivf.nlist and 0 <= step.recall <= 1):
            return f"recall {step.recall} of {step.nprobe} lists"
    return None
