"""The recall curve is what searching measures, and the choice of `nprobe` keeps its promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgsearch.search.ivf import IvfIndex, search_exactly, train
from imgsearch.search.tuning import K, RecallCurve, choose_nprobe, lower_bound, recall_curve
from imgsearch.search.vectors import Ids, Vectors
from tests.small_network import random_embeddings

NOTHING = np.empty(0, np.int64)


def segments_of(ids: Ids, vectors: Vectors, nlist: int, parts: int) -> list[IvfIndex]:
    """Return indexes over `parts` ranges of ids that share their centroids."""
    centroids = train(vectors, nlist)
    segments = []
    for rows in np.array_split(np.arange(len(ids)), parts):
        segments.append(IvfIndex.empty(centroids))
        segments[-1].add(ids[rows], vectors[rows])
    return segments


def measured(
    queries: Vectors, query_ids: Ids, index: IvfIndex, neighbours: Ids, nprobe: int
) -> list[float]:
    """Measure recall by really searching."""
    found = index.search(queries, K + 1, nprobe)[1]
    recalls = []
    for own, near, row in zip(query_ids, neighbours, found, strict=True):
        wanted = set(near.tolist()) - {-1}
        got = set(row[row != own][:K].tolist())
        recalls.append(len(wanted & got) / len(wanted))
    return recalls


@pytest.mark.parametrize("parts", [1, 3])
def test_the_curve_is_the_recall_that_searching_measures(parts: int) -> None:
    vectors, ids = random_embeddings(500, dim=8), np.arange(10, 510)
    drawn = np.random.default_rng(3).choice(500, 60, replace=False)
    segments = segments_of(ids, vectors, 12, parts)
    curve = recall_curve(vectors[drawn], ids[drawn], segments, [(ids, vectors)], NOTHING)
    neighbours = search_exactly(vectors[drawn], [(ids, vectors)], K + 1)[1][:, 1:]
    (whole,) = segments_of(ids, vectors, 12, 1)
    for nprobe in range(1, 13):
        by_search = measured(vectors[drawn], ids[drawn], whole, neighbours, nprobe)
        np.testing.assert_allclose(curve.recall[:, nprobe - 1], by_search, atol=1e-6)
        assert curve.mean(nprobe) == pytest.approx(np.mean(by_search))


@given(count=st.integers(1, 60), nlist=st.integers(1, 8), different=st.integers(1, 60))
def test_more_lists_never_lose_a_hit_and_all_lists_lose_none(
    count: int, nlist: int, different: int
) -> None:
    nlist = min(nlist, count)
    vectors = random_embeddings(different, dim=8)[np.arange(count) % different]
    ids = np.arange(count)
    curve = recall_curve(
        vectors, ids, segments_of(ids, vectors, nlist, 1), [(ids, vectors)], NOTHING
    )
    assert curve.recall.shape == (count, nlist)
    assert (np.diff(curve.recall, axis=1) >= 0).all()
    np.testing.assert_allclose(curve.recall[:, -1], 1)


def test_removed_images_are_no_neighbours() -> None:
    vectors, ids = random_embeddings(200, dim=8), np.arange(200)
    removed = ids[100:]
    index = segments_of(ids[:100], vectors[:100], 5, 1)
    with_removed = recall_curve(vectors[:50], ids[:50], index, [(ids, vectors)], removed)
    without = recall_curve(vectors[:50], ids[:50], index, [(ids[:100], vectors[:100])], NOTHING)
    np.testing.assert_array_equal(with_removed.recall, without.recall)


def test_the_smallest_nprobe_that_keeps_the_promise_is_chosen() -> None:
    recall = np.tile(np.array([0.80, 0.94, 0.96, 0.99, 1.0], np.float32), (100, 1))
    curve = RecallCurve(recall)
    assert choose_nprobe(curve, 0.95) == 3
    assert choose_nprobe(curve, 0.5) == 1
    assert choose_nprobe(curve, 0.995) == 5


def test_the_promise_is_kept_by_the_lower_bound_and_not_by_the_mean() -> None:
    recall = np.ones((20, 3), np.float32)
    recall[:10, 0] = 0.91  # mean 0.955, and a bound of 0.938
    assert choose_nprobe(RecallCurve(recall), 0.95) == 2


def test_where_no_nprobe_keeps_the_promise_all_lists_are_probed() -> None:
    recall = np.zeros((5, 4), np.float32)
    assert choose_nprobe(RecallCurve(recall), 0.95) == 4


def test_the_lower_bound_is_the_mean_less_its_error() -> None:
    values = np.array([0.8, 1.0, 0.9, 0.9], np.float32)
    error = 1.6449 * np.std([0.8, 1.0, 0.9, 0.9], ddof=1) / 2
    assert lower_bound(values) == pytest.approx(0.9 - error, abs=1e-6)
    assert lower_bound(np.array([0.7], np.float32)) == pytest.approx(0.7)
    assert lower_bound(np.ones(50, np.float32)) == 1


def test_the_lower_bound_holds_in_nineteen_samples_of_twenty() -> None:
    rng = np.random.default_rng(5)
    samples = rng.choice(np.array([0.7, 0.9, 1.0], np.float32), (2000, 200), p=[0.1, 0.3, 0.6])
    held = np.mean([lower_bound(sample) <= 0.94 for sample in samples])
    assert 0.93 <= held <= 0.97
