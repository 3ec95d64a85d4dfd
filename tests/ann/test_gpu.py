"""Faiss on a GPU: what is done there and what is not, by a fake where there is none."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from imgsearch.ann.compact import CompactIndex, train_compact
from imgsearch.ann.flat import IvfIndex
from imgsearch.ann.gpu import describe_faiss, to_gpu
from imgsearch.ann.kmeans import train
from imgsearch.ann.vectors import Ids, Vectors
from imgsearch.storage.files import write_atomically
from tests.support.brute_force import DIM, assert_same_hits, nearest, probe, squares
from tests.support.small_network import random_embeddings

needs_gpu = pytest.mark.skipif(
    not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() == 0,
    reason="needs faiss-gpu and a CUDA device",
)


def test_faiss_is_described_with_its_version() -> None:
    kind = "faiss-gpu" if hasattr(faiss, "StandardGpuResources") else "faiss-cpu"
    assert describe_faiss("cpu") == describe_faiss() == f"{kind} {faiss.__version__} on cpu"


def test_without_faiss_gpu_an_index_stays_where_it_is(vectors: Vectors) -> None:
    index = faiss.IndexFlatL2(DIM)
    assert to_gpu(index, "cpu") is index
    if not hasattr(faiss, "StandardGpuResources"):
        assert to_gpu(index, "cuda") is index
        np.testing.assert_array_equal(train(vectors, 8, device="cuda"), train(vectors, 8))
        assert describe_faiss("cuda") == f"faiss-cpu {faiss.__version__} on cpu"


class GpuIndex:
    """Stands for an index on a GPU: it takes no selector, no more than 2,048 hits or lists, and
    one thread at a time.
    """

    def __init__(self, index: Any, device: int) -> None:
        self.device = device
        self.index = index
        self.searches = self.at_once = self._now = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.index, name)

    def search(self, queries: Vectors, k: int, params: Any) -> tuple[Vectors, Ids]:
        assert k <= 2048
        assert params.sel is None
        assert params.nprobe <= 2048
        self._now += 1
        self.searches, self.at_once = self.searches + 1, max(self.at_once, self._now)
        time.sleep(0.0005)  # let other threads run
        found: tuple[Vectors, Ids] = self.index.search(queries, k, params=params)
        self._now -= 1
        return found


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> list[GpuIndex]:
    """A Faiss that believes to have GPUs; the indexes that it put there."""
    there: list[GpuIndex] = []

    def put(_: object, device: int, index: Any) -> GpuIndex:
        there.append(GpuIndex(faiss.clone_index(index), device))
        return there[-1]

    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 2)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", put, raising=False)
    monkeypatch.setattr(faiss, "index_gpu_to_cpu", lambda index: index.index, raising=False)
    return there


def test_with_faiss_gpu_an_index_is_filled_and_searched_there_and_saved_as_the_cpu_kind(
    gpu: list[GpuIndex], ids: Ids, vectors: Vectors, tmp_path: Path
) -> None:
    assert describe_faiss("cuda") == f"faiss-gpu {faiss.__version__} on cuda"
    index = IvfIndex.empty(train(vectors, 8), device="cuda")
    distances = index.add(ids, vectors)
    np.testing.assert_allclose(distances, squares(vectors, index.centroids).min(axis=1), atol=1e-5)
    assert [one.device for one in gpu] == [0]
    assert index.count == gpu[0].ntotal == 400
    found = probe(index, vectors[:5], 3, 8)
    assert gpu[0].searches == 1
    write_atomically(tmp_path / "index", index.save)
    on_cpu = IvfIndex.open(tmp_path / "index", device="cpu")
    assert_same_hits(found, probe(on_cpu, vectors[:5], 3, 8))
    assert len(gpu) == 1


def test_what_a_gpu_cannot_do_is_done_on_the_cpu(
    gpu: list[GpuIndex], index: IvfIndex, ids: Ids, vectors: Vectors, tmp_path: Path
) -> None:
    write_atomically(tmp_path / "index", index.save)
    opened = IvfIndex.open(tmp_path / "index", device="cuda")
    assert_same_hits(probe(opened, vectors[:2], 3000, 8), probe(index, vectors[:2], 3000, 8))
    assert probe(opened, vectors[:1], 1, 8, ids[:1])[1][0, 0] != ids[0]
    assert gpu[0].searches == 0
    assert probe(opened, vectors[:1], 1, 8, ids[:0])[1][0, 0] == ids[0]
    assert gpu[0].searches == 1


def test_more_lists_than_a_gpu_can_probe_are_probed_on_the_cpu(
    gpu: list[GpuIndex], tmp_path: Path
) -> None:
    many = random_embeddings(2050, dim=4)
    index = IvfIndex.empty(many)
    index.add(np.arange(2050), many)
    write_atomically(tmp_path / "index", index.save)
    opened = IvfIndex.open(tmp_path / "index", device="cuda")
    assert probe(opened, many[:3], 1, 2049)[1][:, 0].tolist() == [0, 1, 2]
    assert gpu[0].searches == 0
    assert probe(opened, many[:3], 1, 2048)[1][:, 0].tolist() == [0, 1, 2]
    assert gpu[0].searches == 1


def test_a_compact_index_is_searched_on_the_cpu_even_if_there_is_a_gpu(
    gpu: list[GpuIndex], ids: Ids, vectors: Vectors, tmp_path: Path
) -> None:
    index = train_compact(vectors, 8, DIM // 2, device="cuda")
    index.add(ids, vectors)
    write_atomically(tmp_path / "index", index.save)
    opened = CompactIndex.open(tmp_path / "index", device="cuda")
    assert_same_hits(probe(opened, vectors[:5], 10, 3), probe(index, vectors[:5], 10, 3))
    assert not gpu


def test_threads_take_turns_on_a_gpu(
    gpu: list[GpuIndex], index: IvfIndex, ids: Ids, vectors: Vectors, tmp_path: Path
) -> None:
    write_atomically(tmp_path / "index", index.save)
    opened = IvfIndex.open(tmp_path / "index", device="cuda")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda row: probe(opened, vectors[row][None], 1, 2)[1], range(60)))
    assert np.concatenate(found)[:, 0].tolist() == ids[:60].tolist()
    assert (gpu[0].searches, gpu[0].at_once) == (60, 1)


@needs_gpu
def test_a_real_gpu_finds_what_the_cpu_finds(ids: Ids, vectors: Vectors, tmp_path: Path) -> None:
    index = IvfIndex.empty(train(vectors, 8, device="cuda"), device="cuda")
    index.add(ids, vectors)
    write_atomically(tmp_path / "index", index.save)
    for device in ("cpu", "cuda"):
        opened = IvfIndex.open(tmp_path / "index", device=device)
        for nprobe in (1, 4, 8):
            found = probe(opened, vectors[:50], 10, nprobe)
            assert_same_hits(found, probe(index, vectors[:50], 10, nprobe), atol=1e-4)
    assert_same_hits(probe(index, vectors, 10, 8), nearest(vectors, ids, vectors, 10), atol=1e-4)


@needs_gpu
def test_a_real_gpu_finds_what_the_cpu_finds_in_a_compact_index(
    ids: Ids, vectors: Vectors, tmp_path: Path
) -> None:
    index = train_compact(vectors, 8, DIM // 2, device="cuda")
    index.add(ids, vectors)
    write_atomically(tmp_path / "index", index.save)
    opened = CompactIndex.open(tmp_path / "index", device="cuda")
    found, true = (probe(one, vectors[:50], 10, 4)[1] for one in (opened, index))
    assert np.mean([np.isin(*rows).mean() for rows in zip(true, found, strict=True)]) > 0.98
