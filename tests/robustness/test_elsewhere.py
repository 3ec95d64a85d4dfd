"""A collection that is copied to another machine, where its photos are at another place."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from imgsearch.collection import Collection
from imgsearch.errors import StorageError
from tests.support.commands import Run
from tests.support.depth import Harm
from tests.support.outcomes import age, did, files_in, holds
from tests.support.pictures import picture, save_pictures
from tests.support.privileges import ordinary_folder, ordinary_user

IMAGES = 12


@pytest.fixture
def machine(empty: Path, tmp_path: Path, run: Run) -> Path:
    """A folder with a collection, of two roots and of a root in one of these."""
    here = tmp_path / "here"
    save_pictures(here / "photos", 5)
    save_pictures(here / "photos" / "2024" / "trip", 4, first=5)
    save_pictures(here / "scans", 3, first=9)
    age(here)
    empty.rename(here / "collection")
    roots = here / "photos" / "2024", here / "photos", here / "scans"
    assert f"{IMAGES} indexed" in run("-c", here / "collection", "index", *roots).err
    return here


def answers(run: Run, collection: Path, image: Path) -> list[str]:
    """Return the paths of all images, the most similar first."""
    ended = run("-c", collection, "query", image, "-k", "100", "--include-self", "--json")
    assert ended.code == 0, ended.err
    return [str(hit["path"]) for hit in json.loads(ended.out)["hits"]]


@pytest.mark.whole("test_what_changed_on_the_way_is_found_while_the_old_place_is_still_there")
def test_a_copied_collection_works_at_once_and_after_moved_names_the_new_places(
    machine: Path, tmp_path: Path, run: Run, harm: Harm
) -> None:
    there = tmp_path / "there" / "Bilder von früher"
    shutil.copytree(machine / "photos", there / "a", copy_function=shutil.copy)
    shutil.copytree(machine / "scans", there / "a" / "scans", copy_function=shutil.copy)
    collection = shutil.copytree(machine / "collection", tmp_path / "there" / "collection")
    machine.rename(tmp_path / "another machine")
    asked = there / "a" / "0000.jpg"
    old = [str(machine / "photos" / "0000.jpg"), IMAGES]
    found = answers(run, collection, asked)
    assert [found[0], len(found)] == old

    unaware = run("-c", collection, "index")
    assert unaware.code == 3
    assert "`imgsearch index --moved OLD NEW`" in unaware.err.splitlines()[-1]
    found = answers(run, collection, asked)
    assert [found[0], len(found)] == old

    first = run("-c", collection, "index", "--moved", machine / "photos", there / "a", "--json")
    # The root below the old place moves along. The other one is below the new place by chance.
    assert json.loads(first.out)["indexed"] == 0, first.err
    assert json.loads(first.out)["unchanged"] == 9, first.err
    second = run(
        *("-c", collection, "index", "--json"),
        *("--moved", machine / "scans", there / "a" / "scans"),
    )
    assert (second.code, json.loads(second.out)["indexed"]) == (0, 0), second.err
    assert sorted(answers(run, collection, asked)) == list(map(str, files_in(there)))
    assert answers(run, collection, asked)[0] == str(asked)
    again = run("-c", collection, "index")
    assert (again.code, f"{IMAGES} unchanged" in again.err) == (0, True), again.err

    twice = run("-c", collection, "index", "--moved", machine / "photos", there / "a")
    assert (twice.code, len(twice.err.splitlines())) == (3, 1)
    assert f"{machine / 'photos'} is not a root of this collection" in twice.err
    harm.done("moves to another machine")


def test_a_copy_that_another_person_may_only_read_answers(
    indexed: Path, photos: Path, harm: Harm
) -> None:
    with ordinary_folder() as folder:
        copy = shutil.copytree(indexed, folder / "copy")
        for path in [copy, *copy.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        image = folder / "image.jpg"
        shutil.copy(photos / "0000.jpg", image)
        image.chmod(0o444)
        with ordinary_user(), Collection.open(copy, device="cpu") as collection:
            assert collection.info().images == 40
            assert collection.query(image, k=1)[0].path == str(photos / "0000.jpg")
            with pytest.raises(StorageError, match=f"cannot lock {copy}"):
                collection.index()
        for path in [copy, *copy.rglob("*")]:
            path.chmod(0o755)
    harm.done("moves to another machine")


@pytest.mark.usefixtures("here")
def test_what_changed_on_the_way_is_found_while_the_old_place_is_still_there(
    collection: Collection, indexed_tree: Path, other_tree: Path, harm: Harm
) -> None:
    new = indexed_tree.with_name("new")
    shutil.copytree(indexed_tree, new)
    save_pictures(new / "added", 2, first=100)
    picture(200).save(new / "0000.jpg")
    (new / "0001.png").unlink()
    (new / "0002.jpg").rename(new / "renamed.jpg")
    report = collection.index(moved=(indexed_tree, new))
    assert did(report) == {"indexed": 3, "moved": 1, "unchanged": 9, "removed": 1}
    assert holds(collection, files_in(new, other_tree))
    age(new)
    shutil.rmtree(indexed_tree)
    assert did(collection.index()) == {"unchanged": 33}
    harm.done("moves to another machine")
