"""A root that lives elsewhere now is pointed there, and nothing is embedded again."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from imgsearch.collection import Collection
from imgsearch.errors import GoneError, InputError, SettingError
from tests.support.outcomes import age, did, files_in, holds, ids_in
from tests.support.pictures import picture, save_pictures

pytestmark = pytest.mark.usefixtures("here")


def refused(collection: Collection, old: Path, new: Path, why: str) -> None:
    """Move, which is refused for a reason and changes nothing."""
    before = replace(collection.info(), bytes=0), ids_in(collection)
    with pytest.raises(InputError, match=why):
        collection.index(moved=(old, new))
    assert (replace(collection.info(), bytes=0), ids_in(collection)) == before


def test_a_root_that_moved_keeps_its_images_and_their_ids(
    collection: Collection, indexed_tree: Path, tmp_path: Path
) -> None:
    before = ids_in(collection)
    new = tmp_path / "another" / "disk"
    new.parent.mkdir()
    indexed_tree.rename(new)
    assert did(collection.index(moved=(indexed_tree, new))) == {"unchanged": 12}
    after = {path.replace(str(indexed_tree), str(new)): id_ for path, id_ in before.items()}
    assert ids_in(collection) == after
    assert holds(collection, files_in(new))
    assert collection.info().roots == (str(new),)
    assert did(collection.index()) == {"unchanged": 12}


def test_what_has_changed_since_is_found_as_well(
    collection: Collection, indexed_tree: Path, tmp_path: Path
) -> None:
    new = tmp_path / "new"
    indexed_tree.rename(new)
    save_pictures(new, 1, first=40)
    picture(70).save(new / "0000.jpg")
    (new / "0001.png").unlink()
    (new / "0002.jpg").rename(new / "below" / "renamed.jpg")
    report = collection.index(moved=(indexed_tree, new))
    assert did(report) == {"indexed": 2, "moved": 1, "unchanged": 9, "removed": 1}
    assert holds(collection, files_in(new))


def test_a_copy_with_new_times_will_do(
    collection: Collection, indexed_tree: Path, tmp_path: Path
) -> None:
    shutil.copytree(indexed_tree, tmp_path / "new", copy_function=shutil.copy)
    report = collection.index(moved=(indexed_tree, tmp_path / "new"))
    assert did(report) == {"unchanged": 12}
    assert holds(collection, files_in(tmp_path / "new"))


def test_paths_may_be_written_in_any_way(
    collection: Collection, indexed_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    indexed_tree.rename(indexed_tree.with_name("new"))
    indexed_tree.with_name("link").symlink_to("new")
    monkeypatch.chdir(indexed_tree.parent)
    assert did(collection.index(moved=("./tree/", "link/../link"))) == {"unchanged": 12}
    assert collection.info().roots == (str(indexed_tree.with_name("new")),)


@pytest.mark.parametrize("what", ["an empty folder", "another folder", "one of many"])
def test_a_folder_that_holds_other_images_is_refused(
    collection: Collection, indexed_tree: Path, tmp_path: Path, what: str
) -> None:
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    if what == "another folder":
        for seed, path in enumerate(files_in(indexed_tree)):
            (wrong / path.relative_to(indexed_tree)).parent.mkdir(exist_ok=True)
            picture(100 + seed).save(wrong / path.relative_to(indexed_tree))
    elif what == "one of many":
        shutil.copy(indexed_tree / "0000.jpg", wrong)
    why = f"{wrong} does not hold the images of {indexed_tree}: of 12 that were looked for, "
    why += ("1" if what == "one of many" else "0") + " are there unchanged; nothing was moved"
    refused(collection, indexed_tree, wrong, why)
    assert did(collection.index()) == {"unchanged": 12}


def test_what_is_no_root_cannot_move(
    collection: Collection, indexed_tree: Path, tmp_path: Path
) -> None:
    why = f"is not a root of this collection; its roots: {indexed_tree}"
    for old in (tmp_path / "missing", indexed_tree / "below", indexed_tree / "0000.jpg"):
        refused(collection, old, indexed_tree, why)


def test_nothing_moves_to_where_nothing_is(
    collection: Collection, indexed_tree: Path, tmp_path: Path
) -> None:
    refused(collection, indexed_tree, tmp_path / "missing", "there is no such file or folder")
    refused(
        collection,
        indexed_tree,
        indexed_tree / "0000.jpg",
        "is not a folder; give the new location",
    )


def test_a_root_cannot_move_to_another(
    collection: Collection, indexed_tree: Path, tmp_path: Path
) -> None:
    shutil.copytree(indexed_tree, tmp_path / "other")
    collection.index(tmp_path / "other")
    why = f"{tmp_path / 'other'} is already a root of this collection"
    refused(collection, indexed_tree, tmp_path / "other", why)


def test_either_a_folder_has_moved_or_folders_are_indexed(
    collection: Collection, indexed_tree: Path
) -> None:
    with pytest.raises(SettingError, match="not both"):
        collection.index(indexed_tree, moved=(indexed_tree, indexed_tree))


def test_a_folder_above_several_roots_takes_them_along_and_nothing_else(
    collection: Collection, indexed_tree: Path, tmp_path: Path
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    save_pictures(old / "one", 3, first=40)
    save_pictures(old / "two" / "deep", 4, first=50)
    save_pictures(old / "no root", 5, first=60)
    (single, _) = save_pictures(old / "three", 2, first=70)
    age(old)
    collection.index([old / "one", old / "two" / "deep", single])
    old.rename(new)
    assert did(collection.index(moved=(old, new))) == {"unchanged": 8}
    single = new / "three" / single.name
    expected = files_in(indexed_tree, new / "one", new / "two")
    assert holds(collection, [*expected, single])
    roots = (indexed_tree, new / "one", new / "two" / "deep", new / "three")
    assert set(collection.info().roots) == set(map(str, roots))
    assert did(collection.index()) == {"unchanged": 20}


def test_if_one_of_several_roots_is_not_there_none_moves(
    collection: Collection, tmp_path: Path
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    save_pictures(old / "one", 3, first=40)
    save_pictures(old / "two", 4, first=50)
    collection.index([old / "one", old / "two"])
    shutil.copytree(old / "one", new / "one")
    why = f"{new / 'two'} does not hold the images of {old / 'two'}: of 4 .* 0 are there unchanged"
    refused(collection, old, new, why)


def test_a_root_in_a_root_moves_with_it(collection: Collection, tree: Path) -> None:
    collection.index(tree / "below")
    collection.index(tree)
    new = tree.with_name("new")
    tree.rename(new)
    assert did(collection.index(moved=(tree, new))) == {"unchanged": 12}
    assert set(collection.info().roots) == {str(new), str(new / "below")}
    assert holds(collection, files_in(new))


def test_a_root_may_move_down_into_itself(collection: Collection, tree: Path) -> None:
    save_pictures(tree / "tree", 2, first=40)
    age(tree)
    collection.index(tree / "tree")
    collection.index(tree)
    tree.rename(tree.with_name("aside"))
    tree.mkdir()
    tree.with_name("aside").rename(tree / "tree")
    assert did(collection.index(moved=(tree, tree / "tree"))) == {"unchanged": 14}
    assert holds(collection, files_in(tree))


def test_a_root_that_moved_into_another_is_in_the_collection_once(
    collection: Collection, indexed_tree: Path, tmp_path: Path
) -> None:
    outer = tmp_path / "outer"
    save_pictures(outer, 2, first=40)
    (outer / "notes.txt").write_text("")
    age(outer)
    collection.index(outer)
    before = ids_in(collection)
    indexed_tree.rename(outer / "inner")
    (outer / "inner" / "bad.jpg").write_bytes(b"")
    with pytest.raises(GoneError, match="is missing"):
        collection.index()  # unaware of the move, it copies them
    assert collection.info().images == 26
    report = collection.index(moved=(indexed_tree, outer / "inner"))
    assert did(report) == {"unchanged": 12, "failed": 1}
    assert holds(collection, set(files_in(outer)) - {outer / "inner" / "bad.jpg"})
    ids = ids_in(collection)
    assert ids[str(outer / "inner" / "0000.jpg")] == before[str(indexed_tree / "0000.jpg")]
    assert did(collection.index()) == {"unchanged": 14, "failed": 1, "skipped": 1}
    assert (collection.info().failed, collection.info().skipped) == (1, 1)


def test_what_was_taken_out_stays_out_where_it_moved_to(
    collection: Collection, indexed_tree: Path
) -> None:
    collection.remove([indexed_tree / "below", indexed_tree / "0000.jpg"])
    new = indexed_tree.with_name("new")
    indexed_tree.rename(new)
    report = collection.index(moved=(indexed_tree, new))
    assert did(report) == {"unchanged": 7, "excluded": 1}
    assert did(collection.index(new)) == {"unchanged": 7, "excluded": 1}
    assert did(collection.index(new / "below")) == {"copied": 4}


def test_what_is_missing_at_the_new_place_is_kept_if_it_is_half_of_all(
    collection: Collection, indexed_tree: Path
) -> None:
    new = indexed_tree.with_name("new")
    indexed_tree.rename(new)
    for path in sorted(new.glob("*g"))[:6]:
        path.unlink()
    with pytest.raises(GoneError, match="6 of 12 images disappeared at once"):
        collection.index(moved=(indexed_tree, new))
    assert collection.info().images == 12
    report = collection.index(prune=True)
    assert did(report) == {"unchanged": 6, "removed": 6}
    assert holds(collection, files_in(new))


def test_a_root_without_images_moves_as_well(collection: Collection, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    collection.index(tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    assert did(collection.index(moved=(tmp_path / "old", tmp_path / "new"))) == {}
    assert collection.info().roots == (str(tmp_path / "new"),)
