"""The nearest of vectors in memory are found, with and without inverted lists."""

from __future__ import annotations

import numpy as np
import pytest

from imgsearch.ann.nearest import Nearest


def directions(count: int, seed: int) -> np.ndarray:
    """Return `count` vectors of length 1, float32 `[count, 16]`."""
    drawn = np.random.default_rng(seed).normal(size=(count, 16)).astype(np.float32)
    found: np.ndarray = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return found


@pytest.mark.parametrize("exact_up_to", [10_000, 10])
def test_each_vector_is_nearest_to_itself_and_then_to_its_twin(exact_up_to: int) -> None:
    vectors = directions(500, 1)
    twins = vectors + 0.05 * directions(500, 2)
    twins /= np.linalg.norm(twins, axis=1, keepdims=True)
    index = Nearest(np.concatenate([vectors, twins]), exact_up_to)
    similarities, rows = index.search(vectors, 2)
    assert rows[:, 0].tolist() == list(range(500))
    assert np.mean(rows[:, 1] == np.arange(500, 1_000)) > 0.98
    assert similarities[:, 0] == pytest.approx(1, abs=1e-5)


def test_there_are_no_more_rows_than_vectors() -> None:
    similarities, rows = Nearest(directions(2, 1)).search(directions(1, 3), 4)
    assert sorted(rows[0, :2].tolist()) == [0, 1]
    assert rows[0, 2:].tolist() == [-1, -1]
    assert similarities[0, 0] >= similarities[0, 1]
