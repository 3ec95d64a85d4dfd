"""Requests that mean harm: each is refused with the right status, and the server goes on."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from PIL import Image

from imgsearch.web.connections import ConnectionLimits
from imgsearch.web.options import ServerOptions
from tests.support.hostile_files import png
from tests.web.serving import listening

HEAD = "POST /api/v1/query HTTP/1.1\r\nHost: 127.0.0.1\r\n"
FORM = "Content-Type: multipart/form-data; boundary=x\r\n"
PART = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
MEGABYTE = 1_000_000


def options(tmp_path: Path, **changes: Any) -> ServerOptions:
    wanted = {"cache": tmp_path / "cache", "upload_seconds": 1.5, "idle_seconds": 0.7}
    return ServerOptions(**{**wanted, **changes})


@pytest.fixture
def port(indexed: Path, tmp_path: Path) -> Iterator[int]:
    """A server that has little patience, with uploads of up to 8 MB; its port."""
    with listening(indexed, options(tmp_path, max_upload=8 * MEGABYTE)) as port:
        yield port
        assert_alive(port)


def assert_alive(port: int) -> None:
    answer = httpx2.get(f"http://127.0.0.1:{port}/api/v1/info", timeout=10)
    assert answer.json()["images"] == 40


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def answer_of(client: socket.socket) -> tuple[int, dict[str, Any]]:
    """Return status and problem of the answer; (0, {}) if the server hangs up without one."""
    client.settimeout(20)
    with client.makefile("rb") as said:
        line = said.readline()
        if not line:
            return 0, {}
        length = 0
        while (header := said.readline()) not in (b"\r\n", b""):
            name, _, value = header.decode().partition(":")
            length = int(value) if name.lower() == "content-length" else length
        return int(line.split()[1]), json.loads(said.read(length))


def blank(width: int, height: int) -> bytes:
    """Return a grey PNG of one colour, small as a file however many pixels it has."""
    buffer = io.BytesIO()
    Image.new("L", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def post(port: int, content: bytes, name: str = "image.png") -> httpx2.Response:
    address = f"http://127.0.0.1:{port}/api/v1/query"
    return httpx2.post(address, files={"image": (name, content)}, timeout=60)


def test_a_pixel_bomb_is_refused_before_it_is_decoded(port: int) -> None:
    before = psutil.Process().memory_info().rss
    started = time.monotonic()
    answer = post(port, png(40_000, 40_000, b""))
    assert answer.status_code == 422
    assert "40,000 x 40,000 pixels" in answer.json()["detail"]
    assert time.monotonic() - started < 10
    assert psutil.Process().memory_info().rss - before < 500 * MEGABYTE


@pytest.mark.whole("test_memory_is_counted_over_all_that_is_looked_at")
def test_many_large_images_at_once_are_decoded_one_after_the_other(port: int) -> None:
    before = psutil.Process().memory_info().rss
    bomb = blank(9_900, 10_000)  # just allowed: 100 MB, or 300 in RGB
    peak = [0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], psutil.Process().memory_info().rss)

    watching = threading.Thread(target=watch)
    watching.start()
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda _: post(port, bomb).status_code, range(6)))
    done.set()
    watching.join()
    assert answers == [200] * 6
    assert peak[0] - before < 1_000 * MEGABYTE


def test_a_gigabyte_that_is_announced_is_refused_at_once(port: int) -> None:
    with connected(port) as client:
        client.sendall(f"{HEAD}{FORM}Content-Length: {10**9}\r\n\r\n".encode())
        client.sendall(PART + b"\0" * 100_000)
        started = time.monotonic()
        status, problem = answer_of(client)
        assert time.monotonic() - started < 5
    assert status == 413
    assert "8,000,000 bytes" in problem["detail"]


def test_a_gigabyte_that_is_not_announced_is_not_taken_in(port: int, tmp_path: Path) -> None:
    before = psutil.Process().memory_info().rss
    block = b"\0" * MEGABYTE
    with connected(port) as client:
        client.sendall(f"{HEAD}{FORM}Transfer-Encoding: chunked\r\n\r\n".encode())
        client.sendall(f"{len(PART):x}\r\n".encode() + PART + b"\r\n")
        with suppress(OSError):  # the server may hang up
            for _ in range(1_000):
                client.sendall(f"{len(block):x}\r\n".encode() + block + b"\r\n")
        assert answer_of(client)[0] in (0, 413)
    assert psutil.Process().memory_info().rss - before < 100 * MEGABYTE
    assert sum(path.stat().st_size for path in tmp_path.rglob("*")) < 100 * MEGABYTE


def test_the_refusal_of_a_large_upload_reaches_who_sends_it(port: int) -> None:
    answer = post(port, b"\xff\xd8" + b"\0" * 30 * MEGABYTE)
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.few(1)
@pytest.mark.parametrize("pause", [0.3, 30])
def test_a_slow_upload_is_cut_off(port: int, pause: float) -> None:
    stop = threading.Event()
    with connected(port) as client:
        client.sendall(f"{HEAD}{FORM}Content-Length: 100000\r\n\r\n".encode() + PART)

        def drip() -> None:
            while not stop.wait(pause):
                try:
                    client.sendall(b"\0")
                except OSError:
                    return

        dripping = threading.Thread(target=drip)
        dripping.start()
        started = time.monotonic()
        status, problem = answer_of(client)
        stop.set()
        assert time.monotonic() - started < 8
    dripping.join()
    assert status == 408
    assert "too long" in problem["detail"]


def test_a_head_that_never_ends_is_cut_off(indexed: Path, tmp_path: Path) -> None:
    with listening(indexed, options(tmp_path), ConnectionLimits(head_seconds=1.0)) as port:
        with connected(port) as idle, connected(port) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n")
            started = time.monotonic()
            while time.monotonic() - started < 8:
                try:
                    client.sendall(b"X-More: of this\r\n")
                except OSError:
                    break
                time.sleep(0.2)
            assert time.monotonic() - started < 6
            idle.settimeout(6)
            assert idle.recv(100) == b""
        assert_alive(port)


def test_who_hangs_up_in_the_middle_disturbs_nobody(port: int) -> None:
    for size in (0, 10, 5_000):
        for announced in (size + 1, 10 * MEGABYTE):
            with connected(port) as client:
                head = f"{HEAD}{FORM}Content-Length: {announced}\r\n\r\n"
                client.sendall((head.encode() + PART + b"\0" * 5_000)[: len(head) + size])
    for _ in range(5):
        with connected(port) as client:
            client.sendall(b"GET /api/v1/images/1/original HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert_alive(port)


def test_more_uploads_than_can_be_dealt_with_are_sent_away(indexed: Path, tmp_path: Path) -> None:
    patient = options(tmp_path, max_uploads=3, idle_seconds=20, upload_seconds=20)
    with listening(indexed, patient) as port:
        waiting = [connected(port) for _ in range(3)]
        for client in waiting:
            client.sendall(f"{HEAD}{FORM}Content-Length: 1000\r\n\r\n".encode() + PART)
        time.sleep(0.5)
        answer = post(port, b"nothing")
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert_alive(port)
        for client in waiting:
            client.close()
        deadline = time.monotonic() + 10
        while post(port, b"nothing").status_code == 503:
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.mark.parametrize(
    "request_",
    [
        b"\0\1\2\3 nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"POST /api/v1/query HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /api/v1/query HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: x\r\n\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
        b"CONNECT evil.example:80 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"DELETE /api/v1/images/1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    ],
)
def test_what_is_no_request_of_ours_is_refused(port: int, request_: bytes) -> None:
    with connected(port) as client:
        client.sendall(request_)
        client.shutdown(socket.SHUT_WR)
        line = b""
        with suppress(ConnectionResetError), client.makefile("rb") as said:
            line = said.readline()
    assert not line or 400 <= int(line.split()[1]) < 500


@pytest.mark.few(1)
@pytest.mark.parametrize(
    "name", ['"><img src=x onerror=alert(1)>.jpg', "../../etc/passwd", "\n", ""]
)
def test_the_name_of_an_upload_is_nothing_but_text(
    port: int, name: str, photos: Path, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    answer = post(port, (photos / "0000.jpg").read_bytes(), name)
    assert answer.status_code in (200, 400, 422)
    assert answer.headers["content-type"] in ("application/json", "application/problem+json")
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_is_fetched_for_a_client(port: int) -> None:
    fetched = []
    with socket.create_server(("127.0.0.1", 0)) as bait:
        bait.settimeout(0.5)
        url = f"http://127.0.0.1:{bait.getsockname()[1]}/image.jpg"
        svg = f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{url}"/></svg>'
        for files in ({"image": url.encode()}, {"image": svg.encode()}, {"url": (None, url)}):
            address = f"http://127.0.0.1:{port}/api/v1/query"
            assert httpx2.post(address, files=files, timeout=60).status_code == 422
        with suppress(TimeoutError):
            fetched.append(bait.accept())
    assert fetched == []
