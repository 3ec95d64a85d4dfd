"""What is measured of an index: recall is what searching finds, and the promise of it is kept."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgsearch.ann import recall as tuning
from imgsearch.ann.compact import CompactIndex, train_compact
from imgsearch.ann.exact import candidates_for, rerank_estimated
from imgsearch.ann.flat import IvfIndex
from imgsearch.ann.kmeans import train
from imgsearch.ann.promise import Promise, RecallSample, Step, curve, ladder, lower_bound
from imgsearch.ann.recall import (
    Assignment,
    Blocks,
    K,
    cross_validate,
    hold_out,
    measure_ood,
)
from imgsearch.ann.vectors import Ids, Vectors
from tests.support.brute_force import blocks_of, nearest, probe, squares
from tests.support.depth import examples
from tests.support.small_network import random_embeddings


def grouped(count: int, *, seed: int, groups: int = 12, dim: int = 16) -> Vectors:
    """Return unit vectors in groups, those of the same number in the same group."""
    middle = np.random.default_rng(1).standard_normal((groups, dim))
    noise = np.random.default_rng(seed).standard_normal((count, dim))
    vectors = middle[np.arange(count) % groups] + 0.4 * noise
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors, np.float32)


def segments_of(ids: Ids, vectors: Vectors, centroids: Vectors, parts: int) -> list[IvfIndex]:
    """Return indexes over `parts` ranges of ids that share their centroids."""
    segments = []
    for rows in np.array_split(np.arange(len(ids)), parts):
        segments.append(IvfIndex.empty(centroids))
        segments[-1].add(ids[rows], vectors[rows])
    return segments


def whole(ids: Ids, vectors: Vectors) -> Blocks:
    return lambda: [(ids, vectors)]


def found_share(found: Ids, neighbours: Ids) -> npt.NDArray[np.float64]:
    """Return for each query the share of its neighbours that is among what was found."""
    shares = []
    for row, near in zip(found.tolist(), neighbours.tolist(), strict=True):
        wanted = set(near) - {-1}
        shares.append(len(wanted & set(row)) / len(wanted))
    return np.array(shares)


def sample_of(distance: npt.ArrayLike, recall: npt.ArrayLike) -> RecallSample:
    return RecallSample(np.array(distance, np.float32), np.array(recall, np.float32))


def uniform(count: int, row: list[float], *, upto: float = 1.0) -> RecallSample:
    """Return a sample of evenly spaced distances, whose queries all have one recall."""
    return sample_of(np.linspace(0, upto, count), np.tile(row, (count, 1)))


NONE = sample_of(np.empty(0), np.empty((0, 4)))


# Where images are assignment


@pytest.mark.parametrize("parts", [1, 3])
def test_the_list_of_each_image_is_read_from_the_segments(parts: int) -> None:
    vectors, ids = random_embeddings(90, dim=8), np.arange(5, 275, 3)
    centroids = train(vectors, 7)
    assignment = Assignment.of(segments_of(ids, vectors, centroids, parts))
    assert assignment.ids.tolist() == ids.tolist()
    assert assignment.lists.tolist() == squares(vectors, centroids).argmin(axis=1).tolist()


def test_segments_may_be_in_any_order_and_empty() -> None:
    vectors, ids = random_embeddings(40, dim=8), np.arange(40)
    centroids = train(vectors, 4)
    segments = [*segments_of(ids, vectors, centroids, 2)[::-1], IvfIndex.empty(centroids)]
    assignment = Assignment.of(segments)
    assert assignment.ids.tolist() == ids.tolist()
    assert assignment.of_ids(ids).tolist() == squares(vectors, centroids).argmin(axis=1).tolist()


def test_the_lists_of_ids_keep_their_shape_and_no_id_has_none() -> None:
    assignment = Assignment(np.array([2, 5, 9]), np.array([7, 0, 3]))
    assert assignment.of_ids(np.array([[9, 2], [-1, 5]])).tolist() == [[3, 7], [-1, 0]]
    assert assignment.of_ids(np.empty((0, 2), np.int64)).shape == (0, 2)


# Images held out


@pytest.mark.parametrize("parts", [1, 3])
def test_the_recall_of_held_out_images_is_what_searching_finds(parts: int) -> None:
    vectors, ids = random_embeddings(500, dim=8), np.arange(10, 510)
    held = np.sort(np.random.default_rng(3).choice(500, 60, replace=False))
    rest = np.delete(np.arange(500), held)
    centroids = train(vectors[rest], 12)
    segments = segments_of(ids, vectors, centroids, parts)
    blocks = partial(blocks_of, ids, vectors, 130)
    index = IvfIndex.empty(centroids)
    sample = hold_out(vectors[held], [index], Assignment.of(segments), blocks, ids[held])
    squared = squares(vectors[held], centroids)
    np.testing.assert_allclose(sample.distance, squared.min(axis=1), atol=1e-5)
    neighbours = nearest(vectors[held], ids[rest], vectors[rest], K)[1]
    (whole,) = segments_of(ids, vectors, centroids, 1)
    for nprobe in range(1, 13):
        found = probe(whole, vectors[held], K, nprobe, ids[held])[1]
        shares = found_share(found, neighbours)
        np.testing.assert_allclose(sample.recall[:, nprobe - 1], shares, atol=1e-6)


@settings(max_examples=examples(25))
@given(count=st.integers(1, 60), nlist=st.integers(1, 8), different=st.integers(1, 60))
def test_more_lists_never_lose_a_hit_and_all_lists_lose_none(
    count: int, nlist: int, different: int
) -> None:
    nlist = min(nlist, count)
    vectors = random_embeddings(different, dim=8)[np.arange(count) % different]
    ids = np.arange(count)
    centroids = train(vectors, nlist)
    assignment = Assignment.of(segments_of(ids, vectors, centroids, 1))
    queries = np.concatenate([vectors, random_embeddings(5, seed=8, dim=8)])
    sample = hold_out(queries, [IvfIndex.empty(centroids)], assignment, whole(ids, vectors))
    assert sample.recall.shape == (count + 5, nlist)
    assert (np.diff(sample.recall, axis=1) >= 0).all()
    np.testing.assert_allclose(sample.recall[:, -1], 1)
    np.testing.assert_allclose(sample.distance, squares(queries, centroids).min(axis=1), atol=1e-5)


def test_where_nothing_is_left_to_be_found_nothing_is_missed() -> None:
    vectors, ids = random_embeddings(6, dim=8), np.arange(6)
    centroids = train(vectors, 3)
    assignment = Assignment.of(segments_of(ids, vectors, centroids, 1))
    sample = hold_out(vectors, [IvfIndex.empty(centroids)], assignment, whole(ids, vectors), ids)
    assert (sample.recall == 1).all()


def test_samples_are_joined_one_after_the_other() -> None:
    joined = uniform(2, [0.5, 1.0]).joined(uniform(3, [0.25, 1.0]))
    assert joined.distance.tolist() == [0, 1, 0, 0.5, 1]
    assert joined.recall[:, 0].tolist() == [0.5, 0.5, 0.25, 0.25, 0.25]


# Cross-validation


def remember_training(monkeypatch: pytest.MonkeyPatch) -> list[Vectors]:
    """Return the list that all vectors to be trained on are noted in from now on."""
    trained: list[Vectors] = []

    def train_and_note(vectors: Vectors, nlist: int, *, device: str = "cpu") -> Vectors:
        trained.append(vectors.copy())
        return train(vectors, nlist, device=device)

    monkeypatch.setattr(tuning, "train", train_and_note)
    return trained


@pytest.mark.parametrize("count", [2, 3, 4, 5, 7, 43])
def test_each_image_is_a_query_once_and_held_out_from_training_then(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = remember_training(monkeypatch)
    vectors = random_embeddings(count, dim=8)
    # With as many lists as images, each image that was trained on is a centroid.
    sample = cross_validate(vectors, count)
    assert len(trained) == min(5, count)
    expected: list[float] = []
    left_out: list[int] = []
    for kept in trained:
        known = squares(vectors, kept).min(axis=1) == 0
        left_out += np.flatnonzero(~known).tolist()
        expected += squares(vectors[~known], kept).min(axis=1).tolist()
    assert sorted(left_out) == list(range(count))
    assert max(map(len, trained)) - min(map(len, trained)) <= 1
    np.testing.assert_allclose(np.sort(sample.distance), np.sort(expected), atol=1e-5)
    assert sample.recall.shape == (count, count)


def test_the_recall_of_cross_validation_is_that_of_searching_the_other_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained = remember_training(monkeypatch)
    vectors = random_embeddings(150, dim=8)
    sample = cross_validate(vectors, 6)
    rows: list[tuple[float, list[float]]] = []
    for kept in trained:
        out = vectors[squares(vectors, kept).min(axis=1) > 0]
        ids = np.arange(len(kept))
        index = IvfIndex.empty(train(kept, 6))
        index.add(ids, kept)
        neighbours = nearest(out, ids, kept, K)[1]
        shares = [found_share(probe(index, out, K, n)[1], neighbours) for n in range(1, 7)]
        distances = squares(out, index.centroids).min(axis=1)
        rows += zip(distances.tolist(), np.stack(shares, 1).tolist(), strict=True)
    rows.sort()
    order = np.argsort(sample.distance)
    np.testing.assert_allclose(sample.distance[order], [d for d, _ in rows], atol=1e-5)
    np.testing.assert_allclose(sample.recall[order], [recall for _, recall in rows], atol=1e-6)


@settings(max_examples=examples(20))
@given(count=st.integers(1, 30), nlist=st.integers(1, 30), different=st.integers(1, 30))
def test_cross_validation_takes_whatever_there_is(count: int, nlist: int, different: int) -> None:
    vectors = random_embeddings(different, dim=8)[np.arange(count) % different]
    sample = cross_validate(vectors, nlist)
    queries = count if count > 1 else 0  # there is no other image to be found
    assert sample.distance.shape == (queries,)
    assert sample.recall.shape == (queries, nlist)
    assert (np.diff(sample.recall, axis=1) >= 0).all()
    np.testing.assert_allclose(sample.recall[:, -1:], 1)


def test_cross_validation_is_seeded() -> None:
    vectors = random_embeddings(50, dim=8)
    one, other = cross_validate(vectors, 4), cross_validate(vectors, 4)
    np.testing.assert_array_equal(one.distance, other.distance)
    np.testing.assert_array_equal(one.recall, other.recall)


# Strangers


@pytest.mark.few(1)
@pytest.mark.parametrize(("nlist", "size"), [(24, 300), (24, 37), (5, 300), (2, 300)])
def test_strangers_are_measured_as_if_nothing_of_their_kind_were_there(
    nlist: int, size: int
) -> None:
    vectors, ids = grouped(300, seed=2), np.arange(7, 907, 3)
    centroids = train(vectors, nlist)
    segments = segments_of(ids, vectors, centroids, 2)
    drawn = np.sort(np.random.default_rng(5).choice(300, 80, replace=False))
    assignment = Assignment.of(segments)
    sample = measure_ood(
        *(vectors[drawn], ids[drawn], [IvfIndex.empty(centroids)], assignment),
        partial(blocks_of, ids, vectors, size),
    )
    kinds = IvfIndex.empty(train(centroids, min(8, nlist))).assign(centroids, 1)[1][:, 0]
    kind_of = kinds[assignment.lists]
    assert len(set(kinds.tolist())) == min(8, nlist)
    assert len(sample.distance) == 80
    for row, query in enumerate(vectors[drawn]):
        others = kind_of != kind_of[drawn[row]]
        foreign = np.flatnonzero(kinds != kind_of[drawn[row]])
        neighbours = nearest(query[None], ids[others], vectors[others], K)[1]
        # An index of what is left, and of the centroids that are left.
        left = IvfIndex.empty(centroids[foreign])
        left.add(ids[others], vectors[others])
        distance = left.assign(query[None], 1)[0][0, 0]
        assert sample.distance[row] == pytest.approx(distance, abs=1e-5)
        for nprobe in range(1, nlist + 1):
            found = probe(left, query[None], K, min(nprobe, len(foreign)))[1]
            (share,) = found_share(found, neighbours)
            assert sample.recall[row, nprobe - 1] == pytest.approx(share, abs=1e-6)


def test_a_stranger_never_meets_its_own_kind() -> None:
    rng = np.random.default_rng(4)
    left, right = np.eye(8, dtype=np.float32)[[0, 1]]
    vectors = np.concatenate([left + 0.01 * rng.standard_normal((30, 8)), np.tile(right, (30, 1))])
    vectors = np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)
    ids = np.arange(60)
    centroids = train(vectors, 2)
    assignment = Assignment.of(segments_of(ids, vectors, centroids, 1))
    sample = measure_ood(vectors, ids, [IvfIndex.empty(centroids)], assignment, whole(ids, vectors))
    np.testing.assert_allclose(sample.distance, 2, atol=0.1)  # that of the other kind
    assert (sample.recall == 1).all()  # whose list is the first to be probed


def test_where_all_are_of_one_kind_there_are_no_strangers() -> None:
    vectors, ids = random_embeddings(40, dim=8), np.arange(40)
    centroids = train(vectors, 1)
    assignment = Assignment.of(segments_of(ids, vectors, centroids, 1))
    sample = measure_ood(vectors, ids, [IvfIndex.empty(centroids)], assignment, whole(ids, vectors))
    assert sample.distance.shape == (0,)
    assert sample.recall.shape == (0, 1)


def test_images_that_no_list_holds_are_not_met() -> None:
    vectors, ids = grouped(200, seed=3), np.arange(200)
    centroids = train(vectors, 12)
    assignment = Assignment.of(segments_of(ids[50:], vectors[50:], centroids, 1))
    queries = vectors[100:140], ids[100:140], [IvfIndex.empty(centroids)], assignment
    some = measure_ood(*queries, whole(ids[50:], vectors[50:]))
    every = measure_ood(*queries, partial(blocks_of, ids, vectors, 60))
    np.testing.assert_array_equal(every.distance, some.distance)
    np.testing.assert_array_equal(every.recall, some.recall)


# The curve


def test_the_ladder_has_few_steps_and_ends_with_all_lists() -> None:
    assert ladder(1) == [1]
    assert ladder(2) == [1, 2]
    assert ladder(16) == [1, 2, 3, 4, 6, 8, 11, 16]
    assert ladder(17)[-2:] == [16, 17]


@given(nlist=st.integers(1, 20_000))
def test_each_step_of_the_ladder_is_about_the_root_of_2_higher(nlist: int) -> None:
    steps = ladder(nlist)
    assert (steps[0], steps[-1]) == (1, nlist)
    for one, other in pairwise(steps):
        assert one < other <= max(one + 1, 1.5 * one)
    assert len(steps) <= 3 + 2 * np.log2(nlist)


def by_nprobe(steps: list[Step], nprobe: int) -> list[Step]:
    return sorted((step for step in steps if step.nprobe == nprobe), key=lambda step: step.up_to)


def free(_: int) -> float:
    return 0.0


def test_a_curve_has_each_nprobe_for_three_bands_with_a_third_of_the_images_each() -> None:
    rng = np.random.default_rng(6)
    distance = rng.random(900) ** 2
    sample = sample_of(distance, np.ones((900, 20)))
    steps = curve(sample, NONE_OF_20, lambda nprobe: nprobe / 10)
    edges = sorted({step.up_to for step in steps})
    within = [int((sample.distance <= edge).sum()) for edge in edges]
    np.testing.assert_allclose(within, [285, 570, 855], atol=1)
    assert sorted((step.up_to, step.nprobe) for step in steps) == [
        (edge, nprobe) for edge in edges for nprobe in ladder(20)
    ]
    assert all(step.milliseconds == step.nprobe / 10 for step in steps)
    assert Promise(steps).bands == 3


NONE_OF_20 = sample_of(np.empty(0), np.empty((0, 20)))


@pytest.mark.parametrize("beyond", [0.05, 0.01])
def test_an_outer_band_reaches_to_most_strangers_and_is_judged_by_them(beyond: float) -> None:
    held_out = uniform(300, [1.0] * 4)
    far = sample_of(np.linspace(0, 3, 200), np.tile([0.0, 0.0, 0.8, 1.0], (200, 1)))
    edges = sorted({step.up_to for step in curve(held_out, far, free, beyond=beyond)})
    assert len(edges) == 4
    assert edges[:3] == sorted({step.up_to for step in curve(held_out, far, free)})
    assert (far.distance <= edges[3]).mean() == pytest.approx(1 - beyond, abs=0.005)
    promise = Promise(curve(held_out, far, free, beyond=beyond))
    assert promise.keep(0.7).nprobe[3] == 3
    assert promise.keep(0.9).nprobe[3] == 4


def test_there_is_no_outer_band_where_no_stranger_is_farther() -> None:
    held_out = uniform(300, [1.0] * 4)
    near = sample_of(np.full(50, held_out.distance.min()), np.ones((50, 4)))
    for ood in (near, NONE):
        assert len({step.up_to for step in curve(held_out, ood, free, beyond=0.05)}) == 3


def test_an_nprobe_is_timed_once() -> None:
    timed: list[int] = []

    def clock(nprobe: int) -> float:
        timed.append(nprobe)
        return 0.5

    curve(uniform(90, [0.5] * 19 + [1.0]), NONE_OF_20, clock)
    assert timed == ladder(20)


def test_the_recall_of_a_band_is_that_of_its_held_out_images() -> None:
    recall = np.ones((300, 4))
    recall[:, 0] = np.linspace(1, 0, 300)
    held_out = sample_of(np.linspace(0, 1, 300), recall)
    steps = by_nprobe(curve(held_out, uniform(100, [0.0, 0.0, 0.0, 1.0]), free), 1)
    above = -1.0
    for step in steps:
        inside = (held_out.distance > above) & (held_out.distance <= step.up_to)
        assert step.recall == pytest.approx(held_out.recall[inside, 0].mean())
        above = step.up_to


def test_a_bound_holds_for_images_held_out_and_for_strangers() -> None:
    alike, unlike = [0.5, 0.9, 0.95, 1.0], [0.7, 0.8, 0.97, 1.0]
    steps = curve(uniform(300, alike), uniform(300, unlike), free)
    for nprobe in (1, 2, 3):
        for step in by_nprobe(steps, nprobe):
            assert step.bound == pytest.approx(min(alike[nprobe - 1], unlike[nprobe - 1]))
            assert step.recall == pytest.approx(alike[nprobe - 1])


def test_a_bound_is_lower_than_the_mean_by_what_chance_may_have_added() -> None:
    rng = np.random.default_rng(8)
    recall = np.concatenate([rng.choice([0.5, 1.0], (600, 3)), np.ones((600, 1))], axis=1)
    held_out = sample_of(np.linspace(0, 1, 600), recall)
    for step in by_nprobe(curve(held_out, NONE, free), 1)[:1]:
        inside = held_out.recall[held_out.distance <= step.up_to, 0]
        assert step.bound == lower_bound(inside) < step.recall == pytest.approx(inside.mean())


def test_too_few_strangers_in_a_band_are_judged_together_with_the_held_out() -> None:
    held_out = uniform(300, [0.9, 1.0, 1.0, 1.0])
    for count, bound in (
        (19, lower_bound(np.array([0.9] * 95 + [0.1] * 19, np.float32))),
        (20, 0.1),
    ):
        ood = sample_of(np.full(count, 0.1), np.tile([0.1, 1.0, 1.0, 1.0], (count, 1)))
        first, second, _ = by_nprobe(curve(held_out, ood, free), 1)
        assert first.bound == pytest.approx(bound, abs=0.002)
        assert second.bound == pytest.approx(0.9)
        assert first.recall == second.recall == pytest.approx(0.9)


def test_too_few_held_out_images_are_judged_together_with_the_strangers() -> None:
    held_out = uniform(30, [0.2, 1.0, 1.0, 1.0])  # 9 or 10 a band
    ood = uniform(300, [0.9, 1.0, 1.0, 1.0])
    for step in by_nprobe(curve(held_out, ood, free), 1):
        assert 0.7 < step.bound < 0.9
        assert step.recall == pytest.approx(0.2)


def test_where_both_are_too_few_nothing_but_all_lists_is_promised() -> None:
    steps = curve(uniform(12, [1.0] * 4), uniform(12, [1.0] * 4), free)
    assert {step.bound for step in steps if step.nprobe < 4} == {0.0}
    assert {step.bound for step in steps if step.nprobe == 4} == {1.0}
    assert Promise(steps).keep(0.01).nprobe.tolist() == [4, 4, 4]


def test_all_lists_are_exact_whatever_was_measured() -> None:
    steps = curve(uniform(300, [0.5] * 4), uniform(300, [0.5] * 4), free)
    assert [step.bound for step in by_nprobe(steps, 4)] == [1.0] * 3


def test_a_single_image_is_found_by_all_lists() -> None:
    empty = sample_of(np.empty(0), np.empty((0, 3)))
    (step,) = curve(empty, empty, lambda nprobe: nprobe / 2)
    assert step == Step(4.0, 3, 1.0, 1.0, 1.5)
    assert Promise([step]).keep(1.0).nprobe.tolist() == [3]


def test_images_that_are_all_as_far_make_one_band() -> None:
    held_out = sample_of(np.full(100, 0.3), np.tile([0.8, 1.0], (100, 1)))
    ood = sample_of(np.full(30, 0.3), np.tile([0.6, 1.0], (30, 1)))
    steps = curve(held_out, ood, free)
    assert [step.nprobe for step in steps] == [1, 2]
    assert [step.up_to for step in steps] == [pytest.approx(0.3)] * 2
    assert [step.bound for step in steps] == [pytest.approx(0.6), 1.0]
    assert Promise(steps).band_of(held_out.distance).tolist() == [0] * 100


@given(
    distances=st.lists(st.floats(0, 4, width=32), min_size=1, max_size=30),
    others=st.lists(st.floats(0, 4, width=32), max_size=30),
    seed=st.integers(0, 100),
)
def test_a_curve_is_made_of_recalls_however_few_images_there_are(
    distances: list[float], others: list[float], seed: int
) -> None:
    rng = np.random.default_rng(seed)

    def sample(given: list[float]) -> RecallSample:
        recall = np.sort(rng.integers(0, 11, (len(given), 4)) / 10, axis=1)
        recall[:, -1] = 1
        return sample_of(given, recall)

    steps = curve(sample(distances), sample(others), free)
    for step in steps:
        assert 0 <= step.recall <= 1
        assert -1 <= step.bound <= 1
    promise = Promise(steps)
    assert 1 <= promise.bands <= 3
    for recall in (0.5, 1.0):
        assert set(promise.keep(recall).nprobe.tolist()) <= set(ladder(4))


# How sure that is


def test_the_lower_bound_is_the_mean_less_its_error() -> None:
    values = np.array([0.8, 1.0, 0.9, 0.9], np.float32)
    error = 1.6449 * np.std([0.8, 1.0, 0.9, 0.9], ddof=1) / 2
    assert lower_bound(values) == pytest.approx(0.9 - error, abs=1e-6)
    assert lower_bound(np.array([0.7, 0.7], np.float32)) == pytest.approx(0.7)
    assert lower_bound(np.ones(50, np.float32)) == 1


def test_the_lower_bound_holds_in_nineteen_samples_of_twenty() -> None:
    rng = np.random.default_rng(5)
    samples = rng.choice(np.array([0.7, 0.9, 1.0], np.float32), (2000, 200), p=[0.1, 0.3, 0.6])
    held = np.mean([lower_bound(sample) <= 0.94 for sample in samples])
    assert 0.93 <= held <= 0.97


@pytest.mark.few(1)
@pytest.mark.parametrize("recall", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("pca", [None, 15])
def test_what_is_promised_is_kept_for_queries_never_seen(recall: float, pca: int | None) -> None:
    vectors, ids = grouped(1500, seed=1), np.arange(1500)
    held, rest = ids[:300], ids[300:]
    index: IvfIndex | CompactIndex
    if pca is None:
        index = IvfIndex.empty(train(vectors[rest], 24))
    else:
        index = train_compact(vectors[rest], 24, pca)
    index.add(ids, vectors)
    assignment = Assignment.of([index])
    held_out = hold_out(vectors[held], [index], assignment, whole(ids, vectors), held)
    drawn = ids[::5]
    ood = measure_ood(vectors[drawn], drawn, [index], assignment, whole(ids, vectors))
    promise = Promise(curve(held_out, ood, free, lossy=pca is not None))
    unseen = grouped(600, seed=99)
    neighbours = nearest(unseen, ids, vectors, K)[1]
    plan = promise.keep(recall)
    distance = index.assign(unseen, 1)[0][:, 0]
    band = promise.band_of(distance)
    assert (band < promise.bands).mean() > 0.9
    assert 0 < plan.nprobe[0] < 24
    for number, nprobe in enumerate(plan.nprobe.tolist()):
        asked = unseen[band == number]
        if isinstance(index, CompactIndex):
            assert nprobe  # it may be searched exactly elsewhere: here the lists keep it
            found = re_ranked(index, asked, nprobe, ids, vectors)
        else:
            found = probe(index, asked, K, nprobe)[1]
        share = found_share(found, neighbours[band == number]).mean()
        assert share >= recall - 0.01
        assert share >= plan.recall[number] - 0.05


# A compact index


@pytest.mark.parametrize(("pca", "least", "most"), [(2, 0.1, 0.5), (8, 0.6, 0.9), (14, 0.9, 1)])
def test_a_compact_index_finds_at_least_what_was_measured(
    pca: int, least: float, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgsearch.ann.exact.BITS", 1)  # no more candidates for short codes
    vectors = grouped(3_000, seed=3)
    ids = np.arange(1, 3_001)
    held = np.arange(0, 3_000, 30)
    rest = np.setdiff1d(np.arange(3_000), held)
    index = train_compact(vectors[rest], 20, pca)
    index.add(ids, vectors)
    assignment = Assignment.of([index])
    sample = hold_out(vectors[held], [index], assignment, whole(ids, vectors), ids[held])
    np.testing.assert_array_equal(sample.distance, index.assign(vectors[held], 1)[0][:, 0])
    neighbours = nearest(vectors[held], ids[rest], vectors[rest], K)[1]
    shares = np.empty(0)
    for nprobe in (1, 2, 5, 20):
        found = re_ranked(index, vectors[held], nprobe, ids, vectors, ids[held])
        shares = found_share(found, neighbours)
        assert (shares >= sample.recall[:, nprobe - 1] - 1e-6).all()
    np.testing.assert_allclose(shares, sample.recall[:, -1], atol=1e-6)
    assert least < sample.recall[:, -1].mean() <= most


def test_strangers_meet_a_compact_index_without_their_kind() -> None:
    vectors = grouped(2_000, seed=3)
    ids = np.arange(1, 2_001)
    index = train_compact(vectors, 24, 6)
    index.add(ids, vectors)
    assignment = Assignment.of([index])
    drawn = np.arange(0, 2_000, 50)
    sample = measure_ood(vectors[drawn], ids[drawn], [index], assignment, whole(ids, vectors))
    kinds = IvfIndex.empty(train(index.centroids, 8)).assign(index.centroids, 1)[1][:, 0]
    kind_of = kinds[assignment.of_ids(ids)]
    for row, place in enumerate(drawn.tolist()):
        other = kind_of != kind_of[place]
        query = vectors[place : place + 1]
        true = nearest(query, ids[other], vectors[other], K)[1]
        found = re_ranked(index, query, 24, ids, vectors, ids[~other])
        assert found_share(found, true)[0] == pytest.approx(sample.recall[row, -1])


def re_ranked(
    index: CompactIndex,
    queries: Vectors,
    nprobe: int,
    ids: Ids,
    vectors: Vectors,
    out: Ids | None = None,
) -> Ids:
    candidates = probe(index, queries, candidates_for(K, len(ids), index.pca), nprobe, out)
    return rerank_estimated(queries, candidates, lambda _: [(ids, vectors)], K, index.pca).ids


def test_a_small_collection_is_cross_validated_as_what_it_will_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("imgsearch.ann.exact.BITS", 1)  # no more candidates for short codes
    vectors = grouped(300, seed=4)
    flat, fine, coarse = (cross_validate(vectors, 6, pca=pca) for pca in (None, 16, 1))
    assert flat.recall.shape == fine.recall.shape == coarse.recall.shape == (300, 6)
    assert flat.recall[:, -1].mean() == 1
    assert fine.recall[:, -1].mean() > 0.99 > 0.9 > coarse.recall[:, -1].mean()


def test_all_lists_of_a_lossy_index_keep_what_was_measured() -> None:
    steps = curve(uniform(300, [0.5] * 4), uniform(300, [0.5] * 4), free, lossy=True)
    assert [step.bound for step in by_nprobe(steps, 4)] == pytest.approx([0.5] * 3)
    assert Promise(steps).keep(0.6).nprobe.tolist() == [0] * 3
    assert Promise(curve(NONE, NONE, free, lossy=True)).keep(0.5).nprobe.tolist() == [0]
