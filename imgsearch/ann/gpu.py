"""Faiss on a GPU, if there is one and faiss-gpu is installed."""

from __future__ import annotations

from typing import Any

import faiss

__all__ = ["GPU_MOST", "describe_faiss", "is_on_gpu", "to_gpu"]

GPU_MOST = 2_048  # maximum number of hits and of lists in a search: faiss/gpu/utils/DeviceDefs.cuh


def to_gpu(index: Any, device: str) -> Any:
    """Return a copy of `index` on the GPU if `is_on_gpu`, or else `index` itself.

    An index on the GPU is searched by one thread at a time, and saved in its CPU form.
    """
    if not is_on_gpu(device):
        return index
    return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)


def is_on_gpu(device: str) -> bool:
    """Tell whether Faiss runs on a GPU for this device."""
    gpu = device == "cuda" and hasattr(faiss, "StandardGpuResources")
    return gpu and faiss.get_num_gpus() > 0


def describe_faiss(device: str = "cpu") -> str:
    """Describe which Faiss is installed and where it runs, as in "faiss-cpu 1.15.1 on cpu"."""
    kind = "faiss-gpu" if hasattr(faiss, "StandardGpuResources") else "faiss-cpu"
    return f"{kind} {faiss.__version__} on {device if is_on_gpu(device) else 'cpu'}"
