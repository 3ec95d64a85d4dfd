"""The tables of the catalog, format version 8, and the check that a catalog has exactly these.

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

__all__ = ["KNOWN", "SCHEMA", "check_shape", "version_of"]

SCHEMA = """
PRAGMA user_version = 8;

-- decoder is the version of what turned files into pixels: see DECODER in images/__init__.py;
-- words_sha256 is NULL unless the network has a text tower.
CREATE TABLE model (
    name TEXT NOT NULL,
    dim INTEGER NOT NULL,
    input_size INTEGER NOT NULL,
    weights TEXT NOT NULL,
    weights_sha256 TEXT NOT NULL,
    onnx_sha256 TEXT NOT NULL,
    decoder INTEGER NOT NULL DEFAULT 1,
    words_sha256 TEXT
) STRICT;

-- What was asked for, one row: nlist is NULL where it follows from the number of images; storage is
-- 'flat' or 'compact', and pca the values that are left of an embedding in a compact index; exclude
-- and include are JSON lists of text: patterns whose files are left out besides those that are left
-- out by default, and those of the default patterns that are dropped.
CREATE TABLE settings (
    nlist INTEGER,
    recall REAL NOT NULL,
    storage TEXT NOT NULL DEFAULT 'flat',
    pca INTEGER NOT NULL DEFAULT 256,
    exclude TEXT NOT NULL DEFAULT '[]',
    include TEXT NOT NULL DEFAULT '[]'
) STRICT;

CREATE TABLE roots (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    path BLOB NOT NULL UNIQUE,
    recursive INTEGER NOT NULL
) STRICT;

-- Folders, relative to their root, at which another file system was mounted when last looked at.
CREATE TABLE mounts (
    root INTEGER NOT NULL REFERENCES roots ON DELETE CASCADE,
    path BLOB NOT NULL,
    PRIMARY KEY (root, path)
) STRICT, WITHOUT ROWID;

CREATE TABLE folders (
    id INTEGER PRIMARY KEY,
    root INTEGER NOT NULL REFERENCES roots,
    path BLOB NOT NULL,
    UNIQUE (root, path)
) STRICT;

-- AUTOINCREMENT: an id is never used twice, so that a stale index entry names no other image.
-- mtime_ns is NULL where the time was too recent to tell a later change; ctime_ns and inode are
-- NULL where they are not known: at URLs, and where no run has looked since format 4. What a file
-- states is NULL until its fingerprint is made: width and height of the upright image, in pixels;
-- taken, by the camera's clock, in seconds since 1970 as if that were UTC, and camera, its make and
-- model, are NULL where the file does not state them, too.
CREATE TABLE images (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    folder INTEGER NOT NULL REFERENCES folders,
    name BLOB NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER,
    digest BLOB NOT NULL,
    ctime_ns INTEGER,
    inode INTEGER,
    width INTEGER,
    height INTEGER,
    taken INTEGER,
    camera TEXT,
    UNIQUE (folder, name)
) STRICT;

CREATE INDEX images_by_digest ON images (digest);

-- Files that are not tried again until they change; reason is NULL for what is plainly no image, of
-- which kind says what it is.
CREATE TABLE failures (
    folder INTEGER NOT NULL REFERENCES folders,
    name BLOB NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER,
    reason TEXT,
    ctime_ns INTEGER,
    inode INTEGER,
    kind TEXT,
    PRIMARY KEY (folder, name)
) STRICT, WITHOUT ROWID;

-- Files that were taken out; an empty name stands for the folder and all that is below it.
CREATE TABLE excluded (
    folder INTEGER NOT NULL REFERENCES folders,
    name BLOB NOT NULL,
    PRIMARY KEY (folder, name)
) STRICT, WITHOUT ROWID;

-- Row i of a shard is the embedding of the image with the id first_id + i; where removed ones were
-- left out (count < last_id - first_id + 1), ids_sha256 is that of the file that lists the ids.
CREATE TABLE shards (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    first_id INTEGER NOT NULL UNIQUE,
    last_id INTEGER NOT NULL,
    count INTEGER NOT NULL,
    sha256 BLOB NOT NULL,
    ids_sha256 BLOB
) STRICT;

-- Ids that have a row in a shard and no image any more; stale if a segment may hold them, too.
CREATE TABLE removed (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL,
    stale INTEGER NOT NULL
) STRICT;

CREATE INDEX removed_by_digest ON removed (digest);

CREATE TABLE segments (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    first_id INTEGER NOT NULL,
    last_id INTEGER NOT NULL,
    count INTEGER NOT NULL,
    sha256 BLOB NOT NULL,
    size INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Files under vectors, segments, layers and fingerprints that were replaced, for readers that are
-- about to open them.
CREATE TABLE replaced (
    file TEXT PRIMARY KEY,
    sha256 BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- How the segments' centroids were trained, and on what; added and far count the images that were
-- assigned since, and those of them beyond the last band; pca is NULL where the lists are flat.
CREATE TABLE ivf (
    nlist INTEGER NOT NULL,
    requested_nlist INTEGER,
    trained INTEGER NOT NULL,
    held_out INTEGER NOT NULL,
    strangers INTEGER NOT NULL,
    added INTEGER NOT NULL,
    far INTEGER NOT NULL,
    pca INTEGER
) STRICT;

-- Recall@10 by nprobe, for queries up to a squared distance from their nearest centroid.
CREATE TABLE curve (
    up_to REAL NOT NULL,
    nprobe INTEGER NOT NULL,
    recall REAL NOT NULL,
    recall_bound REAL NOT NULL,
    milliseconds REAL NOT NULL,
    PRIMARY KEY (up_to, nprobe)
) STRICT, WITHOUT ROWID;

-- Rows of the ranking; a row in a layer replaces those of its id in layers with lower numbers.
CREATE TABLE layers (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    count INTEGER NOT NULL,
    sha256 BLOB NOT NULL,
    size INTEGER NOT NULL
) STRICT;

-- One row if there are layers: the number of images when it was made, the mean of their embeddings
-- (float32), and the ids of the images (int64) that each image was compared with for its z.
CREATE TABLE ranking (
    trained INTEGER NOT NULL,
    mean BLOB NOT NULL,
    compared BLOB NOT NULL
) STRICT;

-- Fingerprints of images; a row in a file replaces those of its id in files with lower numbers.
CREATE TABLE fingerprints (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    count INTEGER NOT NULL,
    sha256 BLOB NOT NULL,
    size INTEGER NOT NULL
) STRICT;
"""

_ROWS = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name"

#: The SHA-256 (hex) of the shape of each format version, including the current one for later.
_SHAPES = {
    2: "5938bf36c3daf491b6bf4e9794f069524d14ddaf4aa0a4b382181830e9549a2e",
    3: "fb5a3da318daa0bcb94a7e19a3c589dfc7c38e94fe9c0af128597a20fc715ca7",
    4: "75dcd04294e69a5f695180970a7f7742158091c237f9a6479eaa3d10647155b2",
    5: "8bf5b93e8dae702e0283deafe056e66dfc94c344256c8f860e8367b5879f8ec5",
    6: "f3ecc2933d6e9f713a0174c9ddd04f6978aa9a69edbf237c82d2b99fa1aa82f5",
    7: "1446b0ae58c6e0371373d68380928d5fd6e78fdf8fe03e6e6fe8a46ce86e28fe",
    8: "c28e912a75773de88296319808b8a08c60d1c412bc3a4a509992804e40dd8f3f",
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
