"""The standalone server keeps the contract, and loses nothing when it is killed.

Run by test_milvus_server.py, in a network namespace of its own.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from imgsearch.backends.milvus.export import export
from imgsearch.backends.milvus.rows import Address, Row
from imgsearch.backends.milvus.store import Store
from imgsearch.collection import Collection
from imgsearch.errors import ImgsearchError
from tests.scale.corel import assert_same_answers
from tests.scale.milvus_server import PORT, Server
from tests.support.contract import Contract
from tests.support.small_network import random_embeddings

RECOVERY = 180.0  # seconds


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("milvus") / "data")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def place(server: Server) -> str:
    del server
    return f"milvus://127.0.0.1:{PORT}/t{uuid.uuid4().hex}"


@pytest.fixture
def location(place: str, empty: Path) -> str:
    export(empty, place)
    return place


class TestServer(Contract):
    enough = 2_400  # a segment of less than 1,024 images is searched exactly


def test_corel_gives_the_same_answers(data: Path, tmp_path: Path, place: str) -> None:
    assert_same_answers(data, tmp_path / "collection", place)


def test_killed_in_the_middle_of_writing_it_loses_nothing_acknowledged(
    server: Server, location: str
) -> None:
    vectors = random_embeddings(40_000)
    rows = [Row.of(b"/%d" % number, b"d" * 32, number, None) for number in range(len(vectors))]
    acknowledged: list[int] = []

    def write() -> None:
        store = Store(Address.of(location))
        try:
            for start in range(0, len(rows), 200):
                part = slice(start, start + 200)
                store.upsert(rows[part], vectors[part])
                acknowledged.append(start + 200)
        except ImgsearchError:
            return

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    while len(acknowledged) < 40:
        assert writer.is_alive()
        time.sleep(0.05)
    server.kill()
    count = acknowledged[-1]
    assert count < len(rows)
    server.start()
    started = time.monotonic()
    while not _answers(location):
        assert time.monotonic() - started < RECOVERY
        time.sleep(1)
    store = Store(Address.of(location))
    assert len(store.there(row.id for row in rows[:count])) == count
    store.close()
    with Collection.open(location, device="cpu") as collection:
        near = collection.answer(np.ascontiguousarray(vectors[:count:97]), k=1, exact=True)
    assert [answer.hits[0].path for answer in near] == [f"/{n}" for n in range(0, count, 97)]


def _answers(location: str) -> bool:
    try:
        with Collection.open(location, device="cpu") as collection:
            collection.answer(random_embeddings(1))
    except ImgsearchError:
        return False
    return True
