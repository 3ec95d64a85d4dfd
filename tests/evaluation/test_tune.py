"""A sweep measures what the index would give, leaves nothing behind, and keeps what it is told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from imgsearch.ann.kmeans import choose_nlist
from imgsearch.collection import Collection
from imgsearch.errors import BusyError, NoCollectionError, SettingError
from imgsearch.evaluation.tune import Point, Sweep, Timing, Trial, apply, tune
from imgsearch.maintenance.verify import verify
from imgsearch.storage.files import exclusive
from tests.support.grower import Grower, clustered


@pytest.fixture
def grown(empty: Path) -> Path:
    with Grower(empty) as grower:
        grower.add(clustered(600, seed=1))
        grower.add(clustered(400, seed=2))
        grower.remove([3, 5, 700])
    return empty


def files(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and not path.name.startswith("catalog.")
    }


def test_recall_and_distance_grow_to_those_of_exact_search(grown: Path) -> None:
    before = files(grown)
    sweep = tune(grown, nlist=[4, 16], nprobe=[1, 2, 4, 16], queries=100, device="cpu")
    assert files(grown) == before
    assert (sweep.images, sweep.queries, sweep.complete) == (997, 100, True)
    assert [trial.nlist for trial in sweep.trials] == [4, 16]
    assert [point.nprobe for point in sweep.trials[0].points] == [1, 2, 4]
    assert [point.nprobe for point in sweep.trials[1].points] == [1, 2, 4, 16]
    for trial in sweep.trials:
        assert trial.build_seconds > 0
        recalls = [point.recall for point in trial.points]
        distances = [point.distance for point in trial.points]
        assert recalls == sorted(recalls)
        assert distances == sorted(distances, reverse=True)
        assert trial.points[-1].recall == pytest.approx(1, abs=1e-3)
        assert distances[-1] == pytest.approx(sweep.exact_distance, abs=1e-4)
        assert all(point.bound <= point.recall and point.milliseconds > 0 for point in trial.points)
    assert sweep.trials[1].points[0].recall < 0.95


@pytest.mark.whole("test_recall_and_distance_grow_to_those_of_exact_search")
def test_without_numbers_it_tries_some_about_the_usual_ones(grown: Path) -> None:
    sweep = tune(grown, queries=50, device="cpu")
    usual = choose_nlist(997)
    assert [trial.nlist for trial in sweep.trials] == [usual * 2**n // 4 for n in range(5)]
    assert all(trial.points[0].nprobe == 1 for trial in sweep.trials)
    assert all(trial.points[-1].recall >= 0.999 for trial in sweep.trials)


def test_the_nlist_in_the_settings_is_tried_as_well(grown: Path) -> None:
    with Grower(grown) as grower:
        grower.catalog.change_settings(nlist=5, recall=None)
    sweep = tune(grown, queries=50, device="cpu")
    assert sweep.present == 5
    assert 5 in [trial.nlist for trial in sweep.trials]


def test_what_is_applied_is_kept(grown: Path) -> None:
    sweep = tune(grown, nlist=[7], queries=100, recall=0.9, device="cpu")
    assert sweep.choice is not None
    assert sweep.choice.point.bound >= 0.9
    apply(grown, sweep, device="cpu")
    with Collection.open(grown, device="cpu") as collection:
        info = collection.info()
    assert info.ivf is not None
    assert (info.ivf.nlist, info.settings.nlist, info.settings.recall) == (7, 7, 0.9)
    assert verify(grown, sample=0).damages == ()


def sweep_of(*trials: Trial, recall: float = 0.95) -> Sweep:
    return Sweep(1_000, 100, recall, 0.4, Timing.of([1.0]), 4, trials, complete=True)


def point(nprobe: int, bound: float, turns: Sequence[float]) -> Point:
    return Point(nprobe, bound, bound, 0.5, Timing.of(turns))


def test_the_fastest_that_keeps_the_recall_is_recommended() -> None:
    four = Trial(4, 1.0, (point(1, 0.8, [0.1] * 9), point(2, 0.96, [0.3] * 9)))
    eight = Trial(8, 1.0, (point(2, 0.95, [0.2] * 9), point(4, 1.0, [0.4] * 9)))
    choice = sweep_of(four, eight).choice
    assert choice is not None
    assert (choice.nlist, choice.point.nprobe) == (8, 2)
    none = sweep_of(four, recall=1.0)
    assert (none.choice, none.fastest) == (None, ())
    with pytest.raises(
        SettingError, match="none of the settings that were tried keeps recall@10 1"
    ):
        apply("nowhere", none)


@pytest.mark.parametrize(
    ("four", "eight", "chosen"),
    [
        ([3.0] * 9, [2.0] * 9, 8),
        ([3.0] * 9, [2.9] * 9, None),  # too little to matter
        ([3.0] * 5, [2.0] * 5, None),  # too few turns
        ([1, 9, 2, 8, 3, 7, 1, 9, 5], [9, 1, 8, 2, 7, 3, 9, 1, 5], None),  # now one, now the other
        ([3, 30, 6, 3, 90, 3, 3, 60, 3], [2, 20, 4, 2, 60, 2, 2, 40, 2], 8),  # a restless machine
        ([3, 30, 3, 3, 3, 3, 3, 3, 3], [2, 2, 2, 2, 99, 2, 2, 2, 2], 8),  # and one that was once
    ],
)
def test_settings_are_compared_turn_by_turn_and_recommended_only_beyond_doubt(
    four: list[float], eight: list[float], chosen: int | None
) -> None:
    sweep = sweep_of(
        Trial(4, 1.0, (point(2, 0.96, four),)), Trial(8, 1.0, (point(3, 0.96, eight),))
    )
    assert (sweep.choice and sweep.choice.nlist) == chosen
    assert len(sweep.fastest) == (1 if chosen else 2)
    if chosen is None:
        with pytest.raises(SettingError, match="cannot be told apart"):
            apply("nowhere", sweep)


def test_an_interval_covers_the_median_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    covered = 0
    for sample in random.lognormal(0.0, 1.0, (2_000, 9)).tolist():
        timing = Timing.of(sample)
        assert timing.low is not None
        assert timing.high is not None
        covered += timing.low <= 1.0 <= timing.high  # the median of this distribution
    assert 0.945 < covered / 2_000 < 0.98  # 0.961 is expected
    assert Timing.of([1.0, 2.0]) == Timing(1.5, None, None, (1.0, 2.0))


def test_all_settings_are_measured_in_every_turn(grown: Path) -> None:
    told: list[tuple[int, int]] = []
    sweep = tune(
        grown, nlist=[4, 16], nprobe=[1, 4], device="cpu", progress=lambda *step: told.append(step)
    )
    timings = [point.timing for trial in sweep.trials for point in trial.points]
    assert [len(timing.turns) for timing in (*timings, sweep.exact_timing)] == [9] * 5
    for timing in timings:
        assert timing.low is not None
        assert timing.high is not None
        assert 0 < timing.low <= timing.median <= timing.high
    assert told == [(step, 11) for step in range(1, 12)]


@pytest.mark.parametrize(("steps", "built", "turns"), [(0, [4], 1), (1, [4, 8], 1), (4, [4, 8], 3)])
def test_ctrl_c_keeps_what_was_measured(
    grown: Path, steps: int, built: list[int], turns: int
) -> None:
    before = files(grown)

    def interrupt(done: int, _: int) -> None:
        if done > steps:
            raise KeyboardInterrupt

    sweep = tune(grown, nlist=[4, 8], queries=50, device="cpu", progress=interrupt)
    assert not sweep.complete
    assert [trial.nlist for trial in sweep.trials] == built
    assert {len(point.timing.turns) for trial in sweep.trials for point in trial.points} == {turns}
    assert files(grown) == before


def test_what_makes_no_sense_is_refused(grown: Path, empty: Path, tmp_path: Path) -> None:
    for options, reason in (
        ({"nlist": [0]}, "nlist is 0; it must be 1 or more"),
        ({"nprobe": [-1]}, "nprobe is -1; it must be 1 or more"),
        ({"recall": 2.0}, "recall is 2.0"),
        ({"nlist": [900]}, "only 798 of 997 images are available to train"),
    ):
        with pytest.raises(SettingError, match=reason):
            tune(grown, device="cpu", **options)
    with pytest.raises(NoCollectionError):
        tune(tmp_path / "nowhere")
    with exclusive(empty), pytest.raises(BusyError):
        tune(empty, device="cpu")


def test_few_images_are_not_worth_it(empty: Path) -> None:
    with Grower(empty) as grower:
        grower.add(clustered(100, seed=1))
    with pytest.raises(SettingError, match="100 images need no index"):
        tune(empty, device="cpu")


def test_one_list_of_all_is_exact_search(grown: Path) -> None:
    sweep = tune(grown, nlist=[1], queries=30, device="cpu")
    assert [(point.nprobe, point.recall) for point in sweep.trials[0].points] == [(1, 1.0)]


def test_a_compact_collection_is_swept_as_what_it_is(
    grown: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What PCA leaves out shows: all lists are not exact search."""
    monkeypatch.setattr("imgsearch.ann.exact.BITS", 1)  # no more candidates for short codes
    with Grower(grown) as grower:
        grower.catalog.change_settings(nlist=None, recall=None, storage="compact", pca=12)
    before = files(grown)
    sweep = tune(grown, nlist=[4], nprobe=[1, 4], queries=100, device="cpu")
    assert files(grown) == before
    assert 0.5 < sweep.trials[0].points[-1].recall < 0.95
