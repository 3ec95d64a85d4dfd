"""Faiss on a GPU: what is done there and what is not, by a fake where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import pytest

from imgsearch.search.ivf import IvfIndex, describe_faiss, to_gpu, train
from imgsearch.search.vectors import Ids, Vectors
from imgsearch.storage.files import write_atomically
from tests.search.brute_force import DIM, assert_same_hits, nearest


def test_faiss_is_described_with_its_version() -> None:
    kind = "faiss-gpu" if hasattr(faiss, "StandardGpuResources") else "faiss-cpu"
    assert describe_faiss("cpu") == describe_faiss() == f"{kind} {faiss.__version__} on cpu"


def test_without_faiss_gpu_an_index_stays_where_it_is() -> None:
    index = faiss.IndexFlatL2(DIM)
    assert to_gpu(index, "cpu") is index
    if not hasattr(faiss, "StandardGpuResources"):
        assert to_gpu(index, "cuda") is index
        assert describe_faiss("cuda") == f"faiss-cpu {faiss.__version__} on cpu"


class GpuIndex:
    """Stands for an index on a GPU: it takes no selector, and no more than 2,048 hits."""

    def __init__(self, index: Any, device: int) -> None:
        self.device = device
        self.index = index
        self.searches = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.index, name)

    def search(self, queries: Vectors, k: int, params: Any) -> tuple[Vectors, Ids]:
        assert k <= 2048
        assert params.sel is None
        self.searches += 1
        found: tuple[Vectors, Ids] = self.index.search(queries, k, params=params)
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
    index.add(ids, vectors)
    assert [one.device for one in gpu] == [0]
    found = index.search(vectors[:5], 3, 8)
    assert gpu[0].searches == 1
    write_atomically(tmp_path / "index", index.save)
    on_cpu = IvfIndex.open(tmp_path / "index", device="cpu")
    assert_same_hits(found, on_cpu.search(vectors[:5], 3, 8))
    assert len(gpu) == 1


def test_what_a_gpu_cannot_do_is_done_on_the_cpu(
    gpu: list[GpuIndex], index: IvfIndex, ids: Ids, vectors: Vectors, tmp_path: Path
) -> None:
    write_atomically(tmp_path / "index", index.save)
    opened = IvfIndex.open(tmp_path / "index", device="cuda")
    assert opened.search(vectors[:1], 3000, 8)[1].shape == (1, 3000)
    assert opened.search(vectors[:1], 1, 8, excluded=ids[:1])[1][0, 0] != ids[0]
    assert gpu[0].searches == 0


@pytest.mark.skipif(
    not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() == 0,
    reason="needs faiss-gpu and a CUDA device",
)
def test_a_real_gpu_finds_what_the_cpu_finds(ids: Ids, vectors: Vectors, tmp_path: Path) -> None:
    index = IvfIndex.empty(train(vectors, 8, device="cuda"), device="cuda")
    index.add(ids, vectors)
    write_atomically(tmp_path / "index", index.save)
    for device in ("cpu", "cuda"):
        opened = IvfIndex.open(tmp_path / "index", device=device)
        for nprobe in (1, 4, 8):
            found = opened.search(vectors[:50], 10, nprobe)
            assert_same_hits(found, index.search(vectors[:50], 10, nprobe), atol=1e-4)
    assert_same_hits(index.search(vectors, 10, 8), nearest(vectors, ids, vectors, 10), atol=1e-4)
