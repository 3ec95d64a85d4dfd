"""Patterns of a collection: what is left out, kept out, and let in again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from imgsearch.collection import Collection
from imgsearch.errors import SettingError
from imgsearch.files.exclusions import DEFAULTS
from tests.support.commands import Run
from tests.support.memory_urls import bucket
from tests.support.outcomes import age, did, files_in, holds
from tests.support.pictures import save_pictures

pytestmark = pytest.mark.usefixtures("here")

APPLE_DOUBLE = b"\0\5\x16\7\0\2\0\0Mac OS X        " + b"\0" * 60


def kinds(report: object) -> dict[str, int]:
    return dict(report.skipped_kinds)  # type: ignore[attr-defined]  # an IndexReport


def test_thumbnails_of_a_nas_and_appledouble_files_are_no_images(
    collection: Collection, tree: Path
) -> None:
    save_pictures(tree / "@eaDir" / "0000.jpg", 2, first=50)
    (tree / "._0000.jpg").write_bytes(APPLE_DOUBLE)
    (tree / "below" / "named otherwise.jpg").write_bytes(APPLE_DOUBLE)
    for fate in ("indexed", "unchanged"):
        age(tree)
        report = collection.index(tree)
        assert did(report) == {fate: 12, "skipped": 2}
        assert kinds(report) == {"AppleDouble": 2}


def test_a_pattern_is_kept_and_holds_in_later_runs(collection: Collection, tree: Path) -> None:
    assert did(collection.index(tree, exclude="*.png")) == {"indexed": 6, "skipped": 6}
    save_pictures(tree, 4, first=20)
    report = collection.index()
    assert did(report) == {"indexed": 2, "unchanged": 6, "skipped": 8}
    assert kinds(report) == {"excluded": 8}
    assert collection.info().left_out == (*DEFAULTS, "*.png")
    assert collection.info().settings.exclude == ("*.png",)


def test_images_that_a_new_pattern_leaves_out_leave_the_answers(
    collection: Collection, indexed_tree: Path
) -> None:
    report = collection.index(exclude=["below/"])
    assert (did(report), report.left_out) == ({"unchanged": 8}, 4)
    assert holds(collection, [path for path in files_in(indexed_tree) if "below" not in str(path)])
    report = collection.index(include=["below"])
    assert (did(report), report.left_out) == ({"copied": 4, "unchanged": 8}, 0)
    assert holds(collection, files_in(indexed_tree))


def test_a_pattern_holds_in_all_folders_whichever_is_indexed(
    collection: Collection, indexed_tree: Path, other_tree: Path
) -> None:
    report = collection.index(indexed_tree, exclude=["*.png"])
    assert report.left_out == 6 + 10
    assert holds(
        collection, [path for path in files_in(indexed_tree, other_tree) if path.suffix == ".jpg"]
    )


def test_most_images_may_be_left_out_at_once(collection: Collection, indexed_tree: Path) -> None:
    """No drive is missing: it was asked for."""
    report = collection.index(exclude=["*.jpg", "*.png"])
    assert (did(report), report.left_out) == ({"skipped": 12}, 12)
    assert collection.info().images == 0
    assert (indexed_tree / "0000.jpg").exists()


def test_a_folder_that_is_left_out_is_indexed_where_it_is_named(
    collection: Collection, tree: Path
) -> None:
    save_pictures(tree / ".hidden", 2, first=50)
    assert did(collection.index(tree)) == {"indexed": 12}
    assert did(collection.index(tree / ".hidden")) == {"indexed": 2}
    assert did(collection.index()) == {"unchanged": 14}
    assert did(collection.index(tree)) == {"unchanged": 14}


def test_a_default_pattern_can_be_switched_off(collection: Collection, tree: Path) -> None:
    save_pictures(tree / "@eaDir", 2, first=50)
    assert did(collection.index(tree, include=["@eaDir"])) == {"indexed": 14}
    assert "@eaDir/" not in collection.info().left_out
    assert did(collection.index()) == {"unchanged": 14}
    report = collection.index(exclude=["@eaDir"])
    assert (did(report), report.left_out) == ({"unchanged": 12}, 2)


def test_a_pattern_that_is_not_in_force_cannot_be_dropped(
    collection: Collection, tree: Path
) -> None:
    with pytest.raises(SettingError, match="there is no such pattern"):
        collection.index(tree, include=["*.psd"])
    assert collection.info().images == 0


def test_patterns_are_for_urls_too(collection: Collection) -> None:
    with bucket() as files:
        for name in ("a.png", "@eaDir/b.png", "raw/c.png", "._d.png"):
            files.put(name, 1)
        report = collection.index(files.url, exclude=["raw/"])
        assert did(report) == {"indexed": 1, "skipped": 1}


def test_skipped_files_are_counted_by_kind_in_each_run(collection: Collection, tree: Path) -> None:
    names = ("a.psd", "b.PSD", "c.svg", "d.txt", "e.md", "none", "clip.MOV")
    for name in names:
        (tree / name).write_bytes(b"8BPS or not")
    for _ in range(2):
        age(tree)
        report = collection.index(tree)
        assert report.skipped == 7
        assert kinds(report) == {"PSD": 2, "text": 2, "SVG": 1, "other": 1, "video": 1}


@pytest.mark.whole("test_skipped_files_are_counted_by_kind_in_each_run")
def test_the_command_line_shows_patterns_and_kinds(empty: Path, tree: Path, run: Run) -> None:
    (tree / "a.psd").write_bytes(b"8BPS")
    (tree / "b.svg").write_bytes(b"<svg/>")
    ended = run("-c", empty, "index", tree, "--exclude", "*.png", "--exclude", "below/", "--json")
    assert (ended.code, json.loads(ended.out)["skipped_kinds"]) == (
        0,
        {"excluded": 4, "PSD": 1, "SVG": 1},
    )
    assert "6 skipped: 4 excluded, 1 PSD, 1 SVG\n" in ended.err
    shown = run("-c", empty, "info", "--verbose").out
    assert "@eaDir/" in shown
    assert "*.png below/" in shown
    ended = run("-c", empty, "index", "--include", "*.psd")
    assert ended.code == 2
    assert "there is no such pattern" in ended.err
