"""What cannot be read, or is behind a link to nowhere, loses nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from imgsearch.collection import Collection
from imgsearch.indexing.report import Failure
from tests.support.outcomes import age, did, files_in, holds, ids_in, refused
from tests.support.pictures import save_pictures
from tests.support.privileges import ordinary_folder, ordinary_user
from tests.support.small_network import make_small_collection

pytestmark = pytest.mark.usefixtures("here")


# What cannot be read


def as_ordinary_user(play: Callable[[Collection, Path], None]) -> None:
    """Play with a collection of a tree of 12 images, both of an ordinary user."""
    with ordinary_folder() as folder:
        folder.chmod(0o777)
        with ordinary_user():
            tree = folder / "tree"
            save_pictures(tree, 8)
            save_pictures(tree / "below", 3, first=8)
            save_pictures(tree / "below" / "deep", 1, first=11)
            age(tree)
            directory = make_small_collection(folder / "collection")
            with Collection.open(directory, device="cpu") as collection:
                assert did(collection.index(tree)) == {"indexed": 12}
                try:
                    play(collection, tree)
                finally:
                    for path in (tree, tree / "below"):
                        path.chmod(0o755)


@pytest.mark.parametrize("prune", [False, True])
def test_a_folder_that_cannot_be_listed_loses_nothing(*, prune: bool) -> None:
    def play(collection: Collection, tree: Path) -> None:
        before = ids_in(collection)
        (tree / "0000.jpg").unlink()
        (tree / "below").chmod(0)
        report = collection.index(prune=prune)
        assert did(report) == {"unchanged": 7, "removed": 1}
        assert report.unreadable == (Failure(str(tree / "below"), "Permission denied"),)
        (tree / "below").chmod(0o755)
        assert did(collection.index()) == {"unchanged": 11}
        assert set(ids_in(collection).values()) == set(before.values()) - {1}

    as_ordinary_user(play)


@pytest.mark.parametrize("prune", [False, True])
def test_a_folder_whose_files_cannot_be_looked_at_loses_nothing(*, prune: bool) -> None:
    def play(collection: Collection, tree: Path) -> None:
        (tree / "below").chmod(0o444)  # names can be read, and nothing else
        report = collection.index(prune=prune)
        assert did(report) == {"unchanged": 8, "failed": 3}
        assert {Path(failure.path).parent for failure in report.failures} == {tree / "below"}
        assert report.unreadable == (Failure(str(tree / "below" / "deep"), "Permission denied"),)
        (tree / "below").chmod(0o755)
        assert did(collection.index()) == {"unchanged": 12}
        assert holds(collection, files_in(tree))

    as_ordinary_user(play)


@pytest.mark.parametrize("mode", [0, 0o444])
@pytest.mark.parametrize("prune", [False, True])
def test_a_root_that_cannot_be_read_loses_nothing(mode: int, *, prune: bool) -> None:
    def play(collection: Collection, tree: Path) -> None:
        save_pictures(tree.parent / "other", 1, first=50)
        tree.chmod(mode)
        collection.index(tree.parent / "other")
        collection.index(prune=prune)
        tree.chmod(0o755)
        age(tree.parent / "other")
        assert did(collection.index()) == {"unchanged": 13}
        assert holds(collection, files_in(tree, tree.parent / "other"))

    as_ordinary_user(play)


@pytest.mark.parametrize("mode", [0, 0o444])
def test_a_copy_of_a_file_that_cannot_be_seen_has_not_moved(mode: int) -> None:
    def play(collection: Collection, tree: Path) -> None:
        shutil.copy(tree / "below" / "0008.jpg", tree / "copy.jpg")
        (tree / "below").chmod(mode)
        report = collection.index()
        assert (report.copied, report.moved, report.removed) == (1, 0, 0)
        (tree / "below").chmod(0o755)
        assert did(collection.index()) == {"unchanged": 13}
        assert holds(collection, files_in(tree))

    as_ordinary_user(play)


# Links


@pytest.fixture
def linked(collection: Collection, tmp_path: Path) -> Path:
    """A tree of 8 images with a link to a folder `drive` with 4 more, indexed."""
    tree = tmp_path / "linking"
    save_pictures(tree, 8)
    save_pictures(tmp_path / "media" / "drive", 3, first=8)
    save_pictures(tmp_path / "media" / "drive" / "deep", 1, first=11)
    (tree / "link").symlink_to(tmp_path / "media" / "drive")
    age(tree, tmp_path / "media")
    assert did(collection.index(tree)) == {"indexed": 12}
    return tree


@pytest.mark.parametrize("left", ["nothing", "an empty folder"])
def test_a_link_to_a_drive_that_is_not_there_keeps_its_images(
    collection: Collection, linked: Path, left: str
) -> None:
    drive, away = linked.parent / "media" / "drive", linked.parent / "away"
    before = ids_in(collection)
    shutil.copy(drive / "0008.jpg", linked / "copy.jpg")
    age(linked / "copy.jpg")
    drive.rename(away)
    if left == "nothing":
        report = collection.index()
        assert did(report) == {"copied": 1, "unchanged": 8, "failed": 1}
        assert report.failures[0].path == str(linked / "link")
    else:
        drive.mkdir()
        why = f"{linked / 'link'} leads to an empty folder: its 4 images are kept"
        assert did(refused(collection, why=why)) == {"copied": 1, "unchanged": 8}
    assert ids_in(collection).items() >= before.items()
    drive.rmdir() if left != "nothing" else None
    away.rename(drive)
    assert did(collection.index()) == {"unchanged": 13}
    assert ids_in(collection).items() >= before.items()


def test_a_link_that_is_gone_takes_its_images_along(collection: Collection, linked: Path) -> None:
    (linked / "link").unlink()
    assert did(collection.index()) == {"unchanged": 8, "removed": 4}
    assert holds(collection, files_in(linked))


def test_a_linked_folder_that_becomes_a_root_is_indexed_by_its_own_path(
    collection: Collection, linked: Path
) -> None:
    drive = linked.parent / "media" / "drive"
    save_pictures(drive, 12, first=30)
    age(drive)
    assert did(collection.index()) == {"indexed": 12, "unchanged": 12}
    assert did(collection.index(drive)) == {"copied": 16}
    report = collection.index()  # most images, and none of them is gone
    assert did(report) == {"unchanged": 24, "removed": 16}
    assert holds(collection, [*linked.glob("*g"), *files_in(drive)])


@pytest.mark.parametrize("left", ["nothing", "an empty folder"])
def test_a_link_to_a_file_on_a_drive_that_is_not_there_keeps_its_image(
    collection: Collection, indexed_tree: Path, left: str
) -> None:
    drive = indexed_tree.parent / "drive"
    (target,) = save_pictures(drive, 1, first=50)
    (indexed_tree / "link.jpg").symlink_to(target)
    age(drive)
    assert did(collection.index()) == {"indexed": 1, "unchanged": 12}
    drive.rename(drive.with_name("away"))
    if left != "nothing":
        drive.mkdir()
    for _ in range(2):
        assert did(collection.index()) == {"failed": 1, "unchanged": 12}
        assert str(indexed_tree / "link.jpg") in ids_in(collection)
    drive.rmdir() if left != "nothing" else None
    drive.with_name("away").rename(drive)
    assert did(collection.index()) == {"unchanged": 13}


def test_a_link_to_a_file_that_was_deleted_loses_its_image(
    collection: Collection, indexed_tree: Path
) -> None:
    target, _ = save_pictures(indexed_tree.parent / "elsewhere", 2, first=50)
    (indexed_tree / "link.jpg").symlink_to(target)
    assert did(collection.index()) == {"indexed": 1, "unchanged": 12}
    target.unlink()
    assert did(collection.index()) == {"failed": 1, "unchanged": 12, "removed": 1}
    assert holds(collection, files_in(indexed_tree))


@pytest.mark.parametrize("instead", ["link", "file"])
def test_a_root_in_whose_place_is_something_else_loses_nothing(
    collection: Collection, indexed_tree: Path, other_tree: Path, instead: str
) -> None:
    indexed_tree.rename(indexed_tree.with_name("away"))
    if instead == "link":
        indexed_tree.symlink_to(indexed_tree.parent / "unplugged" / "tree")
    else:
        indexed_tree.write_bytes(b"")
    for prune in (False, True):
        report = collection.index(prune=prune)
        assert did(report) == {"unchanged": 20}
        assert report.unreadable[0].path == str(indexed_tree)
        assert collection.info().images == 32
    assert collection.remove(indexed_tree) == 12
    assert collection.info().roots == (str(other_tree),)
