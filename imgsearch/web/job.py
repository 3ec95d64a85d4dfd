"""A job of the server that takes long, in a process of its own: `imgsearch.web.job_process`."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from imgsearch.embedding.process import environment
from imgsearch.embedding.wire import receive, send
from imgsearch.errors import ModelError, reason_of
from imgsearch.web.job_process import CANCEL, GRACE

__all__ = ["Job"]

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
