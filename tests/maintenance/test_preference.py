"""What is kept: folders to keep, and a preference among files that hold the same."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from imgsearch.collection import Collection
from imgsearch.errors import InputError, SettingError
from imgsearch.maintenance import discard, duplicates
from imgsearch.maintenance.copies import Discarded, Duplicates, Group
from imgsearch.maintenance.discard import delete_copies, link_copies
from imgsearch.maintenance.duplicates import find_duplicates
from tests.images.test_compare import scene
from tests.support.embedding_here import decoders_here

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture(autouse=True)
def quickly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cache", "state"):
        monkeypatch.setenv(f"XDG_{name.upper()}_HOME", str(tmp_path / name))
    for module in (discard, duplicates):
        monkeypatch.setattr(module, "decoders", decoders_here)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photos" / "masters").mkdir(parents=True)
    return tmp_path / "photos"


def found_in(directory: Path, folder: Path, keep_in: Path | None = None, prefer: str = "") -> Group:
    with Collection.open(directory, device="cpu") as collection:
        collection.index([folder])
    folders = [keep_in] if keep_in else []
    (group,) = find_duplicates(directory, keep_in=folders, prefer=prefer or None).groups
    return group


def names(group: Group) -> tuple[str, set[str]]:
    return Path(group.keep.path).name, {Path(copy.path).name for copy in group.others}


def test_what_lies_in_a_folder_to_keep_is_kept(empty: Path, folder: Path, tmp_path: Path) -> None:
    scene(1).save(folder / "outside.png")
    shutil.copy2(folder / "outside.png", folder / "masters" / "exact.png")
    scene(1).save(folder / "outside.jpg", quality=80)
    os.utime(folder / "masters" / "exact.png", (2e9, 2e9))
    assert names(found_in(empty, folder))[0] == "outside.png"
    (tmp_path / "link").symlink_to(folder / "masters")
    group = found_in(empty, folder, tmp_path / "link")
    assert names(group) == ("exact.png", {"outside.png", "outside.jpg"})
    assert group.reason == "in a folder to keep"


@pytest.mark.few(1)
@pytest.mark.parametrize("act", [delete_copies, link_copies])
def test_nothing_in_a_folder_to_keep_is_discarded_even_if_it_holds_less(
    empty: Path, folder: Path, act: Callable[[Duplicates], Discarded]
) -> None:
    scene(1).save(folder / "outside.png")
    scene(1).save(folder / "outside.jpg", quality=80)
    for number in (1, 2):
        small = scene(1).resize((240 - number, 180))
        small.save(folder / "masters" / f"small {number}.jpg", quality=70)
    before = {path.name: path.stat().st_ino for path in (folder / "masters").iterdir()}
    with Collection.open(empty, device="cpu") as collection:
        collection.index([folder])
    found = find_duplicates(empty, keep_in=[folder / "masters"])
    assert act(found).done == (str(folder / "outside.jpg"),)
    assert {path.name: path.stat().st_ino for path in (folder / "masters").iterdir()} == before
    assert (folder / "outside.png").exists()
    shown = {copy.path: copy.protected for group in found.groups for copy in group.others}
    assert all(protected == ("masters" in path) for path, protected in shown.items())


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("prefer", "kept"),
    [("oldest", "a.jpg"), ("newest", "b.jpg"), ("largest", "c.jpg"), ("sharpest", "c.jpg")],
)
def test_a_preference_decides_among_files_that_hold_the_same(
    empty: Path, folder: Path, prefer: str, kept: str
) -> None:
    for name, quality, width, date in (("a", 80, 480, 1), ("b", 81, 476, 3), ("c", 82, 482, 2)):
        path = folder / f"{name}.jpg"
        scene(1).resize((width, 360)).save(path, quality=quality)
        os.utime(path, (date * 1e8, date * 1e8))
    group = found_in(empty, folder, prefer=prefer)
    assert names(group) == (kept, {"a.jpg", "b.jpg", "c.jpg"} - {kept})
    assert group.reason == prefer


def test_what_holds_more_is_kept_whatever_is_preferred(empty: Path, folder: Path) -> None:
    scene(1).save(folder / "lossless.png")
    for name, image in (("same", scene(1)), ("small", scene(1).resize((240, 180)))):
        image.save(folder / f"{name}.jpg", quality=80)
        os.utime(folder / f"{name}.jpg", (1e8, 1e8))
    for prefer in ("oldest", "newest"):
        group = found_in(empty, folder, prefer=prefer)
        assert names(group) == ("lossless.png", {"same.jpg", "small.jpg"})
        assert group.reason == "lossless"


def test_a_folder_that_keeps_nothing_and_an_unknown_preference_are_refused(
    empty: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        find_duplicates(empty, keep_in=[tmp_path / "unplugged"])
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match="has no image in this folder"):
        find_duplicates(empty, keep_in=[tmp_path / "other"])
    with pytest.raises(SettingError, match="must be one of largest, oldest"):
        find_duplicates(empty, prefer="best")
