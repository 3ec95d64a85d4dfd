"""Images that were taken out stay out until they are named again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from imgsearch.collection import Collection
from imgsearch.errors import BusyError, InputError
from imgsearch.storage.files import exclusive
from tests.support.outcomes import age, did, files_in, holds, ids_in
from tests.support.pictures import picture, save_pictures

pytestmark = pytest.mark.usefixtures("here")


def nothing_changes(collection: Collection, act: Callable[[], object]) -> bool:
    """Tell whether a collection is the same before and after something that is refused."""
    before = collection.info(), ids_in(collection)
    with pytest.raises(InputError, match="the collection has no image there; nothing was removed"):
        act()
    return (collection.info(), ids_in(collection)) == before


def test_a_file_that_was_taken_out_stays_out_until_it_is_named(
    collection: Collection, indexed_tree: Path
) -> None:
    path = indexed_tree / "0001.png"
    others = set(files_in(indexed_tree)) - {path}
    assert collection.remove(path) == 1
    assert path.exists()
    assert holds(collection, others)
    for paths in ([], [indexed_tree], [indexed_tree.parent], [indexed_tree / "below" / ".."]):
        report = collection.index(paths)
        assert (report.excluded, report.indexed) == (1, 0)
        assert holds(collection, others)
    assert collection.info().excluded == 1
    assert did(collection.index(path)) == {"copied": 1}
    assert holds(collection, files_in(indexed_tree))
    assert did(collection.index()) == {"unchanged": 12}
    assert collection.info().excluded == 0


def test_a_folder_that_was_taken_out_stays_out_with_all_that_comes_into_it(
    collection: Collection, indexed_tree: Path
) -> None:
    below = indexed_tree / "below"
    others = set(files_in(indexed_tree)) - set(files_in(below))
    assert collection.remove(below) == 4
    assert holds(collection, others)
    save_pictures(below / "deeper", 2, first=40)
    save_pictures(below, 1, first=50)
    age(below)
    for paths in ([], [indexed_tree], [indexed_tree.parent]):
        assert did(collection.index(paths)) == {"unchanged": 8}
        assert holds(collection, others)
    assert did(collection.index(below)) == {"indexed": 3, "copied": 4}
    assert holds(collection, files_in(indexed_tree))
    assert did(collection.index()) == {"unchanged": 15}


def test_images_that_match_a_pattern_are_taken_out(
    collection: Collection, indexed_tree: Path
) -> None:
    matching = [*indexed_tree.rglob("*[15].png")]
    assert collection.remove(f"{indexed_tree}/*[15].png") == len(matching) == 3
    assert holds(collection, set(files_in(indexed_tree)) - set(matching))
    assert did(collection.index()) == {"unchanged": 9, "excluded": 3}
    assert did(collection.index(indexed_tree / "below")) == {"unchanged": 3, "excluded": 1}
    assert did(collection.index(matching)) == {"copied": 3}
    assert holds(collection, files_in(indexed_tree))


@pytest.mark.parametrize(
    ("pattern", "count"), [("000[12].*", 2), ("*/below/*", 4), ("???1.png", 1), ("below/0*", 4)]
)
def test_a_pattern_is_relative_to_where_one_is(
    collection: Collection,
    indexed_tree: Path,
    monkeypatch: pytest.MonkeyPatch,
    pattern: str,
    count: int,
) -> None:
    monkeypatch.chdir(indexed_tree.parent if pattern.startswith("*/") else indexed_tree)
    assert collection.remove(pattern) == count


def test_a_name_that_is_a_pattern_too_means_the_file(collection: Collection, tree: Path) -> None:
    picture(70).save(tree / "[0-9]*.png")
    collection.index(tree)
    assert collection.remove(tree / "[0-9]*.png") == 1
    assert collection.info().images == 12


def test_several_paths_are_taken_out_at_once(collection: Collection, indexed_tree: Path) -> None:
    paths: list[str | Path] = [
        indexed_tree / "0001.png",
        indexed_tree / "below",
        indexed_tree / "below" / "0008.jpg",
        f"{indexed_tree}/0000*",
        f"{indexed_tree}/*.jpg",
    ]
    assert collection.remove(paths) == 1 + 4 + 1 + 3
    assert did(collection.index()) == {"unchanged": 3, "excluded": 5}


def test_nothing_is_taken_out_if_one_of_several_is_unknown(
    collection: Collection, indexed_tree: Path
) -> None:
    assert nothing_changes(
        collection, lambda: collection.remove([indexed_tree / "0001.png", "/no/such/file.jpg"])
    )


@pytest.mark.parametrize("unknown", ["missing.jpg", "missing", "*.gif", "../elsewhere", "new.jpg"])
def test_what_the_collection_does_not_know_cannot_be_taken_out(
    collection: Collection, indexed_tree: Path, unknown: str
) -> None:
    (indexed_tree.parent / "elsewhere").mkdir()
    picture(70).save(indexed_tree / "new.jpg")
    assert nothing_changes(collection, lambda: collection.remove(indexed_tree / unknown))


def test_what_was_taken_out_cannot_be_taken_out_again(
    collection: Collection, indexed_tree: Path
) -> None:
    collection.remove(indexed_tree / "0001.png")
    assert nothing_changes(collection, lambda: collection.remove(indexed_tree / "0001.png"))


def test_a_path_may_be_written_in_any_way(
    collection: Collection, indexed_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (indexed_tree.parent / "link").symlink_to(indexed_tree)
    monkeypatch.chdir(indexed_tree / "below")
    monkeypatch.setenv("HOME", str(indexed_tree))
    assert collection.remove("../0001.png") == 1
    assert collection.remove("~/0002.jpg") == 1
    assert collection.remove(indexed_tree.parent / "link" / "0003.png") == 1
    assert collection.remove(indexed_tree.parent / "link" / "below") == 4
    assert collection.info().images == 5


def test_an_image_behind_a_linked_folder_is_taken_out_by_either_path(
    collection: Collection, indexed_tree: Path, tmp_path: Path
) -> None:
    save_pictures(tmp_path / "elsewhere", 3, first=50)
    (indexed_tree / "link").symlink_to(tmp_path / "elsewhere")
    assert did(collection.index()) == {"indexed": 3, "unchanged": 12}
    assert collection.remove(indexed_tree / "link" / "0050.jpg") == 1
    assert collection.remove(indexed_tree / "link") == 2
    age(tmp_path / "elsewhere")
    assert did(collection.index()) == {"unchanged": 12}


def test_a_failed_file_is_taken_out_and_reported_no_more(
    collection: Collection, indexed_tree: Path
) -> None:
    (indexed_tree / "bad.jpg").write_bytes(b"")
    assert did(collection.index()) == {"unchanged": 12, "failed": 1}
    assert collection.remove(indexed_tree / "bad.jpg") == 0
    assert did(collection.index()) == {"unchanged": 12, "excluded": 1}
    assert collection.info().failed == 0
    picture(70).save(indexed_tree / "bad.jpg")
    assert did(collection.index()) == {"unchanged": 12, "excluded": 1}
    assert did(collection.index(indexed_tree / "bad.jpg")) == {"indexed": 1}


def test_a_file_that_was_taken_out_and_then_changes_or_vanishes_stays_out(
    collection: Collection, indexed_tree: Path
) -> None:
    path = indexed_tree / "0001.png"
    collection.remove(path)
    picture(70).save(path)
    assert did(collection.index()) == {"unchanged": 11, "excluded": 1}
    path.unlink()
    assert did(collection.index()) == {"unchanged": 11}
    picture(71).save(path)
    assert did(collection.index()) == {"unchanged": 11, "excluded": 1}


def test_a_folder_that_was_taken_out_and_then_vanishes_stays_out(
    collection: Collection, indexed_tree: Path
) -> None:
    collection.remove(indexed_tree / "below")
    (indexed_tree / "below").rename(indexed_tree.parent / "away")
    assert did(collection.index()) == {"unchanged": 8}
    (indexed_tree.parent / "away").rename(indexed_tree / "below")
    assert did(collection.index()) == {"unchanged": 8}


def test_what_was_taken_out_of_one_place_may_be_in_another(
    collection: Collection, indexed_tree: Path
) -> None:
    collection.remove(indexed_tree / "0001.png")
    shutil.copy(indexed_tree / "0001.png", indexed_tree / "copy.png")
    assert did(collection.index()) == {"unchanged": 11, "copied": 1, "excluded": 1}
    assert holds(collection, set(files_in(indexed_tree)) - {indexed_tree / "0001.png"})


# Within what was taken out


def test_a_file_in_a_folder_that_was_taken_out_may_be_named(
    collection: Collection, indexed_tree: Path
) -> None:
    below = indexed_tree / "below"
    collection.remove(below)
    assert did(collection.index(below / "0008.jpg")) == {"copied": 1}
    for paths in ([], [indexed_tree]):
        assert did(collection.index(paths)) == {"unchanged": 9}
    assert holds(collection, [*indexed_tree.glob("*g"), below / "0008.jpg"])
    assert collection.remove(below / "0008.jpg") == 1
    assert did(collection.index()) == {"unchanged": 8}
    report = collection.index(below)
    assert report.copied + report.indexed == 3  # an embedding goes when all of its shard are out
    assert report.excluded == 1
    collection.index(below / "0008.jpg")
    assert did(collection.index()) == {"unchanged": 12}
    assert collection.info().excluded == 0


def test_a_folder_in_a_folder_that_was_taken_out_may_be_named(
    collection: Collection, indexed_tree: Path
) -> None:
    below, inner = indexed_tree / "below", indexed_tree / "below" / "inner"
    save_pictures(inner, 3, first=40)
    age(inner)
    collection.index()
    assert collection.remove(below) == 7
    assert did(collection.index(inner)) == {"copied": 3}
    assert did(collection.index()) == {"unchanged": 11}
    assert did(collection.index(indexed_tree)) == {"unchanged": 11}
    assert holds(collection, [*indexed_tree.glob("*g"), *files_in(inner)])
    assert collection.remove(below) == 3
    assert did(collection.index()) == {"unchanged": 8}
    collection.index(below)
    assert did(collection.index()) == {"unchanged": 15}
    assert holds(collection, files_in(indexed_tree))


# Roots


def test_a_root_that_was_taken_out_is_a_root_no_more(
    collection: Collection, indexed_tree: Path, tmp_path: Path
) -> None:
    save_pictures(tmp_path / "other", 2, first=50)
    age(tmp_path / "other")
    collection.index(tmp_path / "other")
    assert collection.remove(indexed_tree) == 12
    assert collection.info().roots == (str(tmp_path / "other"),)
    assert holds(collection, files_in(tmp_path / "other"))
    assert did(collection.index(indexed_tree)) == {"copied": 12}
    assert holds(collection, files_in(indexed_tree, tmp_path / "other"))


def test_a_missing_root_can_be_taken_out(collection: Collection, indexed_tree: Path) -> None:
    shutil.rmtree(indexed_tree)
    assert collection.remove(indexed_tree) == 12
    assert collection.info().roots == ()
    assert collection.info().images == 0


def test_a_root_in_a_root_that_was_taken_out_stays_out(collection: Collection, tree: Path) -> None:
    age(tree)
    collection.index(tree / "below")
    collection.index(tree)
    assert len(collection.info().roots) == 2
    assert collection.remove(tree / "below") == 4
    assert collection.info().roots == (str(tree),)
    for paths in ([], [tree], [tree.parent]):
        assert did(collection.index(paths)) == {"unchanged": 8}
    assert did(collection.index(tree / "below")) == {"copied": 4}
    assert did(collection.index()) == {"unchanged": 12}


def test_the_folder_of_files_given_by_name_is_taken_out_with_all_below_it(
    collection: Collection, tree: Path
) -> None:
    save_pictures(tree / "below" / "deep", 2, first=40)
    age(tree)
    collection.index(tree / "below" / "0008.jpg")
    collection.index(tree)
    assert collection.remove(tree / "below") == 6
    assert holds(collection, tree.glob("*g"))
    assert did(collection.index()) == {"unchanged": 8}
    assert did(collection.index(tree / "below")) == {"copied": 6}


def test_a_folder_above_several_roots_takes_them_all_out(
    collection: Collection, tree: Path, tmp_path: Path
) -> None:
    save_pictures(tmp_path / "other", 2, first=50)
    collection.index([tree / "below", tmp_path / "other"])
    assert collection.remove(tmp_path) == 6
    assert collection.info().roots == ()


def test_a_folder_of_which_only_a_root_below_it_is_known_stays_out_as_a_whole(
    collection: Collection, indexed_tree: Path
) -> None:
    outer = indexed_tree / "outer"
    save_pictures(outer / "inner", 2, first=40)
    collection.index(outer / "inner")  # covered: no root of its own
    collection.remove(outer)
    collection.index(outer / "inner")
    assert str(outer / "inner") in collection.info().roots
    assert collection.remove(outer) == 2
    assert collection.info().roots == (str(indexed_tree),)
    save_pictures(outer, 1, first=60)
    assert did(collection.index()) == {"unchanged": 12}
    assert collection.index(outer).found == 3
    assert holds(collection, files_in(indexed_tree))


def test_images_come_back_after_their_embeddings_were_dropped(
    collection: Collection, indexed_tree: Path
) -> None:
    """What is mostly removed is written anew without that, and has to be embedded again."""
    collection.remove([indexed_tree / "below", f"{indexed_tree}/*.png"])
    collection.index()
    collection.index([indexed_tree / "below", *indexed_tree.glob("*.png")])
    assert holds(collection, files_in(indexed_tree))
    assert did(collection.index()) == {"unchanged": 12}


# A folder that is hidden is looked through only if it is named


def test_a_hidden_folder_that_was_named_stays(collection: Collection, indexed_tree: Path) -> None:
    hidden = indexed_tree / ".hidden"
    save_pictures(hidden, 2, first=40)
    save_pictures(hidden / "deeper", 1, first=50)
    age(hidden)
    assert did(collection.index()) == {"unchanged": 12}
    assert did(collection.index(hidden / "0040.jpg")) == {"indexed": 1}
    assert did(collection.index()) == {"unchanged": 13}
    assert did(collection.index(hidden)) == {"indexed": 2, "unchanged": 1}
    assert did(collection.index()) == {"unchanged": 15}
    assert did(collection.index(indexed_tree)) == {"unchanged": 15}
    assert collection.remove(hidden) == 3
    assert did(collection.index()) == {"unchanged": 12}


def test_only_one_may_write(collection: Collection, empty: Path, tree: Path) -> None:
    collection.index(tree)
    with exclusive(empty), pytest.raises(BusyError):
        collection.remove(tree)
    assert collection.info().images == 12


def test_the_pattern_by_which_files_were_taken_out_brings_them_back(
    collection: Collection, indexed_tree: Path
) -> None:
    pattern = str(indexed_tree / "*.png")
    out = collection.remove(pattern)
    assert out > 1
    assert did(collection.index(pattern)) == {"copied": out}
    assert holds(collection, files_in(indexed_tree))
    with pytest.raises(InputError, match="there is no such file or folder"):
        collection.index(pattern)
