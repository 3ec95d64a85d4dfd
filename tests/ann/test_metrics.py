"""P@k, recall@k, average precision and their intervals, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgsearch.ann.metrics import Flags, Values, interval, measure


def everything(relevant: Flags) -> Flags:
    return np.ones(relevant.shape, np.bool_)


def one(relevant: list[int], *, k: int = 2, retrieved: list[int] | None = None) -> list[float]:
    """Return the measures of one query."""
    flags = np.array([relevant], np.bool_)
    reached = everything(flags) if retrieved is None else np.array([retrieved], np.bool_)
    values: list[float] = measure(flags, reached, flags.sum(axis=1), k)[0].tolist()
    return values


def by_definition(relevant: list[bool], retrieved: list[bool], k: int) -> list[float]:
    """Return the measures, computed as the book defines them."""
    ranked = [right for right, there in zip(relevant, retrieved, strict=True) if there]
    total = sum(relevant)
    precisions = [
        sum(ranked[:rank]) / rank for rank in range(1, len(ranked) + 1) if ranked[rank - 1]
    ]
    best = sum(ranked[:k])
    return [float(sum(ranked[:1])), best / k, best / total, sum(precisions) / total]


def test_the_worked_example_of_a_ranking() -> None:
    # Relevant at ranks 1, 3 and 4: (1/1 + 2/3 + 3/4) / 3.
    assert one([1, 0, 1, 1, 0]) == pytest.approx([1, 0.5, 1 / 3, (1 + 2 / 3 + 3 / 4) / 3])


def test_what_is_not_retrieved_takes_no_rank_and_adds_nothing() -> None:
    values = one([0, 1, 1], retrieved=[0, 1, 0])
    assert values == pytest.approx([1, 0.5, 0.5, 0.5])


def test_where_nothing_is_retrieved_all_is_0() -> None:
    assert one([1, 1], retrieved=[0, 0]) == [0, 0, 0, 0]


def test_precision_divides_by_k_where_there_are_fewer_images() -> None:
    assert one([1, 1], k=10) == [1, 0.2, 1, 1]


@st.composite
def rankings(draw: st.DrawFn) -> tuple[Flags, Flags]:
    """Return relevant and retrieved images, of the same shape, some relevant in each row."""
    shape = draw(st.integers(1, 5)), draw(st.integers(1, 40))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    relevant = random.random(shape) < draw(st.floats(0, 1))
    relevant[:, random.integers(shape[1])] = True
    return relevant, random.random(shape) < draw(st.floats(0, 1))


@given(rankings(), st.integers(1, 50))
def test_every_measure_is_what_its_definition_gives(ranked: tuple[Flags, Flags], k: int) -> None:
    relevant, retrieved = ranked
    values = measure(relevant, retrieved, relevant.sum(axis=1), k)
    expected = [
        by_definition(*rows, k) for rows in zip(relevant.tolist(), retrieved.tolist(), strict=True)
    ]
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-9)
    assert ((values >= 0) & (values <= 1)).all()


@given(rankings())
def test_a_perfect_ranking_has_an_average_precision_of_1(ranked: tuple[Flags, Flags]) -> None:
    best = np.sort(ranked[0], axis=1)[:, ::-1]
    assert measure(best, everything(best), best.sum(axis=1), 1)[:, 3].tolist() == [1] * len(best)


@pytest.mark.whole("test_every_measure_is_what_its_definition_gives")
def test_average_precision_is_that_of_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(0)
    for _ in range(50):
        similarities = random.permutation(200).astype(np.float64)  # no ties
        relevant = random.random(200) < random.uniform(0.02, 0.9)
        relevant[0] = True
        ranked = relevant[np.argsort(-similarities)][None]
        (values,) = measure(ranked, everything(ranked), ranked.sum(axis=1), 10)
        expected = sklearn.average_precision_score(relevant, similarities)
        assert values[3] == pytest.approx(expected, abs=1e-9)


def drawn(seed: int, count: int) -> Values:
    return np.random.default_rng(seed).normal(0.5, 0.1, (count, 2))


def test_the_interval_is_the_same_each_time_and_holds_the_mean() -> None:
    values = drawn(0, 80)
    low, high = interval(values)
    assert (low < values.mean(axis=0)).all()
    assert (values.mean(axis=0) < high).all()
    again = interval(values)
    assert (low.tolist(), high.tolist()) == (again[0].tolist(), again[1].tolist())


def test_the_interval_is_as_wide_as_the_normal_approximation_has_it() -> None:
    values = drawn(1, 400)
    low, high = interval(values)
    expected = 2 * 1.96 * values.std(axis=0) / 400**0.5
    np.testing.assert_allclose(high - low, expected, rtol=0.1)


@pytest.mark.whole("test_the_interval_is_the_same_each_time_and_holds_the_mean")
def test_the_interval_holds_the_true_mean_about_95_times_in_100() -> None:
    held = [interval(drawn(seed, 60)[:, :1]) for seed in range(2, 102)]
    inside = sum(bool(low[0] <= 0.5 <= high[0]) for low, high in held)
    assert 88 <= inside <= 100


def test_the_interval_of_equal_values_is_that_value() -> None:
    low, high = interval(np.full((5, 1), 0.25))
    assert (low[0], high[0]) == (0.25, 0.25)
