"""The ranking of all vectors."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from imgsearch.ann.exact import ranking, search_exactly, squared_distances
from imgsearch.ann.vectors import Ids, Vectors
from tests.support.small_network import random_embeddings


def blocks(ids: Ids, vectors: Vectors, size: int) -> list[tuple[Ids, Vectors]]:
    return [
        (ids[start : start + size], vectors[start : start + size])
        for start in range(0, len(ids), size)
    ]


@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(1, 60))
def test_the_ranking_is_that_of_exact_search(seed: int, count: int, size: int) -> None:
    vectors = random_embeddings(count, seed=seed)
    ids = np.arange(1, 3 * count, 3)
    distances = squared_distances(vectors[:5], ids, blocks(ids, vectors, size))
    expected = search_exactly(vectors[:5], blocks(ids, vectors, size), count)
    order = ranking(distances)
    assert ids[order].tolist() == expected[1].tolist()
    np.testing.assert_allclose(np.take_along_axis(distances, order, 1), expected[0], atol=1e-5)


def test_identical_vectors_are_ordered_by_id() -> None:
    vectors = np.tile(random_embeddings(7, dim=1280), (30, 1))
    ids = np.arange(len(vectors))
    order = ranking(squared_distances(vectors[:7], ids, blocks(ids, vectors, 64)))
    for row, columns in enumerate(order):
        for group in columns.reshape(7, 30):
            assert group.tolist() == list(range(group[0], 210, 7))
        assert columns[0] == row


def test_an_image_and_itself_are_not_less_than_0_apart() -> None:
    vectors = random_embeddings(50, dim=1280)
    distances = squared_distances(vectors, np.arange(50), [(np.arange(50), vectors)])
    assert (distances >= 0).all()
    assert np.diag(distances).max() < 1e-12
