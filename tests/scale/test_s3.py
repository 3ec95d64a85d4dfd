"""Images in S3 for real: `make test-scale`. The server is that of the package `moto`."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from imgsearch.collection import Collection
from imgsearch.errors import GoneError
from tests.support.commands import Run
from tests.support.outcomes import did
from tests.support.pictures import save_pictures

pytestmark = pytest.mark.filterwarnings("ignore")  # what s3fs and its packages warn of is theirs

PICTURES = 60
START = 60  # seconds


@dataclass(frozen=True, slots=True)
class Served:
    """A server of S3: its process, its bucket as fsspec has it, and the variables of clients."""

    process: subprocess.Popen[bytes]
    files: Any
    variables: dict[str, str]


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A server with a bucket of pictures, `s3://photos/all`."""
    import s3fs

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    variables = {
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "anything",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_MAX_ATTEMPTS": "1",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(port, process)
            files = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
            save_pictures(tmp_path / "pictures", PICTURES)
            files.mkdir("photos")
            files.put(f"{tmp_path}/pictures/", "photos/all/deep/", recursive=True)
            files.pipe_file("photos/all/notes.txt", b"notes")
            files.pipe_file("photos/all/broken.jpg", b"\xff\xd8\xff and no more")
            yield Served(process, files, variables)
        finally:
            process.kill()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START
    while True:
        assert process.poll() is None
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        else:
            return


def _index(run: Run, directory: Path, *arguments: str) -> dict[str, int]:
    ended = run("-c", str(directory), "index", *arguments, "--json")
    assert ended.code == 0, ended.err
    report = json.loads(ended.out)
    return {name: count for name, count in report.items() if isinstance(count, int) and count}


def test_a_bucket_is_indexed_searched_and_followed(
    served: Served, run: Run, empty: Path, tmp_path: Path
) -> None:
    done = _index(run, empty, "s3://photos/all/")
    assert (done["indexed"], done["failed"], done["skipped"]) == (PICTURES, 1, 1)
    asked: tuple[str, ...] = ("query", "s3://photos/all/deep/0007.png", "-k", "2", "--json")
    ended = run("-c", str(empty), *asked, "--include-self")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["hits"][0]["path"] == "s3://photos/all/deep/0007.png"
    ended = run("-c", str(empty), "query", tmp_path / "pictures" / "0008.jpg", "--paths")
    assert ended.out.splitlines()[0] == "s3://photos/all/deep/0008.jpg"
    served.files.mv("photos/all/deep/0001.png", "photos/all/0001.png")
    served.files.rm("photos/all/deep/0002.jpg")
    served.files.put(f"{tmp_path}/pictures/0003.png", "photos/all/deep/0005.png")
    done = _index(run, empty)
    assert (done["moved"], done["removed"], done["copied"]) == (1, 1, 1)
    assert done["unchanged"] == PICTURES - 3
    assert run("-c", str(empty), "verify").code == 0


def test_a_server_that_is_gone_costs_nothing(served: Served, run: Run, empty: Path) -> None:
    _index(run, empty, "s3://photos/all")
    served.process.kill()
    served.process.wait()
    ended = run("-c", str(empty), "index", "--prune")
    assert ended.code == 3
    assert "s3://photos/all cannot be listed: its images are kept" in ended.err
    ended = run("-c", str(empty), "info", "--json")
    assert json.loads(ended.out)["images"] == PICTURES


@pytest.mark.usefixtures("here")
def test_a_process_that_lives_on_sees_what_has_changed(served: Served, empty: Path) -> None:
    with Collection.open(empty, device="cpu") as collection:
        collection.index(["s3://photos/all"])  # s3fs keeps what it has listed
        served.files.mv("photos/all/deep/0001.png", "photos/all/deep/moved.png")
        expected = {"moved": 1, "unchanged": PICTURES - 1, "failed": 1, "skipped": 1}
        assert did(collection.index()) == expected
        served.files.rm("photos/all", recursive=True)
        with pytest.raises(GoneError, match=f"is missing: its {PICTURES} images are kept"):
            collection.index()
        assert collection.index(prune=True).removed == PICTURES


def test_what_cannot_be_reached_is_refused_in_one_line(
    served: Served, run: Run, empty: Path
) -> None:
    del served
    for url, why in (
        ("s3://nowhere/photos", "NoSuchBucket"),
        ("s3://photos/nothing", "there is no such file or folder"),
    ):
        ended = run("-c", str(empty), "index", url)
        assert ended.code == 3
        assert ended.err.startswith(f"imgsearch: {url}: ")
        assert why in ended.err
        assert ended.err.count("\n") == 1


def test_ray_embeds_from_the_bucket_and_stages_there(
    served: Served, run: Run, empty: Path, tmp_path: Path
) -> None:
    by_ray = shutil.copytree(empty, tmp_path / "by-ray")
    on_ray = ("--ray", "local", "--workers", "2", "--staging", "s3://photos/staging")
    assert _index(run, by_ray, "s3://photos/all", *on_ray)["indexed"] == PICTURES
    assert served.files.ls("photos") == ["photos/all"]
    assert _index(run, empty, "s3://photos/all")["indexed"] == PICTURES
    picture = tmp_path / "pictures" / "0008.jpg"
    answers = [
        run("-c", str(directory), "query", picture, "-k", str(PICTURES), "--json").out
        for directory in (by_ray, empty)
    ]
    assert len(json.loads(answers[0])["hits"]) == PICTURES
    assert answers[0] == answers[1]
