"""The centroids that k-means begins with."""

from __future__ import annotations

import numpy as np
import pytest

from imgsearch.ann.kmeans import first_centroids
from imgsearch.ann.vectors import Vectors


def groups(count: int, each: int) -> Vectors:
    """Return vectors in groups that lie far from one another, one group after the other."""
    rng = np.random.default_rng(0)
    middle = 100 * rng.standard_normal((count, 8))
    return np.repeat(middle, each, axis=0).astype(np.float32) + rng.random(
        (count * each, 8)
    ).astype(np.float32)


def test_each_group_has_one_although_a_draw_at_random_would_miss_some() -> None:
    vectors = groups(30, 20)
    found = first_centroids(vectors, 30, seed=1)
    assert found.shape == (30, 8)
    rows = [int(np.flatnonzero((vectors == one).all(axis=1))[0]) for one in found]
    assert sorted(row // 20 for row in rows) == list(range(30))
    at_random = np.random.default_rng(1).choice(len(vectors), 30, replace=False)
    assert len(set(at_random // 20)) < 30


def test_they_are_seeded_and_drawn_of_a_sample() -> None:
    vectors = groups(10, 50)
    one, same, other = (
        first_centroids(vectors, 10, seed=seed, chosen_from=100) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("count", [1, 3])
def test_vectors_that_are_all_the_same_are_taken_as_often_as_asked(count: int) -> None:
    vectors = np.ones((5, 4), np.float32)
    np.testing.assert_array_equal(first_centroids(vectors, count, seed=0), vectors[:count])
