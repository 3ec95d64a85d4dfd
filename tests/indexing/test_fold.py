"""The index is kept in step with the images by rules: see docs/index-upkeep.md."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from imgsearch.collection import Collection
from imgsearch.errors import StorageError
from imgsearch.indexing.fold import is_outgrown
from imgsearch.indexing.policy import FoldPolicy
from imgsearch.storage.records import Snapshot
from tests.support.grower import UNRANKED, Grower, clustered
from tests.support.pictures import picture, save_pictures
from tests.support.small_network import DIM


@pytest.fixture
def grower(empty: Path) -> Iterator[Grower]:
    with Grower(empty, policy=UNRANKED) as grower:
        yield grower


def trained(snapshot: Snapshot) -> int:
    """Return the number of images that the centroids were trained for."""
    assert snapshot.ivf is not None
    return snapshot.ivf.trained


def test_without_nlist_the_index_is_made_from_256_images_on(
    collection: Collection, tmp_path: Path
) -> None:
    save_pictures(tmp_path / "many", 255)
    collection.index([tmp_path / "many"])
    assert collection.info().ivf is None
    assert collection.info().list_sizes == ()
    assert collection.info().tail == 255
    save_pictures(tmp_path / "many", 1, first=255)
    collection.index([tmp_path / "many"])
    info = collection.info()
    assert info.ivf is not None
    assert (info.ivf.nlist, info.ivf.requested_nlist) == (6, None)
    assert (len(info.list_sizes), sum(info.list_sizes), info.tail) == (6, 256, 0)


@pytest.mark.few(1)
@pytest.mark.parametrize(("nlist", "made"), [(1, 1), (5, 5), (40, 40), (500, 40)])
def test_nlist_is_kept_to_at_any_size_but_is_at_most_one_an_image(
    opened: Collection, nlist: int, made: int
) -> None:
    opened.index(nlist=nlist)
    info = opened.info()
    assert info.ivf is not None
    assert (info.ivf.nlist, info.ivf.requested_nlist) == (made, nlist)
    assert len(info.list_sizes) == made
    assert sum(info.list_sizes) == 40
    assert opened.query(picture(3), k=40, nprobe=made)[0].path.endswith("0003.png")


def test_an_index_of_a_single_image_finds_it(collection: Collection, tmp_path: Path) -> None:
    (path,) = save_pictures(tmp_path / "one", 1)
    collection.index(path, nlist=3)
    assert len(collection.info().list_sizes) == 1
    assert [hit.path for hit in collection.query(path, include_self=True)] == [str(path)]


def test_nlist_is_kept_for_later_runs_until_another_is_given(
    opened: Collection, tmp_path: Path
) -> None:
    opened.index(nlist=60)
    save_pictures(tmp_path / "more", 30, first=100)
    opened.index([tmp_path / "more"])
    assert len(opened.info().list_sizes) == 60
    opened.index(nlist=4)
    assert len(opened.info().list_sizes) == 4
    opened.index()
    assert len(opened.info().list_sizes) == 4


def test_what_is_asked_of_an_empty_collection_is_remembered(
    collection: Collection, tmp_path: Path
) -> None:
    (tmp_path / "later").mkdir()
    collection.index(tmp_path / "later", nlist=3, recall=0.8)
    save_pictures(tmp_path / "later", 20)
    collection.index()
    assert len(collection.info().list_sizes) == 3
    assert collection.info().settings.recall == 0.8


def test_the_index_stays_as_it_is_while_nothing_changes(ivf: Collection, indexed: Path) -> None:
    before = [(path.name, path.stat().st_mtime_ns) for path in (indexed / "segments").iterdir()]
    ivf.index()
    ivf.index(nlist=5)
    assert before == [
        (path.name, path.stat().st_mtime_ns) for path in (indexed / "segments").iterdir()
    ]


def test_a_short_tail_stays_a_tail_and_a_long_one_becomes_a_segment(grower: Grower) -> None:
    grower.add(clustered(3_000, seed=1))
    first = grower.fold()
    assert [segment.count for segment in first.segments] == [3_000]
    grower.add(clustered(200, seed=2))
    assert grower.fold().segments == first.segments
    assert grower.view().tail_count == 200
    grower.add(clustered(200, seed=3))
    then = grower.fold()
    assert [segment.count for segment in then.segments] == [3_000, 400]
    assert then.segments[0] == first.segments[0]
    assert trained(then) == 3_000
    assert then.ivf is not None
    assert then.ivf.added == 400
    assert grower.view().tail_count == 0
    assert grower.agrees(clustered(50, seed=9))


def test_small_segments_are_merged_and_an_update_rewrites_little_of_what_is_there(
    grower: Grower,
) -> None:
    grower.policy = replace(UNRANKED, growth=100)
    grower.add(clustered(3_000, seed=1))
    grower.fold()
    sizes = []
    for step in range(14):
        before = grower.catalog.snapshot().segments
        grower.add(clustered(300, seed=2 + step))
        tail = grower.view().tail_count
        after = grower.fold().segments
        written = sum(new.count for new in after if new not in before)
        assert written <= 5 * tail
        sizes.append([segment.count for segment in after])
    assert sizes[:3] == [[3_000, 300], [3_000, 600], [3_000, 900]]
    assert max(map(len, sizes)) <= 4
    assert grower.agrees(clustered(50, seed=99))


@pytest.mark.whole("test_small_segments_are_merged_and_an_update_rewrites_little_of_what_is_there")
def test_many_segments_are_merged_whatever_their_size(grower: Grower) -> None:
    grower.policy = replace(UNRANKED, growth=100, segments=4, merge=0)
    grower.add(clustered(3_000, seed=1))
    grower.fold()
    counts = []
    for step in range(12):
        grower.add(clustered(400, seed=2 + step))
        counts.append(len(grower.fold().segments))
    assert max(counts) == 4
    assert counts[-1] < 4
    assert grower.agrees(clustered(50, seed=99))


@pytest.mark.whole("test_small_segments_are_merged_and_an_update_rewrites_little_of_what_is_there")
def test_no_segment_grows_beyond_its_limit(grower: Grower) -> None:
    # Shards are not merged, because none is divided between segments.
    grower.policy = replace(UNRANKED, segment_bytes=700 * 4 * DIM, segments=1, small_shard=0)
    for step in range(12):
        grower.add(clustered(300, seed=step))
        assert all(segment.count <= 700 for segment in grower.fold().segments)
    assert len(grower.catalog.snapshot().segments) >= 5
    assert grower.agrees(clustered(50, seed=99))


def test_the_centroids_are_trained_again_once_there_are_twice_as_many_images(
    grower: Grower,
) -> None:
    grower.add(clustered(600, seed=1))
    grower.fold()
    grower.add(clustered(599, seed=2))
    assert trained(grower.fold()) == 600
    grower.add(clustered(1, seed=3))
    assert is_outgrown(grower.catalog.snapshot(), 1_200)
    again = grower.fold()
    assert trained(again) == 1_200
    assert len(again.segments) == 1
    assert grower.view().tail_count == 0


def test_in_the_middle_of_a_run_they_are_not_trained_for_so_little(grower: Grower) -> None:
    grower.add(clustered(300, seed=1))
    grower.fold(meanwhile=True)
    for step in range(6):
        grower.add(clustered(300, seed=2 + step))
        assert trained(grower.fold(meanwhile=True)) == 300
    grower.add(clustered(300, seed=9))
    assert trained(grower.fold(meanwhile=True)) == 2_400


def test_the_centroids_are_trained_again_once_half_of_the_images_are_gone(grower: Grower) -> None:
    ids = grower.add(clustered(1_000, seed=1))
    grower.fold()
    grower.remove(ids[::2])
    again = grower.fold()
    assert trained(again) == 500
    assert grower.view().count == 500
    assert grower.agrees(clustered(50, seed=99))


@pytest.mark.whole("test_the_centroids_are_trained_again_once_there_are_twice_as_many_images")
def test_the_centroids_are_trained_again_when_images_of_another_kind_have_come(
    grower: Grower,
) -> None:
    grower.add(clustered(1_000, seed=1))
    grower.fold()
    grower.add(clustered(400, seed=2, first=100))  # around other centres
    filed = grower.fold()
    assert filed.ivf is not None
    assert (filed.ivf.trained, filed.ivf.added) == (1_000, 400)
    assert filed.ivf.far > 300
    assert is_outgrown(filed, 1_400)
    assert trained(grower.fold()) == 1_400


def test_removed_images_are_purged_from_a_segment_once_they_are_a_quarter_of_it(
    grower: Grower,
) -> None:
    ids = grower.add(clustered(1_000, seed=1))
    grower.fold()
    grower.remove(ids[:200])
    assert [segment.count for segment in grower.fold().segments] == [1_000]
    assert len(grower.catalog.snapshot().stale) == 200
    assert grower.agrees(clustered(50, seed=99))
    grower.remove(ids[200:300])
    purged = grower.fold()
    assert [segment.count for segment in purged.segments] == [700]
    assert purged.stale == ()
    assert grower.agrees(clustered(50, seed=99))


def test_a_shard_that_is_half_removed_is_written_again_without_that(
    grower: Grower,
) -> None:
    grower.policy = replace(UNRANKED, small_shard=0)
    ids = grower.add(clustered(600, seed=1))
    grower.add(clustered(600, seed=2))
    grower.fold()
    grower.remove(ids[::2])
    grower.remove(ids[1::4])
    compacted = grower.fold()  # first the segment, for as long as that holds them, they are needed
    assert [shard.count for shard in compacted.shards] == [150, 600]
    assert compacted.removed == ()
    assert grower.view().count == 750
    assert grower.agrees(clustered(50, seed=99))
    grower.remove(ids)
    assert [shard.count for shard in grower.fold().shards][-1] == 600


def test_small_shards_are_merged_so_that_there_are_few(grower: Grower) -> None:
    counts = []
    for step in range(64):
        grower.add(clustered(3, seed=step))
        counts.append(len(grower.fold().shards))
    assert max(counts) <= 7
    assert [shard.count for shard in grower.catalog.snapshot().shards] == [192]
    assert len(list(grower.layout.vectors.iterdir())) <= 9  # what was replaced goes with the next
    assert grower.agrees(clustered(50, seed=99))


def test_no_shard_reaches_from_the_segments_into_the_tail(grower: Grower) -> None:
    grower.add(clustered(300, seed=1))
    grower.fold()
    for step in range(4):
        grower.add(clustered(40, seed=2 + step))
        snapshot = grower.fold()
        assert all(shard.last_id <= 300 or shard.first_id > 300 for shard in snapshot.shards)
    assert grower.view().tail_count == 160
    assert grower.agrees(clustered(50, seed=99), k=20)


def test_what_is_replaced_stays_for_those_who_are_about_to_open_it(grower: Grower) -> None:
    grower.add(clustered(300, seed=1))
    grower.fold()
    before = grower.catalog.snapshot()
    grower.add(clustered(300, seed=2))
    grower.fold()
    (old,) = before.segments
    assert grower.layout.segment(old.number).exists()
    grower.fold()
    assert not grower.layout.segment(old.number).exists()


@pytest.mark.parametrize("meanwhile", [False, True])
def test_a_disk_without_room_for_the_index_is_told_before_it_is_written(
    grower: Grower, monkeypatch: pytest.MonkeyPatch, meanwhile: bool
) -> None:
    grower.add(clustered(400, seed=1))
    usage = shutil.disk_usage("/")._replace(free=1_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StorageError, match=r"needs 0 MB for the index, but its disk has 0 MB left"):
        grower.fold(meanwhile=meanwhile)
    assert list(grower.layout.segments.iterdir()) == []
    assert (
        len(
            grower.view().search(clustered(1, seed=2), 10, recall=None, nprobe=None, exact=False)[1]
        )
        == 1
    )


@pytest.mark.whole("test_a_short_tail_stays_a_tail_and_a_long_one_becomes_a_segment")
def test_a_long_run_flushes_its_tail_as_it_goes(collection: Collection, tmp_path: Path) -> None:
    paths = save_pictures(tmp_path / "many", 450)
    tails: list[int] = []
    collection.index(
        [tmp_path / "many"],
        policy=FoldPolicy(commit_files=50, tail_most=100, ivf_from=80),
        progress=lambda _: tails.append(collection.info().tail),
    )
    assert max(tails) <= 150
    info = collection.info()
    assert info.ivf is not None
    assert info.ivf.trained == len(paths)


@pytest.mark.whole("test_in_the_middle_of_a_run_they_are_not_trained_for_so_little")
def test_an_update_of_much_costs_no_more_training_than_one_of_little_at_a_time(
    grower: Grower,
) -> None:
    trainings = set()
    for step in range(40):
        grower.add(clustered(60, seed=step))
        snapshot = grower.fold()
        if snapshot.ivf is not None:
            trainings.add(snapshot.ivf.trained)
    assert sorted(trainings) == [300, 600, 1_200, 2_400]


@pytest.mark.usefixtures("several_threads")
def test_the_answers_of_all_segments_and_the_tail_are_those_of_one(grower: Grower) -> None:
    random = np.random.default_rng(3)
    alive: list[int] = []
    for step in range(12):
        alive += grower.add(clustered(150, seed=step)).tolist()
        gone = random.choice(alive, 20, replace=False).tolist()
        grower.remove(gone)
        alive = [id_ for id_ in alive if id_ not in set(gone)]
        grower.fold()
        assert grower.view().count == len(alive)
        assert grower.agrees(clustered(20, seed=1_000 + step), k=30)


@pytest.mark.whole("test_a_promise_of_all_is_kept_by_exact_search")
def test_nearly_as_many_centroids_as_images_leave_some_to_be_held_out(grower: Grower) -> None:
    grower.catalog.change_settings(nlist=5_500, recall=None)
    grower.add(clustered(5_600, seed=1))
    made = grower.fold()
    assert made.ivf is not None
    assert (made.ivf.nlist, made.ivf.held_out) == (4_600, 1_000)
    assert not is_outgrown(made, 5_600)


def test_images_that_are_replaced_again_and_again_do_not_fill_the_disk(grower: Grower) -> None:
    ids = grower.add(clustered(100, seed=1))
    for step in range(5):
        grower.remove(ids)
        ids = grower.add(clustered(100, seed=2 + step))
        grower.fold()
    snapshot = grower.catalog.snapshot()
    assert sum(shard.count for shard in snapshot.shards) == 100
    assert snapshot.removed == ()
    assert grower.view().count == 100


def test_a_promise_of_all_is_kept_by_exact_search(grower: Grower) -> None:
    grower.add(clustered(1_000, seed=1))
    grower.fold()
    view = grower.view()
    *_, searches = view.search(clustered(5, seed=2), 10, recall=1.0, nprobe=None, exact=False)
    assert {search.kind for search in searches} == {"exact"}


def test_a_collection_of_which_little_is_left_goes_back_to_exact_search(grower: Grower) -> None:
    ids = grower.add(clustered(600, seed=1))
    grower.fold()
    grower.remove(ids[10:])
    snapshot = grower.fold()
    assert (snapshot.ivf, snapshot.segments, snapshot.removed) == (None, (), ())
    view = grower.view()
    assert (view.count, view.tail_count) == (10, 10)
    *_, searches = view.search(clustered(2, seed=2), 3, recall=None, nprobe=None, exact=False)
    assert [search.kind for search in searches] == ["exact", "exact"]
