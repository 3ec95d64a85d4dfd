"""`imgsearch map`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

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
