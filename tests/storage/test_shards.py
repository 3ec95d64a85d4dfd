"""Shards: round trip, mapping, and what is found damaged."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from imgsearch.errors import DamagedError, StorageError
from imgsearch.storage.shards import Shard, open_shard, shard_name, write_shard
from tests.small_network import random_embeddings


@pytest.fixture
def vectors() -> npt.NDArray[np.float32]:
    return random_embeddings(7, dim=5)


@pytest.fixture
def shard(tmp_path: Path, vectors: npt.NDArray[np.float32]) -> Shard:
    return Shard(17, 101, 7, write_shard(tmp_path, 17, vectors))


def test_a_shard_is_read_as_it_was_written(
    tmp_path: Path, shard: Shard, vectors: npt.NDArray[np.float32]
) -> None:
    read = open_shard(tmp_path, shard, 5)
    np.testing.assert_array_equal(read, vectors)
    assert read.dtype == np.float32
    assert shard.ids.tolist() == list(range(101, 108))
    assert shard.ids.dtype == np.int64


def test_a_shard_is_a_numpy_file_named_by_its_number(
    tmp_path: Path, shard: Shard, vectors: npt.NDArray[np.float32]
) -> None:
    path = tmp_path / "00000017.npy"
    assert shard_name(17) == path.name
    np.testing.assert_array_equal(np.load(path), vectors)
    assert shard.sha256 == hashlib.sha256(path.read_bytes()).digest()


def test_a_shard_is_mapped_and_cannot_be_written_to(tmp_path: Path, shard: Shard) -> None:
    read = open_shard(tmp_path, shard, 5)
    assert isinstance(read, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        read[0, 0] = 1


def test_a_shard_that_is_gone_is_left_to_the_caller(tmp_path: Path, shard: Shard) -> None:
    (tmp_path / shard_name(17)).unlink()
    with pytest.raises(FileNotFoundError) as caught:
        open_shard(tmp_path, shard, 5)
    assert caught.value.filename == str(tmp_path / shard_name(17))


@pytest.mark.parametrize("size", [0, 5, 100, 200])
def test_a_shard_that_is_cut_off_is_damaged(tmp_path: Path, shard: Shard, size: int) -> None:
    path = tmp_path / shard_name(17)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DamagedError, match=str(path)):
        open_shard(tmp_path, shard, 5)


def test_a_shard_that_cannot_be_read_is_a_storage_error(tmp_path: Path, shard: Shard) -> None:
    (tmp_path / shard_name(17)).unlink()
    (tmp_path / shard_name(17)).mkdir()
    with pytest.raises(StorageError, match="Is a directory"):
        open_shard(tmp_path, shard, 5)


def test_a_file_that_is_no_shard_is_damaged(tmp_path: Path, shard: Shard) -> None:
    (tmp_path / shard_name(17)).write_bytes(b"not a NumPy file at all" * 10)
    with pytest.raises(DamagedError, match="cannot be read"):
        open_shard(tmp_path, shard, 5)


def test_a_pickle_is_never_loaded(tmp_path: Path, shard: Shard) -> None:
    np.save(tmp_path / shard_name(17), np.array([{}, {}], dtype=object))
    with pytest.raises(DamagedError, match="cannot be read"):
        open_shard(tmp_path, shard, 5)


@pytest.mark.parametrize(
    "other", [np.zeros((6, 5), np.float32), np.zeros((7, 4), np.float32), np.zeros((7, 5))]
)
def test_a_shard_of_another_shape_or_type_than_the_catalog_says_is_damaged(
    tmp_path: Path, shard: Shard, other: npt.NDArray[np.floating]
) -> None:
    np.save(tmp_path / shard_name(17), other)
    with pytest.raises(DamagedError, match=r"the catalog says float32 \[7, 5\]"):
        open_shard(tmp_path, shard, 5)
