"""No file reaches Faiss that is not the index which was written, in all but its vectors and ids."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from imgsearch.ann.faiss_files import is_ivf_file
from imgsearch.ann.flat import IvfIndex
from imgsearch.errors import DamagedError
from tests.support.small_network import DIM, random_embeddings

LISTS = 20
UNUSED = {*range(16, 32), *range(45, 53), *range(69, 85)}


@pytest.fixture(params=[300, 3, 0], ids=["full", "sparse", "empty"])
def path(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A file of so many vectors in 20 lists; of few, most lists are empty, and left out of it."""
    index = IvfIndex.empty(random_embeddings(LISTS))
    index.add(np.arange(1, request.param + 1), random_embeddings(request.param, seed=1))
    path = tmp_path / "index"
    with path.open("wb") as file:
        index.save(file)
    return path


def is_one(path: Path, content: bytes | bytearray) -> bool:
    path.write_bytes(content)
    with path.open("rb") as file:
        return is_ivf_file(file)


def test_what_faiss_writes_is_recognised(path: Path) -> None:
    assert is_one(path, path.read_bytes())
    assert IvfIndex.open(path).nlist == LISTS


def test_every_altered_byte_of_its_structure_is_noticed(path: Path) -> None:
    content = path.read_bytes()
    centroids = range(98, 98 + 4 * DIM * LISTS)
    lists = range(
        centroids.stop, content.index(b"ilar") + 32 + (8 * LISTS if b"full" in content else 0)
    )
    for place in {*range(98), *lists} - UNUSED:
        for bit in (1, 32, 128):
            altered = bytearray(content)
            altered[place] ^= bit
            assert not is_one(path, altered), place


@pytest.mark.parametrize(
    "alter",
    [
        lambda content: content + b"\0",
        lambda content: content[:-1],
        lambda content: content[: 98 + 4 * DIM * LISTS],
        lambda content: content[:98],
        lambda content: content[:81],  # at which Faiss would crash
        lambda _: b"",
    ],
)
def test_what_is_cut_off_or_longer_is_damaged(path: Path, alter: Callable[[bytes], bytes]) -> None:
    assert not is_one(path, alter(path.read_bytes()))
    with pytest.raises(DamagedError, match="is not an IndexIVFFlat, or is cut off"):
        IvfIndex.open(path)
