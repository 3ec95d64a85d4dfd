"""`imgsearch serve`, as a process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from click.testing import Result

from imgsearch.collection import Collection
from imgsearch.indexing import create
from tests.support.commands import Run, imgsearch_command
from tests.support.small_network import small_export

pytestmark = pytest.mark.processes

PATIENCE = 60.0  # seconds


STUCK = """
import sys, time
from imgsearch.web.service import Service
Service._info = lambda *_: time.sleep(600)
from imgsearch.cli import main
main(sys.argv[1:])
"""


class Serving:
    """A server; `address` as it says it."""

    def __init__(self, *arguments: str | Path, cwd: Path, env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            imgsearch_command(*arguments),
            cwd=cwd,
            env=os.environ | {"XDG_CACHE_HOME": str(cwd / "cache"), **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        self.said = self.process.stderr.readline()
        self.address = next((word for word in self.said.split() if word.startswith("http")), "")[
            :-1
        ]

    def get(self, path: str) -> httpx2.Response:
        return httpx2.get(self.address + path, timeout=PATIENCE)

    def end(self, number: int) -> tuple[int, str, str]:
        """Send a signal; return the exit code, and what it wrote."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, err


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Serving]]:
    """Start servers: `start("-c", directory, "serve")`."""
    started: list[Serving] = []

    def start(*arguments: str | Path, **env: str) -> Serving:
        started.append(Serving(*arguments, cwd=tmp_path, env=env))
        return started[-1]

    yield start
    for server in started:
        if server.process.poll() is None:
            server.process.kill()
        server.process.communicate()


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, -signal.SIGTERM)]
)
def test_it_serves_until_it_is_told_to_end(
    start: Callable[..., Serving], indexed: Path, number: int, code: int
) -> None:
    server = start("-c", indexed, "serve", "--port", "0")
    assert server.said == f"serving {indexed} at {server.address}; press Ctrl-C to stop\n"
    assert server.get("api/v1/info").json()["images"] == 40
    assert "<main" in server.get("").text
    assert server.end(number) == (code, "", "")


@pytest.mark.whole("test_a_program_sends_the_token")
def test_a_token_may_come_from_the_environment(
    start: Callable[..., Serving], indexed: Path
) -> None:
    server = start(
        "-c", indexed, "serve", "--port", "0", "--host", "0.0.0.0", IMGSEARCH_TOKEN="open-sesame"
    )
    assert server.get("api/v1/info").status_code == 401
    found = httpx2.get(
        server.address + "api/v1/info",
        headers={"Authorization": "Bearer open-sesame"},
        timeout=PATIENCE,
    )
    assert found.json()["images"] == 40
    assert "open-sesame" not in server.said


def test_others_are_not_let_in_without_a_token(
    invoke: Callable[..., Result], indexed: Path
) -> None:
    result = invoke("-c", indexed, "serve", "--host", "0.0.0.0")
    assert result.exit_code == 2
    assert "--token" in result.stderr
    assert "--insecure" in result.stderr


