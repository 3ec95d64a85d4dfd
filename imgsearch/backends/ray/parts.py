"""The work of each worker in a cluster: embed one part of the files after another, and stage it.

This module does not depend on Ray.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from imgsearch.backends.ray.staging import Staging
from imgsearch.embedding.models import Shapes, find_network, is_file
from imgsearch.embedding.pipeline import Extractor, cores
from imgsearch.embedding.runtime import TorchRuntime
from imgsearch.embedding.weights import file_digest
from imgsearch.errors import ModelError, StorageError, reason_of
from imgsearch.files.paths import is_url
from imgsearch.files.sources import status_of
from imgsearch.images.limits import Limits
from imgsearch.storage.files import write_atomically
from imgsearch.storage.records import ModelRecord

__all__ = ["Columns", "PartEmbedder", "Recipe"]

Columns: TypeAlias = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that a worker needs to know.

    `staging` is the URL of the staged shards, `gpu` tells whether to run the model by torch on the
    GPU that the worker sees; the others are as in `imgsearch.embedding.pipeline.embed_files`.
    """

    staging: str
    model: ModelRecord
    limits: Limits
    gpu: bool
    trust_model: bool = False


class PartEmbedder:
    """An embedder and stager of parts, with one process that decodes and, on a CPU, runs the model.

    It is created on the worker's machine: only this class and its recipe are sent there.
    """

    def __init__(self, recipe: Recipe) -> None:
        """Fetch the model.

        Raises:
            ModelError: If it cannot be loaded on this machine.
            StorageError: If the staging folder cannot be read, or the temporary folder written.
        """
        model = recipe.model
        self._staging = Staging(recipe.staging)
        self._sha256 = model.onnx_sha256
        runtime = None
        if recipe.gpu and not is_file(model.name):
            network = find_network(model.name)
            runtime = TorchRuntime(network, model.weights, model.weights_sha256, "cuda")
        self._extractor = Extractor(
            model=_fetch_model(self._staging, model.onnx_sha256),
            shapes=Shapes(model.input_size, model.dim),
            workers=1,
            limits=recipe.limits,
            gpu=runtime,
            trust_model=recipe.trust_model,
            beside=cores() - 1,
        )
        self._extractor.__enter__()  # for as long as this process lives

    def __call__(self, batch: Columns) -> Columns:
        """Map numbers and paths (bytes) of parts to their numbers and the names of their shards.

        Raises:
            ModelError: If a worker process cannot start.
            StorageError: If a shard cannot be written.
        """
        names = [self._stage([os.fsdecode(path) for path in part]) for part in batch["paths"]]
        return {"part": batch["part"], "shard": np.array(names)}

    def _stage(self, paths: list[str]) -> str:
        if (
            not paths
        ):  # requested again although it is done: see `imgsearch.backends.ray.feed.Feed.get`
            return ""
        ctimes = {path: _ctime_of(path) for path in paths}
        outcomes = list(self._extractor.embed(paths, _everything))
        return self._staging.add(self._sha256, list(zip(paths, outcomes, strict=True)), ctimes)


def _ctime_of(path: str) -> int | None:
    try:
        return None if is_url(path) else status_of(path).ctime_ns
    except OSError:  # reported when the file is read
        return None


def _everything(_: str, __: bytes) -> bool:
    return True


def _fetch_model(staging: Staging, sha256: str) -> Path:
    """Return a copy of the model on this machine, shared by all workers of this user."""
    folder = Path(tempfile.gettempdir(), f"imgsearch-{os.getuid()}")
    path = folder / f"{sha256}.onnx"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise ModelError(f"{folder} belongs to another user; remove it")
        if not path.exists() or file_digest(path) != sha256:
            onnx = staging.read_model(sha256)
            write_atomically(path, lambda sink: sink.write(onnx))
    except OSError as error:
        raise StorageError(f"cannot write {folder}: {reason_of(error)}") from error
    return path
