"""The IVF index and exact search, against brute force in NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgsearch.errors import DamagedError, StorageError
from imgsearch.search.ivf import (
    IvfIndex,
    choose_nlist,
    merge,
    search_exactly,
    train,
    training_size,
)
from imgsearch.search.vectors import Ids, Vectors
from imgsearch.storage.files import write_atomically
from tests.search.brute_force import DIM, assert_same_hits, index_of, nearest
from tests.small_network import random_embeddings


def blocks_of(ids: Ids, vectors: Vectors, size: int) -> Iterator[tuple[Ids, Vectors]]:
    for start in range(0, len(ids), size):
        yield ids[start : start + size], vectors[start : start + size]


@st.composite
def stored(draw: st.DrawFn) -> tuple[Ids, Vectors]:
    """Some ids, and their vectors, many of them duplicates."""
    count = draw(st.integers(1, 120))
    different = draw(st.integers(1, count))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    vectors = random_embeddings(different, seed=different, dim=DIM)
    ids = np.sort(rng.choice(1000, count, replace=False)).astype(np.int64)
    return ids, vectors[rng.integers(0, different, count)]


@settings(max_examples=25)
@given(stored=stored(), nlist=st.integers(1, 12), k=st.integers(1, 30), data=st.data())
def test_probing_all_lists_is_exact_search(
    stored: tuple[Ids, Vectors], nlist: int, k: int, data: st.DataObject
) -> None:
    ids, vectors = stored
    nlist = min(nlist, len(ids))
    removed = np.array(sorted(data.draw(st.sets(st.sampled_from(ids.tolist())))), np.int64)
    queries = np.concatenate([vectors[:3], random_embeddings(3, seed=7, dim=DIM)])
    live = ~np.isin(ids, removed)
    expected = nearest(queries, ids[live], vectors[live], k)
    index = index_of(ids, vectors, nlist)
    assert_same_hits(index.search(queries, k, nlist, removed), expected)
    for size in (7, 1000):
        found = search_exactly(queries, blocks_of(ids, vectors, size), k, removed)
        assert_same_hits(found, expected)


@given(stored=stored(), cut=st.integers(0, 120), k=st.integers(1, 30))
def test_merging_the_hits_of_two_parts_gives_those_of_the_whole(
    stored: tuple[Ids, Vectors], cut: int, k: int
) -> None:
    ids, vectors = stored
    queries = random_embeddings(4, seed=9, dim=DIM)
    one = nearest(queries, ids[:cut], vectors[:cut], k)
    other = nearest(queries, ids[cut:], vectors[cut:], k)
    assert_same_hits(merge(one, other, k), nearest(queries, ids, vectors, k))


def test_equal_distances_are_merged_in_the_order_of_ids() -> None:
    one = np.array([[0.5, 0.7]], np.float32), np.array([[9, 4]])
    other = np.array([[0.5, 0.7]], np.float32), np.array([[3, -1]])
    assert merge(one, other, 3)[1].tolist() == [[3, 9, -1]]


def test_a_search_of_one_list_stays_in_it(index: IvfIndex, vectors: Vectors) -> None:
    lists = [set(members.tolist()) for members in index.list_ids()]
    first = index.assign(vectors[:20], 1)[:, 0]
    for row, found in zip(first, index.search(vectors[:20], 10, 1)[1].tolist(), strict=True):
        assert set(found) - {-1} <= lists[row]


def test_excluded_ids_never_come_back(index: IvfIndex, ids: Ids, vectors: Vectors) -> None:
    excluded = ids[::2]
    for found in (
        index.search(vectors, 50, 8, excluded)[1],
        search_exactly(vectors, [(ids, vectors)], 50, excluded)[1],
    ):
        assert not np.isin(found, excluded).any()
        assert (found >= 0).all()


def test_an_index_is_opened_as_it_was_saved(
    index: IvfIndex, ids: Ids, vectors: Vectors, tmp_path: Path
) -> None:
    write_atomically(tmp_path / "index", index.save)
    opened = IvfIndex.open(tmp_path / "index")
    assert (opened.nlist, opened.count) == (8, 400)
    assert opened.list_sizes().tolist() == index.list_sizes().tolist()
    for nprobe in (1, 3, 8):
        for one, other in zip(
            index.search(vectors, 5, nprobe), opened.search(vectors, 5, nprobe), strict=True
        ):
            np.testing.assert_array_equal(one, other)
    members = np.concatenate(list(opened.list_ids()))
    assert sorted(members.tolist()) == ids.tolist()
    assert [len(part) for part in opened.list_ids()] == opened.list_sizes().tolist()


def test_an_index_may_be_empty(tmp_path: Path, vectors: Vectors) -> None:
    index = IvfIndex.empty(train(vectors, 4))
    write_atomically(tmp_path / "index", index.save)
    opened = IvfIndex.open(tmp_path / "index")
    assert opened.count == 0
    assert opened.search(vectors[:2], 3, 4)[1].tolist() == [[-1] * 3] * 2
    assert [len(part) for part in opened.list_ids()] == [0] * 4


def test_vectors_may_be_mapped_from_a_file(tmp_path: Path, ids: Ids, vectors: Vectors) -> None:
    np.save(tmp_path / "vectors.npy", vectors)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    index = index_of(ids, mapped, 4)
    assert index.search(mapped[:5], 1, 1)[1][:, 0].tolist() == ids[:5].tolist()


def test_an_index_that_is_gone_is_left_to_the_caller(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        IvfIndex.open(tmp_path / "missing")


def test_an_index_that_cannot_be_read_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="Is a directory"):
        IvfIndex.open(tmp_path)


@pytest.mark.parametrize("size", [0, 4, 100, 10_000, -8])
def test_an_index_that_is_cut_off_is_damaged(tmp_path: Path, index: IvfIndex, size: int) -> None:
    path = tmp_path / "index"
    write_atomically(path, index.save)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DamagedError, match=str(path)):
        IvfIndex.open(path)


def test_a_file_that_is_no_index_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "index"
    path.write_bytes(b"nothing of Faiss's" * 1000)
    with pytest.raises(DamagedError, match=str(path)):
        IvfIndex.open(path)


def test_an_index_of_another_kind_is_damaged(tmp_path: Path, vectors: Vectors) -> None:
    flat = faiss.IndexFlatL2(DIM)
    flat.add(vectors)
    faiss.write_index(flat, str(tmp_path / "index"))
    with pytest.raises(DamagedError, match=r"IndexFlat.* not an IndexIVFFlat"):
        IvfIndex.open(tmp_path / "index")


@pytest.mark.parametrize("queries", [1, 19, 25, 1100])
def test_an_identical_vector_is_at_a_distance_of_exactly_0(queries: int) -> None:
    vectors = random_embeddings(1100, dim=64)
    ids = np.arange(1100)
    distances, found = search_exactly(vectors[:queries], blocks_of(ids, vectors, 300), 3)
    np.testing.assert_array_equal(found[:, 0], ids[:queries])
    np.testing.assert_array_equal(distances[:, 0], 0)
    assert (distances[:, 1] > 0).all()


def test_exact_search_of_no_blocks_finds_nothing(vectors: Vectors) -> None:
    distances, found = search_exactly(vectors[:2], [], 3)
    assert found.tolist() == [[-1] * 3] * 2
    assert np.isinf(distances).all()


def test_exact_search_for_no_queries_finds_nothing(ids: Ids, vectors: Vectors) -> None:
    distances, found = search_exactly(vectors[:0], [(ids, vectors)], 3)
    assert distances.shape == found.shape == (0, 3)


def test_training_is_seeded(vectors: Vectors) -> None:
    np.testing.assert_array_equal(train(vectors, 8), train(vectors, 8))


@pytest.mark.parametrize("count", [1, 2, 8, 40])
def test_faiss_prints_nothing_however_few_vectors_there_are(
    count: int, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    vectors = random_embeddings(count, dim=DIM)
    for nlist in {1, count}:
        index = index_of(np.arange(count), vectors, nlist)
        write_atomically(tmp_path / "index", index.save)
        IvfIndex.open(tmp_path / "index").search(vectors, 5, nlist)
    duplicates = np.repeat(vectors[:1], 40, axis=0)
    index_of(np.arange(40), duplicates, 8)
    assert capfd.readouterr() == ("", "")


@given(count=st.integers(1, 10**9))
def test_each_centroid_has_enough_images_to_be_trained_on(count: int) -> None:
    nlist = choose_nlist(count)
    assert 1 <= nlist <= max(1, count // 39)
    assert nlist <= choose_nlist(count + 1)
    assert nlist <= training_size(count, nlist, 1280) <= count


def test_nlist_grows_with_the_root_of_the_number_of_images() -> None:
    assert [choose_nlist(n) for n in (1, 256, 10_000, 1_000_000)] == [1, 6, 256, 4000]


def test_training_takes_no_more_than_a_gibibyte() -> None:
    assert training_size(10_000_000, 12_649, 1280) * 4 * 1280 <= 1 << 30


def test_what_comes_back_is_squared_distances_and_ids(index: IvfIndex, vectors: Vectors) -> None:
    distances, found = index.search(vectors[:3], 2, 8)
    assert distances.dtype == np.float32
    assert found.dtype == np.int64
    near = np.square(vectors[0] - vectors[found[0, 1] // 3]).sum()
    assert distances[0, 1] == pytest.approx(near, abs=1e-6)
