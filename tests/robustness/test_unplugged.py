"""Images on a drive that is not plugged in are kept."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from imgsearch.collection import Collection
from imgsearch.files import mounts
from tests.support.drives import Drive, with_drives
from tests.support.embedding_here import EngineInProcess
from tests.support.injection import indexing_with
from tests.support.outcomes import age, did, files_in, holds, ids_in, refused
from tests.support.pictures import save_pictures
from tests.support.small_network import make_small_collection

pytestmark = pytest.mark.usefixtures("here")


def begin(folder: Path) -> tuple[Collection, Path, Drive]:
    """Index a tree of 13 images, and of 4 more on a drive that is mounted in it."""
    tree = folder / "tree"
    save_pictures(tree, 13)
    drive = Drive(tree / "year" / "my drive", folder / "kept")
    drive.plug()
    save_pictures(tree / "year" / "my drive", 3, first=20)
    save_pictures(tree / "year" / "my drive" / "deep", 1, first=24)
    age(tree)
    collection = Collection.open(make_small_collection(folder / "collection"), device="cpu")
    assert did(collection.index(tree)) == {"indexed": 17}
    return collection, tree, drive


def unplug_and_plug(folder: Path) -> None:
    with indexing_with(engine=EngineInProcess()):
        collection, tree, drive = begin(folder)
        before = ids_in(collection)
        drive.unplug()
        for _ in range(3):  # a refusal is not forgotten
            why = f"{tree / 'year' / 'my drive'} is no longer mounted: its 4 images are kept"
            assert did(refused(collection, why=why)) == {"unchanged": 13}
            assert ids_in(collection) == before
        drive.plug()
        assert did(collection.index()) == {"unchanged": 17}
        assert holds(collection, files_in(tree))
        drive.unplug()
        assert did(collection.index(prune=True)) == {"unchanged": 13, "removed": 4}
        assert holds(collection, files_in(tree))
        assert did(collection.index()) == {"unchanged": 13}
        collection.close()


def unplug_part(folder: Path) -> None:
    with indexing_with(engine=EngineInProcess()):
        collection, tree, drive = begin(folder)
        drive.unplug()
        (tree / "year" / "my drive" / "deep").mkdir()
        (new,) = save_pictures(tree / "year" / "my drive" / "deep", 1, first=60)
        age(tree)
        refused(collection, tree / "year", why="is no longer mounted: its 4 images are kept")
        refused(collection, new.parent, why="is no longer mounted: its 1 images are kept")
        refused(collection, why="is no longer mounted: its 4 images are kept")
        assert collection.info().images == 18
        (tree / "0000.jpg").unlink()
        report = refused(collection, why="is no longer mounted")
        assert did(report) == {"unchanged": 13, "removed": 1}
        collection.close()


def copy_meanwhile(folder: Path) -> None:
    with indexing_with(engine=EngineInProcess()):
        collection, tree, drive = begin(folder)
        before = ids_in(collection)
        shutil.copy(tree / "year" / "my drive" / "0020.jpg", tree / "copy.jpg")
        age(tree)
        drive.unplug()
        assert did(refused(collection, why="no longer mounted"))["copied"] == 1
        assert ids_in(collection).items() > before.items()
        drive.plug()
        assert did(collection.index()) == {"unchanged": 18}
        assert holds(collection, files_in(tree))
        collection.close()


def move_to_the_disk(folder: Path) -> None:
    """The content of the drive is on the disk now, at the same paths: nothing is gone."""
    with indexing_with(engine=EngineInProcess()):
        collection, tree, drive = begin(folder)
        before = ids_in(collection)
        shutil.copytree(tree / "year" / "my drive", folder / "copy")
        drive.unplug()
        shutil.copytree(folder / "copy", tree / "year" / "my drive", dirs_exist_ok=True)
        assert did(collection.index()) == {"unchanged": 17}
        assert ids_in(collection) == before
        (tree / "year" / "my drive" / "0020.jpg").unlink()
        assert did(collection.index()) == {"unchanged": 16, "removed": 1}
        collection.close()


def root_on_a_drive(folder: Path) -> None:
    with indexing_with(engine=EngineInProcess()):
        collection, tree, drive = begin(folder)
        root = folder / "stick"
        stick = Drive(root, folder / "kept stick")
        stick.plug()
        save_pictures(root, 5, first=70)
        age(root)
        assert did(collection.index(root)) == {"indexed": 5}
        stick.unplug()
        report = refused(collection, why=f"{root} is empty: its 5 images are kept")
        assert did(report) == {"unchanged": 17}
        (root / "left.txt").write_text("on the disk below")
        report = refused(collection, why=f"{root} is no longer mounted: its 5 images are kept")
        assert did(report) == {"unchanged": 17, "skipped": 1}
        root.rename(folder / "gone")
        refused(collection, why=f"{root} is missing: its 5 images are kept")
        (folder / "gone").rename(root)
        refused(collection, why=f"{root} is no longer mounted: its 5 images are kept")
        stick.plug()
        assert did(collection.index()) == {"unchanged": 22}
        assert holds(collection, files_in(tree, root))
        drive.unplug()
        stick.unplug()
        collection.close()


@pytest.mark.few(1)
@pytest.mark.parametrize(
    "play", [unplug_and_plug, unplug_part, copy_meanwhile, move_to_the_disk, root_on_a_drive]
)
def test_images_on_an_unplugged_drive_are_kept(
    play: Callable[[Path], None], tmp_path: Path
) -> None:
    with_drives(play, tmp_path)


def test_where_there_is_no_list_of_mounts_the_folders_are_asked(
    collection: Collection, indexed_tree: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mounted = {os.fsencode(indexed_tree / "below")}
    monkeypatch.setattr(mounts, "MOUNTS", tmp_path / "no such file")
    monkeypatch.setattr(os.path, "ismount", lambda path: path in mounted)
    assert did(collection.index()) == {"unchanged": 12}
    mounted.clear()
    shutil.rmtree(indexed_tree / "below")
    refused(collection, why="below is no longer mounted: its 4 images are kept")
    assert did(collection.index(prune=True)) == {"unchanged": 8, "removed": 4}


def test_names_of_mounts_may_hold_odd_characters(
    collection: Collection, tree: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    odd = tree / "tab\tspace back\\slash é"
    save_pictures(odd, 1, first=30)
    age(tree)
    escaped = str(odd).replace("\\", "\\134").replace("\t", "\\011").replace(" ", "\\040")
    table = tmp_path / "mountinfo"
    table.write_text(f"36 35 98:0 / / rw - ext3 x rw\n37 36 0:1 / {escaped} rw - tmpfs x rw\n")
    monkeypatch.setattr(mounts, "MOUNTS", table)
    collection.index(tree)
    shutil.rmtree(odd)
    table.write_text("36 35 98:0 / / rw - ext3 x rw\n")
    refused(collection, why="é is no longer mounted: its 1 images are kept")
