"""Embed many files: paths in, one outcome a path out, in the same order, in bounded memory.

A worker process a core decodes and, on a CPU, runs the model. A file on which a worker hangs or
dies is blamed and passed over; the worker is replaced.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from imgsearch.embedding.runtime import Embeddings, Runtime
from imgsearch.embedding.wire import receive, send
from imgsearch.errors import ModelError

__all__ = ["Embedded", "Outcome", "Refused", "embed_files"]

BATCH = 4  # files a request
WINDOW = 512  # requests under way or done but waiting for an earlier one
PIXEL_WINDOW = 64  # the same where a request's answer is pixels, some 150 KB an image
GPU_BATCH = 256


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """A file that was embedded.

    `embedding` is float32 `[dim]`, L2-normalised; `digest` the SHA-256 of the file; `size` and
    `mtime_ns` are as they were when it was read.
    """

    embedding: Embeddings
    digest: bytes
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that was not embedded, with the attributes of `imgsearch.errors.ImageError`."""

    reason: str
    recognised: bool = True
    transient: bool = False


Outcome: TypeAlias = Embedded | Refused


@dataclass(frozen=True, slots=True, eq=False)
class _Decoded:
    array: npt.NDArray[Any]  # an embedding, or pixels for a GPU
    digest: bytes
    size: int
    mtime_ns: int


_Reply: TypeAlias = _Decoded | Refused


def embed_files(
    paths: Iterable[str],
    *,
    model: Path,
    input_size: int,
    dim: int,
    workers: int,
    time_limit: float,
    gpu: Runtime | None = None,
) -> Generator[Outcome, None, None]:
    """Yield the outcome of each path, in order.

    Args:
        paths: consumed lazily, a bounded distance ahead of the outcomes, in the caller's thread.
        model: the ONNX file that the workers run, unless `gpu` is given.
        input_size: edge of the network's input in pixels.
        dim: length of an embedding.
        workers: number of processes.
        time_limit: seconds that a file may take before it is blamed.
        gpu: runs the model in this process instead; the workers only decode.

    Raises:
        ModelError: a worker cannot start.
    """
    # -P: a file numpy.py among someone's photos must not be imported.
    command = [sys.executable, "-P", "-m", "imgsearch.embedding.worker", str(input_size)]
    if gpu is None:
        pool = _Pool([*command, str(model)], workers, time_limit, np.dtype(np.float32), (dim,))
        for reply in pool.run(paths, WINDOW):
            yield _outcome(reply)
        return
    shape = (input_size, input_size, 3)
    pool = _Pool(command, workers, time_limit, np.dtype(np.uint8), shape)
    replies = pool.run(paths, PIXEL_WINDOW)
    while block := list(islice(replies, GPU_BATCH)):
        yield from _run_on_gpu(block, gpu)


def _outcome(reply: _Reply, embedding: Embeddings | None = None) -> Outcome:
    if isinstance(reply, Refused):
        return reply
    row = reply.array if embedding is None else embedding
    return Embedded(row, reply.digest, reply.size, reply.mtime_ns)


def _run_on_gpu(block: list[_Reply], gpu: Runtime) -> Iterator[Outcome]:
    pixels = [reply.array for reply in block if isinstance(reply, _Decoded)]
    rows = iter(gpu.embed(np.stack(pixels)) if pixels else ())
    for reply in block:
        yield _outcome(reply, next(rows) if isinstance(reply, _Decoded) else None)


class _WorkerDiedError(Exception):
    """A worker is gone; `index` tells at which file of its request, None if at none of them."""

    def __init__(self, reason: str, index: int | None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.index = index


class _Worker:
    """A worker process and the clock of the file that it is at."""

    def __init__(self, command: list[str], time_limit: float) -> None:
        self._time_limit = time_limit
        self._deadline = float("inf")
        self._overdue = False
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )

    def start(self) -> None:
        """Wait until it is ready, or raise `ModelError`."""
        assert self._process.stdout is not None  # noqa: S101 - for the type checker
        try:
            receive(self._process.stdout)
        except EOFError:
            self.stop()
            self._log.seek(0)
            lines = self._log.read().decode(errors="replace").strip().splitlines()
            last = lines[-1] if lines else f"exit status {self._process.returncode}"
            raise ModelError(f"a worker process could not start: {last}") from None

    def run(self, paths: list[str]) -> tuple[list[dict[str, Any]], bytes]:
        """Return the replies to `paths` and the bytes of their arrays.

        Raises:
            _WorkerDiedError: it died, or was stopped because a file took too long.
        """
        assert self._process.stdin is not None  # noqa: S101 - for the type checker
        assert self._process.stdout is not None  # noqa: S101 - for the type checker
        index: int | None = None
        try:
            send(self._process.stdin, {"paths": paths})
            while True:
                self._deadline = time.monotonic() + self._time_limit
                message, data = receive(self._process.stdout)
                if "replies" in message:
                    return message["replies"], data
                index = message["begin"]
        except (EOFError, OSError):
            self.stop()
            raise _WorkerDiedError(self._cause(), index) from None
        finally:
            self._deadline = float("inf")

    def check_clock(self) -> None:
        """Kill it if its file takes too long: the thread that waits for it then sees its end."""
        if time.monotonic() > self._deadline:
            self._overdue = True
            self._process.kill()

    def stop(self) -> None:
        """Kill it; harmless if it is gone."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Kill it and close its pipes."""
        self.stop()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                try:
                    stream.close()
                except OSError:  # an unsent request, to a process that is gone
                    continue

    def _cause(self) -> str:
        if self._overdue:
            return f"took longer than {self._time_limit:g} s"
        status = self._process.returncode
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        return f"made the decoder crash ({how})"


