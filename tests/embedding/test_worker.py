"""What a worker process says, spoken to as the pipeline does."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imgsearch.embedding.runtime import OnnxRuntime
from imgsearch.embedding.wire import receive, send
from imgsearch.images.decode import read
from imgsearch.images.fingerprint import FINGERPRINT
from imgsearch.images.limits import MAX_PIXELS, Limits
from tests.embedding.conftest import TINY_DIM, TINY_SIZE
from tests.support.image_files import photo, photos, write

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Return a function that starts a worker and waits until it is ready."""
    started = []

    def worker(*model: Path, max_pixels: int = MAX_PIXELS) -> subprocess.Popen[bytes]:
        limits = [str(max_pixels), str(Limits(max_pixels).memory(workers=1))]
        command = [sys.executable, "-m", "imgsearch.embedding.worker", str(TINY_SIZE), *limits]
        command += [word for path in model for word in (str(path), str(TINY_DIM), "own")]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout is not None
        assert receive(process.stdout)[0]["ready"] is True
        return process

    yield worker
    for process in started:
        process.kill()
        process.communicate()


def _ask(
    worker: subprocess.Popen[bytes], paths: list[str], unwanted: tuple[int, ...] = ()
) -> tuple[list[Any], Any, bytes]:
    """Return where the worker said it was and what it asked, its replies and its bytes."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    send(worker.stdin, {"paths": paths})
    said: list[Any] = []
    while True:
        message, data = receive(worker.stdout)
        if "replies" in message:
            return said, message["replies"], data
        if "digests" in message:
            said.append(message["digests"])
            wanted = [index not in unwanted for index in range(len(paths))]
            send(worker.stdin, {"wanted": wanted})
        else:
            said.append(message["begin"])


def _hex(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _end(worker: subprocess.Popen[bytes]) -> int:
    assert worker.stdin is not None
    worker.stdin.close()
    status = worker.wait(timeout=10)
    worker.stdin = None
    return status


def test_a_worker_answers_with_embeddings_and_leaves_at_the_end(
    tmp_path: Path, start: Start, tiny_model: Path
) -> None:
    paths = [write(tmp_path / f"{n}.png", photo(30, 20, seed=n), "PNG") for n in range(3)]
    paths.insert(1, str(tmp_path / "gone.png"))
    worker = start(tiny_model)
    said, replies, data = _ask(worker, paths)
    digests = [None if "gone" in path else _hex(path) for path in paths]
    assert said == [0, 1, 2, 3, digests, 0, 2, 3, None]
    rows = np.frombuffer(data, np.float32, 3 * TINY_DIM).reshape(3, TINY_DIM)
    assert len(data) == rows.nbytes + 3 * FINGERPRINT.itemsize
    good = [path for path in paths if "gone" not in path]
    pixels = np.stack([read(path, TINY_SIZE).pixels for path in good])
    np.testing.assert_allclose(rows, OnnxRuntime(tiny_model).embed(pixels), atol=1e-6)
    assert replies.pop(1) == {
        "reason": "cannot be read: No such file or directory",
        "recognised": True,
        "transient": True,
        "limited": False,
    }
    for path, reply in zip(good, replies, strict=True):
        assert reply["digest"] == _hex(path)
        assert reply["wanted"] is True
    assert _end(worker) == 0


def test_a_worker_without_a_model_answers_with_pixels(tmp_path: Path, start: Start) -> None:
    paths = [write(tmp_path / f"{n}.png", photo(30, 20, seed=n), "PNG") for n in range(2)]
    worker = start()
    said, replies, data = _ask(worker, paths)
    assert said == [0, 1, [_hex(path) for path in paths], 0, 1]
    assert len(replies) == 2
    pixels = b"".join(read(path, TINY_SIZE).pixels.tobytes() for path in paths)
    assert data[: -len(paths) * FINGERPRINT.itemsize] == pixels
    assert _end(worker) == 0


def test_what_is_not_wanted_is_answered_without_an_array(
    tmp_path: Path, start: Start, tiny_model: Path
) -> None:
    paths = photos(tmp_path, *"abc")
    os.utime(paths[2], ns=(1, 1_700_000_000_123_456_789))
    worker = start(tiny_model)
    for path in paths[:2]:
        os.utime(path, ns=(1, time.time_ns() + 10**9))
    said, replies, data = _ask(worker, paths, unwanted=(0, 2))
    assert said == [0, 1, 2, [_hex(path) for path in paths], 1, None]
    assert [reply["wanted"] for reply in replies] == [False, True, False]
    assert [reply["digest"] for reply in replies] == [_hex(path) for path in paths]
    assert [reply["size"] for reply in replies] == [Path(path).stat().st_size for path in paths]
    assert [reply["mtime_ns"] for reply in replies] == [
        None,
        None,
        Path(paths[2]).stat().st_mtime_ns,
    ]
    assert len(data) == TINY_DIM * np.dtype(np.float32).itemsize + FINGERPRINT.itemsize
    assert _end(worker) == 0


def test_a_request_of_nothing_wanted_is_answered_without_the_model(
    tmp_path: Path, start: Start, tiny_model: Path
) -> None:
    (path,) = photos(tmp_path, "a")
    worker = start(tiny_model)
    said, replies, data = _ask(worker, [path], unwanted=(0,))
    assert said == [0, [_hex(path)]]
    assert len(replies) == 1
    assert data == b""


def test_a_worker_leaves_while_it_waits_to_hear_what_is_wanted(
    tmp_path: Path, start: Start
) -> None:
    worker = start()
    assert worker.stdin is not None
    assert worker.stdout is not None
    send(worker.stdin, {"paths": photos(tmp_path, "a")})
    while "digests" not in receive(worker.stdout)[0]:
        pass
    assert _end(worker) == 0


def test_nothing_is_asked_and_the_model_is_not_run_when_every_file_is_refused(
    tmp_path: Path, start: Start, tiny_model: Path
) -> None:
    worker = start(tiny_model)
    said, replies, data = _ask(worker, [str(tmp_path / "gone.png")])
    assert said == [0]
    assert len(replies) == 1
    assert data == b""
    assert _end(worker) == 0


def test_a_worker_leaves_when_a_request_is_cut_off(start: Start) -> None:
    worker = start()
    assert worker.stdin is not None
    worker.stdin.write(b'{"paths": [')
    worker.stdin.flush()
    assert _end(worker) == 0
