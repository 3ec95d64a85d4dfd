"""Files that moved, were copied or changed: a content is embedded once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from imgsearch.collection import Collection
from imgsearch.embedding.pipeline import Refused
from tests.support.embedding_here import EngineInProcess, RefusingEngine
from tests.support.outcomes import age, did, files_in, holds, ids_in
from tests.support.pictures import picture, save_pictures


def test_a_renamed_file_keeps_its_id_and_is_not_embedded_again(
    collection: Collection, indexed_tree: Path
) -> None:
    old, new = indexed_tree / "0001.png", indexed_tree / "other" / "name.png"
    id_ = ids_in(collection)[str(old)]
    new.parent.mkdir()
    old.rename(new)
    assert did(collection.index()) == {"moved": 1, "unchanged": 11}
    assert ids_in(collection)[str(new)] == id_
    assert holds(collection, files_in(indexed_tree))
    assert did(collection.index()) == {"unchanged": 12}


def test_a_renamed_folder_takes_its_images_along(
    collection: Collection, indexed_tree: Path
) -> None:
    (indexed_tree / "below").rename(indexed_tree / "a new name")
    assert did(collection.index()) == {"moved": 4, "unchanged": 8}
    assert holds(collection, files_in(indexed_tree))


@pytest.mark.usefixtures("here")
def test_all_images_may_move_at_once(collection: Collection, indexed_tree: Path) -> None:
    for number, path in enumerate(files_in(indexed_tree)):
        path.rename(indexed_tree / f"renamed-{number}.png")
    assert did(collection.index()) == {"moved": 12}
    assert holds(collection, files_in(indexed_tree))
    assert did(collection.index()) == {"unchanged": 12}


@pytest.mark.parametrize("step", [1, -1])
def test_files_that_are_renumbered_are_not_embedded_again(
    collection: Collection, tmp_path: Path, step: int
) -> None:
    folder = tmp_path / "numbered"
    save_pictures(folder, 6, first=10)
    for number, path in enumerate(files_in(folder)):
        path.rename(folder / f"{number + 1}.jpg")
    age(folder)
    collection.index(folder)
    for number in range(6, 0, -1) if step > 0 else range(1, 7):
        (folder / f"{number}.jpg").rename(folder / f"{number + step}.jpg")
    report = collection.index()
    assert (report.indexed, report.copied + report.moved) == (0, 6)
    assert holds(collection, files_in(folder))


def test_two_files_that_swap_their_names_are_not_embedded_again(
    collection: Collection, indexed_tree: Path
) -> None:
    one, other, aside = (indexed_tree / name for name in ("0000.jpg", "0002.jpg", "aside"))
    one.rename(aside)
    other.rename(one)
    aside.rename(other)
    assert did(collection.index()) == {"copied": 2, "unchanged": 10}
    assert holds(collection, files_in(indexed_tree))


def test_a_file_that_was_moved_over_another_replaces_it(
    collection: Collection, indexed_tree: Path
) -> None:
    (indexed_tree / "0000.jpg").replace(indexed_tree / "0002.jpg")
    assert did(collection.index()) == {"moved": 1, "unchanged": 10}
    assert holds(collection, files_in(indexed_tree))


def test_copies_that_are_found_together_are_embedded_once(
    collection: Collection, tree: Path
) -> None:
    for name in ("0000 (copy).jpg", "below/0000.jpg", "another/0000.jpg"):
        (tree / name).parent.mkdir(exist_ok=True)
        shutil.copy(tree / "0000.jpg", tree / name)
    assert did(collection.index(tree)) == {"indexed": 12, "copied": 3}
    assert holds(collection, files_in(tree))


def test_many_copies_are_embedded_once(collection: Collection, tmp_path: Path) -> None:
    (original,) = save_pictures(tmp_path / "many", 1)
    for number in range(199):
        shutil.copy(original, original.with_name(f"copy-{number}.jpg"))
    assert did(collection.index(original.parent)) == {"indexed": 1, "copied": 199}
    assert holds(collection, files_in(original.parent))


def test_a_copy_of_an_image_that_is_there_is_not_embedded(
    collection: Collection, indexed_tree: Path
) -> None:
    shutil.copy(indexed_tree / "0001.png", indexed_tree / "copy.png")
    assert did(collection.index()) == {"copied": 1, "unchanged": 12}
    assert holds(collection, files_in(indexed_tree))


def test_an_original_that_is_deleted_after_it_was_copied_has_moved(
    collection: Collection, indexed_tree: Path
) -> None:
    for name in ("copy.png", "another copy.png"):
        shutil.copy(indexed_tree / "0001.png", indexed_tree / name)
    (indexed_tree / "0001.png").unlink()
    assert did(collection.index()) == {"moved": 1, "copied": 1, "unchanged": 11}
    assert holds(collection, files_in(indexed_tree))


def test_a_file_that_moved_to_another_root_is_found_there_though_only_that_is_indexed(
    collection: Collection, indexed_tree: Path, tmp_path: Path
) -> None:
    save_pictures(tmp_path / "other", 1, first=50)
    (indexed_tree / "0001.png").rename(tmp_path / "other" / "moved.png")
    assert did(collection.index(tmp_path / "other")) == {"indexed": 1, "moved": 1}
    assert holds(collection, files_in(indexed_tree, tmp_path / "other"))
    assert did(collection.index()) == {"unchanged": 13}


@pytest.mark.usefixtures("here")
def test_of_many_copies_one_may_move(collection: Collection, tmp_path: Path) -> None:
    (original,) = save_pictures(tmp_path / "many", 1)
    for number in range(20):
        shutil.copy(original, original.with_name(f"copy-{number:02}.jpg"))
    collection.index(original.parent)
    original.with_name("copy-19.jpg").rename(original.with_name("moved.jpg"))
    report = collection.index()
    assert (report.indexed, report.moved + report.copied, report.unchanged) == (0, 1, 20)
    assert holds(collection, files_in(original.parent))


def test_a_content_that_was_there_before_is_not_embedded_again(
    collection: Collection, indexed_tree: Path
) -> None:
    path = indexed_tree / "0001.png"
    before = path.read_bytes()
    picture(500).save(path)
    assert did(collection.index()) == {"indexed": 1, "unchanged": 11}
    assert holds(collection, files_in(indexed_tree))
    path.write_bytes(before)
    assert did(collection.index()) == {"copied": 1, "unchanged": 11}
    assert holds(collection, files_in(indexed_tree))


def test_a_file_that_only_got_another_time_is_not_embedded_again(
    collection: Collection, indexed_tree: Path
) -> None:
    before = ids_in(collection)
    os.utime(indexed_tree / "0001.png", ns=(1, 1))
    assert did(collection.index()) == {"unchanged": 12}
    assert ids_in(collection) == before


class HashingEngine(EngineInProcess):
    """An engine that notes the files whose content it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.hashed: list[str] = []

    def ask(self, path: str) -> None:
        self.hashed.append(path)


