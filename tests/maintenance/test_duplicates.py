"""Find copies, and act on them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageEnhance

from imgsearch.collection import Collection
from imgsearch.errors import NoCollectionError, SettingError
from imgsearch.maintenance import duplicates as module
from imgsearch.maintenance import grouping
from imgsearch.maintenance.copies import Duplicates
from imgsearch.maintenance.discard import delete_copies, link_copies
from imgsearch.maintenance.duplicates import find_duplicates
from tests.images.test_compare import scene

pytestmark = pytest.mark.usefixtures("here")

WAYS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "small": lambda image: image.resize((240, 180)),
    "crop": lambda image: image.crop((14, 10, 470, 352)),
    "bright": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test know what another has compared."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten scenes; of the first three, copies made in several ways, and one exact copy."""
    folder = tmp_path / "photos"
    (folder / "copies").mkdir(parents=True)
    for seed in range(10):
        scene(seed).save(folder / f"{seed}.png")
    for seed in range(3):
        for name, way in WAYS.items():
            way(scene(seed)).save(folder / "copies" / f"{seed}-{name}.jpg", quality=80)
    shutil.copy(folder / "0.png", folder / "copies" / "0-exact.png")
    return folder


@pytest.fixture
def directory(empty: Path, folder: Path) -> Path:
    with Collection.open(empty, device="cpu") as collection:
        collection.index([folder])
    return empty


def names(found: Duplicates) -> dict[str, set[str]]:
    """Return the names of the others by that of the one to be kept."""
    return {
        Path(group.keep.path).name: {Path(copy.path).name for copy in group.others}
        for group in found.groups
    }


EXPECTED = {
    f"{seed}.png": {f"{seed}-{name}.jpg" for name in WAYS}
    | ({"0-exact.png"} if seed == 0 else set())
    for seed in range(3)
}


def test_copies_are_found_and_the_best_is_to_be_kept(directory: Path, folder: Path) -> None:
    told: list[tuple[int, int]] = []
    found = find_duplicates(directory, progress=lambda done, total: told.append((done, total)))
    by_name = names(found)
    # Of two files of one content, either may stand for it.
    if "0-exact.png" in by_name:
        others = by_name.pop("0-exact.png")
        by_name["0.png"] = others - {"0.png"} | {"0-exact.png"}
    assert by_name == EXPECTED
    assert (found.images, found.count, found.unreadable) == (20, 10, ())
    assert told[-1] == (19, 19)
    for group in found.groups:
        assert (group.keep.width, group.keep.height) == (480, 360)
        assert group.keep.exact
        assert group.keep.similarity == pytest.approx(1)
        for copy in group.others:
            assert copy.size == Path(copy.path).stat().st_size
            assert copy.exact == (Path(copy.path).suffix == ".png")
            assert copy.mtime == pytest.approx(Path(copy.path).stat().st_mtime)
    assert found.size == sum(copy.size for group in found.groups for copy in group.others)
    assert len(list(folder.rglob("*.*"))) == 20  # nothing is touched


@pytest.mark.whole("test_copies_are_found_and_the_best_is_to_be_kept")
def test_with_lists_the_same_is_found(directory: Path) -> None:
    before = names(find_duplicates(directory))
    with Collection.open(directory, device="cpu") as collection:
        collection.index(nlist=4)
    assert names(find_duplicates(directory)) == before


