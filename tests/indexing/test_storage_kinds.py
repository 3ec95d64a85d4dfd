"""A compact index does what a flat one does, in less room; a collection may change its kind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest
from click.testing import Result

from imgsearch.ann.compact import CompactIndex
from imgsearch.ann.vectors import Ids, Vectors
from imgsearch.collection import Collection
from imgsearch.errors import DamagedError, SettingError
from imgsearch.indexing.fold import is_outgrown
from imgsearch.indexing.policy import FoldPolicy
from imgsearch.maintenance.damage import Part
from imgsearch.maintenance.sample import Sample
from imgsearch.maintenance.verify import verify
from imgsearch.querying import segments, view
from imgsearch.storage.shards import read_ahead
from tests.support.aged_collection import holdings, in_this_process
from tests.support.grower import UNRANKED, Grower, clustered
from tests.support.outcomes import age
from tests.support.outdated_index import outdated
from tests.support.pictures import picture, save_pictures
from tests.support.small_network import DIM, make_small_collection

PCA = 40  # of 48

Invoke = Callable[..., Result]


@pytest.fixture
def grower(empty: Path) -> Iterator[Grower]:
    with Grower(empty, policy=UNRANKED) as grower:
        grower.catalog.change_settings(nlist=None, recall=None, storage="compact", pca=PCA)
        yield grower


def shares(grower: Grower, queries: Vectors, recall: float | None = None) -> tuple[float, set[str]]:
    """Return recall@10 of queries, and the ways in which they were searched."""
    view = grower.view()
    squared, found, searches = view.search(queries, 10, recall=recall, nprobe=None, exact=False)
    exactly, true, _ = view.search(queries, 10, recall=None, nprobe=None, exact=True)
    same = [len(set(one) & set(other)) for one, other in zip(found, true, strict=True)]
    hits = found == true
    np.testing.assert_allclose(squared[hits], exactly[hits], atol=1e-5)
    return float(np.mean(same)) / 10, {search.kind for search in searches}


def test_a_compact_index_grows_merges_and_is_purged_as_a_flat_one(grower: Grower) -> None:
    ids = grower.add(clustered(3_000, seed=1))
    first = grower.fold()
    assert first.ivf is not None
    assert first.ivf.pca == PCA
    assert all(isinstance(index, CompactIndex) for index in grower.view().segments)
    grower.add(clustered(400, seed=2))
    then = grower.fold()
    assert [segment.count for segment in then.segments] == [3_000, 400]
    grower.remove(ids[:1_000])
    assert shares(grower, clustered(50, seed=5))[0] > 0.94
    purged = grower.fold()
    assert [segment.count for segment in purged.segments] == [2_000, 400]
    grower.add(clustered(450, seed=3))
    merged = grower.fold()
    assert [segment.count for segment in merged.segments] == [2_000, 850]
    one, other = grower.view().segments
    assert one.is_trained_as(other)
    recall, ways = shares(grower, clustered(300, seed=9))
    assert recall > 0.94
    assert "ivf" in ways
    found = grower.view().search(clustered(400, seed=2), 1, recall=None, nprobe=None, exact=False)
    np.testing.assert_allclose(found[0], 0, atol=1e-6)


@pytest.mark.few(1)
@pytest.mark.parametrize("recall", [0.8, 0.95])
@pytest.mark.parametrize("count", [900, 6_000])
@pytest.mark.parametrize("pca", [6, 40, 48])
def test_the_promise_is_kept_whatever_pca_leaves(
    grower: Grower, count: int, pca: int, recall: float
) -> None:
    """Where the lists cannot keep it, search is exact."""
    grower.catalog.change_settings(nlist=None, recall=recall, pca=pca)
    grower.add(clustered(count, seed=1))
    grower.fold()
    alike, ways = shares(grower, clustered(500, seed=9))
    assert alike >= recall - 0.01
    assert pca == 6 or "ivf" in ways
    foreign, _ = shares(grower, clustered(500, seed=11, first=12))
    assert foreign >= recall - 0.01


@pytest.mark.whole("test_a_compact_index_grows_merges_and_is_purged_as_a_flat_one")
def test_removed_images_and_several_segments_leave_the_answers_exact(
    grower: Grower,
) -> None:
    grower.policy = replace(UNRANKED, segment_bytes=(PCA // 8 + 8) * 700)
    parts = [grower.add(clustered(350, seed=seed)) for seed in range(6)]
    assert [segment.count for segment in grower.fold().segments] == [700] * 3
    gone = np.concatenate(parts)[::10]
    grower.remove(gone)
    view = grower.view()
    found = view.search(clustered(80, seed=9), 30, recall=None, nprobe=10_000, exact=False)[1]
    assert not np.isin(found, gone).any()
    true = view.search(clustered(80, seed=9), 30, recall=None, nprobe=None, exact=True)[1]
    assert (np.sort(found, axis=1) == np.sort(true, axis=1)).mean() > 0.99


def test_of_embeddings_beyond_the_memory_only_those_to_compare_are_read_ahead(
    grower: Grower, monkeypatch: pytest.MonkeyPatch
) -> None:
    grower.add(clustered(2_000, seed=1))
    grower.fold()
    queries = clustered(1, seed=9)

    def found() -> Ids:
        return grower.view().search(queries, 10, recall=None, nprobe=10_000, exact=False).ids

    expected = found()
    read = 0

    def noted(vectors: Vectors, rows: Ids) -> None:
        nonlocal read
        read += len(rows)
        read_ahead(vectors, rows)

    monkeypatch.setattr(view, "read_ahead", noted)
    monkeypatch.setattr(view, "SHARE_OF_MEMORY", 0)
    np.testing.assert_array_equal(found(), expected)
    assert 10 <= read < 2_000 / 4


def test_queries_far_from_embeddings_beyond_the_memory_are_compared_with_all_codes(
    grower: Grower, monkeypatch: pytest.MonkeyPatch
) -> None:
    grower.add(clustered(2_000, seed=1))
    grower.fold()
    far = -clustered(40, seed=9)
    recall, ways = shares(grower, far)
    assert (recall, ways) == (1.0, {"exact"})
    monkeypatch.setattr(view, "SHARE_OF_MEMORY", 0)
    recall, ways = shares(grower, far)
    assert ways == {"wide"}
    assert recall > 0.9
    _, _, searches = grower.view().search(far, 10, recall=None, nprobe=None, exact=False)
    assert {(search.nprobe, search.recall) for search in searches} == {
        (grower.view().segments[0].nlist, None)
    }
    many = grower.view().search(clustered(5, seed=9), 1_500, recall=None, nprobe=None, exact=False)
    assert {search.kind for search in many.searches} == {"wide"}
    assert (many.ids >= 0).all()


def test_a_collection_changes_from_one_storage_to_the_other(grower: Grower) -> None:
    grower.add(clustered(1_000, seed=1))
    compact = grower.fold()
    grower.catalog.change_settings(nlist=None, recall=None, storage="flat")
    assert is_outgrown(grower.catalog.snapshot(), 1_000)
    flat = grower.fold()
    assert flat.ivf is not None
    assert flat.ivf.pca is None
    assert flat.segments[0].size > 2 * compact.segments[0].size
    grower.catalog.change_settings(nlist=None, recall=None, storage="compact", pca=10_000)
    again = grower.fold()
    assert again.ivf is not None
    assert again.ivf.pca == DIM
    assert grower.fold() == again
    grower.catalog.change_settings(nlist=None, recall=None, pca=8)
    less = grower.fold()
    assert less.segments[0].size < again.segments[0].size
    assert less.segments[0].number > again.segments[0].number


def test_an_outdated_index_is_replaced_at_the_end_of_the_next_run(grower: Grower) -> None:
    grower.add(clustered(1_000, seed=1))
    new = grower.fold()
    (index,) = grower.view().segments
    assert isinstance(index, CompactIndex)
    assert new.ivf is not None
    old = outdated(index, clustered(1_000, seed=1))
    for ids, vectors in grower.view().live_blocks():
        old.add(ids, vectors)
    layout, number = grower.layout, grower.catalog.next_segment()
    segment = segments.write_segment(layout, old, number, first_id=1, last_id=1_000)
    grower.catalog.replace_segments([new.segments[0].number], [segment], new.ivf)
    assert shares(grower, clustered(50, seed=5), 0.9)[0] > 0.94
    grower.add(clustered(10, seed=2))
    then = grower.fold()
    assert not any(index.outdated for index in grower.view().segments)
    assert then.segments[0].size < segment.size
    assert shares(grower, clustered(50, seed=5), 0.9)[0] > 0.94


@pytest.mark.whole("test_the_promise_is_kept_whatever_pca_leaves")
def test_more_hits_than_the_lists_hold_are_found_exactly(grower: Grower) -> None:
    grower.add(clustered(1_000, seed=1))
    grower.fold()
    view = grower.view()
    queries = clustered(20, seed=4)
    _, found, searches = view.search(queries, 900, recall=0.5, nprobe=None, exact=False)
    assert (found >= 0).all()
    assert {search.kind for search in searches} == {"exact"}
    true = view.search(queries, 900, recall=None, nprobe=None, exact=True)[1]
    np.testing.assert_array_equal(found, true)


# By the command line, and from files


def test_index_makes_a_compact_index_and_info_tells_its_size(
    invoke: Invoke, indexed: Path, photos: Path
) -> None:
    invoke("-c", indexed, "index", "--nlist", "4", "--storage", "compact", "--pca", "12")
    info = json.loads(invoke("-c", indexed, "info", "--json").stdout)
    assert (info["settings"]["storage"], info["settings"]["pca"]) == ("compact", 12)
    assert (info["ivf"]["pca"], info["ivf"]["nlist"]) == (12, 4)
    text = invoke("-c", indexed, "info", "--verbose").stdout
    each = round(info["index_bytes"] / 40)
    kind = "compact, of 12 values that PCA leaves"
    assert f"{kind}, nlist 4, in 1 file, {each} bytes per image" in text
    (segment,) = (indexed / "segments").iterdir()
    assert type(faiss.read_index(str(segment))) is faiss.IndexPreTransform
    image = sorted(photos.iterdir())[7]
    for options in ([], ["--nprobe", "2"], ["--exact"]):
        ended = invoke("-c", indexed, "query", image, "--json", "--include-self", *options)
        answer = json.loads(ended.stdout)
        assert answer["hits"][0]["path"] == str(image)
        assert answer["hits"][0]["distance"] == 0
    invoke("-c", indexed, "index")
    assert json.loads(invoke("-c", indexed, "info", "--json").stdout)["ivf"] == info["ivf"]


def test_what_storage_is_not_is_refused(opened: Collection) -> None:
    with pytest.raises(SettingError, match="it must be"):
        opened.index(storage="pq")  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(SettingError, match="pca is 0"):
        opened.index(pca=0)


@pytest.fixture
def compact(tmp_path: Path) -> Path:
    """A compact collection of 40 images, 9 of which are a segment of their own."""
    directory = make_small_collection(tmp_path / "collection")
    policy = FoldPolicy(tail_least=5, tail_most=8, merge=0, commit_seconds=1_000)
    with in_this_process(), Collection.open(directory, device="cpu") as collection:
        for count, first in ((31, 0), (9, 100)):
            save_pictures(tmp_path / "photos", count, first=first)
            age(tmp_path / "photos")
            collection.index(tmp_path / "photos", nlist=3, storage="compact", pca=20, policy=policy)
    return directory


def test_a_sound_compact_collection_has_no_damage(compact: Path) -> None:
    with in_this_process():
        assert verify(compact, sample=1_000).damages == ()


def test_a_lost_shard_is_embedded_again_for_compact_segments_are_lossy(compact: Path) -> None:
    held = holdings(compact)
    (compact / "vectors" / "00000002.npy").unlink()
    with Collection.open(compact, device="cpu") as collection, pytest.raises(DamagedError):
        collection.query(picture(101))
    with in_this_process():
        report = verify(compact, repair=True)
        assert "9 embedded again" in report.repairs[0]
        assert report.left == ()
        assert verify(compact, sample=1_000).damages == ()
    again = holdings(compact)
    assert again.keys() == held.keys()
    for path, vector in held.items():
        np.testing.assert_allclose(again[path], vector, atol=1e-6)


@pytest.mark.few(1)
@pytest.mark.parametrize("harm", ["flat", "swapped", "cut off", "missing"])
def test_a_damaged_compact_segment_is_made_anew(compact: Path, harm: str) -> None:
    first, second = sorted((compact / "segments").iterdir())
    match harm:
        case "flat":
            golden = Path(__file__).parents[1] / "data" / "collection-4" / "segments"
            shutil.copy(next(iter(golden.iterdir())), second)
        case "swapped":
            shutil.copy(first, second)
        case "cut off":
            second.write_bytes(second.read_bytes()[:-9])
        case _:
            second.unlink()
    with in_this_process():
        report = verify(compact, repair=True)
        assert {damage.part for damage in report.damages} == {Part.INDEX}
        assert report.left == ()
        assert verify(compact, sample=1_000).damages == ()
    with Collection.open(compact, device="cpu") as collection:
        info = collection.info()
        assert info.ivf is not None
        assert info.ivf.pca == 20
        assert collection.query(picture(103))[0].distance < 1e-3


@pytest.mark.whole("test_a_sound_compact_collection_has_no_damage")
def test_very_many_images_that_are_nearly_the_same_are_no_damage(
    grower: Grower, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than are re-ranked: each is crowded out by others, some of the time."""
    monkeypatch.setattr("imgsearch.ann.exact.BITS", 1)  # no more candidates for short codes
    near = clustered(1, seed=1) + 1e-4 * np.random.default_rng(1).standard_normal((400, DIM))
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    ids = grower.add(np.concatenate([near, clustered(600, seed=2)]).astype(np.float32))
    grower.catalog.change_settings(nlist=None, recall=0.5, pca=6)
    grower.fold()
    view = grower.view()
    own = np.concatenate([rows for _, rows in view.live_blocks()])[:400]
    found = view.search(own, 10, recall=None, nprobe=8, exact=False)[1]
    assert not (found == ids[:400, None]).any(axis=1).all()
    sample = Sample(grower.layout, grower.catalog, view, 400)
    assert sample._not_found(ids[:400], own) == 0


def test_segments_of_another_training_are_told_apart(grower: Grower) -> None:
    grower.add(clustered(600, seed=1))
    snapshot = grower.fold()
    with pytest.raises(DamagedError, match="is not an IndexIVFFlat"):
        segments.open_segment(grower.layout, snapshot.segments[0], compact=False)


def test_pca_of_a_flat_index_is_refused(collection: Collection, tree: Path) -> None:
    for storage in (None, "flat"):
        with pytest.raises(SettingError, match="pass --storage compact"):
            collection.index([tree], pca=64, storage=storage)
    assert collection.info().roots == ()
    collection.index([tree], pca=8, storage="compact")
    collection.index(pca=4)
    assert collection.info().settings.pca == 4
