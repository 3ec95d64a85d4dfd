"""Engines, which embed files and assign vectors to lists: on this machine, or on others."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self, TypeAlias

from imgsearch.ann.threads import in_order
from imgsearch.ann.vectors import Ids, Vectors
from imgsearch.embedding.models import Shapes, is_file
from imgsearch.embedding.pipeline import Extractor, Outcome, cores, embed_files
from imgsearch.embedding.runtime import Runtime
from imgsearch.images.limits import Limits
from imgsearch.querying.embedder import open_on_gpus
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import ModelRecord

if TYPE_CHECKING:
    from imgsearch.ann.inverted import InvertedFile

__all__ = [
    "Embed",
    "Engine",
    "LocalEngine",
    "ModelFile",
    "Wanted",
    "WarmEngine",
    "assign_here",
]

#: Given a path and the SHA-256 of its content, tells whether to embed it.
Wanted: TypeAlias = Callable[[str, bytes], bool]

#: `Engine.embed_files`, bound to one model and certain limits.
Embed: TypeAlias = Callable[[Iterable[str], Wanted], Generator[Outcome, None, None]]


@dataclass(frozen=True, slots=True)
class ModelFile:
    """The network of a collection, as an engine needs it.

    Attributes:
        record: The collection's record of the network.
        checked: A function that checks the ONNX file against the record and returns its path.
        trusted: Whether to run even a network that imgsearch did not export.
    """

    record: ModelRecord
    checked: Callable[[], Path]
    trusted: bool = False

    @classmethod
    def of(cls, layout: Layout, record: ModelRecord, *, trusted: bool) -> ModelFile:
        """Return the network of the collection in a directory."""
        return cls(record, partial(layout.check_model, record.onnx_sha256), trusted)


class Engine(Protocol):
    """Machines that embed files and assign vectors to lists; the run itself stays on this one."""

    def embed_files(
        self, paths: Iterable[str], wanted: Wanted, *, model: ModelFile, limits: Limits
    ) -> Generator[Outcome, None, None]:
        """Yield the outcome of each path, in order: see `imgsearch.embedding.pipeline.embed_files`.

        Args:
            paths: Files that the machines can read.
            wanted: Function that tells whether to embed a content. `LocalEngine` calls it from
                several threads at once, other engines in the order of the paths and in the caller's
                thread.
            model: The network to embed with.
            limits: The limits for one file.
        """
        ...

    def committed(self) -> None:
        """Note that all outcomes yielded so far are in the collection: no other copy is needed."""
        ...

    def assign(
        self, index: InvertedFile, blocks: Iterable[tuple[Ids, Vectors]]
    ) -> Iterator[tuple[Ids, Vectors, Ids]]:
        """Yield each block, ids `[n]` and vectors `[n, dim]`, with each vector's list, `[n]`.

        Args:
            index: A trained index; its content does not matter.
            blocks: Blocks of ids and vectors, consumed lazily, a bounded distance ahead.
        """
        ...


class LocalEngine:
    """This machine: worker processes that decode the files and, on a CPU, run the network."""

    def __init__(self, *, workers: int | None = None, device: str = "cpu") -> None:
        """Prepare the engine, without starting any worker.

        Args:
            workers: Number of processes; None for one per core.
            device: Where the network runs: "cpu", or "cuda" or "mps" for all GPUs of that kind.
        """
        self._workers = cores() if workers is None else workers
        self._device = device
        self._gpus: Runtime | None = None

    def embed_files(
        self, paths: Iterable[str], wanted: Wanted, *, model: ModelFile, limits: Limits
    ) -> Generator[Outcome, None, None]:
        """Yield the outcome of each path, in order: see `Engine.embed_files`.

        Raises:
            DamagedError: If the ONNX file is not the recorded one, or cannot be loaded.
            UntrustedModelError: If imgsearch did not export it.
            ModelError: If a worker cannot start, or the model cannot be loaded onto a GPU.
        """
        record = model.record
        if self._device != "cpu" and self._gpus is None and not is_file(record.name):
            self._gpus = open_on_gpus(record, self._device)
        return embed_files(
            paths,
            wanted=wanted,
            model=model.checked() if self._gpus is None else None,
            shapes=Shapes(record.input_size, record.dim),
            workers=self._workers,
            limits=limits,
            gpu=self._gpus,
            trust_model=model.trusted,
        )

    def committed(self) -> None:
        """Do nothing: this engine keeps nothing of a file except its outcome."""

    def assign(
        self, index: InvertedFile, blocks: Iterable[tuple[Ids, Vectors]]
    ) -> Iterator[tuple[Ids, Vectors, Ids]]:
        """Yield each block with the list of each vector: see `Engine.assign`."""
        return assign_here(index, blocks)


class WarmEngine(LocalEngine):
    """This machine, with workers that stay between runs; a context manager that ends them.

    They start with the first run, even if it has nothing to embed, to be ready for later ones.
    """

    def __init__(self, *, workers: int | None = None, device: str = "cpu") -> None:
        """Prepare the engine, without starting any worker; see `LocalEngine`."""
        super().__init__(workers=workers, device=device)
        self._kept: tuple[object, Extractor] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.rest()

    def embed_files(
        self, paths: Iterable[str], wanted: Wanted, *, model: ModelFile, limits: Limits
    ) -> Generator[Outcome, None, None]:
        """Yield the outcome of each path, in order: see `LocalEngine.embed_files`."""
        record = model.record
        if self._device != "cpu" and self._gpus is None and not is_file(record.name):
            self._gpus = open_on_gpus(record, self._device)
        path = model.checked() if self._gpus is None else None
        for_what = path, record, limits, model.trusted
        if self._kept is None or self._kept[0] != for_what:
            self.rest()
            extractor = Extractor(
                model=path,
                shapes=Shapes(record.input_size, record.dim),
                workers=self._workers,
                limits=limits,
                gpu=self._gpus,
                trust_model=model.trusted,
            )
            self._kept = for_what, extractor.__enter__()
            extractor.warm()
        finished = False
        try:
            with closing(self._kept[1].embed(paths, wanted)) as outcomes:
                yield from outcomes
            finished = True
        finally:
            if not finished:  # after an unfinished batch, an extractor can only be closed
                self.rest()

    def rest(self) -> None:
        """End the workers; the next run starts them again."""
        if self._kept is not None:
            self._kept[1].__exit__()
            self._kept = None


def assign_here(
    index: InvertedFile, blocks: Iterable[tuple[Ids, Vectors]]
) -> Iterator[tuple[Ids, Vectors, Ids]]:
    """Assign vectors to lists in this process: see `Engine.assign`."""
    return in_order(lambda block: (*block, index.assign_one(block[1])), blocks)
