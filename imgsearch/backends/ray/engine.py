"""`RayEngine`: the machines of a Ray cluster as the engine of a run."""

from __future__ import annotations

import logging
import os
import socket
import warnings
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Self

import numpy as np

from imgsearch.ann.inverted import InvertedFile
from imgsearch.ann.vectors import Ids, Vectors
from imgsearch.backends.ray.extraction import Extraction, Job
from imgsearch.backends.ray.parts import Recipe
from imgsearch.backends.ray.staging import Staging
from imgsearch.embedding.pipeline import Outcome, cores
from imgsearch.errors import ModelError, PackageError, SettingError, reason_of
from imgsearch.images.limits import Limits
from imgsearch.indexing.engine import ModelFile, Wanted

__all__ = ["LOCAL", "RayEngine"]

LOCAL = "local"
AUTO = "auto"
OBJECTS = 512 << 20  # bytes of our own cluster's object store, for vectors to assign
REACH = 10.0  # seconds
BLOCKS = 2  # of vectors being assigned, per worker


class RayEngine:
    """A Ray cluster on which a run embeds files and assigns vectors. A context manager.

    Ray is started, or connected to, once there is work for it. If this process has already
    started or connected to Ray, that Ray is used unchanged.
    """

    def __init__(
        self,
        address: str,
        *,
        staging: str | os.PathLike[str],
        workers: int | None = None,
        gpus: float = 0.0,
    ) -> None:
        """Prepare an engine, without connecting yet.

        Args:
            address: The cluster: "local" for one of this machine alone, which ends with this
                engine; "auto" for one that this machine belongs to, or `HOST:PORT` of its head.
            staging: A folder for this collection alone, which all machines reach by this path or
                URL (`s3://...`): embeddings wait there for the collection to take them.
            workers: The number of parallel workers; None for one per core of the cluster, or for as
                many as its GPUs have room for.
            gpus: The number of GPUs per worker, or the share of one; 0 runs models on CPUs.

        Raises:
            PackageError: If Ray is not installed.
            SettingError: If an argument makes no sense.
        """
        if find_spec("ray") is None or find_spec("pyarrow") is None:
            raise PackageError("--ray needs Ray, which is not installed", "ray")
        if address.startswith("ray://"):
            raise SettingError(
                f"{address} is an address for remote clients, which cannot index; run this on a "
                f"machine of the cluster, with --ray auto"
            )
        if address not in (LOCAL, AUTO) and not _is_host_and_port(address):
            raise SettingError(
                f"{address!r} is not the address of a Ray cluster; give local, auto, or HOST:PORT "
                "of its head"
            )
        if gpus < 0 or (gpus > 1 and gpus != int(gpus)):
            raise SettingError(
                f"gpus is {gpus}; it must be a share of one GPU, or a whole number of them"
            )
        self._address = address
        self._staging = Staging(os.fspath(staging))
        self._asked = workers
        self._gpus = gpus
        self._ours = False
        self._extraction: Extraction | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Disconnect, and after a completed run leave nothing in the staging folder."""
        try:
            if kind is None:
                self._staging.clear()
        finally:
            if self._ours:
                import ray

                ray.shutdown()

    def embed_files(
        self,
        paths: Iterable[str],
        wanted: Wanted,
        *,
        model: ModelFile,
        limits: Limits,
    ) -> Generator[Outcome, None, None]:
        """Yield the outcome of each path, in order: see `imgsearch.indexing.engine.Engine`.

        Files that an earlier run staged, but the collection does not have, are not embedded again.

        Raises:
            ModelError: If there is no such cluster, Ray failed, or a worker cannot load the model.
            StorageError: If the staging folder cannot be read or written.
        """
        record = model.record
        recipe = Recipe(
            self._staging.url,
            record,
            limits,
            gpu=self._gpus > 0,
            trust_model=model.trusted,
        )

        def start() -> Job:
            self._staging.write_model(record.onnx_sha256, model.checked().read_bytes())
            self._connect()
            from imgsearch.backends.ray.job import RayJob

            return RayJob(recipe, workers=self._workers(), gpus=self._gpus)

        self._extraction = Extraction(self._staging, record.onnx_sha256, start)
        with closing(self._extraction.embed(paths, wanted)) as outcomes:
            yield from outcomes

    def committed(self) -> None:
        """Note that all outcomes yielded so far are in the collection."""
        if self._extraction is not None:
            self._extraction.committed()

    def assign(
        self, index: InvertedFile, blocks: Iterable[tuple[Ids, Vectors]]
    ) -> Iterator[tuple[Ids, Vectors, Ids]]:
        """Yield each block with the list of each vector: see `imgsearch.indexing.engine.Engine`.

        Raises:
            ModelError: If there is no such cluster, or Ray failed.
        """
        self._connect()
        import ray

        from imgsearch.backends.ray.job import CPUS, speaking_plainly

        task = ray.remote(_assign).options(num_cpus=CPUS, max_retries=-1)
        ahead = BLOCKS * self._workers()
        under_way: deque[tuple[Ids, Vectors, Any]] = deque()
        with speaking_plainly():
            trained = ray.put(index.emptied())
            for ids, vectors in blocks:
                under_way.append((ids, vectors, task.remote(trained, np.asarray(vectors))))
                if len(under_way) > ahead:
                    yield _done(under_way)
            while under_way:
                yield _done(under_way)

    def _connect(self) -> None:
        # Set before Ray is imported, which is when it reads them. Usage reports are off, whatever
        # the user's environment says: that nothing leaves these machines is a promise, not a
        # default.
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        if self._address == LOCAL:
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # 127.0.0.1 only
        import ray
        import ray.data

        if ray.is_initialized():
            return
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        warnings.filterwarnings("ignore", module=r"ray\.")  # advice on how to write jobs
        try:
            if self._address == LOCAL:
                here = {"num_cpus": self._asked or cores(), "object_store_memory": OBJECTS}
                ray.init("local", include_dashboard=False, **here, **quiet)
            else:
                _reach(self._address)
                ray.init(self._address, **quiet)
        except (OSError, ValueError, RuntimeError) as error:  # a ConnectionError is an OSError
            reason = reason_of(error)[:200]
            raise ModelError(
                f"there is no Ray cluster at {self._address}: {reason}; start one with "
                "`ray start --head`, or use --ray local"
            ) from error
        self._ours = True

    def _workers(self) -> int:
        """Return the number of workers to start.

        Raises:
            ModelError: If the cluster has no GPU, or too few.
        """
        import ray

        resources = ray.cluster_resources()
        if not self._gpus:
            return self._asked or max(1, int(resources.get("CPU", 1)))
        room = int(resources.get("GPU", 0) / self._gpus)
        if not room:
            raise ModelError(
                f"the Ray cluster has {resources.get('GPU', 0):g} GPUs, but each worker needs "
                f"{self._gpus:g}; give a smaller share with --gpus, or 0"
            )
        return min(self._asked or room, room)


def _is_host_and_port(address: str) -> bool:
    host, _, port = address.rpartition(":")
    return bool(host) and port.isascii() and port.isdecimal() and 0 < int(port) < 65_536


def _reach(address: str) -> None:
    """Raise an OSError if nothing listens at HOST:PORT: Ray would retry for many minutes."""
    host, _, port = address.rpartition(":")
    if address != AUTO:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH).close()


def _assign(index: InvertedFile, vectors: Vectors) -> Ids:
    return index.assign_one(vectors)


def _done(under_way: deque[tuple[Ids, Vectors, Any]]) -> tuple[Ids, Vectors, Ids]:
    import ray

    ids, vectors, lists = under_way.popleft()
    return ids, vectors, ray.get(lists)
