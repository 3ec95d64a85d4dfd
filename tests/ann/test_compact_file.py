"""No file reaches Faiss that is not the compact index which was written, in all but its values."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from imgsearch.ann.compact import CompactIndex, train_compact
from imgsearch.ann.faiss_files import is_compact_file
from imgsearch.errors import DamagedError
from tests.support.brute_force import DIM
from tests.support.outdated_index import outdated
from tests.support.small_network import random_embeddings

LISTS, PCA = 20, 5


@pytest.fixture(params=[300, 3, 0], ids=["full", "sparse", "empty"])
def count(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


@pytest.fixture(params=[False, True], ids=["present", "outdated"])
def path(tmp_path: Path, count: int, request: pytest.FixtureRequest) -> Path:
    """A file of so many vectors in 20 lists; of few, most lists are empty, and left out of it."""
    vectors = random_embeddings(200, dim=DIM)
    index = train_compact(vectors, LISTS, PCA)
    if request.param:
        index = outdated(index, vectors)
    index.add(np.arange(1, count + 1), random_embeddings(count, seed=1, dim=DIM))
    path = tmp_path / "index"
    with path.open("wb") as file:
        index.save(file)
    return path


def is_one(path: Path, content: bytes | bytearray) -> bool:
    path.write_bytes(content)
    with path.open("rb") as file:
        return is_compact_file(file)


def structure(content: bytes) -> set[int]:
    """Return the places of all bytes that are neither values nor unused."""
    places: set[int] = set()
    at = 0

    def take(form: str) -> None:
        """Pass over fields; `x` are not looked at."""
        nonlocal at
        for length, kind in ((int(field[:-1]), field[-1]) for field in form.split()):
            places.update(range(at, at + length) if kind == "s" else ())
            at += length

    def values(length: int) -> None:
        nonlocal at
        take("8s")
        at += 4 * length

    take("16s 16x 9s 4s 8x 5s")
    for length in (DIM, DIM, 0):
        values(length)
    take("1s")
    for length in (PCA * DIM, PCA):
        values(length)
    take("9s 16s 16x 13s 8x 16s 16x 5s")
    values(LISTS * PCA)
    if b"Iwrq" in content:
        take("9s 8s 8s 4s 8s 2s")
    else:
        take("9s 8s 4s 16s")
        values(2 * PCA)
        take("9s")
    take("4s 8s 8s 4s 8s")
    (numbers,) = struct.unpack("<Q", content[at - 8 : at])
    if content[at - 12 : at - 8] == b"full":
        take(f"{8 * numbers}s")
    return places


def test_what_faiss_writes_is_recognised(path: Path) -> None:
    assert is_one(path, path.read_bytes())
    assert CompactIndex.open(path).nlist == LISTS


def test_every_altered_byte_of_its_structure_is_noticed(path: Path) -> None:
    content = path.read_bytes()
    for place in structure(content):
        for bit in (1, 32, 128):
            altered = bytearray(content)
            altered[place] ^= bit
            assert not is_one(path, altered), place


def test_what_is_cut_off_anywhere_or_longer_is_damaged(path: Path) -> None:
    content = path.read_bytes()
    assert not is_one(path, content + b"\0")
    for size in {*range(0, len(content), 7), *range(700), len(content) - 1}:
        if size < len(content):
            assert not is_one(path, content[:size]), size
    with pytest.raises(DamagedError, match="or is cut off"):
        CompactIndex.open(path)


def test_altered_values_do_not_end_the_process(path: Path) -> None:
    """Where no structure is altered, Faiss maps it and finds what it finds."""
    content = path.read_bytes()
    kept = structure(content)
    rng = np.random.default_rng(4)
    queries = random_embeddings(3, seed=2, dim=DIM)
    for _ in range(60):
        altered = bytearray(content)
        for place in rng.choice(len(content), 40, replace=False).tolist():
            if place not in kept:
                altered[place] = int(rng.integers(256))
        path.write_bytes(altered)
        try:
            index = CompactIndex.open(path)
        except DamagedError:  # the numbers of lists that are left out, in a sparse one
            continue
        with np.errstate(all="ignore"):
            index.search(5, index.assign(queries, LISTS))
