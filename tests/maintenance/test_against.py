"""Tell which files of a folder a collection has, without indexing them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from PIL import Image

from imgsearch.collection import Collection
from imgsearch.errors import InputError
from imgsearch.maintenance import against
from imgsearch.maintenance.against import find_against
from imgsearch.maintenance.judging import mark_not_duplicates
from tests.images.test_compare import scene
from tests.support.embedding_here import decoders_here

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture(autouse=True)
def quickly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(against, "decoders", decoders_here)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(3):
        scene(seed).save(folder / f"{seed}.png")
    scene(3).resize((240, 180)).save(folder / "3.jpg", quality=80)
    return folder


@pytest.fixture
def card(photos: Path, tmp_path: Path) -> Path:
    """A folder with files that the collection has in several ways, and some that it has not."""
    folder = tmp_path / "card" / "DCIM"
    folder.mkdir(parents=True)
    shutil.copy(photos / "0.png", folder / "exact.png")
    scene(1).save(folder / "encoded.jpg", quality=80)
    scene(2).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "mirrored.jpg", quality=80)
    scene(3).save(folder / "larger.png")
    scene(4).save(folder / "new.png")
    (folder / "notes.txt").write_text("no image")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no JPEG")
    return folder.parent


@pytest.fixture
def directory(empty: Path, photos: Path) -> Path:
    with Collection.open(empty, device="cpu") as collection:
        collection.index([photos])
    return empty


EXPECTED = {
    "exact.png": ("have", "exact", "0.png"),
    "encoded.jpg": ("have", "re-encoded", "1.png"),
    "mirrored.jpg": ("have", "mirrored", "2.png"),
    "larger.png": ("less", "resized", "3.jpg"),
    "new.png": ("new", "", ""),
}


def test_the_files_of_a_folder_are_found_however_the_collection_has_them(
    directory: Path, card: Path
) -> None:
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    found = find_against(directory, card)
    told = {
        Path(file.path).name: (file.state, file.kind, Path(file.image).name) for file in found.files
    }
    assert told == EXPECTED
    assert next(file.lacks for file in found.files if file.state == "less") == "resolution"
    assert [Path(failure.path).name for failure in found.unreadable] == ["broken.jpg"]
    assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == before


def test_the_images_of_another_collection_are_compared_as_files_are(
    directory: Path, card: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(directory, tmp_path / "other")
    with Collection.open(other, device="cpu") as collection:
        collection.index([card])
    found = find_against(directory, other)
    told = {Path(file.path).name: file.state for file in found.files}
    own = {"0.png": "new", "1.png": "new", "2.png": "new", "3.jpg": "new"}  # the same files
    assert told == {name: state for name, (state, _, _) in EXPECTED.items()} | own


@pytest.mark.whole("test_the_files_of_a_folder_are_found_however_the_collection_has_them")
def test_what_is_missing_or_was_judged_does_not_count(
    directory: Path, photos: Path, card: Path
) -> None:
    assert find_against(directory, photos).count("have") == 0  # a file is not its own copy
    (photos / "0.png").unlink()
    shutil.copy(card / "DCIM" / "encoded.jpg", photos / "1 too.jpg")
    with Collection.open(directory, device="cpu") as collection:
        collection.index([photos / "1 too.jpg"])
    mark_not_duplicates(directory, [photos / "1.png", photos / "1 too.jpg"])
    (photos / "1 too.jpg").unlink()
    states = {Path(file.path).name: file.state for file in find_against(directory, card).files}
    assert states["exact.png"] == states["encoded.jpg"] == "new"
    with pytest.raises(InputError, match="no such file or folder"):
        find_against(directory, card / "nowhere")


def test_the_command_shows_what_is_new(
    invoke: Callable[..., Result], directory: Path, card: Path
) -> None:
    result = invoke("-c", directory, "duplicates", "--against", card)
    assert result.exit_code == 0
    assert result.stderr.endswith("5 images: 3 in the collection, 1 there with less, 1 new\n")
    assert f"new                   {card}/DCIM/new.png\n" in result.stdout
    result = invoke("-c", directory, "duplicates", "--against", card, "--json")
    new = [file["path"] for file in json.loads(result.stdout)["files"] if file["state"] == "new"]
    assert new == [f"{card}/DCIM/new.png"]
    result = invoke("-c", directory, "duplicates", "--against", card, "--csv")
    assert len(result.stdout.splitlines()) == 6
    assert invoke("-c", directory, "duplicates", "--against", card, "--delete").exit_code == 2
