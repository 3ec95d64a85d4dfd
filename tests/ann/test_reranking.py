"""Re-ranking against brute force in NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgsearch.ann.exact import candidates_for, rerank
from imgsearch.ann.vectors import Ids, Vectors
from tests.support.brute_force import DIM, assert_same_hits, blocks_of, nearest
from tests.support.small_network import random_embeddings


@given(data=st.data(), size=st.integers(1, 500), k=st.integers(1, 9))
def test_the_nearest_of_each_querys_own_candidates_are_found(
    data: st.DataObject, size: int, k: int, ids: Ids, vectors: Vectors
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    queries = random_embeddings(4, seed=6, dim=DIM)
    candidates = np.stack([rng.choice(ids, 9, replace=False) for _ in queries])
    found = rerank(queries, candidates, blocks_of(ids, vectors, size), k)
    for row, own in enumerate(candidates):
        mine = np.isin(ids, own)
        expected = nearest(queries[row : row + 1], ids[mine], vectors[mine], k)
        assert_same_hits((found[0][row : row + 1], found[1][row : row + 1]), expected)


def test_no_candidate_and_one_that_no_block_has_are_no_hits(ids: Ids, vectors: Vectors) -> None:
    candidates = np.array([[-1, 2, 4, 100_000], [-1, -1, -1, -1]])  # ids are 1, 4, 7 and so on
    distances, found = rerank(vectors[:2], candidates, [(ids, vectors), (ids[:0], vectors[:0])], 3)
    assert found.tolist() == [[4, -1, -1], [-1] * 3]
    assert np.isinf(distances[found < 0]).all()


def test_equal_distances_are_ordered_by_id(vectors: Vectors) -> None:
    same = np.repeat(vectors[:1], 6, axis=0)
    ids = np.arange(1, 7)
    found = rerank(vectors[:1], ids[None, ::-1], [(ids, same)], 4)
    assert found[1].tolist() == [[1, 2, 3, 4]]
    assert found[0].tolist() == [[0] * 4]


def test_blocks_may_be_mapped_and_queries_in_any_order(
    ids: Ids, vectors: Vectors, tmp_path: Path
) -> None:
    np.save(tmp_path / "shard.npy", vectors)
    mapped = np.load(tmp_path / "shard.npy", mmap_mode="r")
    queries = np.asfortranarray(vectors[:5])
    found = rerank(queries, np.tile(ids[:20], (5, 1)), [(ids, mapped)], 3)
    assert_same_hits(found, nearest(vectors[:5], ids[:20], vectors[:20], 3))


def test_no_queries_find_nothing(ids: Ids, vectors: Vectors) -> None:
    distances, found = rerank(vectors[:0], np.empty((0, 50), np.int64), [(ids, vectors)], 10)
    assert distances.shape == found.shape == (0, 10)


@pytest.mark.parametrize("k", [1, 10, 11, 1000])
def test_more_hits_have_more_candidates(k: int) -> None:
    assert k < candidates_for(k, 1_000) <= candidates_for(k + 1, 1_000)


def test_more_images_have_more_candidates() -> None:
    assert candidates_for(10, 100_000) == 50
    assert candidates_for(10, 1_000_000) == 200


def test_shorter_codes_have_more_candidates_up_to_all_images() -> None:
    assert candidates_for(10, 100_000, 512) == candidates_for(10, 100_000, 256) == 50
    assert candidates_for(10, 100_000, 64) == 200
    assert candidates_for(10, 1_000, 1) == 1_000
    assert candidates_for(10, 20, 8) == 50
