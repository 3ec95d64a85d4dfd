"""Indexing: what is found, embedded, left alone, refused, interrupted and resumed."""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgsearch import updating
from imgsearch.collection import Collection
from imgsearch.embedding.pipeline import Outcome, Refused, embed_files
from imgsearch.errors import BusyError, DamagedError, InputError, SettingError
from imgsearch.reports import Failure, IndexReport, Progress
from imgsearch.storage.files import exclusive
from tests.pictures import picture, save_pictures
from tests.small_network import make_small_collection


def counts(report: IndexReport) -> tuple[int, int, int, int, int]:
    """Return found, indexed, unchanged, failed, skipped; the first is the sum of the others."""
    parts = (report.indexed, report.unchanged, report.failed, report.skipped)
    assert report.found == sum(parts)
    assert report.failed == len(report.failures)
    return report.found, *parts


def paths_in(collection: Collection) -> list[str]:
    """Return the path of each image, ordered by id."""
    hits = collection.query(picture(0), k=100_000, exact=True)
    return [hit.path for hit in sorted(hits, key=lambda hit: hit.id)]


def test_each_image_is_found_first_by_itself(collection: Collection, tree: Path) -> None:
    assert counts(collection.index([tree])) == (12, 12, 0, 0, 0)
    for path in tree.rglob("*.*g"):
        best = collection.query(path, k=1)[0]
        assert (best.path, best.distance, best.similarity) == (str(path), 0.0, 1.0)


def test_a_second_run_finds_everything_unchanged(collection: Collection, tree: Path) -> None:
    collection.index([tree])
    before = collection.info()
    assert counts(collection.index([tree])) == (12, 0, 12, 0, 0)
    assert collection.info() == before


def test_a_single_path_need_not_be_in_a_list(collection: Collection, tree: Path) -> None:
    assert counts(collection.index(str(tree))) == (12, 12, 0, 0, 0)
    assert counts(collection.index(tree / "0000.jpg")) == (1, 0, 1, 0, 0)


def test_without_a_path_all_roots_are_brought_up_to_date(
    collection: Collection, tree: Path, tmp_path: Path
) -> None:
    (single,) = save_pictures(tmp_path / "elsewhere", 1, first=50)
    save_pictures(tmp_path / "elsewhere", 2, first=60)
    collection.index([tree, single])
    save_pictures(tree, 2, first=20)
    assert counts(collection.index()) == (15, 2, 13, 0, 0)


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
    (old,) = collection.query(path, k=1)
    before = collection.embed([path])[0]
    picture(500, width=60).save(path)
    assert counts(collection.index([tree])) == (12, 1, 11, 0, 0)
    (new,) = collection.query(path, k=1)
    assert (new.path, new.distance) == (str(path), 0)
    assert new.id > old.id
    for exact in (False, True):
        hits = collection.query(before, k=100, exact=exact)
        assert len(hits) == 12
        assert old.id not in {hit.id for hit in hits}
        assert hits[0].distance > 0.01
    assert collection.info().images == 12


def test_a_file_that_only_got_another_time_is_embedded_again(
    collection: Collection, tree: Path
) -> None:
    collection.index([tree])
    os.utime(tree / "0001.png", ns=(1, 1))
    assert counts(collection.index([tree])) == (12, 1, 11, 0, 0)
    assert len(paths_in(collection)) == 12


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
    assert counts(collection.index([tree])) == (13, 0, 12, 1, 0)
    picture(77).save(bad)
    assert counts(collection.index([tree])) == (13, 1, 12, 0, 0)
    assert collection.info().failed == 0


def test_an_image_that_turned_bad_is_found_no_more(collection: Collection, tree: Path) -> None:
    collection.index([tree], nlist=2)
    (tree / "0001.png").write_bytes(b"")
    assert counts(collection.index([tree])) == (12, 0, 11, 1, 0)
    assert str(tree / "0001.png") not in paths_in(collection)
    assert len(collection.query(picture(0), k=100)) == 11


def test_a_collection_whose_images_all_turned_bad_finds_nothing(
    collection: Collection, tree: Path
) -> None:
    collection.index([tree], nlist=2)
    for path in tree.rglob("*.*g"):
        path.write_bytes(b"")
    assert counts(collection.index([tree])) == (12, 0, 0, 12, 0)
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
    assert counts(report) == (13, 12, 0, 1, 0)
    assert report.failures == (
        Failure(str(tree / "broken.jpg"), "is gone, or a link that leads nowhere"),
    )


def refusing(first: Refused, name: str) -> Callable[..., Generator[Outcome, None, None]]:
    """Return `embed_files`, but for one file that is refused."""

    def embed(paths: Iterable[str], **settings: Any) -> Generator[Outcome, None, None]:
        asked: list[str] = []

        def listen() -> Iterable[str]:
            for path in paths:
                asked.append(path)
                yield path

        for number, outcome in enumerate(embed_files(listen(), **settings)):
            yield first if asked[number].endswith(name) else outcome

    return embed


