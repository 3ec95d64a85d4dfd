"""Run a foreign model in its own process, which has limits and can be killed.

``python -m imgsearch.embedding.confined SIZE DIM THREADS MODEL`` serves one parent with the
messages of `imgsearch.embedding.wire`: it answers `{"images": n}` followed by n images with `{}`
followed by n embeddings, or with an error.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np

from imgsearch.embedding.models import Shapes
from imgsearch.embedding.process import WorkerDiedError, WorkerProcess, command, started
from imgsearch.embedding.runtime import MODEL_MEMORY, Embeddings, Runtime, open_limited
from imgsearch.embedding.wire import raise_error, receive, send, send_error
from imgsearch.errors import ImgsearchError, ModelError
from imgsearch.images.decode import Pixels
from imgsearch.images.limits import limit_log

__all__ = ["ConfinedRuntime"]

TIME_LIMIT = 60.0  # Seconds for one run.

_Messages: TypeAlias = "queue.SimpleQueue[tuple[dict[str, Any], bytes]]"


class ConfinedRuntime(Runtime):
    """A foreign model on the CPU; concurrent calls of `embed` run one after another."""

    devices = 1

    def __init__(
        self, model: Path, shapes: Shapes, *, threads: int = 0, time_limit: float = TIME_LIMIT
    ) -> None:
        """Set up the runtime; the process starts with the first run.

        Args:
            model: The ONNX file.
            shapes: Shapes of the model according to the catalog.
            threads: Number of threads for one call; 0 for one per core.
            time_limit: Maximum seconds to load the model, and to run it once.
        """
        self._model = model
        self._dim = shapes.dim
        numbers = shapes.input_size, shapes.dim, threads
        self._command = command("confined", *map(str, numbers), str(model))
        self._time_limit = time_limit
        self._lock = threading.Lock()
        self._worker: WorkerProcess | None = None
        self._closed = False

    def embed(self, pixels: Pixels) -> Embeddings:
        """Map uint8 `[n, input_size, input_size, 3]` to float32 `[n, dim]`, L2-normalised.

        Raises:
            DamagedError: If the model cannot be loaded.
            ModelError: If the model takes too much time or memory, fails, or returns anything other
                than such embeddings.
        """
        with self._lock:
            try:
                with self._watched():
                    worker = self._worker or started(self._command, self._time_limit, self._note)
                    message, data = worker.compute(len(pixels), pixels.tobytes())
                raise_error(message)
            except BaseException as error:
                self._stop()
                if isinstance(error, WorkerDiedError):
                    raise ModelError(
                        f"the foreign model {self._model} was stopped: {error.reason}"
                    ) from error
                raise
        return np.frombuffer(data, np.float32).reshape(len(pixels), self._dim)

    def close(self) -> None:
        """End the process, even if it is busy; a run in another thread fails."""
        self._closed = True
        worker = self._worker
        if worker is not None:
            worker.stop()
        with self._lock:
            self._stop()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Kill the process if the context takes too long."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.1):
                worker = self._worker
                if worker is not None:
                    worker.check_clock()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _note(self, worker: WorkerProcess) -> None:
        self._worker = worker
        if self._closed:
            raise ModelError(f"{self._model} was closed while it was running")

    def _stop(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop()
            worker.close()


def main() -> None:
    """Serve requests from stdin until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent handles Ctrl-C and stops us.
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # Keep libraries' output out of the answers.
    messages: _Messages = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests, messages), daemon=True).start()
    size, dim, threads = map(int, sys.argv[1:4])
    shapes, model = Shapes(size, dim), Path(sys.argv[4])
    limit_log()
    try:
        runtime = open_limited(model, shapes, threads=threads, trust=True, memory=MODEL_MEMORY)
    except ImgsearchError as error:
        send_error(answers, error)
        return
    send(answers, {"ready": True})
    while True:
        message, data = messages.get()
        pixels = np.frombuffer(data, np.uint8).reshape(message["images"], size, size, 3)
        try:
            rows = runtime.embed(pixels)
        except ImgsearchError as error:
            send_error(answers, error)
        else:
            send(answers, {}, rows.tobytes())


def _listen(requests: BinaryIO, messages: _Messages) -> None:
    """Pass messages on; exit at once when the parent ends, even in the middle of a run."""
    try:
        while True:
            messages.put(receive(requests))
    except EOFError:
        os._exit(0)


if __name__ == "__main__":
    main()