class _Pool:
    """Worker processes, each with a thread here that talks to it."""

    def __init__(
        self,
        command: list[str],
        size: int,
        time_limit: float,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
    ) -> None:
        self._command = command
        self._size = size
        self._time_limit = time_limit
        self._dtype = dtype
        self._shape = shape
        self._workers: list[_Worker | None] = [None] * size
        self._stopping = threading.Event()
        self._requests: queue.SimpleQueue[tuple[int, list[str]]] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[int, list[_Reply] | BaseException]] = (
            queue.SimpleQueue()
        )

    def run(self, paths: Iterable[str], window: int) -> Iterator[_Reply]:
        """Yield the reply to each path, in order, at most `window` requests ahead."""
        threads = [threading.Thread(target=self._watch, daemon=True)]
        threads += [
            threading.Thread(target=self._serve, args=(slot,), daemon=True)
            for slot in range(self._size)
        ]
        for thread in threads:
            thread.start()
        try:
            yield from self._in_order(iter(paths), window)
        finally:
            self._stopping.set()
            for worker in self._workers:
                if worker is not None:
                    worker.stop()
            for _ in range(self._size):
                self._requests.put((-1, []))
            for thread in threads:
                thread.join()

    def _in_order(self, paths: Iterator[str], window: int) -> Iterator[_Reply]:
        done: dict[int, list[_Reply]] = {}
        asked = given = 0
        exhausted = False
        while True:
            while not exhausted and asked - given < window:
                request = list(islice(paths, BATCH))
                exhausted = len(request) < BATCH
                if request:
                    self._requests.put((asked, request))
                    asked += 1
                if not self._answers.empty():
                    break  # a slow listing must not hold back what is ready
            if given == asked and exhausted:
                return
            number, answer = self._answers.get()
            if isinstance(answer, BaseException):
                raise answer
            done[number] = answer
            while given in done:
                yield from done.pop(given)
                given += 1

    def _watch(self) -> None:
        while not self._stopping.wait(0.1):
            for worker in self._workers:
                if worker is not None:
                    worker.check_clock()

    def _serve(self, slot: int) -> None:
        try:
            while not self._stopping.is_set():
                number, paths = self._requests.get()
                if paths:
                    self._answers.put((number, self._replies(slot, paths)))
        except BaseException as error:  # whatever it is, it belongs to who waits for the answer
            self._answers.put((-1, error))
        finally:
            self._close(slot)

    def _close(self, slot: int) -> None:
        worker, self._workers[slot] = self._workers[slot], None
        if worker is not None:
            worker.close()

    def _replies(self, slot: int, paths: list[str]) -> list[_Reply]:
        """Ask for `paths`; when the worker dies, blame the file it was at and ask for the others.

        A worker that dies while it runs the model was at no file in particular: then each file is
        asked for alone.
        """
        replies: dict[int, _Reply] = {}
        groups = [list(range(len(paths)))]
        while groups and not self._stopping.is_set():
            group = groups.pop()
            try:
                answered = self._ask(slot, [paths[index] for index in group])
            except _WorkerDiedError as death:
                self._close(slot)
                if death.index is None and len(group) > 1:
                    groups += [[index] for index in group]
                    continue
                blamed = group.pop(death.index or 0)
                replies[blamed] = Refused(death.reason)
                groups += [group] if group else []
            else:
                replies.update(zip(group, answered, strict=True))
        return [replies[index] for index in sorted(replies)]

    def _ask(self, slot: int, paths: list[str]) -> list[_Reply]:
        worker = self._workers[slot]
        if worker is None:
            worker = self._workers[slot] = _Worker(self._command, self._time_limit)
            if self._stopping.is_set():  # set before the workers were stopped: none is missed
                worker.stop()
            worker.start()
        replies, data = worker.run(paths)
        good = sum("digest" in reply for reply in replies)
        rows = iter(np.frombuffer(data, self._dtype).reshape(good, *self._shape))
        return [
            _Decoded(next(rows), bytes.fromhex(reply["digest"]), reply["size"], reply["mtime_ns"])
            if "digest" in reply
            else Refused(**{key: reply[key] for key in ("reason", "recognised", "transient")})
            for reply in replies
        ]
