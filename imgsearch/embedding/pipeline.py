"""Embed many files: one outcome for each path, in the same order and in bounded memory.

There is one worker process per core. It hashes each file and asks whether its content is wanted; if
so, it decodes the file and, on a CPU, runs the model.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Self, TypeAlias

import numpy as np

from imgsearch.embedding.models import Shapes
from imgsearch.embedding.pool import BATCH, Decoded, Known, Pool, Refused, Reply
from imgsearch.embedding.process import command
from imgsearch.embedding.runtime import AT_ONCE, Embeddings, Runtime
from imgsearch.images.fingerprint import Fingerprint
from imgsearch.images.limits import LIMITS, Limits

__all__ = [
    "Embedded",
    "Extractor",
    "Fingerprinted",
    "Known",
    "Outcome",
    "Refused",
    "cores",
    "embed_files",
    "fingerprint_files",
]

WINDOW = 512  # Requests in progress, or done but waiting for an earlier one.
PIXEL_BATCH = 16  # Files per request for pixels; with fewer, workers would wait for this process.
PIXEL_WINDOW = 64  # Such requests per GPU, at 150 to 270 KB per image.
GPU_BATCH = 256  # Images per GPU.


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """A file that has been embedded.

    `embedding` is float32 `[dim]`, L2-normalised; `digest` is the SHA-256 of the file. `size` and
    `mtime_ns` are those of the file when it was read; `mtime_ns` is None if it was too recent to
    reveal a later change (`imgsearch.files.listing.trusted_time`). Its fingerprint is None if the
    engine made none.
    """

    embedding: Embeddings
    digest: bytes
    size: int
    mtime_ns: int | None
    fingerprint: Fingerprint | None = None


Outcome: TypeAlias = Embedded | Known | Refused


@dataclass(frozen=True, slots=True)
class Fingerprinted:
    """A file that has been decoded, and not embedded; `digest` is its SHA-256."""

    fingerprint: Fingerprint
    digest: bytes


def embed_files(
    paths: Iterable[str],
    *,
    wanted: Callable[[str, bytes], bool],
    model: Path | None,
    shapes: Shapes,
    workers: int,
    limits: Limits = LIMITS,
    gpu: Runtime | None = None,
    trust_model: bool = False,
) -> Generator[Outcome, None, None]:
    """Yield the outcome of each path, in order.

    Args:
        paths: Files to embed, consumed lazily in the caller's thread, a bounded distance ahead of
            the outcomes.
        wanted: Function that tells, given a path and the SHA-256 of its content, whether to embed
            the file; if not, the file is not even decoded, and its outcome is `Known`. Several
            threads call it at once, and call it again with the same path if a worker dies: it must
            then give the same answer. Its exceptions are raised here.
        model: ONNX file that the workers run; None if there is a `gpu`.
        shapes: Shapes of the model's input and output.
        workers: Number of processes.
        limits: Limits for hashing and for decoding each file, from which the memory of a worker
            follows.
        gpu: Runtime that runs the model in this process instead; the workers then only decode.
        trust_model: Whether a model that imgsearch did not export may be run.

    Raises:
        DamagedError: If `model` cannot be loaded.
        UntrustedModelError: If imgsearch did not export `model`, and it is not trusted.
        ModelError: If a worker cannot start.
    """
    extractor = Extractor(
        model=model,
        shapes=shapes,
        workers=workers,
        limits=limits,
        gpu=gpu,
        trust_model=trust_model,
    )
    with extractor, closing(extractor.embed(paths, wanted)) as outcomes:
        yield from outcomes


def fingerprint_files(
    paths: Iterable[str],
    *,
    wanted: Callable[[str, bytes], bool],
    input_size: int,
    workers: int,
    limits: Limits = LIMITS,
) -> Generator[Fingerprinted | Known | Refused, None, None]:
    """Yield the fingerprint of each path, in order, as `embed_files` would make it.

    Args:
        paths: Files to decode, consumed lazily.
        wanted: As for `embed_files`.
        input_size: Edge of the network's input in pixels, for which the files are decoded.
        workers: Number of processes.
        limits: Limits for each file.

    Raises:
        ModelError: If a worker cannot start.
    """
    arguments = [str(input_size), str(limits.max_pixels), str(limits.memory(workers))]
    row = np.dtype((np.uint8, (input_size, input_size, 3)))
    with Pool(command("worker", *arguments), workers, limits.time_limit, row) as pool:
        for reply in pool.run(paths, PIXEL_WINDOW, wanted):
            if isinstance(reply, Decoded):
                yield Fingerprinted(reply.fingerprint, reply.digest)
            else:
                yield reply


class Extractor:
    """A context manager with worker processes that embed one batch of files after another.

    This is the whole work of one machine, alone or as one of many: `embed_files` passes all files
    as one batch, and a worker of a cluster passes one part of them after another.
    """

    def __init__(
        self,
        *,
        model: Path | None,
        shapes: Shapes,
        workers: int,
        limits: Limits = LIMITS,
        gpu: Runtime | None = None,
        trust_model: bool = False,
        beside: int = 0,
    ) -> None:
        """Set up the extractor without starting a worker.

        Args:
            model: ONNX file that the workers run; None if there is a `gpu`.
            shapes: Shapes of the model's input and output.
            workers: Number of processes.
            limits: Limits for each file.
            gpu: Runtime that runs the model in this process.
            trust_model: Whether a foreign model may be run.
            beside: Number of other processes on this machine that need memory for the same work.
        """
        size = shapes.input_size
        memory = limits.memory(workers + beside)
        arguments = [str(size), str(limits.max_pixels), str(memory)]
        row = np.dtype((np.uint8, (size, size, 3)))
        if gpu is None:
            arguments += [str(model), str(shapes.dim), "any" if trust_model else "own"]
            row = np.dtype((np.float32, (shapes.dim,)))
        self._gpu = gpu
        self._pool = Pool(
            command("worker", *arguments),
            workers,
            limits.time_limit,
            row,
            batch=BATCH if gpu is None else PIXEL_BATCH,
        )

    def __enter__(self) -> Self:
        self._pool.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.close()

    def warm(self) -> None:
        """Start the workers now, without waiting for them, instead of with their first files."""
        self._pool.warm()

    def embed(
        self, paths: Iterable[str], wanted: Callable[[str, bytes], bool]
    ) -> Generator[Outcome, None, None]:
        """Yield outcomes in order, as `embed_files` does; calls must not overlap."""
        if self._gpu is None:
            with closing(self._pool.run(paths, WINDOW, wanted)) as replies:
                for reply in replies:
                    yield _outcome(reply)
            return
        window = self._gpu.devices * PIXEL_WINDOW
        with closing(self._pool.run(paths, window, wanted)) as replies:
            yield from _embed_on_gpu(replies, self._gpu)


def _outcome(reply: Reply, embedding: Embeddings | None = None) -> Outcome:
    if not isinstance(reply, Decoded):
        return reply
    row = reply.array if embedding is None else embedding
    return Embedded(row, reply.digest, reply.size, reply.mtime_ns, reply.fingerprint)


def _embed_on_gpu(replies: Iterator[Reply], gpu: Runtime) -> Iterator[Outcome]:
    """Embed batches in threads while the workers decode the next ones."""
    running: deque[tuple[list[Reply], Future[Iterator[Embeddings]]]] = deque()
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for block in iter(lambda: list(islice(replies, gpu.devices * GPU_BATCH)), []):
            running.append((block, threads.submit(_rows, block, gpu)))
            while len(running) > AT_ONCE or (running and running[0][1].done()):
                yield from _outcomes(*running.popleft())
        for each in running:
            yield from _outcomes(*each)


def _rows(block: list[Reply], gpu: Runtime) -> Iterator[Embeddings]:
    pixels = [reply.array for reply in block if isinstance(reply, Decoded)]
    return iter(gpu.embed(np.stack(pixels)) if pixels else ())


def _outcomes(block: list[Reply], embedded: Future[Iterator[Embeddings]]) -> Iterator[Outcome]:
    rows = embedded.result()
    for reply in block:
        yield _outcome(reply, next(rows) if isinstance(reply, Decoded) else None)


def cores() -> int:
    """Return the number of cores available to this process."""
    affinity = getattr(os, "sched_getaffinity", None)  # Missing on macOS.
    return len(affinity(0)) if affinity else os.cpu_count() or 1