@pytest.mark.whole("test_copies_are_found_and_the_best_is_to_be_kept")
def test_more_copies_than_are_looked_at_at_first(
    empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NEIGHBOURS", 2)
    monkeypatch.setattr(grouping, "GLANCES", 40_000)  # three
    monkeypatch.setattr(grouping, "INSPECTIONS", 2_500_000)  # four
    monkeypatch.setattr(grouping, "AT_ONCE", 2)
    (tmp_path / "many").mkdir()
    for number in range(30):
        scene(0).save(tmp_path / "many" / f"{number}.jpg", quality=60 + number)
    scene(1).save(tmp_path / "many" / "other.png")
    with Collection.open(empty, device="cpu") as collection:
        collection.index([tmp_path / "many"])
    (group,) = find_duplicates(empty).groups
    assert len(group.others) == 29


def test_an_empty_collection_and_one_without_copies_have_none(empty: Path, folder: Path) -> None:
    assert find_duplicates(empty) == Duplicates((), 0, ())
    shutil.rmtree(folder / "copies")
    with Collection.open(empty, device="cpu") as collection:
        collection.index([folder])
    assert find_duplicates(empty) == Duplicates((), 10, ())


def test_what_cannot_be_read_is_told_and_exact_copies_are_found_all_the_same(
    directory: Path, folder: Path
) -> None:
    (folder / "copies" / "1-small.jpg").unlink()
    (folder / "copies" / "1-crop.jpg").write_bytes(b"something else")
    found = find_duplicates(directory)
    reasons = {Path(failure.path).name: failure.reason for failure in found.unreadable}
    assert reasons == {
        "1-small.jpg": "cannot be read: No such file or directory",
        "1-crop.jpg": "has changed since it was indexed",
    }
    assert names(found)["1.png"] == {"1-bright.jpg"}


def test_what_makes_no_sense_is_refused(directory: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="min_similarity"):
        find_duplicates(directory, min_similarity=2)
    with pytest.raises(NoCollectionError):
        find_duplicates(tmp_path / "nothing")


# Acting


def test_copies_are_deleted_and_what_is_kept_stays(directory: Path, folder: Path) -> None:
    found = find_duplicates(directory)
    done = delete_copies(found)
    assert (len(done.done), done.size, done.failures) == (10, found.size, ())
    assert len(list(folder.rglob("*.*"))) == 10
    assert all(Path(group.keep.path).exists() for group in found.groups)
    with Collection.open(directory, device="cpu") as collection:
        collection.index(prune=True)
    assert find_duplicates(directory).groups == ()


@pytest.mark.whole("test_links_take_the_place_of_copies_and_nothing_is_left_over")
def test_copies_are_linked_and_read_the_same(directory: Path, folder: Path) -> None:
    found = find_duplicates(directory)
    done = link_copies(found)
    assert (len(done.done), done.failures) == (10, ())
    assert len(list(folder.rglob("*.*"))) == 20
    assert not list(folder.rglob(".imgsearch-*"))
    for group in found.groups:
        assert all(os.path.samefile(group.keep.path, copy.path) for copy in group.others)
    again = link_copies(found)  # it was said of files that are there no more
    assert again.done == ()
    assert len(again.failures) == 10
    assert len(list(folder.rglob("*.*"))) == 20


def test_nothing_is_touched_that_is_not_what_was_compared(directory: Path, folder: Path) -> None:
    found = find_duplicates(directory)
    by_name = {Path(group.keep.path).name: group for group in found.groups}
    (folder / "1.png").write_bytes(b"changed since")
    (folder / "copies" / "0-crop.jpg").write_bytes(b"changed since")
    outside = folder.parent / "outside.png"
    shutil.move(folder / "2.png", outside)
    (folder / "2.png").symlink_to(outside)
    done = delete_copies(found)
    reasons = {Path(failure.path).name: failure.reason for failure in done.failures}
    for name in ("1-small.jpg", "1-crop.jpg", "1-bright.jpg"):
        assert "which was to be kept, has changed" in reasons[name]
        assert (folder / "copies" / name).exists()
    assert "is a link" in reasons["2-small.jpg"]
    assert (folder / "copies" / "2-crop.jpg").exists()
    assert reasons["0-crop.jpg"] == "has changed since it was indexed"
    assert outside.exists()
    assert len(by_name) == 3


@pytest.mark.whole("test_nothing_is_touched_that_is_not_what_was_compared")
def test_two_names_of_one_file_are_left_alone(directory: Path, folder: Path) -> None:
    found = find_duplicates(directory)
    (group,) = (group for group in found.groups if any(copy.exact for copy in group.others))
    (exact,) = (copy for copy in group.others if copy.exact)
    os.unlink(exact.path)
    os.link(group.keep.path, exact.path)
    done = delete_copies(found)
    (failure,) = done.failures
    assert "is the same file" in failure.reason
    assert Path(exact.path).exists()
    assert folder.exists()
