"""Connections: nobody takes them all, and nobody makes the server hold more than its share."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from imgsearch.web.connections import ConnectionLimits
from imgsearch.web.options import ServerOptions
from tests.web.serving import listening

MEGABYTE = 1_000_000
TOKEN = "open-sesame"
RIGHT = {"Authorization": f"Bearer {TOKEN}"}


def get(path: str, *headers: str, method: str = "GET") -> bytes:
    """Return a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *headers, "", ""]
    return "\r\n".join(lines).encode()


HEALTH = get("/api/v1/health")


class Client:
    """A connection, and the answers that come on it."""

    def __init__(self, port: int, source: str = "127.0.0.1", receive: int | None = None) -> None:
        self.socket = socket.socket()
        if receive is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        self.socket.settimeout(30)
        self.socket.bind((source, 0))
        self.socket.connect(("127.0.0.1", port))
        self._said = self.socket.makefile("rb")

    def send(self, content: bytes) -> None:
        self.socket.sendall(content)

    def answer(self) -> tuple[int, Any]:
        """Return status and JSON of the next answer; (0, None) if there is none any more."""
        line = b""
        with suppress(OSError):
            line = self._said.readline()
        if not line:
            return 0, None
        length = 0
        while (header := self._said.readline()) not in (b"\r\n", b""):
            name, _, value = header.decode().partition(":")
            length = int(value) if name.lower() == "content-length" else length
        content = self._said.read(length)
        return int(line.split()[1]), json.loads(content) if content else None

    def is_open(self) -> bool:
        """Tell whether the server has not hung up; nothing may be on its way."""
        self.socket.setblocking(False)
        try:
            return self.socket.recv(1) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            self.socket.settimeout(30)

    def close(self) -> None:
        self._said.close()
        self.socket.close()


@pytest.fixture
def connect() -> Iterator[Callable[..., Client]]:
    """Return a function that connects: `connect(port, source="127.0.0.2")`."""
    with ExitStack() as stack:

        def connect(port: int, **options: Any) -> Client:
            client = Client(port, **options)
            stack.callback(client.close)
            return client

        yield connect


@pytest.fixture
def serve(indexed: Path, tmp_path: Path) -> Iterator[Callable[..., int]]:
    """Return a function that serves, and gives the port: `serve(ConnectionLimits(), token=…)`."""
    with ExitStack() as stack:

        def serve(limits: ConnectionLimits | None = None, **options: Any) -> int:
            wanted = ServerOptions(cache=tmp_path / "cache", **options)
            return stack.enter_context(listening(indexed, wanted, limits))

        yield serve


def is_served(port: int, **headers: str) -> bool:
    """Tell whether a new client is answered soon."""
    address = f"http://127.0.0.1:{port}/api/v1/health"
    with suppress(httpx2.TransportError):
        return httpx2.get(address, headers=headers, timeout=10).status_code == 200
    return False


