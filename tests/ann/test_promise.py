"""The promise: bands of distance, and the lists that each takes to keep a recall."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgsearch.ann.promise import Promise, Step

STEPS = [
    Step(0.25, 1, 0.90, 0.85, 0.1),
    Step(0.25, 2, 0.97, 0.95, 0.2),
    Step(0.25, 4, 0.99, 0.98, 0.3),
    Step(0.25, 8, 1.00, 1.00, 0.4),
    Step(0.50, 1, 0.70, 0.60, 0.1),
    Step(0.50, 2, 0.85, 0.80, 0.2),
    Step(0.50, 4, 0.97, 0.95, 0.3),
    Step(0.50, 8, 1.00, 1.00, 0.4),
]


@pytest.fixture
def promise() -> Promise:
    return Promise(STEPS)


def test_a_band_ends_with_its_edge_and_the_next_begins_after_it(promise: Promise) -> None:
    assert promise.bands == 2
    after = np.nextafter(np.array([0.25, 0.5], np.float32), np.float32(1))
    distances = np.array([0, 0.1, 0.25, after[0], 0.4, 0.5, after[1], 4, np.inf], np.float32)
    assert promise.band_of(distances).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert promise.band_of(distances[:0]).tolist() == []


def test_a_distance_at_an_edge_that_is_no_float32_is_on_the_right_side() -> None:
    edge = 0.1  # a float32 of 0.1 is a little more than that
    promise = Promise([Step(edge, 1, 1.0, 1.0, 0.1)])
    assert float(np.float32(edge)) > edge
    below = np.nextafter(np.float32(edge), np.float32(0))
    assert promise.band_of(np.array([below, edge], np.float32)).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("recall", "nprobe", "expected"),
    [
        (0.01, [1, 1], [0.90, 0.70]),
        (0.60, [1, 1], [0.90, 0.70]),
        (0.61, [1, 2], [0.90, 0.85]),
        (0.90, [2, 4], [0.97, 0.97]),
        (0.95, [2, 4], [0.97, 0.97]),
        (0.96, [4, 8], [0.99, 1.00]),
        (1.00, [8, 8], [1.00, 1.00]),
    ],
)
def test_each_band_probes_the_fewest_lists_whose_bound_keeps_the_recall(
    promise: Promise, recall: float, nprobe: list[int], expected: list[float]
) -> None:
    plan = promise.keep(recall)
    assert plan.nprobe.tolist() == nprobe
    assert plan.recall.tolist() == expected


def test_steps_may_come_in_any_order(promise: Promise) -> None:
    for steps in (STEPS[::-1], STEPS[1::2] + STEPS[::2]):
        other = Promise(steps)
        assert other.keep(0.9).nprobe.tolist() == promise.keep(0.9).nprobe.tolist()
        assert other.expected(1, 3) == promise.expected(1, 3)


def test_a_farther_band_never_probes_less_than_a_nearer_one() -> None:
    lucky = [
        Step(0.2, 1, 0.8, 0.7, 0.1),
        Step(0.2, 4, 1.0, 1.0, 0.1),
        Step(0.4, 1, 0.99, 0.98, 0.1),
        Step(0.4, 4, 1.0, 1.0, 0.1),
    ]
    assert Promise(lucky).keep(0.95).nprobe.tolist() == [4, 4]


def test_search_is_exact_where_no_bound_is_high_enough_and_beyond() -> None:
    near = [Step(0.2, 1, 0.98, 0.97, 0.1), Step(0.2, 4, 0.99, 0.98, 0.1)]
    middle = [Step(0.3, 1, 0.8, 0.7, 0.1), Step(0.3, 4, 0.9, 0.8, 0.1)]
    far = [Step(0.4, 1, 0.98, 0.97, 0.1), Step(0.4, 4, 0.99, 0.98, 0.1)]
    plan = Promise(near + middle + far).keep(0.95)
    assert (plan.nprobe.tolist(), plan.recall.tolist()) == ([1, 0, 0], [0.98, 1.0, 1.0])


def test_one_band_may_be_all_there_is() -> None:
    promise = Promise([Step(4.0, 3, 1.0, 1.0, 0.1)])
    assert promise.bands == 1
    assert promise.keep(1.0).nprobe.tolist() == promise.keep(0.1).nprobe.tolist() == [3]
    assert promise.band_of(np.array([0, 4, 5], np.float32)).tolist() == [0, 0, 1]
    assert promise.expected(0, 3) == 1.0
    assert promise.expected(0, 2) is None


def test_a_recall_is_expected_of_the_next_smaller_nprobe_that_was_measured(
    promise: Promise,
) -> None:
    expected = [promise.expected(0, nprobe) for nprobe in (1, 2, 3, 4, 7, 8, 100)]
    assert expected == [0.90, 0.97, 0.97, 0.99, 0.99, 1.0, 1.0]
    assert promise.expected(1, 3) == 0.85
    assert promise.expected(0, 0) is None


def test_beyond_the_last_band_no_recall_is_expected(promise: Promise) -> None:
    assert promise.expected(2, 8) is None


@given(
    bounds=st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=5),
    recalls=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
)
def test_a_plan_keeps_its_recall_and_more_recall_takes_no_fewer_lists(
    bounds: list[list[float]], recalls: tuple[float, float]
) -> None:
    bands = [[*sorted(row), 1.0] for row in bounds]
    promise = Promise(
        [
            Step(0.1 * (band + 1), 2**step, bound, bound, 0.1)
            for band, row in enumerate(bands)
            for step, bound in enumerate(row)
        ]
    )
    low, high = sorted(recalls)
    plan = promise.keep(low)
    for row, nprobe, expected in zip(
        bands, plan.nprobe.tolist(), plan.recall.tolist(), strict=True
    ):
        assert row[int(math.log2(nprobe))] >= low
        assert expected >= low
    assert (np.diff(plan.nprobe) >= 0).all()
    assert (promise.keep(high).nprobe >= plan.nprobe).all()