def test_a_port_that_is_taken_ends_with_7(invoke: Callable[..., Result], indexed: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = invoke("-c", indexed, "serve", "--port", str(port))
    assert result.exit_code == 7
    assert f"cannot listen at 127.0.0.1:{port}" in result.stderr
    assert "--port" in result.stderr


@pytest.mark.whole("test_a_port_that_is_taken_ends_with_7")
def test_without_a_collection_there_is_nothing_to_serve(run: Run, tmp_path: Path) -> None:
    ended = run("-c", tmp_path / "nothing", "serve", "--port", "0")
    assert ended.code == 3
    assert len(ended.err.splitlines()) == 1


def test_without_the_extra_one_line_says_what_to_install(
    invoke: Callable[..., Result], indexed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("imgsearch.web.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = invoke("-c", indexed, "serve")
    assert result.exit_code == 6
    assert "pip install '.[web]'" in result.stderr


@pytest.mark.whole("test_a_collection_that_may_only_be_read_can_be_queried_and_not_changed")
def test_a_collection_that_is_read_only_is_served(
    start: Callable[..., Serving], indexed: Path, tmp_path: Path
) -> None:
    for path in [indexed, *indexed.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        server = start("-c", indexed, "serve", "--port", "0")
        assert server.get("api/v1/images/1/thumbnail").status_code == 200
        assert any((tmp_path / "cache").rglob("*-256"))
        assert server.end(signal.SIGINT)[0] == 0
    finally:
        for path in [indexed, *indexed.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.mark.whole("test_what_another_process_indexes_and_removes_is_seen_at_once")
def test_indexing_goes_on_while_it_serves(
    start: Callable[..., Serving], indexed: Path, run: Run, tree: Path
) -> None:
    server = start("-c", indexed, "serve", "--port", "0")
    assert server.get("api/v1/info").json()["images"] == 40
    assert run("-c", indexed, "index", tree).code == 0
    deadline = time.monotonic() + PATIENCE
    while server.get("api/v1/info").json()["images"] != 52:
        assert time.monotonic() < deadline
    assert run("-c", indexed, "remove", tree).code == 0
    assert server.get("api/v1/info").json()["images"] == 40


@pytest.mark.whole("test_it_serves_until_it_is_told_to_end")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_within_five_seconds_whoever_is_connected_and_whatever_is_stuck(
    indexed: Path, tmp_path: Path, number: int
) -> None:
    command = [sys.executable, "-c", STUCK, "-c", str(indexed), "serve", "--port", "0"]
    env = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        port = int(process.stderr.readline().rpartition("/;")[0].rpartition(":")[2])
        host = b" HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        beginnings = [
            b"",
            b"GET / HT",
            b"GET /api/v1/health" + host + b"\r\n",
            b"GET /api/v1/info" + host + b"\r\n",
            b"GET /api/v1/info" + host + b"\r\nGET /api/v1/info" + host + b"\r\n",
            b"GET /api/v1/images?limit=1000" + host + b"\r\n" * 1_000,
            b"POST /api/v1/query" + host + b"Content-Type: multipart/form-data; boundary=x\r\n"
            b"Content-Length: 1000\r\n\r\n--x\r\n",
        ]
        clients = []
        for beginning in beginnings:
            clients.append(socket.create_connection(("127.0.0.1", port)))
            clients[-1].sendall(beginning)
        time.sleep(1)
        started = time.monotonic()
        process.send_signal(number)
        process.wait(30)
        took = time.monotonic() - started
        for client in clients:
            client.close()
        assert took < 5 + 1  # of a machine that does other things, too
        assert process.returncode in ((0,) if number == signal.SIGINT else (-number, 128 + number))
        assert process.stderr.read() == ""


@pytest.mark.parametrize("token", [" ", "a", "two words"])
def test_a_weak_token_is_refused_with_a_better_one(
    invoke: Callable[..., Result], indexed: Path, token: str
) -> None:
    result = invoke("-c", indexed, "serve", "--token", token)
    assert result.exit_code == 2
    assert "at least 8 visible ASCII characters, such as " in result.stderr
    assert "--token auto" in result.stderr


@pytest.mark.whole("test_others_are_not_let_in_without_a_token")
def test_a_token_is_made_up_and_shown(start: Callable[..., Serving], indexed: Path) -> None:
    server = start("-c", indexed, "serve", "--port", "0", "--host", "0.0.0.0", "--token", "auto")
    assert server.process.stderr is not None
    token = server.process.stderr.readline().split()[-1]
    assert len(token) >= 20
    answered = httpx2.get(
        server.address + "api/v1/info",
        headers={"Authorization": f"Bearer {token}"},
        timeout=PATIENCE,
    )
    assert answered.json()["images"] == 40
    assert server.get("api/v1/info").status_code == 401


def answered(server: Serving, path: str) -> httpx2.Response:
    """Ask until the server answers with anything but 503."""
    ends = time.monotonic() + PATIENCE
    while True:
        answer = server.get(path)
        if answer.status_code != 503 or time.monotonic() > ends:
            return answer
        time.sleep(0.1)


def test_a_collection_that_takes_the_place_of_the_first_is_served_from_then_on(
    start: Callable[..., Serving], indexed: Path, empty: Path
) -> None:
    server = start("-c", indexed, "serve", "--port", "0")
    assert server.get("api/v1/info").json()["images"] == 40
    aside = indexed.with_name("aside")
    indexed.rename(aside)
    assert server.get("api/v1/info").status_code == 503
    assert "open it again" in server.get("api/v1/info").json()["detail"]
    empty.rename(indexed)
    gone = server.get("api/v1/info")
    assert (gone.status_code, gone.headers["Retry-After"]) == (503, "1")
    assert "try again in a moment" in gone.json()["detail"]
    assert answered(server, "api/v1/info").json()["images"] == 0
    indexed.rename(empty)
    aside.rename(indexed)
    assert answered(server, "api/v1/info").json()["images"] == 40
    assert server.end(signal.SIGINT) == (0, "", "")


@pytest.mark.usefixtures("here")
def test_a_collection_that_is_switched_to_another_network_is_served_from_then_on(
    start: Callable[..., Serving], indexed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, stand_in in small_export().items():
        monkeypatch.setattr(create, name, stand_in)
    server = start("-c", indexed, "serve", "--port", "0")
    assert server.get("api/v1/info").json()["model"]["name"] == "mobilenet_v2"
    Collection.switch(indexed, model="efficientnet_lite0", device="cpu")
    found = answered(server, "api/v1/info").json()
    assert (found["model"]["name"], found["images"]) == ("efficientnet_lite0", 40)
    (like,) = server.get("api/v1/images?limit=1").json()["images"]
    form = {"like": (None, str(like["id"])), "k": (None, "3")}
    asked = httpx2.post(server.address + "api/v1/query", files=form, timeout=PATIENCE)
    assert len(asked.json()["hits"]) == 3
    assert server.end(signal.SIGINT) == (0, "", "")
