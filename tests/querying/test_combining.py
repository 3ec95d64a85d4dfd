"""One embedding for several."""

from __future__ import annotations

import numpy as np
import pytest

from imgsearch.ann.vectors import combine
from imgsearch.errors import InputError
from tests.support.small_network import random_embeddings

NONE = np.empty((0, 48), np.float32)


def test_one_embedding_combined_is_itself() -> None:
    one = random_embeddings(1)
    np.testing.assert_allclose(combine(one, NONE), one[0], atol=1e-7)


def test_several_are_their_normalised_mean_less_half_of_what_is_not_wanted() -> None:
    wanted, unwanted = random_embeddings(5), random_embeddings(3, seed=1)
    expected = wanted.mean(axis=0) - 0.5 * unwanted.mean(axis=0)
    expected /= np.linalg.norm(expected)
    combined = combine(wanted, unwanted)
    assert combined.dtype == np.float32
    np.testing.assert_allclose(combined, expected, atol=1e-6)


def test_what_cancels_out_or_is_nothing_is_refused() -> None:
    one = random_embeddings(1)
    with pytest.raises(InputError, match="cancel one another out"):
        combine(np.concatenate([one, -one]), NONE)
    with pytest.raises(InputError, match="nothing to combine"):
        combine(NONE, one)
