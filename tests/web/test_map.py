"""The map by REST: as it was made last, with its clusters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from imgsearch.collection import Collection
from tests.support.pictures import save_pictures
from tests.web.conftest import Served

API = "/api/v1/map"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_without_a_map_the_answer_says_how_to_make_one(client: TestClient, indexed: Path) -> None:
    answer = client.get(API)
    assert answer.status_code == 404
    told = f"there is no map of {indexed} yet; make one with `imgsearch map`"
    assert answer.json()["detail"] == told


def test_a_map_has_a_position_and_a_cluster_for_each_image(
    client: TestClient, indexed: Path, photos: Path
) -> None:
    with Collection.open(indexed, device="cpu") as collection:
        made = collection.map()
    answer = client.get(API)
    found = answer.json()
    assert found["ids"] == made.ids.tolist()
    positions = np.array([found["x"], found["y"]]).T / 65_535
    assert np.abs(positions - made.positions).max() < 1e-4
    assert found["missing"] == 0
    counts = np.bincount(found["of"]).tolist()
    assert [cluster["images"] for cluster in found["clusters"]] == counts
    assert counts == sorted(counts, reverse=True)
    for number, cluster in enumerate(found["clusters"]):
        assert found["of"][found["ids"].index(cluster["id"])] == number
        assert cluster["folder"] == str(photos)
    again = client.get(API, headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_map_follows_the_collection(client: TestClient, indexed: Path, tmp_path: Path) -> None:
    with Collection.open(indexed, device="cpu") as collection:
        ids = collection.map().ids.tolist()
        name = client.get(API).headers["ETag"]
        collection.remove_ids(ids[:3])
        save_pictures(tmp_path / "new", 2, first=100)
        collection.index([tmp_path / "new"])
        answer = client.get(API, headers={"If-None-Match": name})
        assert answer.status_code == 200
        assert (answer.json()["ids"], answer.json()["missing"]) == (ids[3:], 2)
        collection.map()
    assert len(client.get(API).json()["ids"]) == len(ids) - 3 + 2
    assert client.get(API).json()["missing"] == 0


def test_images_of_several_folders_have_no_folder_in_common(
    served: Served, empty: Path, tmp_path: Path
) -> None:
    for number in range(6):  # the same picture in each, so that all are in one place
        save_pictures(tmp_path / "photos" / str(number), 1)
    with Collection.open(empty, device="cpu") as collection:
        collection.index([tmp_path / "photos"])
        collection.map()
    (cluster,) = served(empty).get(API).json()["clusters"]
    assert (cluster["images"], cluster["folder"]) == (6, None)


def test_a_forged_map_shows_no_image_that_there_is_not(
    client: TestClient, indexed: Path, tmp_path: Path
) -> None:
    with Collection.open(indexed, device="cpu") as collection:
        ids = collection.map().ids.tolist()
        (path,) = (tmp_path / "cache" / "imgsearch" / "maps").iterdir()
        path.write_bytes(path.read_bytes()[:-1] + b"\x09")
        assert client.get(API).status_code == 404
        collection.map()
    assert client.get(API).json()["ids"] == ids
