"""The parent's side of a worker process: starting, asking, watching and replacing it."""

from __future__ import annotations

import fcntl
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any, BinaryIO

from imgsearch.embedding.wire import raise_error, receive, send, send_file
from imgsearch.errors import ModelError, PicklableError, reason_of

__all__ = ["WorkerDiedError", "WorkerProcess", "command", "environment", "started"]

PIPE = 1 << 20  # Bytes.
START_LIMITS = (15.0, 30.0, 75.0)  # Seconds to load the model in each attempt.


def command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of imgsearch in its own process."""
    # -P: a file called numpy.py among someone's photos must not be imported.
    return [sys.executable, "-P", "-m", f"imgsearch.embedding.{module}", *arguments]


def environment() -> dict[str, str]:
    """Return an environment for `command` in which the same modules can be imported as here."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


class WorkerDiedError(PicklableError):
    """A worker has ended unexpectedly.

    Attributes:
        reason: Description of how it ended.
        index: Index in the request of the file that it was working on; None if there is none.
        transient: Whether the cause may be something other than the file.
        late: Whether its time was up.
    """

    def __init__(
        self, reason: str, index: int | None, *, transient: bool, late: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.index = index
        self.transient = transient
        self.late = late


class WorkerProcess:
    """A worker process and the clock of its current file."""

    def __init__(
        self, command: list[str], time_limit: float, start_limit: float = START_LIMITS[0]
    ) -> None:
        """Start the process; `start` waits until it is ready.

        Args:
            command: Command that starts the process.
            time_limit: Maximum seconds to spend on one file.
            start_limit: Maximum seconds until the process must be ready.

        Raises:
            ModelError: If there is no such program, or no process or temporary file can be created.
        """
        self._time_limit = time_limit
        self.start_limit = start_limit
        self._deadline = float("inf")
        self._overdue = False
        try:
            self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=environment(),
            )
        except OSError as error:
            raise _not_started(reason_of(error)) from error
        _widen(self._process.stdin)

    def start(self) -> None:
        """Wait until the process is ready.

        Raises:
            DamagedError: If the process cannot load its model.
            ModelError: If the process cannot start for another reason.
            WorkerDiedError: If the process was killed or was not ready in time, which may not
                happen to the next one.
        """
        assert self._process.stdout is not None  # noqa: S101 - for the type checker
        self._deadline = time.monotonic() + self.start_limit
        try:
            raise_error(receive(self._process.stdout)[0])
        except EOFError:
            self._await_end()
            status = self._process.returncode
            if self._overdue:
                reason = f"it was not ready after {self.start_limit:g} s"
                raise WorkerDiedError(reason, None, transient=True) from None
            if status < 0:
                killed = f"it was killed (signal {-status})"
                raise WorkerDiedError(killed, None, transient=True) from None
            raise _not_started(self._last_words() or f"exit status {status}") from None
        finally:
            self._deadline = float("inf")

    def run(
        self, paths: list[str], wanted: Callable[[str, bytes], bool]
    ) -> tuple[list[dict[str, Any]], bytes]:
        """Return the replies to `paths` and the bytes of their arrays.

        Args:
            paths: Paths of the files.
            wanted: Function that tells, given a path and its digest, whether to embed the file. It
                may be slow and may raise any exception, after which this worker can only be closed.

        Raises:
            WorkerDiedError: If the worker died, or was stopped because a file took too long.
        """
        self._forget_words()
        message, data = self._ask({"paths": paths})
        if "digests" in message:
            digests = zip(paths, message["digests"], strict=True)
            answer = [
                each is not None and wanted(path, bytes.fromhex(each)) for path, each in digests
            ]
            message, data = self._ask({"wanted": answer})
        return message["replies"], data

    def look(
        self, wanted: dict[str, Any], content: BinaryIO | None, size: int
    ) -> tuple[dict[str, Any], bytes]:
        """Return the answer about one image and its bytes; see `imgsearch.embedding.wire`.

        Args:
            wanted: Fields of a `Look`.
            content: Content of the image file; None if there is a path.
            size: Size of the content in bytes.

        Raises:
            WorkerDiedError: If the worker died, or was stopped because it took too long.
        """
        self._forget_words()
        return self._ask({"look": wanted}, content, size)

    def compute(self, images: int, pixels: bytes) -> tuple[dict[str, Any], bytes]:
        """Return the answer about some images and its bytes; see `imgsearch.embedding.confined`.

        Raises:
            WorkerDiedError: If the worker died, or was stopped because it took too long.
        """
        self._forget_words()
        return self._ask({"images": images}, io.BytesIO(pixels), len(pixels))

    def _ask(
        self, question: dict[str, Any], content: BinaryIO | None = None, size: int = 0
    ) -> tuple[dict[str, Any], bytes]:
        """Send a question and return the next message that is more than a progress note."""
        assert self._process.stdin is not None  # noqa: S101 - for the type checker
        assert self._process.stdout is not None  # noqa: S101 - for the type checker
        index: int | None = None
        self._deadline = time.monotonic() + self._time_limit
        try:
            if content is None:
                send(self._process.stdin, question)
            else:
                send_file(self._process.stdin, question, content, size)
            while True:
                self._deadline = time.monotonic() + self._time_limit
                message, data = receive(self._process.stdout)
                if "begin" not in message:
                    return message, data
                index = message["begin"]
        except (EOFError, OSError):
            self._await_end()
            raise self._obituary(index) from None
        finally:
            self._deadline = float("inf")

    def is_alive(self) -> bool:
        """Tell whether the process exists: an idle one may have been killed from outside."""
        return self._process.poll() is None

    def check_clock(self) -> None:
        """Kill the process if its file takes too long; the thread waiting for it then notices."""
        if time.monotonic() > self._deadline:
            self.expire()

    def expire(self) -> None:
        """Kill the process because its time is up."""
        self._overdue = True
        self._process.kill()

    def kill(self) -> None:
        """Kill the process, even if it is busy; the thread that waits for an answer notices.

        This is harmless if the process has already ended.
        """
        self._process.kill()

    def stop(self) -> None:
        """Kill the process and wait until it has ended."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Let the idle process end, and close its pipes."""
        with suppress(OSError):  # An unsent request to a process that has ended.
            if self._process.stdin is not None:
                self._process.stdin.close()
        self._await_end()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()

    def _await_end(self) -> None:
        """Let the process end by itself, as killing it would hide the reason for its end."""
        try:
            self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self.stop()

    def _obituary(self, index: int | None) -> WorkerDiedError:
        if self._overdue:
            reason = f"took longer than {self._time_limit:g} s"
            return WorkerDiedError(reason, index, transient=False, late=True)
        status = self._process.returncode
        if status == -signal.SIGPROF:  # See imgsearch.images.limits.seconds_limited.
            return WorkerDiedError("took too long", index, transient=False, late=True)
        if status == -signal.SIGKILL:  # No decoder crashes with this signal.
            reason = "its worker was killed; memory may have run out"
            return WorkerDiedError(reason, index, transient=True)
        how = f"signal {-status}" if status < 0 else self._last_words() or f"exit status {status}"
        return WorkerDiedError(f"made its worker crash ({how})", index, transient=False)

    def _forget_words(self) -> None:
        """Drop the log of files that are done, which is no longer needed."""
        # The worker shares this open file, and so writes at the same position.
        if os.lseek(self._log.fileno(), 0, os.SEEK_CUR):
            os.lseek(self._log.fileno(), 0, os.SEEK_SET)
            os.ftruncate(self._log.fileno(), 0)

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else ""


