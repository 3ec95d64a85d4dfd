"""`imgsearch explain`: what it prints, and the pictures that it writes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgsearch.images.heat import marked
from tests.support.commands import Run


def test_it_says_which_parts_contribute(run: Run, indexed: Path, photos: Path) -> None:
    found = run("explain", photos / "0004.jpg", photos / "0006.jpg", "-c", indexed)
    assert (found.code, found.err) == (0, "")
    similarity, query, hit = found.out.splitlines()
    assert re.fullmatch(r"similarity  -?[01]\.\d{4}", similarity)
    assert re.match(rf"query +{photos}/0004\.jpg: mostly the [\w ]+ \(\d+%\)", query)
    assert re.match(rf"hit +{photos}/0006\.jpg: mostly the [\w ]+ \(\d+%\)", hit)


def test_the_hit_is_named_as_seen_from_here(run: Run, indexed: Path, photos: Path) -> None:
    found = run("explain", "0004.jpg", "0006.jpg", "-c", indexed, cwd=photos)
    assert [line.split()[1] for line in found.out.splitlines()[1:]] == ["0004.jpg:", "0006.jpg:"]


def test_the_json_has_both_maps_whose_cells_sum_to_the_similarity(
    run: Run, indexed: Path, photos: Path
) -> None:
    query = photos / "0004.jpg"
    hit = json.loads(run("query", query, "-c", indexed, "-k", "1", "--json").out)["hits"][0]
    for name in (hit["path"], str(hit["id"])):
        found = json.loads(run("explain", query, name, "-c", indexed, "--json").out)
        assert (found["query"], found["path"], found["id"]) == (str(query), hit["path"], hit["id"])
        for contributions in (found["query_map"], found["hit_map"]):
            assert np.shape(contributions) == (2, 2)
            assert np.sum(contributions) == pytest.approx(hit["similarity"], abs=1e-4)
        assert (found["z"], found["band"]) == (None, None)


def test_the_page_stands_by_itself(run: Run, indexed: Path, photos: Path, tmp_path: Path) -> None:
    page = tmp_path / "why.html"
    hit = photos / "0006.jpg"
    found = run("explain", photos / "0004.jpg", hit, "-c", indexed, "--html", page)
    assert (found.code, found.err) == (0, f"wrote {page}\n")
    text = page.read_text()
    assert "<script" not in text
    assert "default-src 'none'" in text
    pictures = re.findall(r'<img alt="([^"]+)" src="data:image/jpeg;base64,([^"]+)">', text)
    for (alternative, _), kind in zip(pictures, ("query", "hit"), strict=True):
        assert re.match(rf"{kind} .+\.jpg: mostly the ", alternative)
    assert re.findall(r'href="([^"]+)"', text) == [f"file://{photos}/000{n}.jpg" for n in (4, 6)]


@pytest.mark.whole("test_the_page_stands_by_itself")
def test_the_picture_has_both_side_by_side(
    run: Run, indexed: Path, photos: Path, tmp_path: Path
) -> None:
    arguments = photos / "0004.jpg", photos / "0006.jpg", "-c", indexed, "--crop", "0,0,0.5,1"
    assert run("explain", *arguments, "--png", tmp_path / "why.png").code == 0
    with Image.open(tmp_path / "why.png") as picture:
        assert (picture.format, picture.mode) == ("PNG", "RGB")
        assert picture.size == (24 + 16 + 48, 40)  # half a picture, a gap and a whole one


@pytest.mark.parametrize(
    ("query", "hit", "code", "reason"),
    [
        ("missing.jpg", "1", 3, "missing.jpg: "),
        ("broken.jpg", "1", 3, "broken.jpg: cannot be decoded"),
        (".", "1", 3, ". is a folder; give one image"),
        ("fine.jpg", "fine.jpg", 3, "fine.jpg is not in the collection"),
        ("fine.jpg", "99", 3, "there is no image with the id 99"),
    ],
)
def test_what_cannot_be_explained_is_one_line(
    query: str, hit: str, code: int, reason: str, run: Run, indexed: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "fine.jpg")
    (tmp_path / "broken.jpg").write_bytes((tmp_path / "fine.jpg").read_bytes()[:300])
    found = run("explain", query, hit, "-c", indexed)
    assert (found.code, found.out) == (code, "")
    assert found.err.startswith(f"imgsearch: {reason}")
    assert found.err.count("\n") == 1


def test_a_page_that_cannot_be_written_is_one_line(
    run: Run, indexed: Path, photos: Path, tmp_path: Path
) -> None:
    for option in ("--html", "--png"):
        target = tmp_path / "nowhere" / "why"
        found = run("explain", photos / "0004.jpg", "1", "-c", indexed, option, target)
        assert found.code == 7
        assert re.match(r"imgsearch: cannot write the (page|picture) ", found.err)
        assert found.err.count("\n") == 1


def test_the_strongest_cell_is_marked_most_whatever_its_value() -> None:
    grey = Image.new("RGB", (60, 60), (128, 128, 128))
    for scale in (1e-6, 1.0):
        heat = np.array([[scale, 0], [0, -scale]], np.float32)
        pixels = np.asarray(marked(grey, heat), np.int16)
        changes = np.abs(pixels - 128).sum(axis=2)
        assert changes[5, 5] > 100
        assert changes[5, 5] > 3 * max(changes[55, 55], 1)
    assert np.asarray(marked(grey, np.zeros((2, 2), np.float32))).min() == 128
