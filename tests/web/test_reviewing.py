"""Finding, judging and discarding duplicates by REST: what is done, and what is allowed to whom."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import psutil
import pytest
from PIL import Image
from starlette.testclient import TestClient

from imgsearch.collection import Collection
from imgsearch.maintenance.aside import discarding_lock
from imgsearch.storage.files import exclusive
from imgsearch.storage.layout import Layout
from imgsearch.web import job
from tests.images.test_compare import scene
from tests.support.commands import imgsearch_command
from tests.web.conftest import Served

API = "/api/v1/duplicates"
GROUPS, COPIES, JUDGEMENTS = f"{API}/groups", f"{API}/copies", f"{API}/judgements"
PUBLIC = {"host": "0.0.0.0", "allowed_hosts": ("127.0.0.1",)}
TOKEN = "open-sesame"
PATIENCE = 120  # seconds
ANY = "0" * 32  # the name of no result


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test know what another has compared."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three scenes; two files of the first and a small one, and the mirror image of the second."""
    folder = tmp_path_factory.mktemp("scenes")
    for seed in range(3):
        scene(seed).save(folder / f"{seed}.png")
    shutil.copy(folder / "0.png", folder / "0 again.png")
    scene(0).resize((240, 180)).save(folder / "0 small.jpg", quality=80)
    mirrored = scene(1).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    mirrored.save(folder / "1 mirrored.jpg", quality=90)
    return folder


@pytest.fixture
def folder(scenes: Path, tmp_path: Path) -> Path:
    return shutil.copytree(scenes, tmp_path / "photos")


@pytest.fixture
def directory(empty: Path, folder: Path) -> Path:
    with Collection.open(empty, device="cpu") as collection:
        collection.index([folder])
    return empty


def ended(client: TestClient) -> dict[str, Any]:
    """Wait until no job is running, and return the status."""
    until = time.monotonic() + PATIENCE
    while True:
        status: dict[str, Any] = client.get(API).json()
        if status["running"] is None:
            return status
        assert time.monotonic() < until
        time.sleep(0.05)


def found(client: TestClient, **wanted: Any) -> dict[str, Any]:
    """Search for duplicates, and return the result."""
    started = client.put(API, params=wanted)
    assert started.status_code == 202, started.text
    assert started.json()["running"] == "find"
    status = ended(client)
    assert status["failure"] is None
    result: dict[str, Any] = status["result"]
    return result


def groups(client: TestClient) -> dict[str, list[str]]:
    """Return the names of the copies by that of the image to keep."""
    return {
        Path(group["keep"]["path"]).name: [Path(each["path"]).name for each in group["others"]]
        for group in client.get(GROUPS).json()["groups"]
    }


def id_of(client: TestClient, name: str) -> int:
    listed = client.get("/api/v1/images").json()["images"]
    by_name = {Path(each["path"]).name: int(each["id"]) for each in listed}
    return by_name[name]


def test_duplicates_are_found_page_by_page_as_by_the_command(
    served: Served, directory: Path, folder: Path
) -> None:
    client = served(directory)
    before = client.get(API).json()
    assert before == {
        "running": None,
        "done": 0,
        "total": 0,
        "failure": None,
        "discarded": None,
        "result": None,
    }
    assert client.get(GROUPS).status_code == 404
    result = found(client, min_similarity=-1)
    assert (result["groups"], result["images"], result["unreadable"]) == (2, 6, 0)
    assert (result["copies"], result["turned"], result["related"]) == (2, 1, 0)
    page = client.get(GROUPS, params={"found": result["found"], "limit": 1}).json()
    rest = client.get(GROUPS, params={"after": page["groups"][-1]["number"]}).json()
    assert [each["number"] for each in page["groups"] + rest["groups"]] == [1, 2]
    command = subprocess.run(
        imgsearch_command("-c", directory, "duplicates", "--json", "--min-similarity=-1"),
        capture_output=True,
        check=True,
    )
    told = json.loads(command.stdout)["groups"]
    for group in page["groups"] + rest["groups"]:
        del group["number"]
        assert [each.pop("discardable") for each in group["others"]] == [True] * len(
            group["others"]
        )
    assert page["groups"] + rest["groups"] == told
    assert len(list(folder.iterdir())) == 6


