"""Where a collection may be: in a directory, or elsewhere, by the scheme of its URL."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, TypeAlias, Unpack, cast

if TYPE_CHECKING:
    from imgsearch.ann.vectors import Vectors
    from imgsearch.backends.milvus.export import Transfer
    from imgsearch.evaluation.evaluate import Evaluation
    from imgsearch.indexing.options import IndexKeywords
    from imgsearch.indexing.report import IndexReport
    from imgsearch.querying.hits import Answer
    from imgsearch.querying.info import Info
    from imgsearch.querying.options import Query, QueryOptions
    from imgsearch.storage.records import Entry

__all__ = [
    "AnyCollection",
    "AnyEntries",
    "Keeper",
    "Location",
    "is_elsewhere",
    "keeper_of",
    "opened",
]

Location: TypeAlias = "str | os.PathLike[str]"
_Paths: TypeAlias = "Location | Iterable[Location]"

#: The modules that keep collections, by scheme; without one, it is a directory.
_KEEPERS = {"milvus": "imgsearch.backends.milvus.keeper"}
_LOCAL = "imgsearch.local"


class AnyEntries(Protocol):
    """What a collection knows of each image; see `imgsearch.querying.entries.Entries`."""

    def get(self, id_: int) -> Entry:
        """Return what is known of an image."""
        ...

    def find(self, ids: Sequence[int]) -> dict[int, Entry]:
        """Return what is known of those images that are there."""
        ...

    def after(self, id_: int, limit: int) -> list[Entry]:
        """Return up to `limit` images, ordered by id, those after one."""
        ...

    def embeddings(self, ids: Sequence[int]) -> Vectors:
        """Return the embeddings of images, float32 `[n, dim]`, in the order of `ids`."""
        ...

    def are_changing(self) -> bool:
        """Tell whether a writer is known to be at work on the collection."""
        ...


class AnyCollection(Protocol):
    """A collection, wherever it is: what `imgsearch.collection.Collection` documents."""

    @property
    def entries(self) -> AnyEntries:
        """What is known of each image."""
        ...

    def __enter__(self) -> AnyCollection: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def close(self) -> None:
        """Close it."""
        ...

    def index(
        self,
        paths: _Paths = ...,
        **options: Unpack[IndexKeywords],
    ) -> IndexReport:
        """Bring it up to date with the files under `paths`."""
        ...

    def remove(self, paths: _Paths) -> int:
        """Take images out, and keep them out; return how many."""
        ...

    def answer(
        self, queries: Sequence[Query] | Vectors, **options: Unpack[QueryOptions]
    ) -> list[Answer]:
        """Answer several queries, and tell how each was searched."""
        ...

    def embed(
        self,
        queries: Sequence[Query] | Vectors,
        *,
        crop: tuple[float, float, float, float] | None = ...,
        max_pixels: int = ...,
    ) -> Vectors:
        """Return the embeddings of queries, float32 `[n, dim]`."""
        ...

    def combine(
        self,
        queries: Sequence[Query] | Vectors,
        *,
        unlike: Sequence[Query] | Vectors = ...,
        weights: Sequence[float] | None = ...,
    ) -> Vectors:
        """Return one embedding for what is like all `queries` and not `unlike`."""
        ...

    def info(self) -> Info:
        """Return what it holds."""
        ...

    def check_model(self, model: str | None, weights: str | None) -> None:
        """Check that a model and weights, where given, are its own."""
        ...


class Keeper(Protocol):
    """A module that keeps collections of one kind."""

    def exists(self, location: Location) -> bool:
        """Tell whether there is a collection."""
        ...

    def create(
        self, location: Location, *, model: str, weights: str | None, device: str, progress: bool
    ) -> AnyCollection:
        """Make an empty collection and open it."""
        ...

    def discard(self, location: Location) -> bool:
        """Remove a collection that was just made and holds nothing; tell whether it is gone."""
        ...

    def open_at(
        self, location: Location, *, device: str, threads: int = ..., trust_model: bool = ...
    ) -> AnyCollection:
        """Open a collection."""
        ...

    def evaluate(
        self,
        location: Location,
        labels: Location,
        *,
        k: int,
        recall: float | None,
        nprobe: int | None,
        progress: Callable[[int, int], None] | None,
    ) -> Evaluation:
        """See `imgsearch.evaluation.evaluate`."""
        ...

    def receive(
        self,
        location: Location,
        directory: Location,
        *,
        verify: bool,
        progress: Callable[[int, int], None] | None,
    ) -> Transfer:
        """Take in a copy of the collection in a directory, or compare the two."""
        ...


def is_elsewhere(location: object) -> bool:
    """Tell whether a location is a URL, and no path."""
    return isinstance(location, str) and location.partition(":")[0] in _KEEPERS


def keeper_of(location: Location) -> Keeper:
    """Return the module that keeps what is at a location."""
    scheme = str(location).partition(":")[0] if is_elsewhere(location) else ""
    return cast("Keeper", import_module(_KEEPERS.get(scheme, _LOCAL)))


def opened(
    location: Location, *, device: str = "auto", threads: int = 0, trust_model: bool = False
) -> AnyCollection:
    """Open a collection, wherever it is; see `imgsearch.collection.Collection.open`."""
    keeper = keeper_of(location)
    return keeper.open_at(location, device=device, threads=threads, trust_model=trust_model)