def started(
    command: list[str],
    time_limit: float,
    note: Callable[[WorkerProcess], object],
    begun: WorkerProcess | None = None,
) -> WorkerProcess:
    """Start a worker process and wait until it is ready; try again if it is killed or hangs.

    Args:
        command: Starts it.
        time_limit: Seconds that it may spend on one file.
        note: Function that receives each process before the wait for it begins, so that its clock
            is checked; an exception that it raises ends the attempts.
        begun: Process to use for the first attempt, if one has been started already.

    Raises:
        DamagedError: If the process cannot load its model.
        ModelError: If no attempt to start the process succeeds.
    """
    reasons: list[str] = []
    for limit in START_LIMITS:
        worker, begun = begun or WorkerProcess(command, time_limit, limit), None
        try:
            note(worker)
            worker.start()
        except WorkerDiedError as death:
            worker.close()
            reasons.append(death.reason)
        except BaseException:
            worker.close()
            raise
        else:
            return worker
    told = ", ".join(dict.fromkeys(reasons))
    raise _not_started(f"{told}; it was tried {len(reasons)} times")


def _widen(pipe: IO[bytes] | None) -> None:
    """Enlarge a pipe to hold an ordinary image file, so its two ends wait less for each other.

    Only Linux supports this, and only while the user's other pipes do not hold too much already.
    """
    resize = getattr(fcntl, "F_SETPIPE_SZ", None)
    if resize is not None and pipe is not None:
        with suppress(OSError):
            fcntl.fcntl(pipe, resize, PIPE)


def _not_started(reason: str) -> ModelError:
    return ModelError(f"a worker process could not start: {reason}")
