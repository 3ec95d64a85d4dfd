"""Embed and examine images in this process, with no worker to wait for."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pytest

from imgsearch.embedding import decoder, looking
from imgsearch.embedding.decoder import Stored
from imgsearch.embedding.models import Shapes
from imgsearch.embedding.pipeline import Embedded, Known, Outcome, Refused
from imgsearch.embedding.runtime import OnnxRuntime
from imgsearch.errors import ImageError
from imgsearch.images.decode import ImageFile, Pixels
from imgsearch.images.fingerprint import Fingerprint
from imgsearch.images.inspection import Frames, Inspection, frames, inspect
from imgsearch.images.limits import Limits
from imgsearch.images.render import Glance, Thumbnail, glance, grey, render
from imgsearch.indexing.engine import LocalEngine, ModelFile, Wanted

__all__ = ["EngineInProcess", "RefusingEngine", "decoders_here", "embed_here", "examine_here"]


def embed_here(
    *, seed: int = 0, ahead: int | None = None
) -> Callable[..., Generator[Outcome, None, None]]:
    """Return a stand-in for `embed_files`, which comes to its files in a random order.

    It asks for as many paths as `ahead` before it answers, now for more and now for fewer if None.
    """
    order = random.Random(seed)

    def embed(
        paths: Iterable[str],
        *,
        wanted: Callable[[str, bytes], bool],
        model: Path,
        shapes: Shapes,
        **_: Any,
    ) -> Generator[Outcome, None, None]:
        paths = iter(paths)
        while window := list(islice(paths, ahead or order.choice((1, 3, 100)))):
            places = list(range(len(window)))
            order.shuffle(places)
            outcomes = {
                place: _embed(window[place], wanted, model, shapes.input_size) for place in places
            }
            for place in range(len(window)):
                yield outcomes[place]

    return embed


class EngineInProcess(LocalEngine):
    """This machine, without workers: it embeds in this process, see `embed_here`.

    A subclass may overhear the paths, put an outcome in place of another, or act in between.
    """

    def __init__(self, *, seed: int = 0, ahead: int | None = None) -> None:
        super().__init__(workers=1)
        self._embed = embed_here(seed=seed, ahead=ahead)

    def embed_files(
        self, paths: Iterable[str], wanted: Wanted, *, model: ModelFile, limits: Limits
    ) -> Generator[Outcome, None, None]:
        del limits  # which are for workers
        asked: list[str] = []

        def overheard() -> Iterator[str]:
            for path in paths:
                asked.append(path)
                self.ask(path)
                yield path

        shapes = Shapes(model.record.input_size, model.record.dim)
        outcomes = self._embed(overheard(), wanted=wanted, model=model.checked(), shapes=shapes)
        for number, outcome in enumerate(outcomes):
            yield self.outcome(asked[number], outcome)
            self.act(asked[-1])

    def ask(self, path: str) -> None:
        """Do something before a file is read."""

    def outcome(self, path: str, outcome: Outcome) -> Outcome:
        """Return what to give as the outcome of a file."""
        del path
        return outcome

    def act(self, path: str) -> None:
        """Do something once an outcome has been taken; `path` was asked for last."""


class RefusingEngine(EngineInProcess):
    """An engine that refuses one file."""

    def __init__(self, name: str, refused: Refused) -> None:
        super().__init__()
        self._name, self._refused = name, refused

    def outcome(self, path: str, outcome: Outcome) -> Outcome:
        return self._refused if path.endswith(self._name) else outcome


class _DecoderHere:
    """Decodes in this process, as `imgsearch.embedding.decoder.Decoder` has a worker do it."""

    def pixels(self, origin: Stored, input_size: int) -> Pixels:
        with ImageFile(origin.path) as file:
            if file.digest != origin.digest:
                raise ImageError(origin.path, "has changed")
            return file.decode(input_size)

    def grey(self, origin: Stored, longest: int) -> Pixels:
        return grey(self._content(origin), longest)

    def thumbnail(self, origin: Stored, longest: int) -> Thumbnail:
        return render(self._content(origin), longest)

    def glance(self, origin: Stored, edge: int) -> Glance:
        return glance(self._content(origin), edge)

    def inspection(self, origin: Stored) -> Inspection:
        return inspect(self._content(origin), origin.path)

    def frames(self, origin: Stored, first: int) -> Frames:
        return frames(self._content(origin), first)

    def _content(self, origin: Stored) -> bytes:
        with ImageFile(origin.path) as file:
            if file.digest != origin.digest:
                raise ImageError(origin.path, "has changed")
        return Path(origin.path).read_bytes()


class _LaneHere:
    def warm_up(self) -> None:
        """There is no worker."""

    @contextmanager
    def decoder(self) -> Iterator[_DecoderHere]:
        yield _DecoderHere()


@contextmanager
def decoders_here(*_: object) -> Iterator[_LaneHere]:
    """Stand in for `imgsearch.embedding.lanes.decoders`, with no worker to wait for."""
    yield _LaneHere()


def examine_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every `Decoder` examine images in this process, which nothing limits or ends."""
    monkeypatch.setattr(decoder, "WorkerProcess", _WorkerHere)
    monkeypatch.setattr(decoder, "started", _started_here)
    for name in ("memory_limited", "seconds_limited"):
        monkeypatch.setattr(looking, name, lambda *_, **__: nullcontext())


