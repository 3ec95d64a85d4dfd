"""Embed files in this process: as `embed_files` does, with no worker to wait for."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from imgsearch.embedding.decoder import Stored
from imgsearch.embedding.models import Shapes
from imgsearch.embedding.pipeline import Embedded, Known, Outcome, Refused
from imgsearch.embedding.runtime import OnnxRuntime
from imgsearch.errors import ImageError
from imgsearch.images.decode import ImageFile, Pixels
from imgsearch.images.limits import Limits
from imgsearch.indexing.engine import LocalEngine, ModelFile, Wanted

__all__ = ["EngineInProcess", "RefusingEngine", "decoders_here", "embed_here"]


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


class _LaneHere:
    @contextmanager
    def decoder(self) -> Iterator[_DecoderHere]:
        yield _DecoderHere()


@contextmanager
def decoders_here(*_: object) -> Iterator[_LaneHere]:
    """Stand in for `imgsearch.embedding.lanes.decoders`, with no worker to wait for."""
    yield _LaneHere()


def _embed(
    path: str, wanted: Callable[[str, bytes], bool], model: Path, input_size: int
) -> Outcome:
    try:
        with ImageFile(path) as file:
            content = file.digest, file.size, file.mtime_ns
            if not wanted(path, file.digest):
                return Known(*content)
            pixels = file.decode(input_size)
    except ImageError as error:
        return Refused(error.reason, error.recognised, error.transient, error.limited)
    return Embedded(_runtime(model).embed(pixels[None])[0], *content)


@lru_cache(maxsize=4)
def _runtime(model: Path) -> OnnxRuntime:
    return OnnxRuntime(model, threads=1)