def test_files_just_written_are_hashed_once_more_and_then_left_alone(
    collection: Collection, tree: Path
) -> None:
    engine = HashingEngine()
    for fate in ("indexed", "unchanged"):
        assert did(collection.index(tree, engine=engine)) == {fate: 12}
    assert sorted(engine.hashed) == sorted([*map(str, files_in(tree))] * 2)
    age(tree)
    for _ in range(3):
        assert did(collection.index(engine=engine)) == {"unchanged": 12}
    assert len(engine.hashed) == 3 * 12


def test_a_change_within_the_same_tick_of_the_clock_is_found(
    collection: Collection, tmp_path: Path
) -> None:
    """Same size, same time, other pixels: how a file looks that is written twice in a moment."""
    path = tmp_path / "folder" / "image.bmp"
    path.parent.mkdir()
    picture(1).save(path)
    collection.index(path.parent)
    before = path.stat()
    picture(2).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert did(collection.index()) == {"indexed": 1}
    assert holds(collection, [path])


def test_a_change_that_keeps_the_size_is_found(collection: Collection, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "image.bmp"
    path.parent.mkdir()
    for seed in (1, 2):
        picture(seed).save(path)
        age(path)
        assert did(collection.index(path.parent)) == {"indexed": 1}
        assert holds(collection, [path])


# What cannot be used


def test_each_copy_of_a_damaged_file_has_failed(collection: Collection, tree: Path) -> None:
    damaged = [tree / name for name in ("a.jpg", "b.jpg", "below/c.jpg", "below/d.png")]
    for path in damaged:
        path.write_bytes(b"\xff\xd8\xff not a JPEG")
    age(tree)
    for fate in ("indexed", "unchanged"):
        report = collection.index(tree)
        assert did(report) == {fate: 12, "failed": 4}
        assert {failure.path for failure in report.failures} == set(map(str, damaged))
        assert holds(collection, set(files_in(tree)) - set(damaged))


def test_an_empty_file_has_failed_only_if_it_is_named_like_an_image(
    collection: Collection, tree: Path
) -> None:
    for name in ("a.jpg", "a.txt", "b.jpg", "b.txt"):
        (tree / name).write_bytes(b"")
    report = collection.index(tree)
    assert did(report) == {"indexed": 12, "failed": 2, "skipped": 2}
    assert [Path(failure.path).name for failure in report.failures] == ["a.jpg", "b.jpg"]


def test_text_that_begins_like_an_image_is_no_image_by_its_name_only(
    collection: Collection, tree: Path
) -> None:
    for name in ("a.txt", "b.bmp", "c.txt", "d.bmp"):
        (tree / name).write_bytes(b"BMW, Audi, Opel")
    report = collection.index(tree)
    assert did(report) == {"indexed": 12, "failed": 2, "skipped": 2}
    assert {Path(failure.path).name for failure in report.failures} == {"b.bmp", "d.bmp"}


@pytest.mark.usefixtures("here")
def test_an_image_that_moved_leaves_the_damaged_file_in_its_place(
    collection: Collection, indexed_tree: Path
) -> None:
    (indexed_tree / "0001.png").rename(indexed_tree / "moved.png")
    (indexed_tree / "0001.png").write_bytes(b"")
    report = collection.index()
    assert did(report) == {"copied": 1, "failed": 1, "unchanged": 11}
    assert holds(collection, set(files_in(indexed_tree)) - {indexed_tree / "0001.png"})


def test_if_a_file_cannot_be_read_by_chance_its_copies_are_embedded(
    collection: Collection, tree: Path
) -> None:
    for name in ("copy.jpg", "another.jpg"):
        shutil.copy(tree / "0000.jpg", tree / name)
    refused = Refused("cannot be read: Input/output error", transient=True)
    report = collection.index(tree, engine=RefusingEngine("0000.jpg", refused))
    assert report.failed == 1
    assert report.indexed + report.copied == 13
    assert holds(collection, set(files_in(tree)) - {tree / "0000.jpg"})
    assert did(collection.index()) == {"copied": 1, "unchanged": 13}
    assert holds(collection, files_in(tree))


# While the run goes on


class ActingEngine(EngineInProcess):
    """An engine that takes one file after another, and does something after one of them."""

    def __init__(self, after: str, act: Callable[[], object]) -> None:
        super().__init__(ahead=1)
        self._after, self._act = after, act

    def act(self, path: str) -> None:
        if path.endswith(self._after):
            self._act()


def test_an_image_that_was_replaced_and_then_found_elsewhere_is_not_lost(
    collection: Collection, indexed_tree: Path
) -> None:
    path = indexed_tree / "0000.jpg"
    content = path.read_bytes()
    picture(500).save(path)

    def move() -> None:
        path.unlink()
        (indexed_tree / "below" / "new.jpg").write_bytes(content)

    engine = ActingEngine("/0000.jpg", move)
    assert did(collection.index(engine=engine)) == {"indexed": 1, "copied": 1, "unchanged": 11}
    assert str(indexed_tree / "below" / "new.jpg") in ids_in(collection)
    collection.index()
    assert holds(collection, files_in(indexed_tree))


def test_a_file_that_is_renamed_behind_the_back_of_the_run_is_not_lost(
    collection: Collection, indexed_tree: Path
) -> None:
    age(indexed_tree / "0000.jpg")
    old, new = indexed_tree / "0001.png", indexed_tree / "below" / "new.png"
    engine = ActingEngine("/0000.jpg", lambda: old.rename(new))
    assert did(collection.index(engine=engine))["moved"] == 1
    assert str(new) in ids_in(collection)
    collection.index()
    assert holds(collection, files_in(indexed_tree))
