"""A sweep measures what the index would give, leaves nothing behind, and keeps what it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from imgsearch.ann.kmeans import choose_nlist
from imgsearch.ann.promise import ladder
from imgsearch.collection import Collection
from imgsearch.errors import BusyError, NoCollectionError, SettingError
from imgsearch.evaluation.tune import Point, Sweep, Trial, apply, tune
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


def test_the_fastest_that_keeps_the_recall_is_recommended() -> None:
    def point(nprobe: int, bound: float, milliseconds: float) -> Point:
        return Point(nprobe, bound, bound, 0.5, milliseconds)

    trials = (
        Trial(4, 1.0, (point(1, 0.8, 0.1), point(2, 0.96, 0.3))),
        Trial(8, 1.0, (point(2, 0.95, 0.2), point(4, 1.0, 0.4))),
    )
    sweep = Sweep(1_000, 100, 0.95, 0.4, 1.0, trials, complete=True)
    assert sweep.choice is not None
    assert (sweep.choice.nlist, sweep.choice.point.nprobe) == (8, 2)
    none = Sweep(1_000, 100, 1.0, 0.4, 1.0, trials[:1], complete=True)
    assert none.choice is None
    with pytest.raises(
        SettingError,
        match=r"none of the settings that were tried keeps recall@10 "
        r"1",
    ):
        apply("nowhere", none)


def test_ctrl_c_keeps_what_was_measured(grown: Path) -> None:
    before = files(grown)

    def interrupt(done: int, _: int) -> None:
        if done > 1 + len(ladder(4)):  # the second index is built, and being measured
            raise KeyboardInterrupt

    sweep = tune(grown, nlist=[4, 8], queries=50, device="cpu", progress=interrupt)
    assert not sweep.complete
    assert [trial.nlist for trial in sweep.trials] == [4]
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
