"""`imgsearch map`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from imgsearch.collection import Collection
from tests.support.pictures import save_pictures

Invoke = Callable[..., Result]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_map_is_made_and_brought_up_to_date(
    invoke: Invoke, indexed: Path, tmp_path: Path
) -> None:
    made = invoke("map", "-c", indexed)
    where = "; see it under Map in `imgsearch serve --open`\n"
    assert (made.exit_code, made.stdout) == (0, "")
    assert made.stderr == f"laid out 40 images{where}"
    assert invoke("map", "-c", indexed).stderr == f"the map of 40 images is up to date{where}"
    save_pictures(tmp_path / "new", 5, first=100)
    with Collection.open(indexed, device="cpu") as collection:
        collection.index([tmp_path / "new"])
    assert invoke("map", "-c", indexed).stderr == f"placed 5 new among 45 images{where}"
    again = invoke("map", "-c", indexed, "--rebuild", "--json")
    fields = {"collection": str(indexed), "images": 45, "placed": 45, "rebuilt": True}
    assert json.loads(again.stdout) == fields


@pytest.mark.parametrize("name", ["map.png", "map.JPG", "map.webp"])
def test_a_map_is_drawn_with_thumbnails(
    invoke: Invoke, indexed: Path, tmp_path: Path, name: str
) -> None:
    out = tmp_path / name
    drawn = invoke("map", "-c", indexed, "--out", out)
    assert drawn.exit_code == 0
    with Collection.open(indexed, device="cpu") as collection:
        positions = collection.map().positions
    cells = np.minimum((positions * 10).astype(int), 9)
    filled = {(y, x) for x, y in cells.tolist()}
    assert f"wrote {len(filled)} images to {out}\n" in drawn.stderr
    with Image.open(out) as sheet:
        assert sheet.size == (3_070, 3_070)  # ten cells of 307 pixels
        pixels = np.asarray(sheet.convert("RGB"), np.int16).reshape(10, 307, 10, 307, 3)
    inside = (pixels[:, 20:-20, :, 20:-20] < 240).any(axis=(1, 3, 4))
    assert set(zip(*np.nonzero(inside), strict=True)) == filled


def test_an_image_that_is_gone_is_a_grey_square_on_the_map(
    invoke: Invoke, empty: Path, tmp_path: Path
) -> None:
    first, *_ = save_pictures(tmp_path / "own", 3)
    with Collection.open(empty, device="cpu") as collection:
        collection.index([tmp_path / "own"])
    first.unlink()
    assert invoke("map", "-c", empty, "--out", tmp_path / "map.png").exit_code == 0
    with Image.open(tmp_path / "map.png") as sheet:
        assert (200, 200, 205) in {colour for _, colour in sheet.getcolors(1 << 24) or ()}


def test_a_map_is_drawn_only_as_a_picture(invoke: Invoke, indexed: Path, tmp_path: Path) -> None:
    refused = invoke("map", "-c", indexed, "--out", tmp_path / "map.html")
    assert refused.exit_code == 2
    assert "has to end in .png, .jpg or .webp" in refused.stderr
    (tmp_path / "folder.png").mkdir()
    refused = invoke("map", "-c", indexed, "--out", tmp_path / "none" / "map.png")
    assert refused.exit_code != 0
    assert "cannot write the picture" in refused.stderr


@pytest.mark.usefixtures("embedded_here")
def test_without_the_extra_one_line_says_how_to_get_it(
    invoke: Invoke, indexed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Collection.open(indexed, device="cpu") as collection:
        assert len(collection) == 40
    monkeypatch.setitem(sys.modules, "openTSNE", None)
    ended = invoke("map", "-c", indexed)
    assert (ended.exit_code, ended.stdout) == (6, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("imgsearch: a map needs openTSNE, which cannot be loaded")
    assert line.endswith("pip install '.[map]'` in a checkout of imgsearch")


def test_there_is_no_map_of_no_images_nor_of_no_collection(
    invoke: Invoke, empty: Path, tmp_path: Path
) -> None:
    ended = invoke("map", "-c", empty)
    assert ended.exit_code == 3
    assert "has no images to make a map of; run `imgsearch index` first" in ended.stderr
    assert invoke("map", "-c", tmp_path / "nothing").exit_code == 3
    assert invoke("map", "-c", "milvus://localhost/photos").exit_code != 0