def test_what_failed_by_chance_is_tried_again_and_its_image_is_kept(
    collection: Collection, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection.index([tree])
    (old,) = collection.query(tree / "0001.png", k=1)
    picture(500).save(tree / "0001.png")
    with monkeypatch.context() as context:
        refused = Refused("cannot be read: Input/output error", transient=True)
        context.setattr(updating, "embed_files", refusing(refused, "0001.png"))
        assert counts(collection.index([tree])) == (12, 0, 11, 1, 0)
        assert old.id in {hit.id for hit in collection.query(picture(0), k=100)}
        assert collection.info().failed == 0
    assert counts(collection.index([tree])) == (12, 1, 11, 0, 0)


def test_a_folder_that_cannot_be_listed_is_reported_and_loses_nothing(
    collection: Collection, tree: Path
) -> None:
    collection.index([tree, tree / "below"])
    shutil.rmtree(tree)
    report = collection.index()
    assert counts(report) == (0, 0, 0, 0, 0)
    assert report.unreadable == (Failure(str(tree), "No such file or directory"),)
    assert len(paths_in(collection)) == 12


def test_the_collection_itself_is_left_out(tmp_path: Path) -> None:
    save_pictures(tmp_path / "photos", 3)
    directory = make_small_collection(tmp_path / "photos" / "collection")
    save_pictures(directory / "vectors" / "not_a_photo", 2)
    with Collection.open(directory, device="cpu") as collection:
        assert counts(collection.index([tmp_path / "photos"])) == (3, 3, 0, 0, 0)


def test_a_folder_given_twice_is_listed_once(collection: Collection, tree: Path) -> None:
    (tree.parent / "link").symlink_to(tree)
    paths: list[str | Path] = [tree, tree, f"{tree}/", tree.parent / "link", tree / "below" / ".."]
    assert counts(collection.index(paths)) == (12, 12, 0, 0, 0)
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
    everything = sorted(str(path) for path in tree.rglob("*.*g"))
    assert sorted(paths_in(collection)) == everything
    assert counts(collection.index()) == (12, 0, 12, 0, 0)
    for path in tree.rglob("*.*g"):
        os.utime(path, ns=(1, 1))
    assert counts(collection.index()) == (12, 12, 0, 0, 0)
    assert sorted(paths_in(collection)) == everything


def test_a_file_given_by_name_does_not_bring_its_neighbours_in(
    collection: Collection, tree: Path
) -> None:
    assert counts(collection.index([tree / "0000.jpg"])) == (1, 1, 0, 0, 0)
    assert paths_in(collection) == [str(tree / "0000.jpg")]
    (tree / "0000.jpg").unlink()
    assert counts(collection.index()) == (1, 0, 0, 1, 0)


def test_one_run_at_a_time(collection: Collection, empty: Path, tree: Path) -> None:
    with exclusive(empty), pytest.raises(BusyError):
        collection.index([tree])


@pytest.mark.parametrize("setting", ["nlist", "workers", "time_limit"])
@pytest.mark.parametrize("value", [0, -1])
def test_numbers_that_make_no_sense_are_refused(
    collection: Collection, tree: Path, setting: str, value: int
) -> None:
    with pytest.raises(SettingError, match=f"{setting} is {value}; it must be more than 0"):
        collection.index([tree], **{setting: value})  # type: ignore[arg-type]


def test_progress_counts_up_to_the_number_of_files(collection: Collection, tree: Path) -> None:
    (tree / "notes.txt").write_text("")
    seen: list[Progress] = []
    collection.index([tree], progress=seen.append)
    assert [one.done for one in seen] == sorted(one.done for one in seen)
    assert seen[-1] == Progress(13, 13, training=True)


def test_every_commit_can_be_searched_at_once(
    collection: Collection, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(updating, "COMMIT_IMAGES", 3)
    found: list[int] = []
    collection.index([tree], progress=lambda _: found.append(len(collection.query(picture(0)))))
    assert found == sorted(found)
    assert {0, 3, 6, 9} <= set(found)


def test_a_missing_model_is_damage_and_is_named(
    collection: Collection, empty: Path, tree: Path
) -> None:
    (empty / "model.onnx").unlink()
    with pytest.raises(DamagedError, match=r"model\.onnx cannot be read"):
        collection.index([tree])


GOOD, BAD, FOREIGN, LINK, HIDDEN = "good.png", "bad.jpg", "notes.txt", "link.jpg", ".hidden.png"
layouts = st.dictionaries(
    st.sampled_from(["", "a", "b", "a/c"]),
    st.sets(st.sampled_from([GOOD, BAD, FOREIGN, LINK, HIDDEN])),
)


@settings(max_examples=8)
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
            assert counts(report)[0] == len(there)
            assert report.indexed + report.unchanged == there.count(GOOD) + there.count(HIDDEN)
            assert report.failed == there.count(BAD) + there.count(LINK)
            assert report.skipped == there.count(FOREIGN)
            assert collection.info().images == report.indexed + report.unchanged
        assert counts(collection.index(workers=1))[1] == 0


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
    (shard,) = (tmp_path / "empty" / "vectors").iterdir()
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
    assert counts(collection.index(linked)) == (1, 0, 1, 0, 0)
    assert collection.query(linked, k=1)[0].path == str(linked)
    assert collection.query(linked, k=1, exclude_self=True)[0].path != str(linked)


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), float("inf")])
def test_a_time_limit_is_a_number_of_seconds(
    collection: Collection, tree: Path, limit: float
) -> None:
    with pytest.raises(SettingError, match="time_limit is"):
        collection.index(tree, time_limit=limit)