class _WorkerHere:
    """Answers as `imgsearch.embedding.process.WorkerProcess` does."""

    start_limit = 0.0

    def __init__(self, *_: object) -> None:
        """There is nothing to start."""

    def look(
        self, wanted: dict[str, Any], content: BinaryIO | None, size: int
    ) -> tuple[dict[str, Any], bytes]:
        del size
        sent = b""
        if content is not None:
            content.seek(0)
            sent = content.read()
        with _ONE_AT_A_TIME:
            facts, data = looking.look(looking.look_of(wanted), sent)
        return {"looked": facts, "last": False}, data

    def is_alive(self) -> bool:
        return True

    def expire(self) -> None:
        """It takes as long as it takes."""

    kill = close = expire


def _started_here(
    command: list[str],
    time_limit: float,
    note: Callable[[_WorkerHere], object],
    begun: _WorkerHere | None = None,
) -> _WorkerHere:
    worker = begun or _WorkerHere(command, time_limit)
    note(worker)
    return worker


_ONE_AT_A_TIME = threading.Lock()  # for Pillow's limit of pixels is that of the process


def _embed(
    path: str, wanted: Callable[[str, bytes], bool], model: Path, input_size: int
) -> Outcome:
    try:
        with ImageFile(path) as file:
            content = file.digest, file.size, file.mtime_ns
            if not wanted(path, file.digest):
                return Known(*content)
            embedding, fingerprint = _described(file, model, input_size)
    except ImageError as error:
        return Refused(error.reason, error.recognised, error.transient, error.limited)
    return Embedded(embedding, *content, fingerprint)


def _described(
    file: ImageFile, model: Path, input_size: int
) -> tuple[npt.NDArray[np.float32], Fingerprint]:
    """Return the embedding of an image, and its fingerprint: many tests embed the same pictures."""
    stat = model.stat()
    network = _digest(model, stat.st_mtime_ns, stat.st_size)
    key = file.digest, network, input_size, ImageFile.described
    if key not in _DESCRIBED:
        pixels, fingerprint = file.described(input_size)
        if network not in _RUNTIMES:
            _RUNTIMES[network] = OnnxRuntime(model, threads=1)
        _DESCRIBED[key] = _RUNTIMES[network].embed(pixels[None])[0], fingerprint
    return _DESCRIBED[key]


@lru_cache
def _digest(model: Path, mtime_ns: int, size: int) -> bytes:
    del mtime_ns, size  # by which a file is known to have changed
    return hashlib.sha256(model.read_bytes()).digest()


_RUNTIMES: dict[bytes, OnnxRuntime] = {}
_DESCRIBED: dict[tuple[object, ...], tuple[npt.NDArray[np.float32], Fingerprint]] = {}
