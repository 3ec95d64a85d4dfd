"""Filling a collection without images by REST: which folders are told and indexed, and for whom."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from imgsearch.collection import Collection
from imgsearch.storage.files import exclusive
from imgsearch.storage.layout import Layout
from tests.support.pictures import save_pictures
from tests.web.conftest import Served

FOLDERS, INDEX = "/api/v1/folders", "/api/v1/index"
PATIENCE = 120  # seconds
TOKEN = "open-sesame"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with five pictures, beside a folder that is none of the client's business."""
    home = tmp_path / "home" / "ana"
    save_pictures(home / "Pictures" / "2024", 5)
    (home / "Documents").mkdir()
    (home / ".ssh").mkdir()
    save_pictures(tmp_path / "home" / "ben" / "Pictures", 2)
    monkeypatch.setenv("HOME", str(home))
    return home


def ended(client: TestClient) -> dict[str, Any]:
    """Wait until nothing is being indexed."""
    until = time.monotonic() + PATIENCE
    while (status := client.get(INDEX).json())["running"]:
        assert time.monotonic() < until, status
        time.sleep(0.05)
    return dict(status)


def test_a_folder_is_found_and_indexed(served: Served, empty: Path, home: Path) -> None:
    client = served(empty)
    assert client.get("/api/v1/info").json()["may_fill"]
    top = client.get(FOLDERS).json()
    assert top["path"] == str(home)
    assert top["folders"] == ["Documents", "Pictures"]
    assert (top["parent"], top["may_index"], top["images"]) == (None, False, 0)
    pictures = client.get(FOLDERS, params={"path": f"{home}/Pictures"}).json()
    assert (pictures["parent"], pictures["folders"]) == (str(home), ["2024"])
    for path in ("Pictures/2024", "~/Pictures/2024", f"{home}/Pictures/2024/"):
        found = client.get(FOLDERS, params={"path": path}).json()
        assert found["path"] == f"{home}/Pictures/2024"
        assert (found["may_index"], found["images"], found["folders"]) == (True, 5, [])
    assert client.get(INDEX).json() == {
        "running": False,
        "folder": None,
        "done": 0,
        "total": 0,
        "seconds": 0.0,
        "failure": None,
        "indexed": None,
    }
    begun = client.put(INDEX, params={"folder": "~/Pictures"})
    assert begun.status_code == 202
    assert begun.json()["running"]
    assert begun.json()["folder"] == f"{home}/Pictures"
    status = ended(client)
    assert status["failure"] is None
    assert status["indexed"] == {"images": 5, "failed": 0, "skipped": 0}
    assert status["seconds"] > 0
    assert len(client.get("/api/v1/images").json()["images"]) == 5
    for answer in (client.get(FOLDERS), client.put(INDEX, params={"folder": "Documents"})):
        assert answer.status_code == 403  # it has images by now
        assert "without images" in answer.json()["detail"]


def test_no_folder_outside_of_the_home_folder_is_told_or_indexed(
    served: Served, empty: Path, home: Path
) -> None:
    client = served(empty)
    elsewhere = home.parent / "ben" / "Pictures"
    (home / "way").symlink_to(elsewhere)
    (home / "Pictures" / "up").symlink_to("../../ben")
    (home / "loop").symlink_to(home / "loop")
    (home / "within").symlink_to(home / "Pictures")
    (home / "file").write_text("a file")
    outside = ["/", "/etc", "..", "../ben/Pictures", "Pictures/../../ben", str(elsewhere)]
    outside += ["way", "Pictures/up", "Pictures/up/Pictures", f"{home}/../ben", f"{home}x"]
    outside += ["~root", "~ben/Pictures", "/proc/self/root", "/proc/self/cwd", "//etc", "loop"]
    nowhere = ["nowhere", "/nowhere", "../nowhere", "file", "file/..x", "a\0b", "x" * 4000]
    said = set()
    for path in [*outside, *nowhere]:
        for answer in (
            client.get(FOLDERS, params={"path": path}),
            client.put(INDEX, params={"folder": path}),
        ):
            assert answer.status_code == 422, path
            said.add(answer.json()["detail"].replace(repr(path[:200]), ""))
    assert len(said) == 1  # the same whether or not it is there
    assert client.put(INDEX, params={"folder": ""}).status_code == 422
    assert client.put(INDEX, params={"folder": "x" * 5000}).status_code == 422
    assert client.put(INDEX).status_code == 422
    for path in ("~", str(home), "Pictures/.."):
        assert "not all of it" in client.put(INDEX, params={"folder": path}).json()["detail"]
    assert client.get(FOLDERS).json()["folders"] == ["Documents", "Pictures", "within"]
    assert client.get(FOLDERS, params={"path": "Pictures"}).json()["folders"] == ["2024"]
    assert client.get(INDEX).json()["folder"] is None
    begun = client.put(INDEX, params={"folder": "within"}).json()
    assert begun["folder"] == f"{home}/Pictures"


