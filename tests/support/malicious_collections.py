"""Make of a collection what somebody who means harm may send: links, journals, schemas, numbers."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from imgsearch.storage.layout import Layout
from imgsearch.storage.seal import reseal

__all__ = [
    "FILES",
    "JOURNALS",
    "PLACES",
    "SCHEMAS",
    "Victims",
    "in_its_place",
    "journal",
]

MAGIC = bytes.fromhex("d9d505f920a163d7")

#: Where something else may be: each is there once, or could be.
PLACES = (
    *("collection.json", "catalog.sqlite", "catalog.seal", "catalog.copy", "model.onnx", "lock"),
    *(
        "vectors",
        "segments",
        "layers",
        "fingerprints",
        "staging",
        "vectors/*.npy",
        "vectors/*.ids.npy",
        "segments/*.faiss",
        "fingerprints/*.prints",
    ),
    *("catalog.sqlite-journal", "catalog.sqlite-wal", "catalog.sqlite-shm", "catalog.copy-journal"),
    *("catalog.copy.tmp", "catalog.seal.tmp", "collection.json.tmp", "model.onnx.tmp"),
    *("vectors/00000001.npy.tmp", "vectors/00000099.npy", "segments/00000099.faiss", "notes.txt"),
)


@dataclass(frozen=True, slots=True)
class Victims:
    """Files of the user that are no business of a collection's."""

    folder: Path

    def make(self) -> Victims:
        """Write them."""
        self.folder.mkdir()
        for name in ("id_rsa", "00000001.npy", "00000001.npy.tmp", "00000001.faiss", "mine.npy"):
            (self.folder / name).write_bytes(b"precious " * 3)
        with closing(sqlite3.connect(self.folder / "mine.sqlite")) as database, database:
            database.execute("CREATE TABLE mine (value)")
        self.folder.joinpath("empty").write_bytes(b"")
        return self

    def state(self) -> dict[str, bytes]:
        """Return what they hold."""
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in files}


def _link(path: Path, target: Path) -> None:
    path.symlink_to(target)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _socket(path: Path) -> None:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as made:  # or a long path
        made.bind(str(path))