def test_what_is_judged_not_to_be_a_copy_stays_away(served: Served, directory: Path) -> None:
    client = served(directory)
    found(client, min_similarity=-1)
    one, other = id_of(client, "1.png"), id_of(client, "1 mirrored.jpg")
    assert groups(client)["1.png"] == ["1 mirrored.jpg"]
    assert client.put(f"{JUDGEMENTS}?ids={one},{other}").json() == {"judged": 2}
    assert "1.png" not in groups(client)
    assert client.get(API).json()["result"]["groups"] == 1
    assert found(client, min_similarity=-1)["groups"] == 1
    assert client.delete(f"{JUDGEMENTS}?ids={one},{other}").json() == {"judged": 2}
    assert found(client, min_similarity=-1)["groups"] == 2
    for wrong in (f"{one}", f"{one},{one}", "*", ""):
        assert client.put(f"{JUDGEMENTS}?ids={wrong}").status_code == 422
    assert client.put(f"{JUDGEMENTS}?ids={one},999").status_code == 404
    with exclusive(Layout(directory).directory):
        assert client.put(f"{JUDGEMENTS}?ids={one},{other}").status_code == 503
    assert found(client, min_similarity=-1)["groups"] == 2


def discard(client: TestClient, name: str, *ids: int) -> Any:
    listed = ",".join(map(str, ids))
    return client.delete(f"{COPIES}?found={name}&ids={listed}")


def test_copies_go_to_the_trash_and_the_journal_says_so(
    served: Served, directory: Path, folder: Path, trash: Path, tmp_path: Path
) -> None:
    client = served(directory)
    name = found(client, min_similarity=-1)["found"]
    picked = [id_of(client, each) for each in ("0 small.jpg", "1 mirrored.jpg")]
    started = discard(client, name, *picked)
    assert (started.status_code, started.json()["running"]) == (202, "discard")
    status = ended(client)
    assert status["discarded"] == {
        "count": 2,
        "size": sum(each.stat().st_size for each in trash.iterdir()),
        "left": 0,
        "failures": [],
        "stopped": None,
    }
    assert {each.name for each in trash.iterdir()} == {"0 small.jpg", "1 mirrored.jpg"}
    assert sorted(each.name for each in folder.iterdir()) == [
        "0 again.png",
        "0.png",
        "1.png",
        "2.png",
    ]
    assert (status["result"]["groups"], status["result"]["found"]) == (1, name)
    assert discard(client, name, *picked).status_code == 422  # they are gone
    journal = (tmp_path / "state" / "imgsearch" / "duplicates.jsonl").read_text().splitlines()
    done = [json.loads(line) for line in journal if '"done"' in line]
    assert {(each["act"], Path(each["path"]).name) for each in done} == {
        ("trash", "0 small.jpg"),
        ("trash", "1 mirrored.jpg"),
    }


def test_nothing_but_a_copy_of_the_latest_result_is_discarded(
    served: Served, directory: Path, folder: Path, trash: Path
) -> None:
    client = served(directory)
    copy, keep = id_of(client, "0 small.jpg"), id_of(client, "2.png")
    assert discard(client, ANY, copy).status_code == 404
    name = found(client, min_similarity=-1)["found"]
    kept = client.get(GROUPS).json()["groups"][0]["keep"]["id"]
    for wrong in (keep, kept, 999):
        assert discard(client, name, copy, wrong).status_code == 422
    for wrong in ("", "?ids=1", f"?found={name}", f"?found={name}&ids=*", f"?found=..&ids={copy}"):
        assert client.delete(f"{COPIES}{wrong}").status_code == 422
    assert client.delete(f"{COPIES}?found={name}&ids={copy}&folder=/").status_code == 422
    assert client.delete(f"{COPIES}?found={name}&ids={copy}&ids={copy}").status_code == 400
    later = found(client, min_similarity=-1)["found"]
    assert later != name
    assert discard(client, name, copy).status_code == 404
    assert client.get(GROUPS, params={"found": name}).status_code == 404
    assert len(list(folder.iterdir())) == 6
    assert not trash.exists()