@pytest.mark.usefixtures("home")
def test_other_sites_learn_and_index_nothing(served: Served, empty: Path) -> None:
    client = served(empty)
    start = f"{INDEX}?folder=Pictures"
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        assert client.get(FOLDERS, headers=headers).status_code == 403
        assert client.put(start, headers=headers).status_code == 403
        assert client.delete(INDEX, headers=headers).status_code == 403
    rebound = {"Host": "evil.example"}
    assert client.get(FOLDERS, headers=rebound).status_code == 421
    assert client.put(start, headers=rebound).status_code == 421
    for method in ("POST", "GET"):  # which pages of other sites may send
        assert client.request(method, start).json().get("running") is not True
    allowed = client.options(INDEX, headers={"Access-Control-Request-Method": "PUT"})
    assert "access-control-allow-origin" not in allowed.headers
    assert client.get(INDEX).json()["folder"] is None


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    "options",
    [
        {"read_only": True},
        {"host": "0.0.0.0", "allowed_hosts": ("127.0.0.1",), "token": TOKEN},
        {"allowed_hosts": ("photos.example",), "token": TOKEN},
        {"host": "0.0.0.0", "allowed_hosts": ("127.0.0.1",), "insecure": True},
    ],
)
def test_nothing_is_told_or_indexed_where_it_is_not_allowed(
    served: Served, empty: Path, options: dict[str, Any]
) -> None:
    client = served(empty, **options)
    if "token" in options:
        assert client.get(FOLDERS).status_code == 401
        assert client.put(INDEX, params={"folder": "Pictures"}).status_code == 401
        client.headers["Authorization"] = f"Bearer {TOKEN}"
    assert not client.get("/api/v1/info").json()["may_fill"]
    answers = [client.get(FOLDERS), client.put(INDEX, params={"folder": "Pictures"})]
    answers += [client.get(FOLDERS, params={"path": "/etc"}), client.delete(INDEX)]
    for answer in answers:
        assert answer.status_code == 403
        assert "people at its machine" in answer.json()["detail"]
    assert client.get(INDEX).json()["folder"] is None


@pytest.mark.usefixtures("home")
def test_a_token_is_asked_for_on_this_machine_too(served: Served, empty: Path) -> None:
    client = served(empty, token=TOKEN)
    assert client.get(FOLDERS).status_code == 401
    assert client.put(INDEX, params={"folder": "Pictures"}).status_code == 401
    client.headers["Authorization"] = f"Bearer {TOKEN}"
    assert client.get(FOLDERS).json()["folders"] == ["Documents", "Pictures"]


@pytest.mark.usefixtures("home")
def test_of_two_starts_at_once_one_is_refused(served: Served, empty: Path) -> None:
    client = served(empty)
    answers: list[int] = []
    ready = threading.Barrier(4)

    def start() -> None:
        ready.wait()
        answers.append(client.put(INDEX, params={"folder": "Pictures"}).status_code)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [202, 409, 409, 409]
    assert ended(client)["indexed"] == {"images": 5, "failed": 0, "skipped": 0}


@pytest.mark.usefixtures("home")
def test_a_run_beside_another_process_that_writes_says_so(served: Served, empty: Path) -> None:
    client = served(empty)
    with exclusive(Layout(empty).directory):
        assert client.put(INDEX, params={"folder": "Pictures"}).status_code == 202
        status = ended(client)
    assert "try again when it is done" in status["failure"]
    assert status["indexed"] is None
    assert client.get("/api/v1/images").json()["images"] == []


def test_a_run_can_be_cancelled_and_ends_with_the_server(
    served: Served, empty: Path, home: Path
) -> None:
    os.mkfifo(home / "Documents" / "pipe.jpg")  # special: skipped, never opened
    save_pictures(home / "Documents", 300)
    client = served(empty)
    client.put(INDEX, params={"folder": "Documents"})
    assert client.delete(INDEX).status_code == 202
    status = ended(client)
    assert status["failure"] is None
    assert status["indexed"] is None
    with Collection.open(empty, device="cpu") as collection:  # nothing is left half done
        collection.index([home / "Documents"])
        assert len(collection) == 300
