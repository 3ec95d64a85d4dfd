"""A path belongs to one root, whatever the order in which paths were given."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgsearch.files.paths import is_at, is_below, real_path
from imgsearch.storage.changes import FolderLocation
from imgsearch.storage.records import Root
from imgsearch.storage.roots import Roots


def test_a_folder_belongs_to_the_longest_root_above_it() -> None:
    roots = Roots([Root(1, b"/a", True), Root(2, b"/a/b/c", True)])
    assert roots.find(b"/a") == FolderLocation(1, b"")
    assert roots.find(b"/a/b") == FolderLocation(1, b"b")
    assert roots.find(b"/a/b/c") == FolderLocation(2, b"")
    assert roots.find(b"/a/b/c/d/e") == FolderLocation(2, b"d/e")


def test_a_root_whose_name_is_the_beginning_of_another_folders_owns_nothing_of_it() -> None:
    roots = Roots([Root(1, b"/a/photo", True)])
    assert roots.find(b"/a/photos") is None
    assert not roots.covers(b"/a/photos")


def test_a_root_of_single_files_owns_the_files_directly_in_it_only() -> None:
    roots = Roots([Root(1, b"/a", True), Root(2, b"/a/b", False)])
    assert roots.find(b"/a/b") == FolderLocation(2, b"")
    assert roots.find(b"/a/b/c") == FolderLocation(1, b"b/c")
    assert not Roots([Root(2, b"/a/b", False)]).covers(b"/a/b")


def test_the_root_of_the_file_system_owns_everything() -> None:
    roots = Roots([Root(1, b"/", True)])
    assert roots.find(b"/a/b") == FolderLocation(1, b"a/b")
    assert roots.find(b"/") == FolderLocation(1, b"")
    assert roots.covers(b"/a")


def test_what_is_hidden_or_was_taken_out_is_covered_by_a_root_of_its_own_only() -> None:
    roots = Roots([Root(1, b"/a", True)], [b"/a/out"])
    assert roots.covers(b"/a/in")
    assert not roots.covers(b"/a/out")
    assert not roots.covers(b"/a/out/below")
    assert roots.covers(b"/a/outer")
    assert not roots.covers(b"/a/.hidden")
    assert not roots.covers(b"/a/b/.hidden/c")
    assert roots.covers(b"/a/b.c")
    inner = [Root(2, b"/a/out/in", True), Root(3, b"/a/.hidden", True)]
    roots = Roots([*roots.all, *inner], roots.excluded)
    assert roots.covers(b"/a/out/in/below")
    assert roots.covers(b"/a/.hidden/below")
    assert not roots.covers(b"/a/out/below")


def test_a_path_is_at_a_folder_or_below_it() -> None:
    assert is_at(b"/a", b"/a")
    assert is_at(b"/a/b", b"/a")
    assert is_at(b"/a", b"/")
    assert not is_at(b"/ab", b"/a")
    assert not is_at(b"/", b"/a")
    assert is_below(b"/a", b"/")
    assert not is_below(b"/", b"/")


parts = st.lists(st.sampled_from([b"a", b"b", b"ab"]), max_size=3)
folders = parts.map(lambda names: b"/" + b"/".join(names))


@given(given=st.lists(st.tuples(folders, st.booleans()), max_size=8), folder=folders)
def test_a_path_stays_with_the_root_that_it_first_belonged_to(
    given: list[tuple[bytes, bool]], folder: bytes
) -> None:
    """Add roots as `imgsearch.indexing.scope` does: unless a recursive one is above already."""
    roots: dict[bytes, Root] = {}
    indexed: dict[bytes, FolderLocation] = {}
    for path, recursive in given:
        if not Roots(roots.values()).covers(path):
            old = roots.get(path, Root(len(roots) + 1, path, False))
            roots[path] = Root(old.id, path, old.recursive or recursive)
        now = Roots(roots.values())
        place = now.find(path)
        assert place is not None
        assert indexed.setdefault(path, place) == place
        prefix = path.rstrip(b"/") + b"/"
        if recursive and folder.startswith(prefix):
            below = now.find(folder)
            assert below is not None
            assert indexed.setdefault(folder, below) == below
    for path, place in indexed.items():
        assert Roots(reversed(roots.values())).find(path) == place
        (root,) = (root for root in roots.values() if root.id == place.root)
        assert os.path.join(root.path, place.folder).rstrip(b"/") == path.rstrip(b"/")


def test_a_real_path_is_absolute_and_its_folders_are_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path.resolve() / "folder"
    folder.mkdir()
    (folder / "image.jpg").write_bytes(b"")
    (tmp_path / "link").symlink_to(folder)
    (folder / "other.jpg").symlink_to("image.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(folder))
    for path in ("folder/image.jpg", "link/image.jpg", "link/../folder/./image.jpg", "~/image.jpg"):
        assert real_path(path) == os.fsencode(folder / "image.jpg")
    assert real_path("link/other.jpg") == os.fsencode(folder / "other.jpg")
    assert real_path("/") == b"/"
