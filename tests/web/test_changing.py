"""Originals that change while they are sent do not go out for what they were."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgsearch.collection import Collection
from imgsearch.errors import ImgsearchError
from imgsearch.web.options import ServerOptions
from imgsearch.web.originals import Original
from tests.web.serving import listening

EDGE = 3_000  # pixels: some 27 MB, more than the system takes off the server's hands


@pytest.fixture(scope="module")
def noise() -> Image.Image:
    values = np.random.default_rng(7).integers(0, 256, (EDGE, EDGE, 3), np.uint8)
    return Image.fromarray(values)


@pytest.fixture
def large(empty: Path, tmp_path: Path, noise: Image.Image) -> Path:
    """A large image, the only one of the collection `empty`."""
    path = tmp_path / "large" / "large.bmp"
    path.parent.mkdir()
    noise.save(path)
    with Collection.open(empty, device="cpu") as collection:
        collection.index([path.parent])
    return path


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-1_000, os.SEEK_END)
        file.write(b"none of your business")


def overwrite_secretly(path: Path) -> None:
    before = path.stat()
    overwrite(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1_000)


@pytest.mark.few(1)
@pytest.mark.parametrize("change", [append, overwrite, overwrite_secretly, truncate])
@pytest.mark.parametrize("header", ["", "Range: bytes=10-26000000\r\n"])
def test_the_connection_ends_too_early_if_the_file_changes(
    empty: Path, large: Path, tmp_path: Path, change: Callable[[Path], None], header: str
) -> None:
    content = large.read_bytes()
    with (
        listening(empty, ServerOptions(cache=tmp_path / "cache")) as port,
        closing(socket.socket()) as client,
    ):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.settimeout(30)
        client.connect(("127.0.0.1", port))
        request = f"GET /api/v1/images/1/original HTTP/1.1\r\nHost: 127.0.0.1\r\n{header}\r\n"
        client.sendall(request.encode())
        said = client.recv(65_536)
        head, _, body = said.partition(b"\r\n\r\n")
        assert b"content-length: 2" in head
        change(large)
        with suppress(ConnectionError):
            while more := client.recv(1 << 20):
                body += more
    length = int(head.partition(b"content-length: ")[2].split()[0])
    assert len(body) < length
    start = 10 if header else 0
    assert content[start : start + len(body)] == body


def test_a_file_that_stays_is_sent_whole(empty: Path, large: Path, tmp_path: Path) -> None:
    with (
        listening(empty, ServerOptions(cache=tmp_path / "cache")) as port,
        closing(socket.create_connection(("127.0.0.1", port))) as client,
    ):
        client.sendall(
            b"GET /api/v1/images/1/original HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"Connection: close\r\n\r\n"
        )
        said = b""
        while more := client.recv(1 << 20):
            said += more
    assert said.partition(b"\r\n\r\n")[2] == large.read_bytes()


def test_what_is_written_without_a_trace_does_not_go_out_whole(
    empty: Path, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Collection.open(empty, device="cpu") as collection:
        original = Original(collection.entries.get(1))
    status = os.fstat(original._file.fileno())
    monkeypatch.setattr(os, "fstat", lambda _: status)  # as where times are coarse
    chunks = original.chunks()
    received = next(chunks)
    overwrite(large)
    with pytest.raises(ImgsearchError, match="has changed"):
        received += b"".join(chunks)
    assert len(received) < status.st_size
    assert b"none of your business" not in received


@pytest.mark.usefixtures("large")
def test_who_leaves_in_the_middle_disturbs_nobody(empty: Path, tmp_path: Path) -> None:
    with listening(empty, ServerOptions(cache=tmp_path / "cache")) as port:
        for _ in range(3):
            with closing(socket.create_connection(("127.0.0.1", port))) as client:
                client.sendall(b"GET /api/v1/images/1/original HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                client.recv(100)
        time.sleep(0.2)
        with closing(socket.create_connection(("127.0.0.1", port))) as client:
            client.sendall(b"GET /api/v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")