@pytest.mark.whole("test_nothing_but_a_copy_of_the_latest_result_is_discarded")
def test_files_that_were_changed_since_stay(
    served: Served, directory: Path, folder: Path, trash: Path
) -> None:
    client = served(directory)
    name = found(client, min_similarity=-1)["found"]
    picked = [id_of(client, each) for each in ("0 small.jpg", "1 mirrored.jpg")]
    scene(5).save(folder / "0 small.jpg")
    scene(6).save(folder / "1.png")  # which was to be kept
    discard(client, name, *picked)
    outcome = ended(client)["discarded"]
    assert (outcome["count"], outcome["left"]) == (0, 2)
    for failure in outcome["failures"]:
        assert "has changed since it was indexed" in failure["reason"]
    assert len(list(folder.iterdir())) == 6
    assert not trash.exists()


def attempts(client: TestClient, name: str, ids: list[int]) -> Iterator[Any]:
    """Yield the answers to all requests that begin or change something."""
    one, other = ids
    yield client.put(API)
    yield client.delete(API)
    yield discard(client, name, one)
    yield client.put(f"{JUDGEMENTS}?ids={one},{other}")
    yield client.delete(f"{JUDGEMENTS}?ids={one},{other}")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example"},
    ],
)
def test_other_sites_begin_and_change_nothing(
    served: Served, directory: Path, folder: Path, headers: dict[str, str]
) -> None:
    client = served(directory)
    client.headers.update(headers)
    for answer in attempts(client, ANY, [1, 2]):
        assert answer.status_code in (403, 421)
    for header in headers:
        del client.headers[header]
    assert client.get(API).json()["running"] is None
    for address in (API, COPIES, JUDGEMENTS):  # what a form of another site could send
        assert client.post(address, data={"ids": "1,2"}).status_code == 405
    assert not Layout(directory).distinct.exists()
    assert len(list(folder.iterdir())) == 6


def test_nothing_changes_where_it_is_not_allowed(
    served: Served, directory: Path, folder: Path, trash: Path
) -> None:
    for public in (PUBLIC, {"allowed_hosts": ("photos.example",)}):
        client = served(directory, insecure=True, **public)
        assert [each.status_code for each in attempts(client, ANY, [1, 2])] == [403] * 5
        assert client.get(API).status_code == 200
    client = served(directory, token=TOKEN, **PUBLIC)
    assert [each.status_code for each in attempts(client, ANY, [1, 2])] == [401] * 5
    assert client.get(GROUPS).status_code == 401
    for token in (None, TOKEN):
        client = served(directory, read_only=True, token=token)
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        name = found(client, min_similarity=-1)["found"]  # which only reads
        copy, other = id_of(client, "0 small.jpg"), id_of(client, "2.png")
        assert discard(client, name, copy).status_code == 403
        assert client.put(f"{JUDGEMENTS}?ids={copy},{other}").status_code == 403
        assert client.delete(f"{JUDGEMENTS}?ids={copy},{other}").status_code == 403
    assert not Layout(directory).distinct.exists()
    assert len(list(folder.iterdir())) == 6
    assert not trash.exists()


def test_a_folder_outside_of_the_collection_is_refused_whether_or_not_it_is_there(
    served: Served, directory: Path, folder: Path, tmp_path: Path
) -> None:
    client = served(directory)
    (tmp_path / "there").mkdir()
    wrong = [tmp_path / "there", tmp_path / "nowhere", folder / ".." / "there", "/etc", "photos"]
    said = set()
    for path in map(str, wrong):
        answer = client.put(API, params={"keep_in": path})
        assert answer.status_code == 422
        said.add(answer.json()["detail"].replace(path, ""))
    assert len(said) == 1
    result = found(client, min_similarity=-1, keep_in=str(folder))
    assert result["groups"] == 0
    assert client.put(API, params={"prefer": "best"}).status_code == 422
    assert client.put(API, params={"min_similarity": 2}).status_code == 422