def _giant(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(3 << 40)


def _device(path: Path) -> None:
    with contextlib.suppress(PermissionError):
        os.mknod(path, 0o20666, os.makedev(1, 5))  # /dev/zero


#: What may be in a place, by its name. Each is made where nothing is any more.
FILES: dict[str, Callable[[Path, Victims], None]] = {
    "link to a file": lambda path, victims: _link(path, victims.folder / "id_rsa"),
    "link to an empty file": lambda path, victims: _link(path, victims.folder / "empty"),
    "link to a database": lambda path, victims: _link(path, victims.folder / "mine.sqlite"),
    "link to a folder": lambda path, victims: _link(path, victims.folder),
    "link to nothing": lambda path, victims: _link(path, victims.folder / "new"),
    "link to itself": lambda path, _: _link(path, path),
    "link to /dev/zero": lambda path, _: _link(path, Path("/dev/zero")),
    "link to what was there": lambda path, victims: _link(path, victims.folder / "moved"),
    "FIFO": lambda path, _: os.mkfifo(path),
    "socket": lambda path, _: _socket(path),
    "device": lambda path, _: _device(path),
    "folder": lambda path, _: path.mkdir(),
    "giant of holes": lambda path, _: _giant(path),
    "empty file": lambda path, _: _write(path, b""),
    "noise": lambda path, _: _write(path, random.Random(path.name).randbytes(5_000)),
}


def in_its_place(directory: Path, place: str, what: str, victims: Victims) -> None:
    """Put something in the place of a part of a collection."""
    path = next(iter(sorted(directory.glob(place))), directory / place.replace("*", "00000099"))
    if what == "link to what was there" and path.exists():
        shutil.move(path, victims.folder / "moved")
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    FILES[what](path, victims)


# Journals


def _header(catalog: Path, records: int, *, page: int | None = None) -> bytes:
    with catalog.open("rb") as file:
        size = struct.unpack(">H", file.read(18)[16:])[0]
    pages = catalog.stat().st_size // size
    head = MAGIC + struct.pack(">IIIII", records, 12345, pages, 512, size if page is None else page)
    return head.ljust(512, b"\0")


def journal(catalog: Path, victim: Path, *, records: int = 0, signed: bool = True) -> bytes:
    """Return a hot journal that names a file as its super-journal."""
    name = os.fsencode(victim)
    checksum = sum(byte - 256 * (signed and byte > 127) for byte in name) & 0xFFFFFFFF
    end = struct.pack(">I", 0x40000000 // 4096 + 1) + name
    return _header(catalog, records) + end + struct.pack(">II", len(name), checksum) + MAGIC


def _in_wal_mode(catalog: Path, *, records: int = 1, page: int | None = None) -> bytes:
    """Return a journal that makes the database one in WAL mode."""
    first = bytearray(catalog.read_bytes()[:4096])
    first[18:20] = b"\2\2"
    checksum = (12345 + sum(first[n] for n in range(len(first) - 200, 0, -200))) & 0xFFFFFFFF
    record = struct.pack(">I", 1) + bytes(first) + struct.pack(">I", checksum)
    return _header(catalog, records, page=page) + record


JOURNALS: dict[str, Callable[[Path, Path], bytes]] = {
    "a super-journal": lambda catalog, victim: journal(catalog, victim),
    "a super-journal behind noise": lambda catalog, victim: (
        b"\1" * 999 + journal(catalog, victim)[512:]
    ),
    "a super-journal, unsigned": lambda catalog, victim: journal(
        catalog, victim.parent / "é" / ".." / victim.name, signed=False
    ),
    "a super-journal, signed": lambda catalog, victim: journal(
        catalog, victim.parent / "é" / ".." / victim.name
    ),
    "WAL mode": lambda catalog, _: _in_wal_mode(catalog),
    "WAL mode to the end": lambda catalog, _: _in_wal_mode(catalog, records=0xFFFFFFFF),
    "WAL mode without a page size": lambda catalog, _: _in_wal_mode(catalog, page=0),
    "far too much": lambda catalog, _: _header(catalog, 1) + bytes(8 << 20),
}


# Catalogs


@contextmanager
def _altering(directory: Path) -> Iterator[sqlite3.Connection]:
    """Alter a catalog as its owner can, and seal it."""
    layout = Layout(directory)
    with closing(sqlite3.connect(layout.catalog, isolation_level=None)) as catalog:
        yield catalog
    with contextlib.suppress(Exception):  # what cannot be sealed is not
        reseal(layout)


def _run(*statements: str) -> Callable[[Path], None]:
    def run(directory: Path) -> None:
        with _altering(directory) as catalog:
            for statement in statements:
                catalog.execute(statement)

    return run


def _replaced_by_a_view(table: str, body: str) -> Callable[[Path], None]:
    return _run(f"ALTER TABLE {table} RENAME TO was", f"CREATE VIEW {table} AS {body}")


_ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT"


def _rewrite(old: str, new: str) -> Callable[[Path], None]:
    return _run(
        "PRAGMA writable_schema = ON",
        f"UPDATE sqlite_schema SET sql = replace(sql, '{old}', '{new}')",
        "PRAGMA user_version = user_version",
    )


def _cycle(directory: Path) -> None:
    """Let a tree of the catalog be its own branch: whoever walks it never ends."""
    path = directory / "catalog.sqlite"
    with closing(sqlite3.connect(path)) as catalog:
        ((root,),) = catalog.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'removed'")
    content = bytearray(path.read_bytes())
    size = len(content) // 4096
    content += bytes(4096 * 12)
    levels = [root, *range(size + 1, size + 12)]
    for level, number in enumerate(levels[:-1]):
        below, cells = levels[level + 1], 100
        page = bytearray(4096)
        starts = [4096 - 6 * (n + 1) for n in range(cells)]
        page[:12] = struct.pack(">BHHHBI", 5, 0, cells, starts[-1], 0, below)
        for n, start in enumerate(starts):
            page[12 + 2 * n : 14 + 2 * n] = struct.pack(">H", start)
            page[start : start + 6] = struct.pack(">I", below) + b"\x81\0"
        content[4096 * (number - 1) : 4096 * number] = page
    leaf = bytearray(4096)
    leaf[:8] = struct.pack(">BHHHB", 13, 0, 0, 4096, 0)
    content[4096 * (levels[-1] - 1) : 4096 * levels[-1]] = leaf
    content[28:32] = struct.pack(">I", len(content) // 4096)
    path.write_bytes(content)
    with contextlib.suppress(Exception):
        reseal(Layout(directory))


SCHEMAS: dict[str, Callable[[Path], None]] = {
    "an endless view": _replaced_by_a_view("removed", f"{_ENDLESS} i AS id, i AS stale FROM n"),
    "an endless view of settings": _replaced_by_a_view(
        "settings", f"{_ENDLESS} NULL, 0.9, 'flat', 256 FROM n"
    ),
    "a view": _replaced_by_a_view("excluded", "SELECT folder, name FROM was"),
    "a trigger": _run(
        "CREATE TRIGGER t AFTER INSERT ON images BEGIN DELETE FROM images; END",
    ),
    "a trigger on settings": _run(
        "CREATE TRIGGER t AFTER UPDATE ON settings BEGIN DELETE FROM images; END",
    ),
    "a virtual table": _run("CREATE VIRTUAL TABLE words USING fts5(word)"),
    "a foreign table": _run("CREATE TABLE other (value)"),
    "a foreign index": _run("CREATE INDEX other ON images (size)"),
    "a generated column": _run(
        "ALTER TABLE images ADD COLUMN more BLOB AS (zeroblob(100000000)) VIRTUAL"
    ),
    "an index on an expression": _run("CREATE INDEX other ON images (abs(size))"),
    "no index": _run("DROP INDEX images_by_digest"),
    "a default of another kind": _rewrite("DEFAULT 256", "DEFAULT (abs(256))"),
    "a version of its own": _run("PRAGMA user_version = 99"),
    "WAL mode": _run("PRAGMA journal_mode = WAL", "UPDATE settings SET recall = 0.5"),
    "a tree in a circle": _cycle,
}

_TABLES = {
    "model": ("dim", "input_size"),
    "settings": ("nlist", "recall", "pca"),
    "roots": ("path",),
    "folders": ("path",),
    "images": ("name", "size", "mtime_ns", "digest"),
    "failures": ("name", "size"),
    "excluded": ("name",),
    "shards": ("number", "first_id", "last_id", "count", "sha256"),
    "removed": ("id", "digest"),
    "segments": ("number", "first_id", "last_id", "count", "size", "sha256"),
    "ivf": ("nlist", "trained", "added", "far"),
    "curve": ("up_to", "nprobe", "recall", "recall_bound", "milliseconds"),
}
_NUMBERS = (0, -1, 1, 2**31, 2**40, 2**62, 2**63 - 1, -(2**63))
_FLOATS = (0.0, -1.0, 1e308, float("inf"), -float("inf"), 1e-308)
_BLOBS = (b"", b"/", b"..", b"../../x", b"a/../../b", b"/etc/passwd", b"a\0b", b"x" * 70_000, b".")


def change_a_row(directory: Path, chance: random.Random) -> str:
    """Give a row of the catalog another value; return what was done."""
    table = chance.choice(sorted(_TABLES))
    column = chance.choice(_TABLES[table])
    with _altering(directory) as catalog:
        kinds = {row[1]: row[2] for row in catalog.execute(f"PRAGMA table_info({table})")}
        values = {"INTEGER": _NUMBERS, "REAL": _FLOATS, "BLOB": _BLOBS}[kinds[column]]
        value = chance.choice(values)
        if (table, column, value) == ("roots", "path", b"/"):
            value = b".."  # else a run indexes the whole disk, which takes as long as it takes
        one = f"WHERE {column} = (SELECT {column} FROM {table} ORDER BY random() LIMIT 1)"
        with contextlib.suppress(sqlite3.IntegrityError):
            catalog.execute(f"UPDATE {table} SET {column} = ? {one}", (value,))
    return f"{table}.{column} = {value!r}"[:80]
