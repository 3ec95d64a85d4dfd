"""Parallel worker processes that give one reply for each path, in the same order.

A file on which a worker hangs or dies is blamed and skipped; the worker is replaced.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from imgsearch.embedding.process import WorkerDiedError, WorkerProcess, started
from imgsearch.errors import ModelError, PicklableError, reason_of
from imgsearch.images.fingerprint import FINGERPRINT, Fingerprint

__all__ = ["BATCH", "Decoded", "Known", "Pool", "Refused", "Reply"]

BATCH = 4  # Files per request.
WARM = -2  # The number of a request that only starts a worker.


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that was not embedded, with the attributes of `imgsearch.errors.ImageError`."""

    reason: str
    recognised: bool = True
    transient: bool = False
    limited: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """A file that was only hashed, as its content is not wanted; see `Embedded` for attributes."""

    digest: bytes
    size: int
    mtime_ns: int | None


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """A file that was read; `array` is its embedding, or its pixels if a GPU will embed it."""

    array: npt.NDArray[Any]
    digest: bytes
    size: int
    mtime_ns: int | None
    fingerprint: Fingerprint


Reply: TypeAlias = Decoded | Known | Refused


class Pool:
    """A context manager with worker processes, each served by a thread of this process."""

    def __init__(
        self,
        command: list[str],
        size: int,
        time_limit: float,
        row: np.dtype[Any],
        *,
        batch: int = BATCH,
    ) -> None:
        """Set up the pool without starting anything.

        Args:
            command: Command that starts a worker.
            size: Number of workers.
            time_limit: Maximum seconds that a worker may spend on one file.
            row: Dtype of a row of a worker's array, such as `np.dtype((np.float32, (dim,)))`.
            batch: Number of files per request.
        """
        self._command = command
        self._size = size
        self._time_limit = time_limit
        self._row = row
        self._batch = batch
        self._wanted: Callable[[str, bytes], bool] = _everything
        self._finished = True
        self._threads: list[threading.Thread] = []
        self._workers: list[WorkerProcess | None] = [None] * size
        self._stopping = threading.Event()
        self._requests: queue.SimpleQueue[tuple[int, list[str]]] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[int, list[Reply] | BaseException]] = (
            queue.SimpleQueue()
        )

    def __enter__(self) -> Self:
        """Start the threads; each worker process starts with its first request.

        Raises:
            ModelError: If too many threads are running.
        """
        threads = [threading.Thread(target=self._watch, daemon=True)]
        threads += [
            threading.Thread(target=self._serve, args=(slot,), daemon=True)
            for slot in range(self._size)
        ]
        try:
            for thread in threads:
                _start(thread)
                self._threads.append(thread)
        except ModelError:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def warm(self) -> None:
        """Start the workers now, without waiting for them, instead of with their first requests."""
        for _ in range(self._size):
            self._requests.put((WARM, []))

    def run(
        self, paths: Iterable[str], window: int, wanted: Callable[[str, bytes], bool]
    ) -> Generator[Reply, None, None]:
        """Yield the reply to each path, in order, at most `window` requests ahead.

        Only one run at a time is possible; after an unfinished run, the pool can only be closed.

        Args:
            paths: Paths of the files.
            window: Maximum number of requests ahead.
            wanted: See `imgsearch.embedding.pipeline.embed_files`.
        """
        self._wanted = wanted
        self._finished = False
        yield from self._in_order(iter(paths), window)
        self._finished = True

    def close(self) -> None:
        """End the workers, even busy ones."""
        self._stopping.set()
        for worker in self._workers:
            if worker is not None and not self._finished:  # It may still be busy for long.
                worker.stop()
        for _ in range(self._size):
            self._requests.put((-1, []))
        for thread in self._threads:
            thread.join()

    def _in_order(self, paths: Iterator[str], window: int) -> Iterator[Reply]:
        done: dict[int, list[Reply]] = {}
        asked = given = 0
        exhausted = False
        while True:
            while not exhausted and asked - given < window:
                request = list(islice(paths, self._batch))
                exhausted = len(request) < self._batch
                if request:
                    self._requests.put((asked, request))
                    asked += 1
                if not self._answers.empty():
                    break  # A slow listing must not hold back ready replies.
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
                elif number == WARM:
                    self._started(slot)
        except BaseException as error:  # Pass any error to the waiting thread.
            self._answers.put((-1, error))
        finally:
            self._close(slot)

    def _close(self, slot: int) -> None:
        worker, self._workers[slot] = self._workers[slot], None
        if worker is not None:
            worker.close()

    def _replies(self, slot: int, paths: list[str]) -> list[Reply]:
        """Request `paths`; if the worker dies, blame its current file and request the others.

        A worker that dies while it runs the model has no current file: then each file is requested
        on its own.
        """
        replies: dict[int, Reply] = {}
        groups = [list(range(len(paths)))]
        while groups and not self._stopping.is_set():
            group = groups.pop()
            try:
                answered = self._ask(slot, [paths[index] for index in group])
            except WorkerDiedError as death:
                self._close(slot)
                if death.index is None and len(group) > 1:
                    groups += [[index] for index in group]
                    continue
                blamed = group.pop(death.index or 0)
                replies[blamed] = Refused(death.reason, transient=death.transient)
                groups += [group] if group else []
            else:
                replies.update(zip(group, answered, strict=True))
        return [replies[index] for index in sorted(replies)]

    def _ask(self, slot: int, paths: list[str]) -> list[Reply]:
        replies, data = self._started(slot).run(paths, self._wanted)
        count = sum(bool(reply.get("wanted")) for reply in replies)
        rows = iter(np.frombuffer(data, self._row, count))
        prints = iter(np.frombuffer(data, FINGERPRINT, count, count * self._row.itemsize))
        return [_reply(reply, rows, prints) for reply in replies]

    def _started(self, slot: int) -> WorkerProcess:
        """Return a worker, and start it first if it does not run."""
        worker = self._workers[slot]
        if worker is not None and not worker.is_alive():
            self._close(slot)
            worker = None
        if worker is None:
            worker = started(self._command, self._time_limit, partial(self._note, slot))
        return worker

    def _note(self, slot: int, worker: WorkerProcess) -> None:
        self._workers[slot] = worker
        if self._stopping.is_set():  # Set before workers are stopped, so none is missed.
            worker.stop()
            raise _StoppedError


class _StoppedError(PicklableError):
    """The pool was closed while a worker was starting."""


def _everything(_: str, __: bytes) -> bool:
    return True


def _start(thread: threading.Thread) -> None:
    try:
        thread.start()
    except RuntimeError as error:  # Too many processes, or too little memory.
        raise ModelError(f"a worker process could not start: {reason_of(error)}") from error


def _reply(reply: dict[str, Any], rows: Iterator[npt.NDArray[Any]], prints: Iterator[Any]) -> Reply:
    if "reason" in reply:
        return Refused(
            reply["reason"], reply["recognised"], reply["transient"], limited=reply["limited"]
        )
    content = bytes.fromhex(reply["digest"]), reply["size"], reply["mtime_ns"]
    if not reply["wanted"]:
        return Known(*content)
    fingerprint = Fingerprint(next(prints).tobytes(), reply["taken"], reply["camera"])
    return Decoded(next(rows), *content, fingerprint)
