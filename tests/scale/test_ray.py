"""Ray for real: `make test-scale`. A collection made on it is the one that is made without."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import psutil
import pytest

from imgsearch.backends.ray import RayEngine
from imgsearch.collection import Collection
from imgsearch.errors import ModelError
from imgsearch.maintenance.verify import verify
from imgsearch.querying.view import open_view
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import Storage
from tests.support.commands import imgsearch_command
from tests.support.outcomes import age
from tests.support.pictures import save_pictures

pytestmark = pytest.mark.filterwarnings("ignore")  # what Ray and its packages warn of is theirs

LIMIT = 240  # seconds that a command may take
PICTURES = 2_500


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what tests start on this machine, and to itself."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")


@pytest.fixture(autouse=True)
def _nothing_is_left_running() -> Iterator[None]:
    """Check that every process of Ray that a test started has ended."""
    before = _ray_processes()
    yield
    deadline = time.monotonic() + 30
    while (left := _ray_processes() - before) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left, [psutil.Process(pid).cmdline() for pid in left if psutil.pid_exists(pid)]


def _ray_processes() -> set[int]:
    found = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            command = " ".join(process.cmdline())
            ours = "ray::" in command or "/ray/" in command or "imgsearch.embedding" in command
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found.add(process.pid)
    return found


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Many pictures, for reading only: enough for a kill in the middle."""
    folder = tmp_path_factory.mktemp("pictures")
    save_pictures(folder, PICTURES)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    age(folder)
    return folder


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A Ray cluster of three nodes, each some processes of its own."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, "object_store_memory": 2**27},
    )
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=2**27)
    yield cluster
    cluster.shutdown()


def _vectors(directory: Path) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    layout = Layout.at(directory)
    catalog = Catalog(layout.catalog)
    found: dict[str, np.ndarray[Any, np.dtype[np.float32]]] = {}
    images = 0
    for ids, vectors in open_view(layout, catalog).live_blocks():
        paths = catalog.paths(ids.tolist())
        images += len(ids)
        found |= {paths[id_]: row for id_, row in zip(ids.tolist(), vectors, strict=True)}
    assert images == len(found)
    catalog.close()
    return found


def _is_same(one: Path, other: Path) -> bool:
    first, second = _vectors(one), _vectors(other)
    return first.keys() == second.keys() and all(
        np.abs(first[path] - second[path]).max() < 1e-5 for path in first
    )


def _start(*arguments: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        imgsearch_command(*arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def _end(process: subprocess.Popen[bytes]) -> str:
    out = process.communicate(timeout=LIMIT)[0].decode()
    assert process.returncode == 0, out
    return out


def _wait_until(so: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + LIMIT
    while not so():
        assert process.poll() is None, process.communicate()[0].decode()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _count(directory: Path) -> int:
    catalog = Catalog(Layout.at(directory).catalog)
    count = catalog.counts().images
    catalog.close()
    return count


@pytest.fixture(scope="module")
def alone(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection of `pictures` that is made without Ray."""
    directory = tmp_path_factory.mktemp("alone") / "collection"
    with Collection.create(directory, device="cpu") as collection:
        collection.index([pictures])
    return directory


def test_real_photos_give_the_same_collection_with_ray_as_without(
    data: Path, tmp_path: Path
) -> None:
    photos = data / "corel1k" / "images"
    _end(_start("-c", tmp_path / "alone", "index", photos, "--device", "cpu"))
    out = _end(_start("-c", tmp_path / "ray", "index", photos, "--device", "cpu", "--ray", "local"))
    assert " 0 failed" in out
    assert _is_same(tmp_path / "alone", tmp_path / "ray")
    assert not (tmp_path / "ray" / "staging").exists()


def test_a_node_that_is_killed_in_the_middle_costs_no_image(
    cluster: Any, pictures: Path, alone: Path, empty_mobilenet: Path
) -> None:
    process = _start("-c", empty_mobilenet, "index", pictures, "--ray", cluster.address)
    _wait_until(lambda: _count(empty_mobilenet) > 0, process)
    cluster.remove_node(cluster.worker_nodes.copy().pop(), allow_graceful=False)
    assert _count(empty_mobilenet) < PICTURES
    out = _end(process)
    assert f"{PICTURES + 1:,} found: {PICTURES:,} indexed, 0 unchanged, 1 failed" in out
    assert _is_same(alone, empty_mobilenet)
    assert verify(empty_mobilenet).damages == ()


def test_a_run_that_is_killed_goes_on_from_what_was_staged(
    cluster: Any, pictures: Path, alone: Path, empty_mobilenet: Path, tmp_path: Path
) -> None:
    staging = tmp_path / "staging"
    command = ("-c", empty_mobilenet, "index", pictures, "--ray", cluster.address)
    process = _start(*command, "--staging", str(staging))
    _wait_until(lambda: _count(empty_mobilenet) > 0, process)
    _wait_until(lambda: len(list(staging.glob("*.json"))) > 1, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    committed = _count(empty_mobilenet)
    assert 0 < committed < PICTURES
    assert list(staging.glob("*.json"))
    out = _end(_start(*command, "--staging", str(staging)))
    assert f"{PICTURES - committed:,} indexed, {committed:,} unchanged" in out
    assert _is_same(alone, empty_mobilenet)
    assert not staging.exists()
    assert verify(empty_mobilenet).damages == ()


def test_an_index_filed_on_ray_is_the_one_that_is_made_here(
    cluster: Any, pictures: Path, alone: Path, tmp_path: Path
) -> None:
    here, there = copytree(alone, tmp_path / "here"), copytree(alone, tmp_path / "there")
    storages: tuple[Storage, ...] = ("compact", "flat")
    for storage in storages:
        with Collection.open(here, device="cpu") as collection:
            collection.index([pictures], nlist=32, storage=storage)
        with (
            RayEngine(cluster.address, staging=tmp_path / "staging") as ray,
            Collection.open(there, device="cpu") as collection,
        ):
            collection.index([pictures], nlist=32, storage=storage, engine=ray)
        segments = [sorted(Layout.at(each).segments.glob("*.faiss")) for each in (here, there)]
        assert [p.read_bytes() for p in segments[0]] == [p.read_bytes() for p in segments[1]]


def test_what_the_cluster_does_not_have_is_said_in_one_line(
    cluster: Any, photos: Path, empty: Path, tmp_path: Path
) -> None:
    with (
        Collection.open(empty, device="cpu") as collection,
        RayEngine(cluster.address, staging=tmp_path, gpus=0.5) as ray,
        pytest.raises(ModelError, match=r"has 0 GPUs.*--gpus"),
    ):
        collection.index([photos], engine=ray)


def test_a_cluster_that_is_not_there_is_named(photos: Path, empty: Path, tmp_path: Path) -> None:
    with (
        Collection.open(empty, device="cpu") as collection,
        RayEngine("127.0.0.1:1", staging=tmp_path) as ray,
        pytest.raises(ModelError, match=r"no Ray cluster at 127\.0\.0\.1:1"),
    ):
        collection.index([photos], engine=ray)


@pytest.fixture
def empty_mobilenet(mobilenet_empty: Path, tmp_path: Path) -> Path:
    """An empty collection with MobileNetV2, to be filled."""
    return copytree(mobilenet_empty, tmp_path / "collection")
