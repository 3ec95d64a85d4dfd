"""Single images, looked at by worker processes that may be killed at any time."""

from __future__ import annotations

import hashlib
import io
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from imgsearch.embedding.decoder import (
    Allowance,
    BeyondError,
    Content,
    Decoder,
    GivenUpError,
    Stored,
)
from imgsearch.embedding.lanes import FullError, Lane, Rules
from imgsearch.embedding.process import WorkerProcess
from imgsearch.errors import ImageError
from imgsearch.images.decode import decode
from imgsearch.images.render import glance, render
from tests.embedding.conftest import Fault
from tests.support.image_files import encode, photo

pytestmark = pytest.mark.processes

ALLOWED = Allowance(bytes=100_000_000, seconds=20.0, patience=60.0)
MARK = b"deadly"

STUBBORN = """
import ctypes

def stubborn():
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPROF):
        signal.signal(each, signal.SIG_IGN)
    while True:
        time.sleep(1000)

"""


@pytest.fixture
def decoder() -> Iterator[Decoder]:
    """A decoder that leaves no process behind."""
    with closing(Decoder(ALLOWED)) as decoder:
        yield decoder
        decoder.drop()
    assert psutil.Process().children(recursive=True) == []


def sent(data: bytes) -> Content:
    return Content(io.BytesIO(data), len(data))


GOOD = encode(photo(60, 40), "PNG")
BAD = GOOD + MARK


def test_what_a_worker_makes_of_an_image_is_what_is_made_of_it_here(
    decoder: Decoder, tmp_path: Path
) -> None:
    data = encode(photo(300, 200), "JPEG")
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    for origin in (sent(data), Stored(str(path)), Stored(str(path), hashlib.sha256(data).digest())):
        np.testing.assert_array_equal(decoder.pixels(origin, 32), decode(io.BytesIO(data), 32))
        assert decoder.thumbnail(origin, 100) == render(data, 100)
        seen = decoder.glance(origin, 16)
        np.testing.assert_array_equal(seen.pixels, glance(data, 16).pixels)
        assert (seen.width, seen.height) == decoder.size(origin) == (300, 200)


def test_a_file_that_is_not_what_is_wanted_is_refused(decoder: Decoder, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(GOOD)
    with pytest.raises(ImageError, match="has changed since it was indexed"):
        decoder.pixels(Stored(str(path), bytes(32)), 8)
    path.unlink()
    with pytest.raises(ImageError, match="cannot be read: No such file") as refused:
        decoder.pixels(Stored(str(path)), 8)
    assert refused.value.transient
    with pytest.raises(ImageError, match="not an image of a supported format"):
        decoder.pixels(sent(b"nothing"), 8)
    assert decoder.size(sent(GOOD)) == (60, 40)


@pytest.mark.few(1)
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF", "GIF", "TIFF", "BMP", "PPM"])
def test_an_image_that_takes_more_memory_is_told_by_its_header(kind: str) -> None:
    data = encode(photo(3000, 2000), kind)
    with closing(Decoder(Allowance(bytes=1_000_000, seconds=20.0, patience=60.0))) as decoder:
        with pytest.raises(BeyondError) as beyond:
            decoder.pixels(sent(data), 8)
        assert beyond.value.needs is not None
        assert 3000 * 2000 <= beyond.value.needs < 40 * 3000 * 2000
        decoder.begin(Allowance(bytes=beyond.value.needs, seconds=20.0, patience=60.0))
        assert decoder.pixels(sent(data), 8).shape == (8, 8, 3)
        decoder.drop()


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("action", "error", "words"),
    [
        ("ctypes.string_at(0)", ImageError, "made its worker crash"),
        ("os._exit(1)", ImageError, "made its worker crash"),
        ("any(iter(int, 1))", BeyondError, "None"),
        ("stubborn()", BeyondError, "None"),
        ("os.kill(os.getpid(), signal.SIGSTOP)", BeyondError, "None"),
        ("os.kill(os.getpid(), signal.SIGKILL)", GivenUpError, "its worker was killed"),
        ("bytearray(1 << 40)", ImageError, "takes more memory"),
        ("list(iter(lambda: bytearray(1 << 24), None))", ImageError, "takes more memory"),
    ],
)
def test_a_deadly_image_harms_nobody_else(
    decoder: Decoder, fault: Fault, action: str, error: type[Exception], words: str
) -> None:
    fault(STUBBORN + f"when_sent({MARK!r}, lambda: {action})")
    decoder.pixels(sent(GOOD), 8)  # however long it takes to start
    decoder.begin(Allowance(bytes=100_000_000, seconds=0.5, patience=3.0))
    with pytest.raises(error, match=words):
        decoder.pixels(sent(BAD), 8)
    assert decoder.pixels(sent(GOOD), 8).shape == (8, 8, 3)