def wait_for(true: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# Requests on one connection


def test_pipelined_requests_are_answered_in_their_order(
    serve: Callable[..., int], connect: Callable[..., Client]
) -> None:
    client = connect(serve())
    client.send(b"".join(get(f"/api/v1/images/{id_}") for id_ in range(1, 41)))
    answers = [client.answer() for _ in range(40)]
    assert [(status, each["id"]) for status, each in answers] == [(200, n) for n in range(1, 41)]


def test_requests_are_told_apart_however_they_are_cut(
    serve: Callable[..., int], connect: Callable[..., Client]
) -> None:
    client = connect(serve())
    body = b'--x\r\nContent-Disposition: form-data; name="like"\r\n\r\n3\r\n\r\n\r\n--x--\r\n'
    form = "Content-Type: multipart/form-data; boundary=x"
    post = get("/api/v1/query", form, f"Content-Length: {len(body)}", method="POST") + body
    stream = b"\r\n" + get("/api/v1/images/1") + post + get("/api/v1/images/2") + b"\r\n" + HEALTH
    for size in (1, 2, 3, 5, 7, 64, len(stream)):
        for at in range(0, len(stream), size):
            client.send(stream[at : at + size])
        answers = [client.answer() for _ in range(4)]
        assert [status for status, _ in answers] == [200, 422, 200, 200], size
        assert (answers[0][1]["id"], answers[2][1]["id"]) == (1, 2)


@pytest.mark.few(1)
@pytest.mark.parametrize(
    "request_",
    [
        HEALTH,
        get("/api/v1/images?limit=1000"),
        get("/"),
        get("/api/v1/images/1/original"),
        get("/nothing"),
        get("/api/v1/info", method="POST"),
        b"\r\n",
    ],
)
def test_a_pipeline_without_an_end_takes_no_memory(
    serve: Callable[..., int], connect: Callable[..., Client], request_: bytes
) -> None:
    port = serve()
    assert is_served(port)
    before = psutil.Process().memory_info().rss
    client = connect(port)
    client.socket.settimeout(1)
    many, sent, until = request_ * (1 + 100_000 // len(request_)), 0, time.monotonic() + 6
    with suppress(OSError):  # the server does not read on, or hangs up
        while time.monotonic() < until and sent < 200 * MEGABYTE:
            sent += client.socket.send(many)
    assert psutil.Process().memory_info().rss - before < 60 * MEGABYTE
    assert is_served(port)


def test_nothing_follows_a_chunked_body_on_the_same_connection(
    serve: Callable[..., int], connect: Callable[..., Client]
) -> None:
    client = connect(serve())
    form = "Content-Type: multipart/form-data; boundary=x"
    head = get("/api/v1/query", form, "Transfer-Encoding: chunked", method="POST")
    client.send(head + b"1\r\nx\r\n0\r\n\r\n" + HEALTH * 10)
    assert client.answer()[0] == 400
    assert client.answer() == (0, None)


@pytest.mark.parametrize(
    "head",
    [
        get("/api/v1/query", "Content-Length: 5", "Transfer-Encoding: chunked", method="POST"),
        get("/api/v1/query", "Content-Length: 5", "Content-Length: 6", method="POST"),
        get("/api/v1/query", "Content-Length: 5", "Content-Length: 5", method="POST"),
        get("/api/v1/query", "Content-Length: +5", method="POST"),
        get("/api/v1/query", "Content-Length: 1_0", method="POST"),
        get("/api/v1/query", "Transfer-Encoding: chunked, identity", method="POST"),
        get("/api/v1/health", "Host: 127.0.0.1"),
        get("/api/v1/health", "Origin: http://127.0.0.1", "Origin: http://127.0.0.1"),
        get("/api/v1/health", "Authorization: Bearer a", "Authorization: Bearer b"),
        get("http://127.0.0.1/api/v1/health"),
        get("http://evil.example/api/v1/health"),
        get("*", method="OPTIONS"),
        get("127.0.0.1:80", method="CONNECT"),
        b"GET /api/v1/health HTTP/1.1\r\nHost : 127.0.0.1\r\n\r\n",
        b"GET /api/v1/health HTTP/1.1\r\n Host: 127.0.0.1\r\n\r\n",
        b"GET /api/v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\n folded\r\n\r\n",
        b"GET /api/v1/health HTTP/1.1\nHost: 127.0.0.1\n\n",
        b"GET /api/v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\nX: a\0b\r\n\r\n",
        b"GET /api/v1/\xff HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /api/v1/health HTTP/1.1\r\n\r\n",
    ],
)
def test_a_head_that_can_be_read_in_two_ways_is_refused(
    serve: Callable[..., int], connect: Callable[..., Client], head: bytes
) -> None:
    port = serve()
    client = connect(port)
    client.send(head)
    status, problem = client.answer()
    assert status == 400
    assert problem["status"] == 400
    assert is_served(port)


def test_what_follows_a_broken_request_is_not_answered(
    serve: Callable[..., int], connect: Callable[..., Client]
) -> None:
    client = connect(serve())
    client.send(HEALTH + b"nonsense\r\n\r\n" + HEALTH)
    assert client.answer()[0] == 200
    assert client.answer()[0] == 400
    assert client.answer() == (0, None)


def test_a_head_without_an_end_is_refused(
    serve: Callable[..., int], connect: Callable[..., Client]
) -> None:
    for more in (b"a" * 50_000, b"X: y\r\n" * 10_000):
        client = connect(serve())
        with suppress(OSError):
            client.send(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + more * 4)
        assert client.answer()[0] in (0, 431)


# Many connections


def test_idle_connections_make_room_for_who_asks(
    serve: Callable[..., int], connect: Callable[..., Client]
) -> None:
    for beginning in (b"", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ", HEALTH):
        port = serve(ConnectionLimits(connections=16))
        idle = [connect(port) for _ in range(40)]
        for client in idle:
            with suppress(OSError):
                client.send(beginning)
            if beginning == HEALTH:
                client.answer()
        for _ in range(5):
            assert is_served(port)
        assert sum(client.is_open() for client in idle) <= 16


@pytest.mark.whole("test_idle_connections_make_room_for_who_asks")
def test_connections_that_come_and_come_do_not_shut_others_out(
    serve: Callable[..., int],
) -> None:
    port = serve(ConnectionLimits(connections=16))
    stop = threading.Event()

    def flood() -> None:
        clients: list[Client] = []
        while not stop.is_set():
            with suppress(OSError):
                clients.append(Client(port))
            if len(clients) > 100:
                clients.pop(0).close()
        for client in clients:
            client.close()

    flooding = [threading.Thread(target=flood) for _ in range(2)]
    for thread in flooding:
        thread.start()
    try:
        answered = sum(is_served(port) for _ in range(20))
    finally:
        stop.set()
        for thread in flooding:
            thread.join()
    assert answered >= 15


def test_who_has_shown_the_token_keeps_the_connection(
    serve: Callable[..., int], connect: Callable[..., Client]
) -> None:
    port = serve(ConnectionLimits(connections=16), token=TOKEN)
    owner = connect(port)
    asked = get("/api/v1/health", f"Authorization: Bearer {TOKEN}")
    owner.send(asked)
    assert owner.answer()[0] == 200
    for beginning in (b"", HEALTH, b"GET / HTTP/1.1\r\n"):
        strangers = [connect(port) for _ in range(40)]
        for client in strangers:
            with suppress(OSError):
                client.send(beginning)
        owner.send(asked)
        assert owner.answer()[0] == 200
        assert is_served(port, **RIGHT)


def test_one_address_does_not_take_the_places_of_all(
    serve: Callable[..., int], connect: Callable[..., Client]
) -> None:
    port = serve(ConnectionLimits(connections=16))
    neighbour = connect(port, source="127.0.0.3")
    greedy = [connect(port, source="127.0.0.2") for _ in range(40)]
    wait_for(lambda: sum(client.is_open() for client in greedy) <= 12)
    assert neighbour.is_open()
    neighbour.send(HEALTH)
    assert neighbour.answer()[0] == 200


def test_requests_under_way_are_not_cut_off_by_newcomers(
    serve: Callable[..., int], connect: Callable[..., Client]
) -> None:
    port = serve(ConnectionLimits(connections=16), upload_seconds=20.0, idle_seconds=20.0)
    form = "Content-Type: multipart/form-data; boundary=x"
    body = b'--x\r\nContent-Disposition: form-data; name="like"\r\n\r\n3\r\n--x--\r\n'
    head = get("/api/v1/query", form, f"Content-Length: {len(body)}", method="POST")
    slow = [connect(port) for _ in range(8)]
    for client in slow:
        client.send(head + body[:-1])
    time.sleep(0.5)
    idle = [connect(port) for _ in range(40)]
    assert is_served(port)
    for client in slow:
        client.send(body[-1:])
        assert client.answer()[0] == 200
    del idle


def test_who_does_not_read_answers_makes_room(
    serve: Callable[..., int], connect: Callable[..., Client]
) -> None:
    port = serve(ConnectionLimits(connections=12, write_seconds=2.0))
    lazy = [connect(port, receive=2_048) for _ in range(12)]
    for client in lazy:
        with suppress(OSError):
            for _ in range(2_000):  # more than the system takes off the server's hands
                client.socket.settimeout(0.2)
                client.socket.send(get("/api/v1/images?limit=1000") * 10)
    wait_for(lambda: is_served(port), 15)


@pytest.mark.whole("test_who_does_not_read_answers_makes_room")
def test_who_does_not_read_answers_is_hung_up_on(
    serve: Callable[..., int], connect: Callable[..., Client]
) -> None:
    port = serve(ConnectionLimits(write_seconds=1.0))
    client = connect(port, receive=2_048)
    client.socket.settimeout(0.5)
    with suppress(OSError):
        for _ in range(10_000):
            client.socket.send(get("/api/v1/images?limit=1000") * 10)
    client.socket.settimeout(20)
    time.sleep(3)
    received = 0
    with suppress(OSError):
        while more := client.socket.recv(1 << 20):
            received += len(more)
            assert received < 100 * MEGABYTE
    assert received > 0


@pytest.mark.whole("test_a_file_that_stays_is_sent_whole")
def test_a_slow_reader_gets_all(serve: Callable[..., int], connect: Callable[..., Client]) -> None:
    port = serve(ConnectionLimits(write_seconds=3.0))
    client = connect(port, receive=4_096)
    client.send(get("/api/v1/images?limit=1000") * 40)
    for _ in range(40):
        status, listed = client.answer()
        assert (status, len(listed["images"])) == (200, 40)
        time.sleep(0.1)


def test_no_more_is_read_of_a_body_that_was_refused(
    serve: Callable[..., int], connect: Callable[..., Client]
) -> None:
    port = serve()
    client = connect(port)
    client.send(get("/api/v1/info", f"Content-Length: {10**12}", method="POST"))
    started, sent = time.monotonic(), 0
    with suppress(OSError):
        while time.monotonic() - started < 20:
            client.send(b"\0" * 65_536)
            sent += 65_536
            time.sleep(0.01)
    assert time.monotonic() - started < 15
    assert is_served(port)
