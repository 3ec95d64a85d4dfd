"""Delete the copies in a folder full of pictures that are nearly copies, and lose nothing else."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image, ImageEnhance

from benchmarks.lookalikes import forms, plots, receipts, tables
from imgsearch.collection import Collection
from tests.images.test_compare import scene
from tests.support.tiffs import LONG, Page, colour, tiff

pytestmark = pytest.mark.usefixtures("here", "trash")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def fill(folder: Path) -> set[str]:
    """Fill a folder, and return the names of the files that hold nothing of their own."""
    for family in (forms, receipts, tables, plots):
        for number, image in enumerate(family(random.Random(5))):
            image.save(folder / f"{family.__name__}-{number}.png")
    wide = scene(1).resize((960, 720))
    for number in range(6):  # a pan
        wide.crop((40 * number, 0, 40 * number + 480, 480)).save(folder / f"pan-{number}.jpg")
    for step in range(6):
        Image.blend(scene(2), scene(3), step / 5).save(folder / f"fade-{step}.png")
    for name, last in (("contract 1", 4), ("contract 2", 5)):
        pages = [scene(seed).resize((240, 180)) for seed in (11, 12, last)]
        pages[0].save(folder / f"{name}.tif", save_all=True, append_images=pages[1:])
    _save_raw(folder / "DSC_0001.NEF", scene(6))
    scene(6).save(folder / "DSC_0001.JPG", quality=90)
    deep = np.asarray(scene(7).convert("L").resize((240, 180)), np.uint16) * 257
    Image.fromarray(deep).save(folder / "deep and small.tif")
    scene(7).convert("L").save(folder / "grey and large.jpg", quality=60)
    scene(8).save(folder / "original.png")
    scene(8).save(folder / "encoded.jpg", quality=50)
    ImageEnhance.Brightness(scene(8)).enhance(1.15).save(folder / "bright.jpg", quality=80)
    scene(8).crop((14, 10, 470, 352)).save(folder / "cropped.jpg", quality=80)
    return {"encoded.jpg", "bright.jpg", "cropped.jpg"}


def _save_raw(path: Path, image: Image.Image) -> None:
    """Save a file as cameras do: a preview, and what the sensor saw below it."""
    sensor = colour(np.asarray(image, np.uint8), t254=(LONG, [0]))
    preview = colour(np.asarray(image.resize((240, 180)), np.uint8), t254=(LONG, [1]))
    preview = Page(preview.tags, preview.strips, below=(sensor,))
    path.write_bytes(tiff(preview))


@pytest.mark.whole("test_copies_are_deleted_and_what_is_kept_stays")
@pytest.mark.parametrize("way", ["--delete", "--delete-forever", "--link"])
def test_copies_are_discarded_and_nothing_else_that_no_kept_file_holds(
    invoke: Callable[..., Result], empty: Path, tmp_path: Path, trash: Path, way: str
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    copies = fill(folder)
    before = {path.name: path.stat().st_ino for path in folder.iterdir()}
    with Collection.open(empty, device="cpu") as collection:
        collection.index([folder])
    result = invoke("-c", empty, "duplicates", "--json", way, "--yes")
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    after = {path.name: path.stat().st_ino for path in folder.iterdir()}
    assert {name for name, inode in before.items() if after.get(name) != inode} == copies
    assert copies & set(after) == (copies if way == "--link" else set())
    if way == "--link":
        assert {after[name] for name in copies} == {before["original.png"]}
    if way == "--delete":
        assert {path.name for path in trash.iterdir()} == copies
    assert [Path(group["keep"]["path"]).name for group in said["groups"]] == ["original.png"]
    (photo,) = said["photos"]
    assert Path(photo["raw"]["path"]).name == "DSC_0001.NEF"
    assert [Path(image["path"]).name for image in photo["images"]] == ["DSC_0001.JPG"]
