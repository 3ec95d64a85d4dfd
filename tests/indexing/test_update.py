"""Indexing: what is found, embedded, left alone, refused, interrupted and resumed."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgsearch.collection import Collection
from imgsearch.embedding.pipeline import Refused
from imgsearch.embedding.runtime import Embeddings, OnnxRuntime
from imgsearch.errors import BusyError, DamagedError, InputError, SettingError
from imgsearch.images.decode import Pixels
from imgsearch.indexing import engine
from imgsearch.indexing.policy import FoldPolicy
from imgsearch.indexing.report import Failure, Progress
from imgsearch.storage.files import exclusive
from imgsearch.storage.layout import Layout
from tests.support.depth import examples
from tests.support.embedding_here import EngineInProcess, RefusingEngine
from tests.support.outcomes import age, did, files_in, holds, ids_in
from tests.support.pictures import picture, save_pictures
from tests.support.small_network import make_small_collection


def test_each_image_is_found_first_by_itself(collection: Collection, tree: Path) -> None:
    assert did(collection.index([tree])) == {"indexed": 12}
    for path in tree.rglob("*.*g"):
        best = collection.query(path, k=1, include_self=True)[0]
        assert (best.path, best.distance, best.similarity) == (str(path), 0.0, 1.0)


def test_a_second_run_finds_everything_unchanged(collection: Collection, tree: Path) -> None:
    age(tree)
    collection.index([tree])
    collection.index([tree])  # deletes what the first run replaced
    before = collection.info(), ids_in(collection)
    assert did(collection.index([tree])) == {"unchanged": 12}
    assert (collection.info(), ids_in(collection)) == before


def test_a_single_path_need_not_be_in_a_list(collection: Collection, tree: Path) -> None:
    assert did(collection.index(str(tree))) == {"indexed": 12}
    assert did(collection.index(tree / "0000.jpg")) == {"unchanged": 1}


def test_without_a_path_all_roots_are_brought_up_to_date(
    collection: Collection, tree: Path, tmp_path: Path
) -> None:
    (single,) = save_pictures(tmp_path / "elsewhere", 1, first=50)
    save_pictures(tmp_path / "elsewhere", 2, first=60)
    collection.index([tree, single])
    save_pictures(tree, 2, first=20)
    assert did(collection.index()) == {"indexed": 2, "unchanged": 13}


def test_there_must_be_something_to_index(collection: Collection) -> None:
    with pytest.raises(SettingError, match="name a folder, as in `imgsearch index FOLDER`"):
        collection.index()


def test_a_path_that_does_not_exist_stops_the_run_before_it_began(
    collection: Collection, tree: Path
) -> None:
    with pytest.raises(InputError, match="missing: there is no such file or folder"):
        collection.index([tree, tree / "missing"])
    assert collection.info().images == 0
    assert collection.info().roots == ()


def test_a_changed_image_gets_a_new_id_and_the_old_one_is_gone(
    collection: Collection, tree: Path
) -> None:
    collection.index([tree], nlist=2)
    path = tree / "0001.png"
    (old,) = collection.query(path, k=1, include_self=True)
    before = collection.embed([path])[0]
    picture(500, width=60).save(path)
    assert did(collection.index([tree])) == {"indexed": 1, "unchanged": 11}
    (new,) = collection.query(path, k=1, include_self=True)
    assert (new.path, new.distance) == (str(path), 0)
    assert new.id > old.id
    for exact in (False, True):
        hits = collection.query(before, k=100, exact=exact)
        assert len(hits) == 12
        assert old.id not in {hit.id for hit in hits}
        assert hits[0].distance > 0.01
    assert collection.info().images == 12


def test_a_failed_file_is_reported_each_time_and_tried_again_once_it_changes(
    collection: Collection, tree: Path
) -> None:
    bad = tree / "bad.jpg"
    bad.write_bytes(b"\xff\xd8\xff not a JPEG")
    for _ in range(2):
        report = collection.index([tree])
        assert [failure.path for failure in report.failures] == [str(bad)]
        assert "cannot be decoded" in report.failures[0].reason
        assert collection.info().failed == 1
    assert did(collection.index([tree])) == {"unchanged": 12, "failed": 1}
    picture(77).save(bad)
    assert did(collection.index([tree])) == {"indexed": 1, "unchanged": 12}
    assert collection.info().failed == 0


def test_an_image_that_turned_bad_is_found_no_more(collection: Collection, tree: Path) -> None:
    collection.index([tree], nlist=2)
    (tree / "0001.png").write_bytes(b"")
    assert did(collection.index([tree])) == {"unchanged": 11, "failed": 1}
    assert holds(collection, set(files_in(tree)) - {tree / "0001.png"})
    assert len(collection.query(picture(0), k=100)) == 11


def test_a_collection_whose_images_all_turned_bad_finds_nothing(
    collection: Collection, tree: Path
) -> None:
    collection.index([tree], nlist=2)
    for path in tree.rglob("*.*g"):
        path.write_bytes(b"")
    assert did(collection.index([tree])) == {"failed": 12}
    for exact in (False, True):
        assert collection.query(picture(0), exact=exact) == []
    assert collection.info().images == 0


def test_files_that_are_plainly_no_images_are_skipped_and_remembered(
    collection: Collection, tree: Path
) -> None:
    (tree / "notes.txt").write_text("milk, bread")
    os.mkfifo(tree / "pipe")
    for _ in range(2):
        assert collection.index([tree]).skipped == 2
    assert collection.info().skipped == 1


def test_a_link_that_leads_nowhere_has_failed(collection: Collection, tree: Path) -> None:
    (tree / "broken.jpg").symlink_to("nowhere")
    report = collection.index([tree])
    assert did(report) == {"indexed": 12, "failed": 1}
    assert report.failures == (
        Failure(str(tree / "broken.jpg"), "cannot be read, or is a broken link"),
    )


def test_what_failed_by_chance_is_tried_again_and_its_image_is_kept(
    collection: Collection, tree: Path
) -> None:
    collection.index([tree])
    (old,) = collection.query(tree / "0001.png", k=1, include_self=True)
    picture(500).save(tree / "0001.png")
    refused = Refused("cannot be read: Input/output error", transient=True)
    refusing = RefusingEngine("0001.png", refused)
    assert did(collection.index([tree], engine=refusing)) == {"unchanged": 11, "failed": 1}
    assert old.id in {hit.id for hit in collection.query(picture(0), k=100)}
    assert collection.info().failed == 0
    assert did(collection.index([tree])) == {"indexed": 1, "unchanged": 11}


def test_this_machine_may_be_given_as_the_engine(collection: Collection, tree: Path) -> None:
    report = collection.index([tree], engine=engine.LocalEngine(workers=1))
    assert did(report) == {"indexed": 12}


class _Gpu:
    """A device that runs the network as this machine would."""

    devices = 1

    def __init__(self, model: Path) -> None:
        self._runtime = OnnxRuntime(model)
        self.embedded = 0

    def embed(self, pixels: Pixels) -> Embeddings:
        self.embedded += len(pixels)
        return self._runtime.embed(pixels)


@pytest.mark.processes
def test_where_a_gpu_runs_the_network_its_file_is_not_even_read(
    collection: Collection, empty: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = _Gpu(Layout.at(empty).model)
    monkeypatch.setattr(engine, "open_on_gpus", lambda *_: gpu)
    Layout.at(empty).model.write_bytes(b"damaged")
    with pytest.raises(DamagedError):
        collection.index([tree], engine=engine.LocalEngine(workers=1))
    on_gpu = engine.LocalEngine(workers=1, device="cuda")
    assert did(collection.index([tree], engine=on_gpu)) == {"indexed": 12}
    assert gpu.embedded == 12


def test_an_option_that_there_is_not_is_refused(collection: Collection, tree: Path) -> None:
    with pytest.raises(SettingError, match="there is no option 'nlists'; there are nlist, recall"):
        collection.index([tree], nlists=4)  # type: ignore[call-arg]  # wrong on purpose


def test_the_collection_itself_is_left_out(tmp_path: Path) -> None:
    save_pictures(tmp_path / "photos", 3)
    directory = make_small_collection(tmp_path / "photos" / "collection")
    save_pictures(directory / "vectors" / "not_a_photo", 2)
    with Collection.open(directory, device="cpu") as collection:
        assert did(collection.index([tmp_path / "photos"])) == {"indexed": 3}


def test_a_folder_given_twice_is_listed_once(collection: Collection, tree: Path) -> None:
    (tree.parent / "link").symlink_to(tree)
    paths: list[str | Path] = [tree, tree, f"{tree}/", tree.parent / "link", tree / "below" / ".."]
    assert did(collection.index(paths)) == {"indexed": 12}
    assert len(collection.info().roots) == 1


WAYS = {
    "a folder in a root": lambda tree: [[tree], [tree / "below"]],
    "a root above a root": lambda tree: [[tree / "below"], [tree]],
    "both at once": lambda tree: [[tree / "below", tree]],
    "both at once, the other way round": lambda tree: [[tree, tree / "below"]],
    "a file, then its folder": lambda tree: [[tree / "below" / "0008.jpg"], [tree]],
    "a folder, then a file in it": lambda tree: [[tree], [tree / "below" / "0008.jpg"]],
    "a file and its folder at once": lambda tree: [[tree / "below" / "0008.jpg", tree]],
    "files, then their folder": lambda tree: [
        [tree / "below" / "0008.jpg", tree / "below" / "0009.png"],
        [tree / "below"],
        [tree],
    ],
}


@pytest.mark.parametrize("way", WAYS)
def test_no_image_is_there_twice_by(way: str, collection: Collection, tree: Path) -> None:
    for paths in WAYS[way](tree):
        collection.index(paths)
    assert holds(collection, files_in(tree))
    assert did(collection.index()) == {"unchanged": 12}
    age(tree)
    assert did(collection.index()) == {"unchanged": 12}
    assert holds(collection, files_in(tree))


def test_a_file_given_by_name_does_not_bring_its_neighbours_in(
    collection: Collection, tree: Path
) -> None:
    assert did(collection.index([tree / "0000.jpg"])) == {"indexed": 1}
    assert holds(collection, [tree / "0000.jpg"])
    assert did(collection.index()) == {"unchanged": 1}


def test_one_run_at_a_time(collection: Collection, empty: Path, tree: Path) -> None:
    with exclusive(empty), pytest.raises(BusyError):
        collection.index([tree])


@pytest.mark.parametrize("setting", ["nlist", "workers", "time_limit"])
@pytest.mark.parametrize("value", [0, -1])
def test_numbers_that_make_no_sense_are_refused(
    collection: Collection, tree: Path, setting: str, value: int
) -> None:
    with pytest.raises(SettingError, match=f"{setting} is {value}; it must be "):
        collection.index([tree], **{setting: value})  # type: ignore[arg-type]  # wrong on purpose


def test_progress_counts_up_to_the_number_of_files(collection: Collection, tree: Path) -> None:
    (tree / "notes.txt").write_text("")
    seen: list[Progress] = []
    collection.index([tree], progress=seen.append)
    assert [one.done for one in seen] == sorted(one.done for one in seen)
    assert seen[-1] == Progress(13, 13, training=True)


def test_progress_tells_how_many_images_are_in_the_lists(
    collection: Collection, tree: Path
) -> None:
    seen: list[Progress] = []
    report = collection.index([tree], nlist=3, progress=seen.append)
    told = [one.assigned for one in seen if one.training]
    assert told[0] == 0
    assert told == sorted(told)
    assert told[-1] == report.indexed


def test_every_commit_can_be_searched_at_once(collection: Collection, tree: Path) -> None:
    found: list[int] = []
    collection.index(
        [tree],
        policy=FoldPolicy(commit_files=3, commit_seconds=1_000),
        progress=lambda _: found.append(len(collection.query(picture(0)))),
    )
    assert found == sorted(found)
    assert {0, 3, 6, 9} <= set(found)


def test_a_missing_model_is_damage_and_is_named(
    collection: Collection, empty: Path, tree: Path
) -> None:
    (empty / "model.onnx").unlink()
    with pytest.raises(DamagedError, match=r"model\.onnx is missing"):
        collection.index([tree])


GOOD, BAD, FOREIGN, LINK, HIDDEN = "good.png", "bad.jpg", "notes.txt", "link.jpg", ".hidden.png"
layouts = st.dictionaries(
    st.sampled_from(["", "a", "b", "a/c"]),
    st.sets(st.sampled_from([GOOD, BAD, FOREIGN, LINK, HIDDEN])),
)


@settings(max_examples=examples(8))
@given(before=layouts, after=layouts)
def test_every_file_of_any_tree_is_accounted_for(
    tmp_path_factory: pytest.TempPathFactory,
    before: dict[str, set[str]],
    after: dict[str, set[str]],
) -> None:
    top = tmp_path_factory.mktemp("any")
    directory = make_small_collection(top / "collection")
    expected: dict[str, set[str]] = {}
    with Collection.open(directory, device="cpu") as collection:
        for number, layout in enumerate((before, after)):
            expected = {
                folder: expected.get(folder, set()) | names
                for folder, names in {**expected, **layout}.items()
                for names in [layout.get(folder, set())]
            }
            plant(top / "tree", layout, seed=number)
            report = collection.index([top / "tree"], workers=1)
            there = [name for names in expected.values() for name in names]
            assert report.found == len(there)
            assert sum(did(report).values()) == len(there)
            assert report.failed == there.count(BAD) + there.count(LINK)
            assert report.skipped == there.count(FOREIGN)
            assert collection.info().images == there.count(GOOD) + there.count(HIDDEN)
        assert collection.index(workers=1).indexed == 0


def plant(tree: Path, layout: dict[str, set[str]], *, seed: int) -> None:
    """Write the files of `layout`, over those that there are."""
    tree.mkdir(exist_ok=True)
    for folder, names in layout.items():
        (tree / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            path = tree / folder / name
            if name in (GOOD, HIDDEN):
                picture(zlib.crc32(f"{folder}/{name}".encode()), width=20 + seed).save(path)
            elif name == LINK:
                path.unlink(missing_ok=True)
                path.symlink_to("nowhere")
            else:
                path.write_bytes(b"%d" % seed if name == FOREIGN else b"")


def test_a_missing_shard_is_damage_and_is_named(collection: Collection, tmp_path: Path) -> None:
    collection.index(save_pictures(tmp_path / "one", 3))
    shard = max((tmp_path / "empty" / "vectors").iterdir())
    shard.unlink()
    with pytest.raises(DamagedError, match=f"{shard} is missing"):
        collection.index(save_pictures(tmp_path / "more", 3, first=10), nlist=2)


def test_a_file_behind_a_linked_folder_is_one_image_however_it_is_named(
    collection: Collection, tree: Path, tmp_path: Path
) -> None:
    (elsewhere,) = save_pictures(tmp_path / "elsewhere", 1, first=50)
    (tree / "link").symlink_to(elsewhere.parent)
    collection.index(tree)
    linked = tree / "link" / elsewhere.name
    assert did(collection.index(linked)) == {"unchanged": 1}
    assert collection.query(linked, k=1, include_self=True)[0].path == str(linked)
    assert collection.query(linked, k=1)[0].path != str(linked)


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), float("inf")])
def test_a_time_limit_is_a_number_of_seconds(
    collection: Collection, tree: Path, limit: float
) -> None:
    with pytest.raises(SettingError, match="time_limit is"):
        collection.index(tree, time_limit=limit)


def test_a_file_that_vanishes_before_it_is_read_has_not_failed(
    collection: Collection, tree: Path
) -> None:
    class Vanishing(EngineInProcess):
        def ask(self, path: str) -> None:
            if path.endswith("0003.png"):
                os.unlink(path)

    report = collection.index([tree], engine=Vanishing())
    assert did(report) == {"indexed": 11}
    assert report.failures == ()
    assert did(collection.index()) == {"unchanged": 11}