@pytest.mark.whole("test_a_deadly_image_harms_nobody_else")
def test_an_image_whose_worker_was_killed_once_is_looked_at_again(
    decoder: Decoder, fault: Fault, tmp_path: Path
) -> None:
    once = f"(os.mkdir({str(tmp_path / 'done')!r}), os.kill(os.getpid(), signal.SIGKILL))"
    fault(f"when_sent({MARK!r}, lambda: os.path.exists({str(tmp_path / 'done')!r}) or {once})")
    assert decoder.pixels(sent(BAD), 8).shape == (8, 8, 3)
    assert (tmp_path / "done").exists()


def test_what_is_given_up_frees_its_worker_at_once(decoder: Decoder, fault: Fault) -> None:
    fault(STUBBORN + f"when_sent({MARK!r}, stubborn)")
    decoder.pixels(sent(GOOD), 8)
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(decoder.pixels, sent(BAD), 8)
        time.sleep(0.3)
        started = time.monotonic()
        decoder.cancel()
        with pytest.raises(GivenUpError):
            asked.result(30)
        assert time.monotonic() - started < 10
    decoder.begin(ALLOWED)
    assert decoder.pixels(sent(GOOD), 8).shape == (8, 8, 3)


# Lanes


def test_a_worker_that_starts_while_its_decoder_is_closed_is_ended(
    decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[WorkerProcess] = []

    def start_and_close(*arguments: Any) -> WorkerProcess:
        made.append(WorkerProcess(*arguments))
        decoder.close()
        return made[0]

    monkeypatch.setattr("imgsearch.embedding.decoder.WorkerProcess", start_and_close)
    decoder.warm_up()
    assert [worker.is_alive() for worker in made] == [False]


@pytest.fixture
def lane() -> Iterator[Callable[..., Lane]]:
    """Return a function that makes a lane, none of whose decoders starts a process by itself."""
    made = []

    def lane(**rules: int) -> Lane:
        usual = {"places": 1, "bytes": 100, "most": 100, "waiting": 10}
        made.append(Lane(Rules(seconds=1.0, patience=5.0, **{**usual, **rules})))
        return made[-1]

    yield lane
    for each in made:
        each.close()


def test_peers_take_turns_however_much_one_of_them_asks(lane: Callable[..., Lane]) -> None:
    street = lane()
    first = street.enter(1, "greedy")
    greedy = [street.enter(1, "greedy") for _ in range(5)]
    modest = [street.enter(1, "modest") for _ in range(2)]
    order = []
    turns = {id(turn): name for name, turns in (("g", greedy), ("m", modest)) for turn in turns}
    held = first
    for _ in range(7):
        street.leave(held)
        (held,) = [turn for turn in greedy + modest if turn.held is not None]
        order.append(turns[id(held)])
    assert "".join(order) in ("gmgmggg", "mgmgggg")


def test_memory_is_counted_over_all_that_is_looked_at(lane: Callable[..., Lane]) -> None:
    street = lane(places=3)
    large, small, last = (street.enter(each) for each in (70, 40, 20))
    assert [turn.decoder.done() for turn in (large, small, last)] == [True, False, False]
    street.leave(large)
    assert small.decoder.done()
    assert last.decoder.done()
    huge = street.enter(10**9)  # counts as all that there is
    street.leave(small)
    assert not huge.decoder.done()
    street.leave(last)
    assert huge.decoder.done()


def test_more_than_may_wait_are_sent_away_and_whoever_leaves_makes_room(
    lane: Callable[..., Lane],
) -> None:
    street = lane(waiting=2)
    turns = [street.enter(1) for _ in range(3)]
    with pytest.raises(FullError):
        street.enter(1)
    street.leave(turns[1])
    turns.append(street.enter(1))
    street.leave(turns[0])
    street.leave(turns[0])  # twice is as good as once
    assert turns[2].decoder.done()
    assert not turns[3].decoder.done()


@pytest.mark.whole("test_what_is_given_up_frees_its_worker_at_once")
def test_a_lane_that_is_closed_ends_whoever_waits_and_whatever_is_looked_at(fault: Fault) -> None:
    fault(STUBBORN + f"when_sent({MARK!r}, stubborn)")
    rules = Rules(places=1, bytes=10**8, most=10**8, seconds=30.0, patience=60.0, waiting=5)
    street = Lane(rules)
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            with street.decoder() as decoder:
                decoder.pixels(sent(GOOD), 8)
                busy.set()
                decoder.pixels(sent(BAD), 8)
        except BaseException as error:
            failed.append(error)

    busy = threading.Event()
    asking = threading.Thread(target=ask)
    asking.start()
    assert busy.wait(60)
    waiting = street.enter(1)
    time.sleep(0.2)
    started = time.monotonic()
    street.close()
    asking.join(30)
    assert time.monotonic() - started < 10
    assert isinstance(failed[0], GivenUpError)
    assert waiting.decoder.cancelled()
    with pytest.raises(FullError):
        street.enter(1)
    assert psutil.Process().children(recursive=True) == []
