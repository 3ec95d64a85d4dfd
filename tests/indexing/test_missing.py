"""Files that are gone leave the answers, unless a drive may be unplugged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from imgsearch.collection import Collection
from imgsearch.errors import GoneError
from imgsearch.indexing.report import Failure, Progress
from tests.support.outcomes import age, did, files_in, holds, ids_in, refused
from tests.support.pictures import picture, save_pictures

pytestmark = pytest.mark.usefixtures("here")


def test_a_file_that_is_gone_is_found_no_more(collection: Collection, indexed_tree: Path) -> None:
    (indexed_tree / "0001.png").unlink()
    assert did(collection.index()) == {"unchanged": 11, "removed": 1}
    assert holds(collection, files_in(indexed_tree))
    assert did(collection.index()) == {"unchanged": 11}


def test_a_folder_that_is_gone_is_found_no_more(collection: Collection, indexed_tree: Path) -> None:
    shutil.rmtree(indexed_tree / "below")
    assert did(collection.index()) == {"unchanged": 8, "removed": 4}
    assert holds(collection, files_in(indexed_tree))


def test_a_folder_whose_files_are_gone_is_no_lost_root(
    collection: Collection, indexed_tree: Path
) -> None:
    for path in files_in(indexed_tree / "below"):
        path.unlink()
    assert did(collection.index()) == {"unchanged": 8, "removed": 4}
    assert holds(collection, files_in(indexed_tree))


def test_a_root_with_nothing_left_but_other_files_keeps_its_images(
    collection: Collection, indexed_tree: Path, other_tree: Path
) -> None:
    for path in files_in(indexed_tree):
        path.unlink()
    (indexed_tree / ".DS_Store").write_bytes(b"of whoever looked at the mount point")
    with pytest.raises(
        GoneError, match="no longer holds any of its images: its 12 images are kept"
    ):
        collection.index()
    assert len(ids_in(collection)) == 12 + len(files_in(other_tree))
    assert collection.index(prune=True).removed == 12
    assert holds(collection, files_in(other_tree))


def test_failed_files_that_are_gone_are_forgotten(
    collection: Collection, indexed_tree: Path
) -> None:
    for name in ("bad.jpg", "below/bad.jpg", "notes.txt"):
        (indexed_tree / name).write_bytes(b"bad")
    assert did(collection.index()) == {"unchanged": 12, "failed": 2, "skipped": 1}
    for name in ("bad.jpg", "below/bad.jpg", "notes.txt"):
        (indexed_tree / name).unlink()
    assert did(collection.index()) == {"unchanged": 12}
    assert (collection.info().failed, collection.info().skipped) == (0, 0)


def test_what_another_root_lost_is_left_alone(
    collection: Collection, indexed_tree: Path, other_tree: Path
) -> None:
    (other_tree / "0050.jpg").unlink()
    (indexed_tree / "0001.png").unlink()
    assert did(collection.index(indexed_tree)) == {"unchanged": 11, "removed": 1}
    assert str(other_tree / "0050.jpg") in ids_in(collection)
    assert did(collection.index()) == {"unchanged": 30, "removed": 1}
    assert holds(collection, files_in(indexed_tree, other_tree))


def test_what_is_hidden_from_now_on_is_gone(collection: Collection, indexed_tree: Path) -> None:
    (indexed_tree / "below").rename(indexed_tree / ".below")
    assert did(collection.index()) == {"unchanged": 8, "removed": 4}
    assert holds(collection, sorted(indexed_tree.glob("*g")))


def test_a_folder_in_the_place_of_a_file_and_the_reverse(
    collection: Collection, indexed_tree: Path
) -> None:
    (indexed_tree / "0001.png").unlink()
    (indexed_tree / "0001.png").mkdir()
    shutil.rmtree(indexed_tree / "below")
    picture(70).save(indexed_tree / "below", "png")
    assert did(collection.index()) == {"indexed": 1, "unchanged": 7, "removed": 5}
    assert len(ids_in(collection)) == 8


def test_a_file_that_was_given_by_name_is_gone_like_others(
    collection: Collection, indexed_tree: Path, tmp_path: Path
) -> None:
    one, another = save_pictures(tmp_path / "single", 2, first=50)
    save_pictures(tmp_path / "single", 1, first=60)
    collection.index([one, another])
    one.unlink()
    report = collection.index()
    assert did(report) == {"unchanged": 13, "removed": 1}
    assert report.failures == ()
    assert holds(collection, [*files_in(indexed_tree), another])
    assert did(collection.index()) == {"unchanged": 13}


def test_a_folder_that_files_were_given_of_before_it_was_covered_may_go(
    collection: Collection, indexed_tree: Path, other_tree: Path
) -> None:
    single = indexed_tree.parent / "above" / "single"
    (path,) = save_pictures(single, 1, first=80)
    save_pictures(single.parent, 3, first=90)
    collection.index(path)
    age(single.parent)
    collection.index(single.parent)
    shutil.rmtree(single)
    assert did(collection.index()) == {"unchanged": 35, "removed": 1}
    assert holds(collection, files_in(indexed_tree, other_tree, single.parent))


# Not believed


def test_half_of_all_images_gone_at_once_are_kept_and_all_else_is_done(
    collection: Collection, indexed_tree: Path
) -> None:
    for path in [*files_in(indexed_tree)[:6], indexed_tree / "below" / "0008.jpg"]:
        path.unlink()
    (new,) = save_pictures(indexed_tree, 1, first=50)
    (indexed_tree / "0007.png").rename(indexed_tree / "moved.png")
    picture(70).save(indexed_tree / "0006.jpg")
    kept = set(ids_in(collection)) - {str(indexed_tree / "0007.png")}
    why = f"7 of 13 images disappeared at once, such as those in {indexed_tree}: they are kept"
    assert did(refused(collection, why=why)) == {"indexed": 2, "moved": 1, "unchanged": 3}
    assert did(refused(collection, why=why)) == {"unchanged": 6}  # again: it was no one-time grace
    assert set(ids_in(collection)) == kept | {str(new), str(indexed_tree / "moved.png")}
    assert did(collection.index(prune=True)) == {"unchanged": 6, "removed": 7}
    assert holds(collection, files_in(indexed_tree))


def test_an_emptied_root_keeps_its_images(
    collection: Collection, indexed_tree: Path, other_tree: Path
) -> None:
    shutil.rmtree(indexed_tree)
    indexed_tree.mkdir()
    (new,) = save_pictures(other_tree, 1, first=90)
    report = refused(collection, why=f"{indexed_tree} is empty: its 12 images are kept")
    assert did(report) == {"indexed": 1, "unchanged": 20}
    assert str(new) in ids_in(collection)
    assert collection.info().images == 33
    assert did(collection.index(prune=True)) == {"unchanged": 21, "removed": 12}
    assert holds(collection, files_in(other_tree))
    assert str(indexed_tree) in collection.info().roots


def test_a_missing_root_keeps_its_images_until_it_is_pruned(
    collection: Collection, indexed_tree: Path, other_tree: Path
) -> None:
    shutil.rmtree(indexed_tree)
    report = refused(collection, why=f"{indexed_tree} is missing: its 12 images are kept")
    assert did(report) == {"unchanged": 20}
    assert report.unreadable == (Failure(str(indexed_tree), "No such file or directory"),)
    assert collection.info().images == 32
    assert did(collection.index(other_tree)) == {"unchanged": 20}
    assert did(collection.index(prune=True)) == {"unchanged": 20, "removed": 12}
    assert collection.info().roots == (str(other_tree),)
    assert did(collection.index()) == {"unchanged": 20}
    assert holds(collection, files_in(other_tree))


def test_a_root_that_is_there_again_is_as_it_was(
    collection: Collection, indexed_tree: Path, other_tree: Path
) -> None:
    before = ids_in(collection)
    indexed_tree.rename(indexed_tree.with_name("away"))
    refused(collection, why="is missing")
    assert ids_in(collection) == before
    indexed_tree.with_name("away").rename(indexed_tree)
    assert did(collection.index()) == {"unchanged": 32}
    assert ids_in(collection) == before
    assert holds(collection, files_in(indexed_tree, other_tree))


def test_several_reasons_are_all_given(
    collection: Collection, indexed_tree: Path, other_tree: Path
) -> None:
    shutil.rmtree(indexed_tree)
    shutil.rmtree(other_tree)
    other_tree.mkdir()
    with pytest.raises(GoneError) as caught:
        collection.index()
    assert f"{other_tree} is empty: its 20 images are kept; " in str(caught.value)
    assert f"{indexed_tree} is missing: its 12 images are kept" in str(caught.value)
    assert did(collection.index(prune=True)) == {"removed": 32}
    assert holds(collection, [])


def test_a_root_in_a_missing_root_is_kept_and_pruned_with_it(
    collection: Collection, indexed_tree: Path, other_tree: Path
) -> None:
    collection.index(indexed_tree.parent / "other")
    save_pictures(indexed_tree / "below" / "own", 2, first=30)
    collection.index(indexed_tree / "below" / "own")
    collection.remove(indexed_tree / "below")
    collection.index(indexed_tree / "below" / "own")
    assert str(indexed_tree / "below" / "own") in collection.info().roots
    shutil.rmtree(indexed_tree)
    refused(collection, why="is missing")
    assert collection.info().images == 30
    assert did(collection.index(prune=True)) == {"unchanged": 20, "removed": 10}
    assert collection.info().roots == (str(other_tree),)


def test_pruning_one_root_leaves_another_missing_one_alone(
    collection: Collection, indexed_tree: Path, other_tree: Path
) -> None:
    shutil.rmtree(other_tree)
    (indexed_tree / "0001.png").unlink()
    assert did(collection.index(indexed_tree, prune=True)) == {"unchanged": 11, "removed": 1}
    assert collection.info().images == 31
    assert set(collection.info().roots) == {str(indexed_tree), str(other_tree)}


def test_the_folder_of_files_given_by_name_may_be_unplugged_too(
    collection: Collection, indexed_tree: Path, tmp_path: Path
) -> None:
    single = save_pictures(tmp_path / "single", 2, first=50)
    collection.index(single)
    shutil.rmtree(tmp_path / "single")
    refused(collection, why=f"{tmp_path / 'single'} is missing: its 2 images are kept")
    report = collection.index(prune=True)
    assert did(report) == {"unchanged": 12, "removed": 2}
    assert collection.info().roots == (str(indexed_tree),)


def test_a_copy_of_what_a_missing_root_holds_leaves_that_where_it_is(
    collection: Collection, indexed_tree: Path, other_tree: Path
) -> None:
    shutil.copy(indexed_tree / "0001.png", other_tree / "copy.png")
    indexed_tree.rename(indexed_tree.with_name("away"))
    assert did(refused(collection, why="is missing")) == {"copied": 1, "unchanged": 20}
    assert str(indexed_tree / "0001.png") in ids_in(collection)
    indexed_tree.with_name("away").rename(indexed_tree)
    assert did(collection.index()) == {"unchanged": 33}
    assert holds(collection, files_in(indexed_tree, other_tree))


def test_an_interrupted_run_drops_nothing(collection: Collection, indexed_tree: Path) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.done > 8:
            raise KeyboardInterrupt

    before = ids_in(collection)
    (indexed_tree / "0000.jpg").unlink()
    (indexed_tree / "0001.png").rename(indexed_tree / "0001-moved.png")
    shutil.rmtree(indexed_tree / "below")
    save_pictures(indexed_tree, 4, first=40)
    with pytest.raises(KeyboardInterrupt):
        collection.index(progress=interrupt)
    now = ids_in(collection)
    assert set(before.values()) <= set(now.values())
    assert collection.index().removed == 5
    assert holds(collection, files_in(indexed_tree))
