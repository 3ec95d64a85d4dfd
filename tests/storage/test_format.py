"""docs/format.md says enough to read a collection without imgsearch, and without Faiss.

This reader uses Python's library and NumPy alone; it knows only what stands there.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from imgsearch.collection import Collection
from imgsearch.storage.layout import FORMAT_VERSION
from imgsearch.storage.schema import SCHEMA
from tests.support.pictures import picture

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "data" / f"collection-{FORMAT_VERSION}"
FORMAT = (ROOT / "docs" / "format.md").read_text()

Vectors = npt.NDArray[np.float32]


class Reader:
    """Takes the fields of a file one by one."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        self.at += count
        assert self.at <= len(self.data)
        return self.data[self.at - count : self.at]

    def number(self, kind: str) -> int:
        (value,) = struct.unpack(f"<{kind}", self.take(struct.calcsize(kind)))
        return int(value)

    def numbers(self, count: int) -> list[int]:
        return list(struct.unpack(f"<{count}Q", self.take(8 * count)))

    def floats(self, count: int, dim: int) -> Vectors:
        return np.frombuffer(self.take(4 * count * dim), "<f4").reshape(count, dim)


def npy(path: Path) -> npt.NDArray[np.generic]:
    """Return the array of an `.npy` file."""
    reader = Reader(path.read_bytes())
    assert reader.take(8) == b"\x93NUMPY\x01\x00"
    header = reader.take(reader.number("H")).decode("ascii")
    assert reader.at % 64 == 0
    pattern = r"\{'descr': '(<f4|<i8)', 'fortran_order': False, 'shape': \(([0-9, ]+)\), \} *\n"
    match = re.fullmatch(pattern, header)
    assert match is not None
    shape = [int(part) for part in match[2].split(",") if part.strip()]
    return np.frombuffer(reader.data[reader.at :], match[1]).reshape(shape)


def faiss_header(reader: Reader, kind: bytes) -> tuple[int, int]:
    """Take the header of a Faiss index; return the length and the number of its vectors."""
    assert reader.take(4) == kind
    dim, count = reader.number("i"), reader.number("q")
    reader.take(16)
    assert (reader.take(1), reader.number("i")) == (b"\x01", 1)
    return dim, count


def segment(path: Path) -> tuple[Vectors, list[tuple[list[int], Vectors]]]:
    """Return the centroids of a segment, and the ids and vectors of each of its lists."""
    reader = Reader(path.read_bytes())
    dim, count = faiss_header(reader, b"IwFl")
    nlist = reader.number("Q")
    reader.number("Q")
    assert faiss_header(reader, b"IxF2") == (dim, nlist)
    assert reader.number("Q") == nlist * dim
    centroids = reader.floats(nlist, dim)
    assert (reader.take(1), reader.number("Q")) == (b"\x00", 0)
    assert (reader.take(4), *reader.numbers(2)) == (b"ilar", nlist, 4 * dim)
    kind, numbers = reader.take(4), reader.number("Q")
    sizes = reader.numbers(numbers)
    if kind == b"sprs":
        filled = dict(zip(sizes[::2], sizes[1::2], strict=True))
        sizes = [filled.get(number, 0) for number in range(nlist)]
    else:
        assert kind == b"full"
    assert (len(sizes), sum(sizes)) == (nlist, count)
    lists = []
    for size in sizes:
        vectors = reader.floats(size, dim)
        lists.append((reader.numbers(size), vectors))
    assert reader.at == len(reader.data)
    return centroids, lists


@pytest.fixture
def catalog() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(f"{GOLDEN.as_uri()}/catalog.sqlite?immutable=1", uri=True)
    yield connection
    connection.close()


def embeddings(catalog: sqlite3.Connection) -> dict[int, Vectors]:
    """Return the embedding of each row of each shard, by its id."""
    rows: dict[int, Vectors] = {}
    for number, first, last, count, sha256, ids_sha256 in catalog.execute("SELECT * FROM shards"):
        path = GOLDEN / "vectors" / f"{number:08}.npy"
        assert hashlib.sha256(path.read_bytes()).digest() == sha256
        ids = list(range(first, last + 1))
        if ids_sha256 is not None:
            path_of_ids = GOLDEN / "vectors" / f"{number:08}.ids.npy"
            assert hashlib.sha256(path_of_ids.read_bytes()).digest() == ids_sha256
            ids = npy(path_of_ids).tolist()
        vectors = npy(path).astype(np.float32)
        assert len(vectors) == len(ids) == count
        rows |= dict(zip(ids, vectors, strict=True))
    return rows