FAULT = """
import os, signal, sys, time
if "imgsearch.web.job_process" in sys.orig_argv:
    import imgsearch.maintenance.duplicates

    def deaf(*args, **kwargs):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        stuck()

    def stuck(*args, **kwargs):
        while True:
            time.sleep(1)

    def dying(*args, **kwargs):
        os._exit(3)

    imgsearch.maintenance.duplicates.find_duplicates = {}
"""


@pytest.fixture
def fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let searches be "stuck", also "deaf" to signals, or "dying"."""

    def fault(kind: str) -> None:
        (tmp_path / "fault").mkdir()
        (tmp_path / "fault" / "sitecustomize.py").write_text(FAULT.format(kind))
        monkeypatch.syspath_prepend(tmp_path / "fault")  # which jobs inherit, and a server:
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))

    return fault


@pytest.mark.few(1)
@pytest.mark.parametrize("kind", ["stuck", "deaf"])
def test_there_is_one_search_at_a_time_which_can_be_cancelled(
    served: Served,
    directory: Path,
    fault: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    monkeypatch.setattr(job, "PATIENCE", 1.0)
    client = served(directory)
    name = found(client, min_similarity=-1)["found"]
    fault(kind)
    assert client.put(API).json()["running"] == "find"
    for answer in (client.put(API), discard(client, name, id_of(client, "0 small.jpg"))):
        assert answer.status_code == 409
        assert "in progress" in answer.json()["detail"]
    assert client.post("/api/v1/query", files={"like": (None, "1")}).status_code == 200
    assert client.delete(API).status_code == 202
    status = ended(client)
    assert status["failure"] is None
    assert status["result"]["found"] == name  # the latest result stays
    assert client.delete(API).json()["running"] is None


@pytest.mark.whole("test_there_is_one_search_at_a_time_which_can_be_cancelled")
def test_a_search_that_dies_is_told(
    served: Served, directory: Path, fault: Callable[[str], None]
) -> None:
    fault("dying")
    client = served(directory)
    client.put(API)
    status = ended(client)
    assert "ended unexpectedly" in status["failure"]
    assert status["result"] is None


@pytest.mark.whole("test_copies_go_to_the_trash_and_the_journal_says_so")
def test_copies_wait_for_another_process_that_discards_and_can_be_left_as_they_are(
    served: Served, directory: Path, folder: Path, trash: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = served(directory)
    name = found(client, min_similarity=-1)["found"]
    copy = id_of(client, "0 small.jpg")
    with discarding_lock():
        discard(client, name, copy)
        time.sleep(1)
        assert client.get(API).json()["running"] == "discard"
        client.delete(API)
        ended(client)
    assert len(list(folder.iterdir())) == 6
    assert not trash.exists()
    (folder.parent / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(folder.parent / "file"))
    discard(client, name, copy)
    assert "nothing was changed" in ended(client)["failure"]
    assert len(list(folder.iterdir())) == 6


@pytest.mark.few(1)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_search_ends_with_the_server(
    directory: Path, fault: Callable[[str], None], number: signal.Signals
) -> None:
    fault("deaf")
    process = subprocess.Popen(
        imgsearch_command("-c", directory, "serve", "--port", "0"),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        address = "http://" + process.stderr.readline().partition("http://")[2].split("/")[0]
        with urlopen(Request(address + API, method="PUT")) as answer:
            assert answer.status == 202
        server = psutil.Process(process.pid)
        jobs = [each for each in server.children() if "job_process" in str(each.cmdline())]
        time.sleep(1)
        began = time.monotonic()
        process.send_signal(number)
        process.wait(30)
        assert time.monotonic() - began < 5
        assert len(psutil.wait_procs(jobs, 5)[0]) == 1
    finally:
        process.kill()
        process.communicate()
