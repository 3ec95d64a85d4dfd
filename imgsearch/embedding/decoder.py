"""A worker process that examines single images while a caller waits for the result."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import Any, BinaryIO, TypeAlias

import numpy as np

from imgsearch.embedding.looking import Look, Region, frames_of, inspection_of
from imgsearch.embedding.process import WorkerDiedError, WorkerProcess, command, started
from imgsearch.errors import ImageError, ModelError, PicklableError
from imgsearch.images.decode import Pixels
from imgsearch.images.exif import Exif
from imgsearch.images.inspection import Frames, Inspection
from imgsearch.images.limits import MAX_PIXELS, Limits
from imgsearch.images.render import Glance, Thumbnail

__all__ = [
    "CHANGED",
    "Allowance",
    "BeyondError",
    "Content",
    "Decoder",
    "GivenUpError",
    "Origin",
    "Stored",
]

ATTEMPTS = 2  # Per image, if something else kills its worker.


CHANGED = "has changed since it was indexed"  # The text of `ImageError.reason`.


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """The resources that examining one image may use.

    Attributes:
        bytes: Maximum memory for its pixels, in bytes.
        seconds: Maximum computing time.
        patience: Maximum elapsed time, in seconds.
    """

    bytes: int
    seconds: float
    patience: float


@dataclass(frozen=True, slots=True)
class Content:
    """An uploaded image file of `size` bytes; `name` is the name shown to people."""

    file: BinaryIO
    size: int
    name: str = "image"


@dataclass(frozen=True, slots=True)
class Stored:
    """An image file at a path, refused if `digest` is given and is not its SHA-256."""

    path: str
    digest: bytes | None = None

    @property
    def name(self) -> str:
        """The name shown to people."""
        return self.path


Origin: TypeAlias = Content | Stored


class BeyondError(PicklableError):
    """An image takes more than its allowance.

    Attributes:
        needs: Bytes needed to decode the image, or None if it takes too long.
    """

    def __init__(self, needs: int | None) -> None:
        super().__init__(needs)
        self.needs = needs


class GivenUpError(ImageError):
    """The worker was killed, or the image that it was examining was given up."""


class Decoder:
    """A worker process that is started when needed and replaced when it dies.

    Only one thread may use it at a time, but any thread may call `cancel` and `close`.

    Attributes:
        allowance: Resources that one image may use.
    """

    def __init__(self, allowance: Allowance, nice: int = 0) -> None:
        """Set up the decoder without starting a process.

        Args:
            allowance: Resources that one image may use.
            nice: Increment of the niceness of the process.
        """
        self.allowance = allowance
        self._command = command("worker", str(nice))
        self._worker: WorkerProcess | None = None
        self._ready = False
        self._cancelled = False
        self._closed = False

    def pixels(
        self,
        origin: Origin,
        input_size: int,
        crop: Region | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Pixels:
        """Return the network's input for an image: uint8 `[input_size, input_size, 3]`.

        Raises:
            BeyondError: If the image takes more than its allowance.
            ImageError: As for `imgsearch.images.render.pixels_from`, or if the worker crashed or
                was killed (`GivenUpError`).
            ModelError: If no worker can be started.
        """
        _, data = self._look("pixels", origin, input_size, crop, max_pixels)
        return np.frombuffer(data, np.uint8).reshape(input_size, input_size, 3)

    def thumbnail(self, origin: Origin, longest: int) -> Thumbnail:
        """Return a small upright JPEG, as `imgsearch.images.render.render` does.

        Raises:
            BeyondError, ImageError, ModelError: As for `pixels`.
        """
        facts, data = self._look("thumbnail", origin, longest)
        return Thumbnail(data, facts["width"], facts["height"])

    def glance(self, origin: Origin, edge: int) -> Glance:
        """Return an image squashed to a square, as `imgsearch.images.render.glance` does.

        Raises:
            BeyondError, ImageError, ModelError: As for `pixels`.
        """
        facts, data = self._look("glance", origin, edge)
        pixels = np.frombuffer(data, np.uint8).reshape(edge, edge, 3)
        return Glance(pixels, facts["width"], facts["height"])

    def grey(
        self,
        origin: Origin,
        longest: int,
        crop: Region | None = None,
        max_pixels: int = MAX_PIXELS,
        most_scale: float = 1.0,
    ) -> Pixels:
        """Return an image in grey, as `imgsearch.images.render.grey` does.

        Raises:
            BeyondError, ImageError, ModelError: As for `pixels`.
        """
        facts, data = self._look("grey", origin, longest, crop, max_pixels, scale=most_scale)
        return np.frombuffer(data, np.uint8).reshape(facts["height"], facts["width"])

    def size(self, origin: Origin) -> tuple[int, int]:
        """Return the upright width and height of an image.

        Raises:
            BeyondError, ImageError, ModelError: As for `pixels`.
        """
        facts, _ = self._look("size", origin, 1)
        return facts["width"], facts["height"]

    def exif(self, origin: Origin) -> Exif:
        """Return how a picture was taken, as `imgsearch.images.exif.exif_of` does.

        Raises:
            BeyondError, ImageError, ModelError: As for `pixels`.
        """
        facts, _ = self._look("exif", origin, 1)
        return Exif(**facts)

    def inspection(self, origin: Origin) -> Inspection:
        """Examine a file closely, as `imgsearch.images.inspection.inspect` does.

        Raises:
            BeyondError, ImageError, ModelError: As for `pixels`.
        """
        return inspection_of(*self._look("inspection", origin, 1))

    def frames(self, origin: Origin, first: int) -> Frames:
        """Return some frames of a file, as `imgsearch.images.inspection.frames` does.

        Raises:
            BeyondError, ImageError, ModelError: As for `pixels`.
        """
        return frames_of(*self._look("frames", origin, 1, first=first))

    def begin(self, allowance: Allowance) -> None:
        """Prepare for a new image with a new allowance."""
        self.allowance = allowance
        self._cancelled = self._closed

    def warm_up(self) -> None:
        """Start the process unless there is one, without waiting until it is ready."""
        if self._worker is None and not self._closed:
            with suppress(ModelError):  # The call that needs it reports the error.
                self._worker = WorkerProcess(self._command, self.allowance.patience)
            if self._closed:  # Set before a worker is killed, so none is missed.
                self.drop()

    def cancel(self) -> None:
        """Give up the current image: the thread that waits for it gets an `ImageError`."""
        self._cancelled = True
        worker = self._worker
        if worker is not None:
            worker.kill()

    def close(self) -> None:
        """End the process, even if it is busy; no other is started."""
        self._closed = True
        self.cancel()

    def drop(self) -> None:
        """End the process while it is idle."""
        worker, self._worker, self._ready = self._worker, None, False
        if worker is not None:
            worker.kill()
            worker.close()

    def _look(
        self,
        kind: str,
        origin: Origin,
        edge: int,
        crop: Region | None = None,
        max_pixels: int = MAX_PIXELS,
        **more: Any,
    ) -> tuple[dict[str, Any], bytes]:
        path, digest = None, None
        if isinstance(origin, Stored):
            path, digest = origin.path, origin.digest.hex() if origin.digest else None
        wanted = Look(
            kind=kind,
            edge=edge,
            limits=Limits(max_pixels, self.allowance.seconds),
            bytes=self.allowance.bytes,
            crop=crop,
            path=path,
            digest=digest,
            **more,
        )
        facts, data = self._try(wanted, origin)
        if "needs" in facts:
            raise BeyondError(facts["needs"])
        if "changed" in facts:
            raise ImageError(origin.name, CHANGED, transient=True)
        if "reason" in facts:
            raise ImageError(origin.name, facts.pop("reason"), **facts)
        return facts, data

    def _try(self, wanted: Look, origin: Origin) -> tuple[dict[str, Any], bytes]:
        """Ask the worker, and ask again if something else killed it."""
        for attempt in count(1):
            try:
                return self._ask(wanted, origin)
            except (WorkerDiedError, _CancelledError) as death:
                self.drop()
                self.warm_up()  # It loads while nobody is waiting.
                if self._cancelled or isinstance(death, _CancelledError):
                    raise GivenUpError(origin.name, "was given up", transient=True) from None
                if death.late:
                    raise BeyondError(None) from None
                if not death.transient:
                    raise ImageError(origin.name, death.reason) from None
                if attempt == ATTEMPTS:
                    raise GivenUpError(origin.name, death.reason, transient=True) from None
            except BaseException:
                self.drop()  # It may have received part of the question.
                raise
        raise AssertionError  # The last attempt returns or raises.

    def _ask(self, wanted: Look, origin: Origin) -> tuple[dict[str, Any], bytes]:
        """Return the facts and the bytes that the worker found."""
        with ExitStack() as timers:
            worker = self._started(timers)
            timers.enter_context(_clock.running(worker, self.allowance.patience))
            fields = wanted.fields()
            if isinstance(origin, Content):
                message, data = worker.look(fields, origin.file, origin.size)
            else:
                message, data = worker.look(fields, None, 0)
        if message["last"]:
            self.drop()
            self.warm_up()
        facts: dict[str, Any] = message["looked"]
        return facts, data

    def _started(self, timers: ExitStack) -> WorkerProcess:
        """Return the worker once it is ready."""

        def note(worker: WorkerProcess) -> None:
            self._worker = worker
            if self._cancelled:  # Set before a worker is killed, so none is missed.
                worker.kill()
                raise _CancelledError
            timers.enter_context(_clock.running(worker, worker.start_limit))

        worker = self._worker
        if worker is not None and not worker.is_alive():
            self.drop()
            worker = None
        if worker is None or not self._ready:
            worker = started(self._command, self.allowance.patience, note, worker)
            self._ready = True
        return worker


class _CancelledError(Exception):
    """The image that was examined is no longer wanted."""


class _Clock:
    """A single thread, mostly asleep, that stops all workers whose time is up."""

    def __init__(self) -> None:
        self._due: dict[object, tuple[float, WorkerProcess]] = {}
        self._wakes = float("inf")  # The time until which the thread sleeps.
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @contextmanager
    def running(self, worker: WorkerProcess, seconds: float) -> Iterator[None]:
        """Stop a worker unless the context ends within this many seconds."""
        entry, due = object(), time.monotonic() + seconds
        with self._changed:
            self._due[entry] = due, worker
            if self._thread is None or not self._thread.is_alive():
                self._wakes = due
                self._thread = threading.Thread(target=self._watch, daemon=True)
                self._thread.start()
            elif due < self._wakes:
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._due.pop(entry, None)

    def _watch(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic()
                for entry, (due, worker) in list(self._due.items()):
                    if due <= now:
                        del self._due[entry]
                        worker.expire()
                self._wakes = min((due for due, _ in self._due.values()), default=float("inf"))
                self._changed.wait(self._wakes - now if self._due else None)


_clock = _Clock()
