"""Listings of the images in an order, page by page, and what filters can choose from."""

from __future__ import annotations

import os
import shutil
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from imgsearch.collection import Collection
from tests.support.pictures import save_pictures
from tests.web.conftest import Served

LAYOUT = "/api/v1/layout"


def pages(client: TestClient, address: str, limit: int, **query: Any) -> list[int]:
    """Return the ids of all pages of a listing."""
    found: list[int] = []
    while True:
        page = client.get(address, params={"after": found[-1:] or [0], "limit": limit, **query})
        body = page.json()
        ids = body["ids"] if "ids" in body else [each["id"] for each in body["images"]]
        found += ids
        if len(ids) < limit:
            return found


@pytest.mark.few(4)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("order", ["added", "path", "name", "date", "size"])
@pytest.mark.parametrize("address", [LAYOUT, "/api/v1/images"])
def test_the_pages_of_a_listing_are_that_of_the_library_in_any_order(
    client: TestClient, indexed: Path, address: str, order: Any, reverse: bool
) -> None:
    with Collection.open(indexed, device="cpu") as collection:
        wanted = collection.entries.ids(order=order, reverse=reverse)
        png = collection.entries.ids(order=order, reverse=reverse, format="png")
    asked = {"sort": order, "reverse": str(reverse).lower()}
    assert pages(client, address, 7, **asked) == wanted
    assert pages(client, address, 7, **asked, format="png") == png


def test_a_layout_has_the_sizes_and_the_number_of_all_images(client: TestClient) -> None:
    found = client.get(LAYOUT, params={"limit": 5, "format": "png"}).json()
    assert len(found["ids"]) == 5 < found["total"] < 40
    facts = client.get("/api/v1/images", params={"ids": ",".join(map(str, found["ids"]))}).json()
    sizes = [(each["width"], each["height"]) for each in facts["images"]]
    assert sizes == [*zip(found["widths"], found["heights"], strict=True)]
    assert [each["id"] for each in facts["images"]] == found["ids"]
    assert client.get(LAYOUT).json()["total"] == 40


@pytest.mark.few(1)
@pytest.mark.parametrize("reverse", ["false", "true"])
@pytest.mark.parametrize("wanted", [{}, {"format": "png"}])
def test_a_timeline_has_each_month_with_its_images_in_the_order_of_the_listing(
    served: Served, empty: Path, tmp_path: Path, reverse: str, wanted: dict[str, str]
) -> None:
    rng = np.random.default_rng(5)
    months = [f"20{year:02}-{month:02}" for year in (8, 9, 21) for month in (1, 2, 12)]
    taken = {}
    for path in save_pictures(tmp_path / "dated", 60):
        month = months[int(rng.integers(len(months)))]
        time = datetime.fromisoformat(f"{month}-15T12:00:00").timestamp()
        os.utime(path, (time, time))
        taken[str(path)] = month
    with Collection.open(empty, device="cpu") as collection:
        collection.index([tmp_path / "dated"])
    client = served(empty)
    asked = {"sort": "date", "reverse": reverse, **wanted}
    found = client.get("/api/v1/timeline", params=asked).json()["months"]
    images = client.get("/api/v1/images", params={**asked, "limit": 100}).json()["images"]
    runs = groupby(taken[image["path"]] for image in images)
    assert [(each["month"], each["images"]) for each in found] == [
        (month, len([*run])) for month, run in runs
    ]
    assert len(found) > 4


def test_a_timeline_is_that_of_a_listing_by_date(client: TestClient) -> None:
    assert client.get("/api/v1/timeline", params={"sort": "name"}).status_code == 422
    nothing = {"sort": "date", "name": "nothing is called that"}
    assert client.get("/api/v1/timeline", params=nothing).json() == {"months": []}


def test_images_by_their_ids_come_in_that_order_without_those_that_are_gone(
    client: TestClient,
) -> None:
    found = client.get("/api/v1/images?ids=7,999,3,7").json()["images"]
    assert [each["id"] for each in found] == [7, 3, 7]


@pytest.mark.parametrize(
    "query",
    [
        "images?ids=",
        "images?ids=0",
        "images?ids=1,,2",
        "images?ids=-1",
        "images?ids=9999999999999999999",
        "images?ids=1&limit=3",
        "images?ids=" + ",".join(["1"] * 1001),
        "layout?sort=random",
        "layout?reverse=1",
        "layout?limit=50001",
        "layout?name=%2F",
    ],
)
def test_a_listing_that_makes_no_sense_is_refused(client: TestClient, query: str) -> None:
    assert client.get(f"/api/v1/{query}").status_code == 422


def test_a_listing_follows_the_collection(served: Served, indexed: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(indexed, tmp_path / "copy")
    client = served(directory)
    before = pages(client, LAYOUT, 15, sort="size")
    with Collection.open(directory, device="cpu") as collection:
        gone = before[14]
        collection.remove([collection.entries.get(gone).path])
    assert pages(client, LAYOUT, 15, sort="size") == [id_ for id_ in before if id_ != gone]
    answer = client.get(LAYOUT, params={"sort": "size", "after": gone})
    assert answer.status_code == 404
    assert "begin again" in answer.json()["detail"]
    rest = client.get(LAYOUT, params={"after": gone, "format": "png"}).json()["ids"]
    assert rest
    assert min(rest) > gone


def test_folders_and_cameras_are_counted(client: TestClient, indexed: Path) -> None:
    found = client.get("/api/v1/facets").json()
    with Collection.open(indexed, device="cpu") as collection:
        folders = [str(Path(entry.path).parent) for entry in collection.entries.where()]
    assert {each["path"]: each["images"] for each in found["folders"]} == {
        folder: folders.count(folder) for folder in folders
    }
    assert found["cameras"] == []