def test_the_manifest_and_the_seal_are_what_the_document_says(catalog: sqlite3.Connection) -> None:
    text = f'{{"format": "imgsearch collection", "version": {FORMAT_VERSION}}}\n'
    assert (GOLDEN / "collection.json").read_text() == text
    assert catalog.execute("PRAGMA user_version").fetchone() == (FORMAT_VERSION,)
    content = (GOLDEN / "catalog.sqlite").read_bytes()
    assert (GOLDEN / "catalog.copy").read_bytes() == content
    sealed = json.loads((GOLDEN / "catalog.seal").read_text())
    check = sealed.pop("check")
    assert check == hashlib.sha256(json.dumps(sealed).encode()).hexdigest()
    assert sealed == {
        "format": "imgsearch seal",
        "changes": int.from_bytes(content[24:28], "big"),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def test_the_images_and_their_embeddings_can_be_read_as_the_document_says(
    catalog: sqlite3.Connection,
) -> None:
    paths = {
        id_: b"/".join(part for part in (root, folder, name) if part).decode()
        for id_, root, folder, name in catalog.execute(
            "SELECT images.id, roots.path, folders.path, name FROM images "
            "JOIN folders ON folders.id = folder JOIN roots ON roots.id = root"
        )
    }
    rows = embeddings(catalog)
    removed = {id_ for (id_,) in catalog.execute("SELECT id FROM removed")}
    assert rows.keys() == paths.keys() | removed
    assert not paths.keys() & removed
    (dim,) = catalog.execute("SELECT dim FROM model").fetchone()
    norms = [np.linalg.norm(row) for row in rows.values()]
    assert {row.shape for row in rows.values()} == {(dim,)}
    np.testing.assert_allclose(norms, 1, atol=1e-5)
    with Collection.open(GOLDEN, device="cpu") as collection:
        query = collection.embed([picture(80)])[0]
        hits = collection.query(picture(80), k=len(paths), exact=True, rank="cosine")
    nearest = sorted(paths, key=lambda id_: float(-rows[id_] @ query))
    assert [(hit.id, hit.path) for hit in hits[:3]] == [(id_, paths[id_]) for id_ in nearest[:3]]


def test_the_segments_can_be_read_as_the_document_says(catalog: sqlite3.Connection) -> None:
    rows = embeddings(catalog)
    statement = "SELECT number, first_id, last_id, count, sha256, size FROM segments"
    segments = catalog.execute(statement).fetchall()
    assert segments
    for number, first, last, count, sha256, size in segments:
        path = GOLDEN / "segments" / f"{number:08}.faiss"
        content = path.read_bytes()
        assert (hashlib.sha256(content).digest(), len(content)) == (sha256, size)
        centroids, lists = segment(path)
        assert len(centroids) == catalog.execute("SELECT nlist FROM ivf").fetchone()[0]
        ids = [id_ for listed, _ in lists for id_ in listed]
        assert len(ids) == len(set(ids)) == count
        assert min(ids) >= first
        assert max(ids) <= last
        for place, (listed, vectors) in enumerate(lists):
            for id_, vector in zip(listed, vectors, strict=True):
                np.testing.assert_array_equal(vector, rows[id_])
                assert np.square(centroids - vector).sum(axis=1).argmin() == place


def test_the_document_names_every_table_and_every_column() -> None:
    database = sqlite3.connect(":memory:")
    database.executescript(SCHEMA)
    tables = database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    for (table,) in tables:
        if table.startswith("sqlite_"):
            continue
        part = re.search(rf"^\*\*`{table}`\*\*.*?(?=^\*\*`|^#)", FORMAT, re.DOTALL | re.MULTILINE)
        assert part is not None, table
        for _, column, *_ in database.execute(f"PRAGMA table_info({table})"):
            assert f"`{column}`" in part[0], (table, column)
    database.close()


def test_the_document_is_of_the_present_version() -> None:
    assert FORMAT.startswith(f"# The collection on disk, format version {FORMAT_VERSION}\n")


def test_the_layers_can_be_read_as_the_document_says(catalog: sqlite3.Connection) -> None:
    rows = embeddings(catalog)
    ((trained, mean_bytes, compared),) = catalog.execute("SELECT * FROM ranking").fetchall()
    mean = np.frombuffer(mean_bytes, "<f4")
    references = np.frombuffer(compared, "<i8").tolist()
    assert trained == len(references)
    known: dict[int, tuple[float, float, float]] = {}
    neighbours: dict[int, list[int]] = {}
    similarities: dict[int, Vectors] = {}
    layers = catalog.execute("SELECT number, count, sha256, size FROM layers ORDER BY number")
    for number, count, sha256, size in layers.fetchall():
        content = (GOLDEN / "layers" / f"{number:08}.layer").read_bytes()
        assert (hashlib.sha256(content).digest(), len(content)) == (sha256, size)
        reader = Reader(content)
        assert reader.take(16) == b"imgsearch layer\n"
        assert reader.numbers(2) == [count, len(mean)]
        reader.take(count * len(mean) + -count * len(mean) % 8)
        ids = reader.numbers(count)
        assert ids == sorted(set(ids))
        leaders = np.frombuffer(reader.take(4 * count), "<u4")
        along, means, deviations, scales = (reader.floats(count, 1)[:, 0] for _ in range(4))
        listed = np.frombuffer(reader.take(160 * count), "<u4").reshape(count, 40)
        stored = np.frombuffer(reader.take(82 * count), "<u2").reshape(count, 41)
        assert reader.at == len(content)
        assert (leaders <= ids).all()
        assert (scales > 0).all()
        for row, id_ in enumerate(ids):
            known[id_] = (float(along[row]), float(means[row]), float(deviations[row]))
            neighbours[id_] = [each for each in listed[row].tolist() if each]
            similarities[id_] = (stored[row] / 32767.5 - 1).astype(np.float32)
    paths = {id_ for (id_,) in catalog.execute("SELECT id FROM images")}
    assert paths <= known.keys()
    z = {id_: (row - mean) / np.linalg.norm(row - mean) for id_, row in rows.items()}
    for id_ in paths:
        assert known[id_][0] == pytest.approx(float(rows[id_] @ mean), abs=1e-5)
        assert set(neighbours[id_]) <= paths - {id_}
        for place, each in enumerate(neighbours[id_]):
            assert similarities[id_][place] == pytest.approx(float(z[id_] @ z[each]), abs=1e-4)


def test_the_fingerprints_can_be_read_as_the_document_says(catalog: sqlite3.Connection) -> None:
    files = catalog.execute("SELECT number, count, sha256, size FROM fingerprints ORDER BY number")
    sizes: dict[int, tuple[int, int]] = {}
    for number, count, sha256, size in files.fetchall():
        content = (GOLDEN / "fingerprints" / f"{number:08}.prints").read_bytes()
        assert (hashlib.sha256(content).digest(), len(content)) == (sha256, size)
        reader = Reader(content)
        assert reader.take(16) == b"imgsearch print\n"
        assert reader.numbers(2) == [count, 2_619]
        ids = reader.numbers(count)
        assert ids == sorted(set(ids))
        hashes = np.frombuffer(reader.take(8 * count), np.uint8).reshape(count, 8)
        widths, heights = (np.frombuffer(reader.take(4 * count), "<u4") for _ in range(2))
        several, bits, clear = (np.frombuffer(reader.take(count), np.uint8) for _ in range(3))
        assert not several.any()
        assert (bits == 8).all()
        assert not clear.any()
        colours = np.frombuffer(reader.take(288 * count), np.uint8).reshape(count, 2, 12, 12)
        light = np.frombuffer(reader.take(2_304 * count), np.uint8).reshape(count, 48, 48)
        assert reader.at == len(content)
        assert colours.std() > 0
        place = np.pi / 48 * np.arange(8)[:, None] * (np.arange(48) + 0.5)
        signs = np.cos(place) @ light.astype(float) @ np.cos(place).T > 0
        signs[:, 0, 0] = False
        assert np.array_equal(np.packbits(signs.reshape(count, 64), axis=1), hashes)
        sizes |= dict(zip(ids, zip(widths.tolist(), heights.tolist(), strict=True), strict=True))
    stated = {
        id_: (width, height)
        for id_, width, height in catalog.execute("SELECT id, width, height FROM images")
    }
    assert stated.items() <= sizes.items()
