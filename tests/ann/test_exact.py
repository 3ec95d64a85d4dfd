"""Exact search and the merging of hits, against brute force in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgsearch.ann.exact import merge, search_exactly
from imgsearch.ann.vectors import Ids, Neighbours, Vectors
from tests.support.brute_force import DIM, assert_same_hits, blocks_of, nearest, stored
from tests.support.depth import examples
from tests.support.small_network import random_embeddings


@settings(max_examples=examples(40))
@given(stored=stored(), k=st.integers(1, 30), size=st.integers(1, 130), data=st.data())
def test_exact_search_is_brute_force_whatever_the_blocks(
    stored: tuple[Ids, Vectors], k: int, size: int, data: st.DataObject
) -> None:
    ids, vectors = stored
    excluded = np.array(sorted(data.draw(st.sets(st.sampled_from(ids.tolist())))), np.int64)
    queries = np.concatenate([vectors[:3], random_embeddings(3, seed=7, dim=DIM)])
    live = ~np.isin(ids, excluded)
    found = search_exactly(queries, blocks_of(ids, vectors, size), k, excluded)
    assert found[0].shape == found[1].shape == (len(queries), k)
    assert_same_hits(found, nearest(queries, ids[live], vectors[live], k))


@pytest.mark.parametrize("dead", [0, 1, 64, 65, 200, 398, 399, 400])
@pytest.mark.parametrize("k", [1, 10, 500])
def test_excluded_ids_never_come_back_however_many_they_are(
    ids: Ids, vectors: Vectors, dead: int, k: int
) -> None:
    excluded = np.sort(np.random.default_rng(dead).choice(ids, dead, replace=False))
    live = ~np.isin(ids, excluded)
    found = search_exactly(vectors[:50], [(ids, vectors)], k, excluded)
    assert_same_hits(found, nearest(vectors[:50], ids[live], vectors[live], k))
    assert not np.isin(found[1], excluded).any()
    assert np.isinf(found[0][found[1] < 0]).all()


@pytest.mark.parametrize("excluded", [None, np.empty(0, np.int64), np.array([-5, 0, 5000])])
def test_ids_that_are_not_there_exclude_nothing(
    ids: Ids, vectors: Vectors, excluded: Ids | None
) -> None:
    found = search_exactly(vectors, blocks_of(ids, vectors, 90), 1, excluded)[1]
    assert found[:, 0].tolist() == ids.tolist()


def test_vectors_may_be_in_any_memory_order(ids: Ids, vectors: Vectors) -> None:
    blocks = [(ids[::2], vectors[::2]), (ids[1::2], np.asfortranarray(vectors[1::2]))]
    found = search_exactly(vectors[:9], blocks, 4)
    assert_same_hits(found, nearest(vectors[:9], ids, vectors, 4))


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


# Merging


@given(stored=stored(), cut=st.integers(0, 120), k=st.integers(1, 30))
def test_merging_the_hits_of_two_parts_gives_those_of_the_whole(
    stored: tuple[Ids, Vectors], cut: int, k: int
) -> None:
    ids, vectors = stored
    queries = random_embeddings(4, seed=9, dim=DIM)
    one = nearest(queries, ids[:cut], vectors[:cut], k)
    other = nearest(queries, ids[cut:], vectors[cut:], k)
    whole = nearest(queries, ids, vectors, k)
    assert_same_hits(merge([one, other], k), whole)
    for mine, theirs in zip(merge([one, other], k), merge([other, one], k), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_equal_distances_are_merged_in_the_order_of_ids() -> None:
    one = Neighbours(np.array([[0.5, 0.7]], np.float32), np.array([[9, 4]]))
    other = Neighbours(np.array([[0.5, 0.7]], np.float32), np.array([[3, -1]]))
    assert merge([one, other], 3).ids.tolist() == [[3, 9, -1]]


def test_merging_with_nothing_changes_nothing() -> None:
    distances = np.array([[0.25, 0.5], [0.0, np.inf]], np.float32)
    one = Neighbours(distances, np.array([[9, 4], [3, -1]]))
    for merged in (merge([one, Neighbours.none(2, 2)], 2), merge([Neighbours.none(2, 2), one], 2)):
        np.testing.assert_array_equal(merged[0], one[0])
        np.testing.assert_array_equal(merged[1], one[1])


def test_nothing_is_no_hit_for_any_query() -> None:
    distances, ids = Neighbours.none(2, 3)
    assert np.isinf(distances).all()
    assert ids.tolist() == [[-1] * 3] * 2
    assert distances.dtype == np.float32
    assert ids.dtype == np.int64
