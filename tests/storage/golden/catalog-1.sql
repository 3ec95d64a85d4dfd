
CREATE TABLE model (
    name TEXT NOT NULL,
    dim INTEGER NOT NULL,
    input_size INTEGER NOT NULL,
    weights TEXT NOT NULL,
    weights_sha256 TEXT NOT NULL,
    onnx_sha256 TEXT NOT NULL
) STRICT;

CREATE TABLE roots (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    path BLOB NOT NULL UNIQUE,
    recursive INTEGER NOT NULL
) STRICT;

CREATE TABLE folders (
    id INTEGER PRIMARY KEY,
    root INTEGER NOT NULL REFERENCES roots,
    path BLOB NOT NULL,
    UNIQUE (root, path)
) STRICT;

-- AUTOINCREMENT: an id is never used twice, so that a stale index entry names no other image.
CREATE TABLE images (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    folder INTEGER NOT NULL REFERENCES folders,
    name BLOB NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    digest BLOB NOT NULL,
    UNIQUE (folder, name)
) STRICT;

-- Files that are not tried again until they change; reason is NULL for what is plainly no image.
CREATE TABLE failures (
    folder INTEGER NOT NULL REFERENCES folders,
    name BLOB NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    reason TEXT,
    PRIMARY KEY (folder, name)
) STRICT, WITHOUT ROWID;

-- Row i of a shard is the embedding of the image with the id first_id + i.
CREATE TABLE shards (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    first_id INTEGER NOT NULL UNIQUE,
    count INTEGER NOT NULL,
    sha256 BLOB NOT NULL
) STRICT;

-- Ids that have a row in a shard and no image any more; stale if a segment may hold them, too.
CREATE TABLE removed (
    id INTEGER PRIMARY KEY,
    stale INTEGER NOT NULL
) STRICT;

CREATE TABLE segments (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    first_id INTEGER NOT NULL,
    last_id INTEGER NOT NULL,
    count INTEGER NOT NULL,
    sha256 BLOB NOT NULL
) STRICT;

CREATE TABLE ivf (
    nlist INTEGER NOT NULL,
    requested_nlist INTEGER,
    nprobe INTEGER NOT NULL,
    recall REAL NOT NULL,
    recall_bound REAL NOT NULL
) STRICT;
