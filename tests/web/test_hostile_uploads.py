"""Uploads that take for ever: nobody else waits for them, and they do not keep the server alive."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from tests.embedding.conftest import _FAULTS
from tests.support.commands import imgsearch_command
from tests.support.hostile_files import scan_bomb

STUCK = b"stuck"  # behind an image whose decoder hears no signal, and never ends
BUSY = b"busy"  # behind one that computes for ever and holds Python's lock

FAULT = f"""
def stubborn():
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGPROF):
        signal.signal(each, signal.SIG_IGN)
    while True:
        time.sleep(1000)

when_sent({STUCK!r}, stubborn)
when_sent({BUSY!r}, lambda: any(iter(int, 1)))
"""


class Server:
    """`imgsearch serve`, whose decoders get stuck at some images."""

    def __init__(self, directory: Path, folder: Path) -> None:
        (folder / "fault").mkdir()
        (folder / "fault" / "sitecustomize.py").write_text(_FAULTS + FAULT)
        path = os.pathsep.join([str(folder / "fault"), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            imgsearch_command("-c", directory, "serve", "--port", "0"),
            env=os.environ | {"XDG_CACHE_HOME": str(folder / "cache"), "PYTHONPATH": path},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        said = self.process.stderr.readline()
        self.port = int(said.partition("http://")[2].split("/")[0].rpartition(":")[2])

    def send(self, content: bytes, patience: float = 60.0) -> int:
        """Send an image, and return the status of the answer; 0 if it did not come in time."""
        boundary = uuid4().hex
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=patience)
        kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        try:
            client.request("POST", "/api/v1/query", body, kind)
            return client.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            client.close()


@pytest.fixture
def server(indexed: Path, tmp_path: Path) -> Iterator[Server]:
    server = Server(indexed, tmp_path)
    yield server
    server.process.kill()
    server.process.communicate()


@pytest.mark.whole("test_more_uploads_than_can_be_dealt_with_are_sent_away")
def test_nobody_with_an_ordinary_image_waits_for_images_that_take_for_ever(
    server: Server, photos: Path
) -> None:
    good = (photos / "0000.jpg").read_bytes()
    assert server.send(good) == 200
    bad = [good + STUCK, good + BUSY, scan_bomb(2000, 5_000)] * 2
    with ThreadPoolExecutor(14) as threads:
        hostile = [threads.submit(server.send, each, 90.0) for each in bad]
        time.sleep(0.5)
        started = time.monotonic()
        answers = list(threads.map(server.send, [good] * 8))
        took = time.monotonic() - started
        assert answers == [200] * 8
        assert took < 30
        server.process.send_signal(signal.SIGINT)
        assert {each.result() for each in hostile} <= {0, 422, 503}


@pytest.mark.whole("test_what_is_given_up_frees_its_worker_at_once")
def test_clients_that_leave_free_what_decodes_their_images(server: Server, photos: Path) -> None:
    good = (photos / "0000.jpg").read_bytes()
    assert server.send(good) == 200
    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(lambda _: server.send(good + STUCK, 1.0), range(4))) == {0}
    started = time.monotonic()
    assert server.send(good) == 200
    assert time.monotonic() - started < 20


@pytest.mark.whole("test_more_uploads_than_can_be_dealt_with_are_sent_away")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_soon_whatever_its_decoders_are_at(
    server: Server, photos: Path, number: signal.Signals
) -> None:
    good = (photos / "0000.jpg").read_bytes()
    assert server.send(good) == 200
    with ThreadPoolExecutor(4) as threads:
        sent = [threads.submit(server.send, good + bad) for bad in (STUCK, BUSY) * 2]
        time.sleep(0.5)
        workers = psutil.Process(server.process.pid).children(recursive=True)
        assert workers
        started = time.monotonic()
        server.process.send_signal(number)
        server.process.wait(30)
        assert time.monotonic() - started < 15  # 5 on a machine that has nothing else to do
        assert {each.result() for each in sent} <= {0, 422, 503}
    _, alive = psutil.wait_procs(workers, timeout=15)
    assert not alive


@pytest.mark.whole("test_workers_leave_when_their_parent_is_killed")
@pytest.mark.parametrize("number", [signal.SIGKILL])
def test_workers_do_not_outlive_a_server_that_is_killed(
    server: Server, photos: Path, number: signal.Signals
) -> None:
    good = (photos / "0000.jpg").read_bytes()
    assert server.send(good) == 200
    workers = psutil.Process(server.process.pid).children(recursive=True)
    for worker in workers:
        worker.suspend()
    server.process.send_signal(number)
    died, starting = psutil.wait_procs(workers, timeout=15)
    assert died
    for worker in starting:  # Stopped so early that it notices only when it goes on.
        worker.resume()
    _, alive = psutil.wait_procs(starting, timeout=15)
    assert not alive


@pytest.mark.whole("test_a_deadly_image_harms_nobody_else")
def test_workers_that_are_killed_or_stopped_are_replaced(server: Server, photos: Path) -> None:
    good = (photos / "0000.jpg").read_bytes()
    assert server.send(good) == 200
    for act in (psutil.Process.kill, psutil.Process.suspend):
        for worker in psutil.Process(server.process.pid).children(recursive=True):
            act(worker)
        assert server.send(good) == 200
