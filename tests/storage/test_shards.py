"""Shards: round trip, mapping, and what is found damaged."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import resource
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgsearch.errors import DamagedError, StorageError
from imgsearch.storage.records import Shard
from imgsearch.storage.shards import (
    ShardCache,
    Vectors,
    open_ids,
    open_shard,
    read_ahead,
    shard_files,
    write_shard,
)
from tests.support.small_network import random_embeddings

GAPPY = np.array([3, 4, 5, 7, 8, 9, 20])


@pytest.fixture
def vectors() -> Vectors:
    return random_embeddings(7, dim=5)


@pytest.fixture
def shard(tmp_path: Path, vectors: Vectors) -> Shard:
    return write_shard(tmp_path, 17, np.arange(101, 108), vectors)


@pytest.fixture
def gappy(tmp_path: Path, vectors: Vectors) -> Shard:
    """A shard with the ids 3, 4, 5, 7, 8, 9 and 20."""
    return write_shard(tmp_path, 18, GAPPY, vectors)


def test_a_shard_is_read_as_it_was_written(tmp_path: Path, shard: Shard, vectors: Vectors) -> None:
    read = open_shard(tmp_path, shard, 5)
    np.testing.assert_array_equal(read, vectors)
    assert read.dtype == np.float32
    ids = open_ids(tmp_path, shard)
    assert ids.tolist() == list(range(101, 108))
    assert ids.dtype == np.int64


def test_a_shard_is_a_numpy_file_named_by_its_number(
    tmp_path: Path, shard: Shard, vectors: Vectors
) -> None:
    path = tmp_path / "00000017.npy"
    assert list(tmp_path.iterdir()) == [path]
    assert shard_files(shard) == {path.name: shard.sha256}
    np.testing.assert_array_equal(np.load(path), vectors)
    assert shard == Shard(17, 101, 107, 7, hashlib.sha256(path.read_bytes()).digest())


def test_a_shard_of_one_image_lists_no_ids(tmp_path: Path, vectors: Vectors) -> None:
    shard = write_shard(tmp_path, 1, np.array([9]), vectors[:1])
    assert (shard.first_id, shard.last_id, shard.count, shard.ids_sha256) == (9, 9, 1, None)
    assert open_ids(tmp_path, shard).tolist() == [9]


def test_a_shard_with_gaps_lists_its_ids_in_a_file(
    tmp_path: Path, gappy: Shard, vectors: Vectors
) -> None:
    path, ids_path = tmp_path / "00000018.npy", tmp_path / "00000018.ids.npy"
    assert {file.name for file in tmp_path.iterdir()} == shard_files(gappy).keys()
    digests = [hashlib.sha256(file.read_bytes()).digest() for file in (path, ids_path)]
    assert gappy == Shard(18, 3, 20, 7, *digests)
    assert shard_files(gappy) == dict(zip([path.name, ids_path.name], digests, strict=True))
    np.testing.assert_array_equal(open_shard(tmp_path, gappy, 5), vectors)
    ids = open_ids(tmp_path, gappy)
    assert ids.tolist() == GAPPY.tolist()
    assert ids.dtype == np.int64


@given(ids=st.sets(st.integers(1, 60), min_size=1))
def test_a_shard_gives_back_the_ids_it_was_given(
    tmp_path_factory: pytest.TempPathFactory, ids: set[int]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    ascending = np.array(sorted(ids), np.int64)
    shard = write_shard(folder, 1, ascending, np.ones((len(ids), 2), np.float32))
    assert open_ids(folder, shard).tolist() == sorted(ids)
    assert (shard.first_id, shard.last_id, shard.count) == (min(ids), max(ids), len(ids))
    assert (shard.ids_sha256 is None) == (max(ids) - min(ids) + 1 == len(ids))


def test_a_shard_that_cannot_be_written_is_a_storage_error(
    tmp_path: Path, vectors: Vectors
) -> None:
    with pytest.raises(StorageError, match=r"cannot write .*00000001\.npy"):
        write_shard(tmp_path / "missing", 1, np.arange(7), vectors)


def test_ids_that_are_gone_are_left_to_the_caller(tmp_path: Path, gappy: Shard) -> None:
    (tmp_path / "00000018.ids.npy").unlink()
    with pytest.raises(FileNotFoundError) as caught:
        open_ids(tmp_path, gappy)
    assert caught.value.filename == str(tmp_path / "00000018.ids.npy")


@pytest.mark.parametrize("other", [GAPPY[1:], GAPPY.astype(np.int32), GAPPY[None]])
def test_ids_that_are_not_what_the_catalog_says_are_damaged(
    tmp_path: Path, gappy: Shard, other: npt.NDArray[np.integer]
) -> None:
    np.save(tmp_path / "00000018.ids.npy", other)
    with pytest.raises(DamagedError, match=r"ids\.npy does not hold int64 \[7\]"):
        open_ids(tmp_path, gappy)


def test_a_shard_is_mapped_and_cannot_be_written_to(tmp_path: Path, shard: Shard) -> None:
    read = open_shard(tmp_path, shard, 5)
    assert not read.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        read[0, 0] = 1


class NotingMap(mmap.mmap):
    """A mapped file that notes what is to be read ahead."""

    def madvise(self, option: int, start: int = 0, length: int = 0) -> None:
        """Note a range of the file, and pass it on."""
        ranges.append((start, start + length))
        super().madvise(option, start, length)


ranges: list[tuple[int, int]] = []


def test_rows_are_read_ahead_by_their_pages_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mmap, "mmap", NotingMap)
    ranges.clear()
    vectors, rows = random_embeddings(90, dim=1_280), np.array([3, 40, 89])
    mapped = open_shard(tmp_path, write_shard(tmp_path, 17, np.arange(90), vectors), 1_280)
    read_ahead(mapped, rows)
    size = (tmp_path / "00000017.npy").stat().st_size
    header, width = size - vectors.nbytes, vectors.strides[0]
    for (start, end), row in zip(ranges, rows.tolist(), strict=True):
        first = header + row * width
        assert first - mmap.PAGESIZE < start <= first
        assert start % mmap.PAGESIZE == 0
        assert end == first + width
    np.testing.assert_array_equal(mapped[rows], vectors[rows])


def test_rows_that_are_not_mapped_need_not_be_read_ahead(vectors: Vectors) -> None:
    copied = vectors.copy()
    read_ahead(copied, np.array([1, 2]))
    np.testing.assert_array_equal(copied, vectors)


@pytest.mark.parametrize(("files", "kept"), [(40, 10), (resource.RLIM_INFINITY, 12)])
def test_a_quarter_of_the_files_that_may_be_open_are_shards(
    files: int, kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    shards = [
        write_shard(tmp_path, number, np.array([number]), random_embeddings(1, dim=5))
        for number in range(1, 13)
    ]
    cache = ShardCache(tmp_path, 5)
    first, again = (list(cache.read(shards)) for _ in range(2))
    same = sum(one.vectors is other.vectors for one, other in zip(first, again, strict=True))
    assert same == kept


def test_a_shard_that_is_gone_is_left_to_the_caller(tmp_path: Path, shard: Shard) -> None:
    (tmp_path / "00000017.npy").unlink()
    with pytest.raises(FileNotFoundError) as caught:
        open_shard(tmp_path, shard, 5)
    assert caught.value.filename == str(tmp_path / "00000017.npy")


@pytest.mark.parametrize("size", [0, 5, 100, 200])
def test_a_shard_that_is_cut_off_is_damaged(tmp_path: Path, shard: Shard, size: int) -> None:
    path = tmp_path / "00000017.npy"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DamagedError, match=str(path)):
        open_shard(tmp_path, shard, 5)


def test_a_folder_in_the_place_of_a_shard_is_damage(tmp_path: Path, shard: Shard) -> None:
    (tmp_path / "00000017.npy").unlink()
    (tmp_path / "00000017.npy").mkdir()
    with pytest.raises(DamagedError, match=r"00000017\.npy is a folder"):
        open_shard(tmp_path, shard, 5)


def test_a_shard_that_cannot_be_read_is_a_storage_error(
    tmp_path: Path, shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(StorageError, match="Input/output error"):
        open_shard(tmp_path, shard, 5)


def test_a_file_that_is_no_shard_is_damaged(tmp_path: Path, shard: Shard) -> None:
    (tmp_path / "00000017.npy").write_bytes(b"not a NumPy file at all" * 10)
    with pytest.raises(DamagedError, match=r"does not hold float32 \[7, 5\]"):
        open_shard(tmp_path, shard, 5)


def test_a_pickle_is_never_loaded(tmp_path: Path, shard: Shard) -> None:
    np.save(tmp_path / "00000017.npy", np.array([{}, {}], dtype=object))
    with pytest.raises(DamagedError, match=r"does not hold float32 \[7, 5\]"):
        open_shard(tmp_path, shard, 5)


@pytest.mark.parametrize(
    "other", [np.zeros((6, 5), np.float32), np.zeros((7, 4), np.float32), np.zeros((7, 5))]
)
def test_a_shard_of_another_shape_or_type_than_the_catalog_says_is_damaged(
    tmp_path: Path, shard: Shard, other: npt.NDArray[np.floating]
) -> None:
    np.save(tmp_path / "00000017.npy", other)
    with pytest.raises(DamagedError, match=r"does not hold float32 \[7, 5\]"):
        open_shard(tmp_path, shard, 5)
