"""Faiss on a GPU, where faiss-gpu is installed and there is one."""

from __future__ import annotations

from typing import Any

import faiss

__all__ = ["MOST", "describe_faiss", "is_on_gpu", "to_gpu"]

MOST = 2_048  # hits, and lists, of a search: faiss/gpu/utils/DeviceDefs.cuh


def to_gpu(index: Any, device: str) -> Any:
    """Return `index` on the GPU where the device is CUDA and faiss-gpu is installed, else itself.

    One on the GPU is searched by one thread at a time, and saved as its CPU kind.
    """
    if not is_on_gpu(device):
        return index
    return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)


def is_on_gpu(device: str) -> bool:
    """Tell whether Faiss works on a GPU when this is the device."""
    gpu = device == "cuda" and hasattr(faiss, "StandardGpuResources")
    return gpu and faiss.get_num_gpus() > 0


def describe_faiss(device: str = "cpu") -> str:
    """Say which Faiss this is and where it works, as in "faiss-cpu 1.15.1 on cpu"."""
    kind = "faiss-gpu" if hasattr(faiss, "StandardGpuResources") else "faiss-cpu"
    return f"{kind} {faiss.__version__} on {device if is_on_gpu(device) else 'cpu'}"
