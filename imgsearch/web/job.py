"""Jobs of the server that take long, each in a process of its own: `imgsearch.web.job_process`."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from starlette.exceptions import HTTPException

from imgsearch.embedding.process import environment
from imgsearch.embedding.wire import receive, send
from imgsearch.errors import ModelError, reason_of
from imgsearch.web.job_process import CANCEL, GRACE

__all__ = ["Job", "Jobs"]

PATIENCE = 10.0  # seconds for a cancelled job to end


class Job:
    """A job in a process of its own."""

    def __init__(self, kind: str) -> None:
        """Start the process.

        Raises:
            ModelError: If that is impossible.
        """
        self.kind = kind
        self.done = self.total = 0
        self.cancelled = False
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "imgsearch.web.job_process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment(),
            )
        except OSError as error:
            raise ModelError(f"a process could not start: {reason_of(error)}") from error

    def run(self, message: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Ask for something, note the progress, and yield what else is told until the end."""
        assert self._process.stdin is not None  # noqa: S101 - for the type checker
        assert self._process.stdout is not None  # noqa: S101 - for the type checker
        with suppress(OSError, ValueError, EOFError):  # it has ended
            send(self._process.stdin, message)
            while True:
                told, _ = receive(self._process.stdout)
                if "progress" in told:
                    self.done, self.total = told["progress"]
                else:
                    yield told
        self._process.wait()
        self._close()
        self._process.stdout.close()

    def cancel(self) -> None:
        """Ask it to end; kill it if it does not."""
        self.cancelled = True
        with suppress(OSError, ValueError):  # it has ended
            assert self._process.stdin is not None  # noqa: S101 - for the type checker
            self._process.stdin.write(CANCEL)
            self._process.stdin.flush()
        timer = threading.Timer(PATIENCE, self._process.kill)
        timer.daemon = True
        timer.start()

    def end(self) -> None:
        """End it as the server does: soon in any case."""
        self.cancelled = True
        self._close()
        try:
            self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _close(self) -> None:
        with suppress(OSError, ValueError):
            if self._process.stdin is not None:
                self._process.stdin.close()


class Jobs:
    """Jobs of which one runs at a time. Safe for concurrent use.

    Attributes:
        lock: What is held while a job begins, or it is noted how one has ended; it is reentrant.
    """

    def __init__(self, busy: str) -> None:
        """Start nothing yet; `busy` is what to answer while a job is running."""
        self.lock = threading.RLock()
        self._busy = busy
        self._job: Job | None = None
        self._failure = ""
        self._began = self._ended = 0.0
        self._closed = False

    def check_free(self) -> None:
        """Refuse with an `HTTPException`, 409, if a job is running."""
        with self.lock:
            if self._closed or self._job is not None:
                raise HTTPException(409, self._busy)

    def start(
        self, kind: str, message: dict[str, Any], hear: Callable[[dict[str, Any]], bool]
    ) -> None:
        """Begin a job.

        Args:
            kind: What to call it.
            message: What to ask for.
            hear: Function that takes each message of the job but those of progress and errors, in
                another thread, and tells whether it is the result.

        Raises:
            ModelError: If a process cannot be started.
            HTTPException: 409 if a job is running.
        """
        with self.lock:
            self.check_free()
            job = self._job = Job(kind)
            self._failure, self._began = "", time.monotonic()
        threading.Thread(target=self._run, args=(job, message, hear), daemon=True).start()

    def cancel(self) -> None:
        """End the job that is running, if there is one."""
        with self.lock:
            if self._job is not None:
                self._job.cancel()

    def close(self) -> None:
        """End the job that is running, and accept no other."""
        with self.lock:
            self._closed, job = True, self._job
        if job is not None:
            job.end()

    def status(self) -> dict[str, Any]:
        """Tell what is running, if anything, how far it is, and why the latest job failed."""
        with self.lock:
            job = self._job
            return {
                "running": job.kind if job is not None else None,
                "done": job.done if job is not None else 0,
                "total": job.total if job is not None else 0,
                "failure": self._failure or None,
            }

    @property
    def seconds(self) -> float:
        """The duration of the job that is running, or of the latest."""
        with self.lock:
            return (self._ended if self._job is None else time.monotonic()) - self._began

    def _run(
        self, job: Job, message: dict[str, Any], hear: Callable[[dict[str, Any]], bool]
    ) -> None:
        """Run a job until it has ended, and note why it failed."""
        failure, complete = "", False
        for told in job.run(message):
            if "error" in told:
                failure = told["text"]
            else:
                complete = hear(told)
        with self.lock:
            self._job, self._ended = None, time.monotonic()
            if not (failure or complete or job.cancelled):
                failure = "it ended unexpectedly; see the log of the server"
            self._failure = failure
