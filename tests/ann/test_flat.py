"""The IVF index against brute force in NumPy."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgsearch.ann.exact import search_exactly
from imgsearch.ann.flat import IvfIndex
from imgsearch.ann.kmeans import choose_nlist, train, training_size
from imgsearch.ann.vectors import Ids, Vectors
from imgsearch.errors import DamagedError
from imgsearch.storage.files import write_atomically
from tests.support.brute_force import (
    DIM,
    assert_same_hits,
    index_of,
    nearest,
    probe,
    squares,
    stored,
)
from tests.support.depth import examples
from tests.support.small_network import random_embeddings

NOTHING = np.empty(0, np.int64)


@pytest.mark.usefixtures("several_threads")
@settings(max_examples=examples(25))
@given(stored=stored(), nlist=st.integers(1, 12), k=st.integers(1, 30), data=st.data())
def test_probing_all_lists_is_exact_search(
    stored: tuple[Ids, Vectors], nlist: int, k: int, data: st.DataObject
) -> None:
    ids, vectors = stored
    nlist = min(nlist, len(ids))
    removed = np.array(sorted(data.draw(st.sets(st.sampled_from(ids.tolist())))), np.int64)
    queries = np.concatenate([vectors[:3], random_embeddings(3, seed=7, dim=DIM)])
    found = probe(index_of(ids, vectors, nlist), queries, k, nlist, removed)
    live = ~np.isin(ids, removed)
    assert_same_hits(found, nearest(queries, ids[live], vectors[live], k))
    assert_same_hits(found, search_exactly(queries, [(ids, vectors)], k, removed))


# Lists


def test_queries_are_assigned_to_the_nearest_lists_nearest_first(
    index: IvfIndex, vectors: Vectors
) -> None:
    squared = squares(vectors, index.centroids)
    for count in (1, 3, 8):
        distances, lists, _ = index.assign(vectors, count)
        assert lists.shape == distances.shape == (400, count)
        np.testing.assert_array_equal(lists, np.argsort(squared, axis=1)[:, :count])
        np.testing.assert_allclose(distances, np.sort(squared, axis=1)[:, :count], atol=1e-5)


def test_vectors_are_filed_under_their_nearest_centroid(ids: Ids, vectors: Vectors) -> None:
    centroids = train(vectors, 8)
    index = IvfIndex.empty(centroids)
    squared = squares(vectors, centroids)
    distances = index.add(ids[:150], vectors[:150])
    assert index.count == 150
    distances = np.concatenate([distances, index.add(ids[150:], vectors[150:])])
    np.testing.assert_allclose(distances, squared.min(axis=1), atol=1e-5)
    assert index.count == 400
    nearest_list = squared.argmin(axis=1)
    for number, members in enumerate(index.list_ids()):
        assert sorted(members.tolist()) == ids[nearest_list == number].tolist()
    assert index.list_sizes().tolist() == np.bincount(nearest_list, minlength=8).tolist()


def test_the_distance_of_a_centroid_to_itself_is_0(vectors: Vectors) -> None:
    centroids = train(vectors, 8)
    distances = IvfIndex.empty(centroids).add(np.arange(8), centroids)
    np.testing.assert_allclose(distances, 0, atol=1e-6)


def test_nothing_may_be_added(index: IvfIndex, vectors: Vectors) -> None:
    assert index.add(NOTHING, vectors[:0]).shape == (0,)
    assert index.count == 400


def test_the_centroids_are_those_that_were_given(
    index: IvfIndex, vectors: Vectors, tmp_path: Path
) -> None:
    centroids = train(vectors, 8)
    np.testing.assert_array_equal(IvfIndex.empty(centroids).centroids, centroids)
    write_atomically(tmp_path / "index", index.save)
    opened = IvfIndex.open(tmp_path / "index")
    np.testing.assert_array_equal(opened.centroids, centroids)
    mine = opened.centroids
    mine[:] = 0
    np.testing.assert_array_equal(opened.centroids, centroids)


# Searching


def test_a_search_of_one_list_stays_in_it(index: IvfIndex, vectors: Vectors) -> None:
    lists = [set(members.tolist()) for members in index.list_ids()]
    first = index.assign(vectors[:20], 1)[1][:, 0]
    for row, found in zip(first, probe(index, vectors[:20], 10, 1)[1].tolist(), strict=True):
        assert set(found) - {-1} <= lists[row]


@pytest.mark.parametrize("nprobe", [1, 2, 5])
def test_a_search_finds_the_nearest_of_the_lists_that_it_is_given(
    index: IvfIndex, ids: Ids, vectors: Vectors, nprobe: int
) -> None:
    queries = random_embeddings(30, seed=4, dim=DIM)
    members = [set(part.tolist()) for part in index.list_ids()]
    chosen = index.assign(queries, nprobe)
    found = index.search(10, chosen)
    for row, lists in enumerate(chosen[1].tolist()):
        inside = np.isin(ids, list(set().union(*(members[number] for number in lists))))
        expected = nearest(queries[row : row + 1], ids[inside], vectors[inside], 10)
        assert_same_hits((found[0][row : row + 1], found[1][row : row + 1]), expected)


def test_lists_may_be_a_view_of_more_and_queries_in_any_order(
    index: IvfIndex, vectors: Vectors
) -> None:
    nearest_lists = index.assign(np.asfortranarray(vectors[:9]), 8).of(np.arange(9), 3)
    found = index.search(5, nearest_lists)
    assert_same_hits(found, probe(index, vectors[:9], 5, 3))


def test_excluded_ids_never_come_back(index: IvfIndex, ids: Ids, vectors: Vectors) -> None:
    excluded = ids[::2]
    found = probe(index, vectors, 50, 8, excluded)[1]
    assert not np.isin(found, excluded).any()
    assert (found >= 0).all()
    for none in (None, NOTHING, np.array([2, 5, 10_000])):
        assert probe(index, vectors, 1, 8, none)[1][:, 0].tolist() == ids.tolist()


def test_all_ids_may_be_excluded(index: IvfIndex, ids: Ids, vectors: Vectors) -> None:
    assert (probe(index, vectors[:3], 4, 8, ids)[1] == -1).all()


def test_fewer_hits_than_were_asked_for_are_filled_up(index: IvfIndex, vectors: Vectors) -> None:
    distances, found = probe(index, vectors[:2], 500, 8)
    assert (found[:, :400] >= 0).all()
    assert (found[:, 400:] == -1).all()
    assert (distances[:, 400:] > 4).all()  # farther than anything that is there


def test_no_queries_find_nothing(index: IvfIndex, vectors: Vectors) -> None:
    distances, found = probe(index, vectors[:0], 3, 2)
    assert distances.shape == found.shape == (0, 3)


def test_threads_may_search_one_index_each_in_its_own_way(
    index: IvfIndex, ids: Ids, vectors: Vectors
) -> None:
    ways = [(nprobe, ids[start::5]) for nprobe in (1, 3, 8) for start in range(4)] * 5

    def search(way: tuple[int, Ids]) -> tuple[Vectors, Ids]:
        return probe(index, vectors, 5, *way)

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(search, ways))
    for way, found in zip(ways, together, strict=True):
        alone = search(way)
        np.testing.assert_array_equal(found[1], alone[1])
        np.testing.assert_array_equal(found[0], alone[0])


def test_what_comes_back_is_squared_distances_and_ids(index: IvfIndex, vectors: Vectors) -> None:
    distances, found = probe(index, vectors[:3], 2, 8)
    assert distances.dtype == np.float32
    assert found.dtype == np.int64
    near = np.square(vectors[0] - vectors[found[0, 1] // 3]).sum()
    assert distances[0, 1] == pytest.approx(near, abs=1e-6)


# Taking in another index


@settings(max_examples=examples(25))
@given(stored=stored(), nlist=st.integers(1, 8), cut=st.integers(0, 120), data=st.data())
def test_an_index_takes_another_in_but_for_what_is_excluded(
    stored: tuple[Ids, Vectors], nlist: int, cut: int, data: st.DataObject
) -> None:
    ids, vectors = stored
    cut = min(cut, len(ids))
    excluded = np.array(sorted(data.draw(st.sets(st.sampled_from(ids.tolist())))), np.int64)
    centroids = train(vectors, min(nlist, len(ids)))
    old, new, anew = (IvfIndex.empty(centroids) for _ in range(3))
    old.add(ids[:cut], vectors[:cut])
    new.add(ids[cut:], vectors[cut:])
    new.absorb(old, excluded)
    live = np.concatenate([~np.isin(ids[:cut], excluded), np.ones(len(ids) - cut, np.bool_)])
    anew.add(ids[live], vectors[live])
    assert new.count == anew.count == live.sum()
    for one, other in zip(new.list_ids(), anew.list_ids(), strict=True):
        assert sorted(one.tolist()) == sorted(other.tolist())
    queries = random_embeddings(4, seed=3, dim=DIM)
    for nprobe in (1, anew.nlist):
        assert_same_hits(probe(new, queries, 5, nprobe), probe(anew, queries, 5, nprobe))
    assert old.count == cut


def test_an_index_takes_in_several_that_are_mapped_and_is_saved(
    ids: Ids, vectors: Vectors, tmp_path: Path
) -> None:
    centroids = train(vectors, 8)
    for number, rows in enumerate(np.array_split(np.arange(400), 3)):
        part = IvfIndex.empty(centroids)
        part.add(ids[rows], vectors[rows])
        write_atomically(tmp_path / str(number), part.save)
    merged = IvfIndex.empty(IvfIndex.open(tmp_path / "0").centroids)
    for number in range(3):
        merged.absorb(IvfIndex.open(tmp_path / str(number)), ids[:2])
    assert merged.count == 398
    write_atomically(tmp_path / "merged", merged.save)
    opened = IvfIndex.open(tmp_path / "merged")
    assert opened.count == 398
    assert_same_hits(probe(opened, vectors, 5, 8), nearest(vectors, ids[2:], vectors[2:], 5))


# Files


def test_an_index_is_opened_as_it_was_saved(
    index: IvfIndex, ids: Ids, vectors: Vectors, tmp_path: Path
) -> None:
    write_atomically(tmp_path / "index", index.save)
    opened = IvfIndex.open(tmp_path / "index")
    assert (opened.nlist, opened.count) == (8, 400)
    assert opened.list_sizes().tolist() == index.list_sizes().tolist()
    for nprobe in (1, 3, 8):
        for one, other in zip(
            probe(index, vectors, 5, nprobe), probe(opened, vectors, 5, nprobe), strict=True
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
    assert probe(opened, vectors[:2], 3, 4)[1].tolist() == [[-1] * 3] * 2
    assert [len(part) for part in opened.list_ids()] == [0] * 4


def test_vectors_may_be_mapped_from_a_file(tmp_path: Path, ids: Ids, vectors: Vectors) -> None:
    np.save(tmp_path / "vectors.npy", vectors)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    index = index_of(ids, mapped, 4)
    assert probe(index, mapped[:5], 1, 1)[1][:, 0].tolist() == ids[:5].tolist()


def test_an_index_that_is_gone_is_left_to_the_caller(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        IvfIndex.open(tmp_path / "missing")


def test_a_folder_in_the_place_of_an_index_is_damage(tmp_path: Path) -> None:
    with pytest.raises(DamagedError, match="is a folder"):
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
    with pytest.raises(DamagedError, match="is not an IndexIVFFlat"):
        IvfIndex.open(tmp_path / "index")


# Training


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
        probe(IvfIndex.open(tmp_path / "index"), vectors, 5, nlist)
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
