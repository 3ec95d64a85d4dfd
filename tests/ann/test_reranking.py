"""Re-ranking against brute force in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgsearch.ann.exact import FIRST, candidates_for, rerank, rerank_estimated
from imgsearch.ann.vectors import Block, Ids, Neighbours, Vectors
from tests.support.brute_force import DIM, assert_same_hits, blocks_of, nearest, squares
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
    assert candidates_for(10, 250_000) == 50
    assert candidates_for(10, 1_000_000) == 800


def test_shorter_codes_have_more_candidates_up_to_all_images() -> None:
    assert candidates_for(10, 100_000, 512) == candidates_for(10, 100_000, 256) == 50
    assert candidates_for(10, 100_000, 64) == 200
    assert candidates_for(10, 1_000, 1) == 1_000
    assert candidates_for(10, 20, 8) == 50


def estimated(queries: Vectors, ids: Ids, vectors: Vectors, error: float) -> Neighbours:
    """All images in the order of their estimates: half of their distances, with an error."""
    exact = squares(queries, vectors)
    noise = np.random.default_rng(5).standard_normal(exact.shape)
    estimates = (exact / 2 + error * noise).astype(np.float32)
    order = np.argsort(estimates, axis=1)
    return Neighbours(np.take_along_axis(estimates, order, 1), ids[order])


def noted(ids: Ids, vectors: Vectors, asked: list[Ids]) -> Callable[[Ids], list[Block]]:
    def blocks(wanted: Ids) -> list[Block]:
        asked.append(wanted.reshape(-1))
        return [Block(ids, vectors)]

    return blocks


@pytest.mark.parametrize("error", [0.0, 0.02])
def test_candidates_that_are_too_far_by_their_estimates_are_not_compared(
    error: float, ids: Ids, vectors: Vectors
) -> None:
    queries, asked = random_embeddings(20, seed=6, dim=DIM), list[Ids]()
    candidates = estimated(queries, ids, vectors, error)
    found = rerank_estimated(queries, candidates, noted(ids, vectors, asked), 5)
    assert_same_hits(found, nearest(queries, ids, vectors, 5))
    assert asked[0].size == 20 * FIRST
    assert sum(each.size for each in asked) < 20 * len(ids) / 2


def test_all_candidates_of_short_codes_are_compared(ids: Ids, vectors: Vectors) -> None:
    queries, asked = random_embeddings(3, seed=6, dim=DIM), list[Ids]()
    candidates = estimated(queries, ids, vectors, 0.0)
    found = rerank_estimated(queries, candidates, noted(ids, vectors, asked), 5, 128)
    assert_same_hits(found, nearest(queries, ids, vectors, 5))
    assert [len(each) for each in asked] == [3 * len(ids)]


def test_hits_beyond_the_first_candidates_are_found(ids: Ids, vectors: Vectors) -> None:
    queries = random_embeddings(50, seed=6, dim=DIM)
    candidates = estimated(queries, ids, vectors, 0.2)
    found = rerank_estimated(queries, candidates, lambda _: [Block(ids, vectors)], 20)
    true = nearest(queries, ids, vectors, 20)[1]
    first = candidates.ids[:, : 2 * 20]
    held, shares = (
        np.mean([np.isin(*rows).mean() for rows in zip(true, some, strict=True)])
        for some in (first, found.ids)
    )
    assert held < 0.9
    assert shares > 0.99


def test_every_candidate_is_compared_if_one_of_the_first_is_in_no_block(
    ids: Ids, vectors: Vectors
) -> None:
    candidates, asked = estimated(vectors[:3], ids, vectors, 0.0), list[Ids]()
    candidates.ids[:, 1] = 100_000
    found = rerank_estimated(vectors[:3], candidates, noted(ids, vectors, asked), 5)
    assert sum(each.size for each in asked) == 3 * len(ids)
    assert found.ids[:, 0].tolist() == ids[:3].tolist()


def test_places_without_a_candidate_are_no_hits(ids: Ids, vectors: Vectors) -> None:
    few = estimated(vectors[:3], ids[:12], vectors[:12], 0.0)
    padded = Neighbours(
        np.pad(few.distances, ((0, 0), (0, 30)), constant_values=np.finfo(np.float32).max),
        np.pad(few.ids, ((0, 0), (0, 30)), constant_values=-1),
    )
    found = rerank_estimated(vectors[:3], padded, lambda _: [Block(ids, vectors)], 14)
    assert_same_hits(found.first(12), nearest(vectors[:3], ids[:12], vectors[:12], 12))
    assert (found.ids[:, 12:] == -1).all()
