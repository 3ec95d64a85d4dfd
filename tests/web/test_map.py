"""The map by REST: as it was made last, with its clusters."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from imgsearch.collection import Collection
from tests.support.pictures import save_pictures
from tests.web.conftest import Served

API, JOB = "/api/v1/map", "/api/v1/map/job"
PATIENCE = 120  # seconds
TOKEN = "open-sesame"


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


def ended(client: TestClient) -> dict[str, Any]:
    """Wait until the map is not being made."""
    until = time.monotonic() + PATIENCE
    while (status := client.get(JOB).json())["running"]:
        assert time.monotonic() < until, status
        time.sleep(0.05)
    return dict(status)


def test_a_map_is_made_on_request(client: TestClient) -> None:
    idle = {"running": False, "done": 0, "total": 0, "failure": None}
    assert client.get(JOB).json() == idle
    begun = client.put(JOB)
    assert (begun.status_code, begun.json()["running"]) == (202, True)
    assert ended(client) == idle
    assert len(client.get(API).json()["ids"]) == 40


def test_of_two_that_ask_for_a_map_at_once_one_is_refused(client: TestClient) -> None:
    answers: list[int] = []
    ready = threading.Barrier(4)

    def start() -> None:
        ready.wait()
        answers.append(client.put(JOB).status_code)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [202, 409, 409, 409]
    assert client.delete(JOB).status_code == 202
    assert ended(client)["failure"] is None


def test_why_no_map_is_made_is_told(served: Served, empty: Path) -> None:
    refused = served(empty).put(JOB)
    assert refused.status_code == 422
    assert "no images to make a map of" in refused.json()["detail"]


def test_a_map_that_cannot_be_kept_fails_with_the_reason(
    client: TestClient, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("a file where the folder would be")
    assert client.put(JOB).status_code == 202
    assert "cache" in ended(client)["failure"]
    assert client.get(API).status_code == 404


def test_other_sites_begin_no_map(client: TestClient) -> None:
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
    ):
        assert client.put(JOB, headers=headers).status_code == 403
        assert client.delete(JOB, headers=headers).status_code == 403
    assert client.put(JOB, headers={"Host": "evil.example"}).status_code == 421
    assert client.post(JOB).status_code == 405
    allowed = client.options(JOB, headers={"Access-Control-Request-Method": "PUT"})
    assert "access-control-allow-origin" not in allowed.headers
    assert not client.get(JOB).json()["running"]


@pytest.mark.parametrize(
    "options",
    [
        {"read_only": True},
        {"read_only": True, "token": TOKEN},
        {"host": "0.0.0.0", "allowed_hosts": ("127.0.0.1",), "insecure": True},
    ],
)
def test_no_map_is_made_where_it_is_not_allowed(
    served: Served, indexed: Path, options: dict[str, Any]
) -> None:
    client = served(indexed, **options)
    if "token" in options:
        assert client.put(JOB).status_code == 401
        client.headers["Authorization"] = f"Bearer {TOKEN}"
    for answer in (client.put(JOB), client.delete(JOB)):
        assert answer.status_code == 403
        assert "does not change" in answer.json()["detail"]
    assert not client.get(JOB).json()["running"]
    assert client.get(API).status_code == 404
