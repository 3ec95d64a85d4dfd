"""Embed queries with the model of a collection."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from imgsearch.ann.vectors import Vectors, as_queries
from imgsearch.embedding.models import Shapes, find_network
from imgsearch.embedding.runtime import (
    ParallelRuntime,
    Runtime,
    TorchRuntime,
    open_model,
    pick_device,
    torch_devices,
)
from imgsearch.errors import InputError
from imgsearch.images.crop import Box
from imgsearch.images.limits import LIMITS, Limits
from imgsearch.querying.options import Query, as_array, pixels_of_query
from imgsearch.storage.records import ModelRecord

__all__ = ["Embedder", "open_on_gpus"]

_NEAR = 0.01  # tolerance around 1, the squared norm of an embedding; rows of pixels have any norm


class Embedder:
    """An embedder of queries that opens its model for the first image. Safe for concurrent use."""

    def __init__(
        self,
        record: ModelRecord,
        device: str,
        model: Callable[[], Path],
        threads: int = 0,
        *,
        trust_model: bool = False,
    ) -> None:
        """Store the arguments; nothing is opened before the first image.

        Args:
            record: Record of the model that made the collection.
            device: Device to embed on; "auto" means the CPU, because a query is a handful of
                images.
            model: Function that returns the path of the ONNX file, after checking that the file is
                the recorded one.
            threads: Number of threads that embed one image on the CPU; 0 for one per core.
            trust_model: Whether a model that imgsearch did not export may be run.
        """
        self._record = record
        self._device = device
        self._path = model
        self._threads = threads
        self._trust_model = trust_model
        self._lock = threading.Lock()
        self._runtime: Runtime | None = None

    def embed(
        self,
        queries: Sequence[Query] | Vectors,
        crop: Box | None = None,
        limits: Limits = LIMITS,
    ) -> Vectors:
        """See `imgsearch.collection.Collection.embed`."""
        if isinstance(queries, np.ndarray) and crop is None:
            return as_queries(queries, self._record.dim)
        rows = [self._embed_one(query, crop, limits) for query in queries]
        return np.concatenate(rows) if rows else np.empty((0, self._record.dim), np.float32)

    def close(self) -> None:
        """End the process of a foreign model, whatever it is doing."""
        close = getattr(self._runtime, "close", None)
        if close is not None:
            close()

    def _embed_one(self, query: Query, crop: Box | None, limits: Limits) -> Vectors:
        shape: tuple[int, ...] = getattr(query, "shape", ())
        if len(shape) == 2 and shape[0] > 1 and shape[1] == self._record.dim:
            rows = as_array(query)
            if rows.dtype.kind == "f" and (np.abs(np.vecdot(rows, rows) - 1) < _NEAR).all():
                raise InputError(
                    f"{shape[0]} embeddings are not one query; give one embedding, or give them to "
                    "query_many; pixels are uint8 [h, w, 3]"
                )
        pixels = pixels_of_query(query, self._record.input_size, crop, limits)
        if pixels is None:
            return as_queries(as_array(query), self._record.dim)
        return self._model().embed(pixels[None])

    def _model(self) -> Runtime:
        with self._lock:
            if self._runtime is None:
                device = "cpu" if self._device == "auto" else pick_device(self._device)
                if device == "cpu":
                    self._runtime = open_model(
                        self._path(),
                        Shapes(self._record.input_size, self._record.dim),
                        threads=self._threads,
                        trust=self._trust_model,
                    )
                else:
                    self._runtime = _open_torch(self._record, device)
            return self._runtime


def open_on_gpus(model: ModelRecord, device: str) -> Runtime:
    """Open a collection's model on all GPUs of a kind, or raise `ModelError`."""
    runtimes = [_open_torch(model, one) for one in torch_devices(device)]
    return runtimes[0] if len(runtimes) == 1 else ParallelRuntime(runtimes)


def _open_torch(model: ModelRecord, device: str) -> TorchRuntime:
    return TorchRuntime(find_network(model.name), model.weights, model.weights_sha256, device)
