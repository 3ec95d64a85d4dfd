"""What a run needs of machines, so that it can be given others than this one."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Protocol

from imgsearch.ann.inverted import InvertedFile
from imgsearch.ann.vectors import Ids, Vectors
from imgsearch.embedding.pipeline import Outcome
from imgsearch.storage.records import ModelRecord

__all__ = ["Engine", "assign_here"]


class Engine(Protocol):
    """Machines that embed files and assign vectors to lists; the run itself stays on this one."""

    def embed_files(
        self,
        paths: Iterable[str],
        *,
        wanted: Callable[[str, bytes], bool],
        model: Path,
        record: ModelRecord,
        time_limit: float,
        max_pixels: int,
        trust_model: bool,
    ) -> Generator[Outcome, None, None]:
        """Yield the outcome of each path, in order: see `imgsearch.embedding.pipeline.embed_files`.

        Args:
            paths: of files, which the machines can read.
            wanted: as there, but called in the order of the paths, in the caller's thread.
            model: the ONNX file.
            record: what the catalog says of it.
            time_limit: seconds that a file may take.
            max_pixels: an image of more is refused.
            trust_model: Whether a model that imgsearch did not export may be run.
        """
        ...

    def committed(self) -> None:
        """Note that all that was yielded is in the collection: it need not be kept elsewhere."""
        ...

    def assign(
        self, index: InvertedFile, blocks: Iterable[tuple[Ids, Vectors]]
    ) -> Iterator[tuple[Ids, Vectors, Ids]]:
        """Yield each block, ids `[n]` and vectors `[n, dim]`, with the list of each vector, `[n]`.

        Args:
            index: trained; what it holds does not matter.
            blocks: consumed lazily, a bounded distance ahead.
        """
        ...


def assign_here(
    index: InvertedFile, blocks: Iterable[tuple[Ids, Vectors]]
) -> Iterator[tuple[Ids, Vectors, Ids]]:
    """Assign vectors to lists in this process: see `Engine.assign`."""
    for ids, vectors in blocks:
        yield ids, vectors, index.assign_one(vectors)
