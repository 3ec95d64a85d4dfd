"""`Collection`: image embeddings, their index and the model that made them, in any backend."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from functools import cached_property
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Protocol, Self, TypeAlias, Unpack, overload

from imgsearch.ann.vectors import Vectors, combine
from imgsearch.embedding.models import DEFAULT_MODEL, find_network
from imgsearch.embedding.runtime import pick_device
from imgsearch.errors import SettingError
from imgsearch.images.crop import Box
from imgsearch.images.limits import LIMITS, MAX_PIXELS, Limits
from imgsearch.querying.hits import Answer, Hit, HitArrays
from imgsearch.querying.options import (
    PathLike,
    Query,
    QueryOptions,
    SearchOptions,
    paths_of,
    queries_of,
    whole,
)
from imgsearch.querying.search import Searcher
from imgsearch.storage.catalog import open_catalog
from imgsearch.storage.layout import Layout, Location, backend_of
from imgsearch.storage.records import Entry, ModelRecord

if TYPE_CHECKING:  # imported where they are used, so that no query waits for them
    from imgsearch.evaluation.evaluate import Evaluation
    from imgsearch.indexing.options import IndexKeywords, IndexOptions
    from imgsearch.indexing.report import IndexReport
    from imgsearch.querying.info import Info
    from imgsearch.storage.writer import CatalogWriter

__all__ = ["AnyEntries", "Collection", "DirectoryCollection", "Queries", "opened"]

Paths: TypeAlias = PathLike | Iterable[PathLike]
Queries: TypeAlias = Sequence[Query] | Vectors


class AnyEntries(Protocol):
    """The entries of a collection, one per image; see `imgsearch.querying.entries.Entries`."""

    def get(self, id_: int) -> Entry:
        """Return the entry of an image."""
        ...

    def find(self, ids: Sequence[int]) -> dict[int, Entry]:
        """Return the entries of those images that exist."""
        ...

    def after(self, id_: int, limit: int) -> list[Entry]:
        """Return the entries of up to `limit` images with ids above `id_`, ordered by id."""
        ...

    def embeddings(self, ids: Sequence[int]) -> Vectors:
        """Return the embeddings of images, float32 `[n, dim]`, in the order of `ids`."""
        ...

    def are_changing(self) -> bool:
        """Tell whether a process is known to be writing to the collection."""
        ...


class Collection(ABC):
    """A collection of images, opened for indexing and querying.

    Any number of threads may query it, even while another one indexes; the next query sees
    whatever has been committed. It is a context manager.

    A backend is a subclass that implements the abstract methods, and a line in
    `imgsearch.storage.layout.BACKENDS`.
    """

    def __init__(self, model: ModelRecord, device: str, *, trust_model: bool) -> None:
        """Initialise the collection; call `create` or `open` instead."""
        self._model = model
        self._device = device
        self._trust_model = trust_model

    @classmethod
    def create(
        cls,
        location: Location,
        *,
        model: str = DEFAULT_MODEL,
        weights: str | None = None,
        device: str = "auto",
        progress: bool = False,
    ) -> Collection:
        """Create an empty collection and open it.

        Args:
            location: A directory that is empty or does not exist yet, or a URL, as for `open`.
            model: "mobilenet_v2" or "inception_v3".
            weights: A torchvision name such as "IMAGENET1K_V2", or a state-dict file; None for the
                model's default.
            device: See `open`.
            progress: Whether to show the download of the weights on stderr.

        Raises:
            ImgsearchError: See `imgsearch.indexing.create.create`.
        """
        kind = _kind_of(location)
        kind._create(location, model=model, weights=weights, progress=progress)
        return kind._open(location, device=device)

    @classmethod
    def open(
        cls,
        location: Location,
        *,
        device: str = "auto",
        threads: int = 0,
        trust_model: bool = False,
    ) -> Collection:
        """Open the collection at a location.

        A collection of an older format is read as it is; `index` and `remove` migrate it.

        Args:
            location: The collection's directory, or for a collection in Milvus,
                `milvus://HOST:PORT/NAME` or `milvus:FILE.db`.
            device: The device that models run on: "cpu", "cuda" or "mps"; "auto" indexes on the
                best device available and embeds single queries on the CPU.
            threads: Number of threads that embed one query on the CPU; 0 for one per core.
            trust_model: Whether to run even a model that imgsearch did not export
                (docs/security.md).

        Raises:
            NoCollectionError: If there is no collection at the location.
            DamagedError: If the collection is damaged, or of another format version.
            SettingError: If the URL is malformed.
            PackageError: If a package that the backend needs is not installed.
        """
        return _kind_of(location)._open(
            location, device=device, threads=threads, trust_model=trust_model
        )

    @classmethod
    def exists(cls, location: Location) -> bool:
        """Tell whether there is a collection at a location."""
        return _kind_of(location)._exists(location)

    @classmethod
    def discard(cls, location: Location) -> bool:
        """Remove a collection that never had an image, and tell whether it was removed.

        Raises:
            BusyError: If another process is writing to the collection.
            StorageError: If the collection cannot be removed.
        """
        return _kind_of(location)._discard(location)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Close the collection; no other method may be called afterwards."""

    @property
    @abstractmethod
    def entries(self) -> AnyEntries:
        """The facts about each image."""

    def index(self, paths: Paths = (), **options: Unpack[IndexKeywords]) -> IndexReport:
        """Bring the collection up to date with the files under `paths`.

        Only files whose digest is new are embedded, and missing files drop out of the answers.

        Args:
            paths: Files, folders or URLs, which become roots; none for the existing roots.
            options: Keywords, documented in `imgsearch.indexing.options.IndexOptions`.

        Raises:
            InputError: If a path does not exist, or does not hold the images that have moved.
            GoneError: If images were kept because their drive may be unplugged. The exception
                has the report.
            SettingError: If there is nothing to index, or an option makes no sense.
            DamagedError: If a file of the collection is missing or damaged.
            BusyError: If another process is indexing.
            StorageError: If the disk is full, or cannot be written.
            ModelError: If the model or its device is unavailable.
        """
        from imgsearch.indexing.options import IndexOptions

        return self._index(paths_of(paths), IndexOptions.of(**options))

    def remove(self, paths: Paths) -> int:
        """Remove images from the collection, but not their files, and return how many.

        They stay out until `index` is given the same name.

        Args:
            paths: One or several of: a file; a folder with everything in it, now or later; an
                `fnmatch` pattern, whose `*` also matches `/`.

        Raises:
            InputError: If the collection has nothing at one of the paths; nothing was removed.
            BusyError: If another process is writing to the collection.
            StorageError: If the disk is full, or cannot be written.
        """
        return self._remove(paths_of(paths))

    def query(self, query: Query, **options: Unpack[QueryOptions]) -> list[Hit]:
        """Return the `k` most similar images, best first.

        Args:
            query: The path of an image, its content as bytes or an open file, a Pillow image,
                its pixels (integers from 0 to 255 or floats from 0 to 1, `[h, w]` or
                `[h, w, 3]`), or an embedding (`[dim]`, which is L2-normalised). Pixels and
                embeddings may be NumPy arrays, torch tensors or lists.
            options: Keywords, above all `k=10`; see `SearchOptions` in
                `imgsearch.querying.options`.

        Raises:
            ImageError: If the image cannot be read.
            InputError: If the query is none of the above.
            SettingError: If an option makes no sense, or more than one of recall, nprobe and
                exact is given.
            DamagedError: If a file of the collection is missing or damaged.
        """
        return list(self.answer([query], **options)[0].hits)

    @overload
    def query_many(
        self, queries: Queries, *, arrays: Literal[False] = ..., **options: Unpack[QueryOptions]
    ) -> list[list[Hit]]: ...

    @overload
    def query_many(
        self, queries: Queries, *, arrays: Literal[True], **options: Unpack[QueryOptions]
    ) -> HitArrays: ...

    def query_many(
        self, queries: Queries, *, arrays: bool = False, **options: Unpack[QueryOptions]
    ) -> list[list[Hit]] | HitArrays:
        """Answer several queries at once; see `query`.

        Args:
            queries: A list of queries as `query` takes them, or embeddings as one array
                `[n, dim]`.
            arrays: Whether to return arrays `[n, k]` without looking up paths. `k` is then at
                most the number of images, and `min_similarity` is not allowed: compare
                `similarities` instead.
            options: As for `query`.

        Raises:
            SettingError: If `min_similarity` is given with `arrays`; otherwise see `query`.
        """
        if not arrays:
            return [list(answer.hits) for answer in self.answer(queries, **options)]
        settings, queries = SearchOptions.of(**options), queries_of(queries)
        if settings.min_similarity is not None:
            raise SettingError(
                "min_similarity does not apply to arrays, which hold all hits; "
                "compare their similarities yourself"
            )
        return self._find(queries, self._embed(queries), settings)

    def answer(self, queries: Queries, **options: Unpack[QueryOptions]) -> list[Answer]:
        """Answer several queries at once, and tell how each was searched; see `query`.

        Args:
            queries: As for `query_many`.
            options: As for `query`.
        """
        settings, queries = SearchOptions.of(**options), queries_of(queries)
        return self._answer(queries, self._embed(queries), settings)

    def embed(
        self,
        queries: Queries,
        *,
        crop: tuple[float, float, float, float] | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Vectors:
        """Return the embeddings of queries, float32 `[n, dim]`, L2-normalised.

        Args:
            queries: As for `query_many`.
            crop: Left, top, right and bottom of the part of each upright image to embed, in
                pixels, or, if none is more than 1, as fractions of width and height. Whatever
                lies outside the image is cut off.
            max_pixels: Maximum number of pixels of an image file.

        Raises:
            ImageError: If an image cannot be read, is too large, or has no such part.
            InputError: If a query is neither an image nor an embedding.
            SettingError: If the box is empty.
        """
        box = None if crop is None else Box.of(crop)
        several, most = queries_of(queries), whole("max_pixels", max_pixels, 1)
        return self._embed(several, box, Limits(most))

    def combine(
        self, queries: Queries, *, unlike: Queries = (), weights: Sequence[float] | None = None
    ) -> Vectors:
        """Return one embedding, float32 `[dim]`, that is like all `queries` and unlike `unlike`.

        See `imgsearch.ann.vectors.combine`, also for `weights`. To leave the images themselves
        out of the hits: `photos.query(photos.combine(paths), exclude=[paths])`.

        Raises:
            ImageError: If an image cannot be read.
            InputError: If there are no queries, one is not valid, or they cancel one another out.
        """
        return combine(self.embed(queries), self.embed(unlike), weights)

    def evaluate(
        self,
        labels: PathLike,
        *,
        k: int = 10,
        recall: float | None = None,
        nprobe: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Evaluation:
        """Measure P@1, P@k, recall@k and mAP on labelled images: see `imgsearch.evaluate`."""
        return self._evaluate(labels, SearchOptions(k=k, recall=recall, nprobe=nprobe), progress)

    @abstractmethod
    def info(self) -> Info:
        """Return a description of the collection's contents."""

    def check_model(self, model: str | None, weights: str | None) -> None:
        """Raise `SettingError` if the given model or weights are not the collection's."""
        own = self._model
        if model not in (None, own.name):
            raise SettingError(
                f"this collection was made with {own.name}, not {model}; create another one for "
                f"it with -c"
            )
        if weights in (None, own.weights):
            return
        from imgsearch.embedding.weights import find_weights

        named = not os.path.isfile(os.path.expanduser(weights))
        other = named and not os.path.isabs(own.weights)
        if other or find_weights(find_network(own.name), weights).sha256 != own.weights_sha256:
            raise SettingError(
                f"this collection was made with the weights {own.weights}, not {weights}; create "
                f"another one for them with -c"
            )

    # Each backend implements these methods in its own way.

    @classmethod
    @abstractmethod
    def _create(
        cls, location: Location, *, model: str, weights: str | None, progress: bool
    ) -> None:
        """Create an empty collection; see `create`."""

    @classmethod
    @abstractmethod
    def _open(
        cls, location: Location, *, device: str, threads: int = 0, trust_model: bool = False
    ) -> Collection:
        """Open a collection; see `open`."""

    @classmethod
    @abstractmethod
    def _exists(cls, location: Location) -> bool:
        """Tell whether there is a collection at a location."""

    @classmethod
    @abstractmethod
    def _discard(cls, location: Location) -> bool:
        """Remove a collection that never had an image; see `discard`."""

    @abstractmethod
    def _index(self, paths: list[PathLike], options: IndexOptions) -> IndexReport:
        """Bring the collection up to date; see `index`."""

    @abstractmethod
    def _remove(self, paths: list[PathLike]) -> int:
        """Remove images from the collection; see `remove`."""

    @abstractmethod
    def _embed(self, queries: Queries, crop: Box | None = None, limits: Limits = LIMITS) -> Vectors:
        """Return the embeddings of queries; see `embed`."""

    @abstractmethod
    def _answer(
        self, queries: Queries, embeddings: Vectors, options: SearchOptions
    ) -> list[Answer]:
        """Answer queries by their embeddings; `queries` tells which images to leave out."""

    @abstractmethod
    def _evaluate(
        self, labels: PathLike, options: SearchOptions, progress: Callable[[int, int], None] | None
    ) -> Evaluation:
        """Evaluate the collection on labelled images; see `evaluate`."""

    @abstractmethod
    def _find(self, queries: Queries, embeddings: Vectors, options: SearchOptions) -> HitArrays:
        """Search as `_answer` does, without looking up paths or applying `min_similarity`."""


class DirectoryCollection(Collection):
    """A collection in a directory."""

    def __init__(self, layout: Layout, device: str, threads: int, *, trust_model: bool) -> None:
        """Open the collection; call `Collection.open` instead."""
        self._layout = layout
        self._catalog = open_catalog(layout)
        self._searcher = Searcher(layout, self._catalog, device, threads, trust_model=trust_model)
        super().__init__(self._searcher.model, device, trust_model=trust_model)

    @cached_property
    def entries(self) -> AnyEntries:
        """The facts about each image."""
        from imgsearch.querying.entries import Entries

        return Entries(self._layout, self._catalog, self._searcher.view)

    def close(self) -> None:
        """Close the collection; no other method may be called afterwards."""
        self._searcher.close()
        self._catalog.close()

    def info(self) -> Info:
        """Return a description of the collection's contents."""
        from imgsearch.maintenance.describe import describe

        return describe(self._layout, self._catalog, self._searcher.view(), self._device)

    @classmethod
    def _create(
        cls, location: Location, *, model: str, weights: str | None, progress: bool
    ) -> None:
        from imgsearch.indexing.create import create

        create(Layout.at(location), model=model, weights=weights, progress=progress)

    @classmethod
    def _open(
        cls, location: Location, *, device: str, threads: int = 0, trust_model: bool = False
    ) -> DirectoryCollection:
        return cls(Layout.at(location), device, threads, trust_model=trust_model)

    @classmethod
    def _exists(cls, location: Location) -> bool:
        return Layout.at(location).exists()

    @classmethod
    def _discard(cls, location: Location) -> bool:
        from imgsearch.indexing.create import discard_empty

        return discard_empty(Layout.at(location))

    def _index(self, paths: list[PathLike], options: IndexOptions) -> IndexReport:
        from imgsearch.indexing.update import update

        self._catalog.check_open()
        device = pick_device(self._device)
        with closing(self._writer()) as catalog:
            return update(
                self._layout,
                catalog,
                paths,
                options,
                device=device,
                trust_model=self._trust_model,
            )

    def _remove(self, paths: list[PathLike]) -> int:
        from imgsearch.indexing.remove import remove

        self._catalog.check_open()
        with closing(self._writer()) as catalog:
            return remove(self._layout, catalog, paths)

    def _writer(self) -> CatalogWriter:
        """Open the catalog for writing, after bringing an older format up to date."""
        from imgsearch.storage.writer import CatalogWriter

        if not self._layout.is_current():
            from imgsearch.storage.migrations import migrate

            migrate(self._layout)
        return CatalogWriter(self._layout.catalog)

    def _embed(self, queries: Queries, crop: Box | None = None, limits: Limits = LIMITS) -> Vectors:
        return self._searcher.embed(queries, crop, limits)

    def _answer(
        self, queries: Queries, embeddings: Vectors, options: SearchOptions
    ) -> list[Answer]:
        return self._searcher.answer(queries, embeddings, options)

    def _evaluate(
        self, labels: PathLike, options: SearchOptions, progress: Callable[[int, int], None] | None
    ) -> Evaluation:
        from imgsearch.evaluation.evaluate import evaluate

        return evaluate(
            self._layout.directory,
            labels,
            k=options.k,
            recall=options.recall,
            nprobe=options.nprobe,
            progress=progress,
        )

    def _find(self, queries: Queries, embeddings: Vectors, options: SearchOptions) -> HitArrays:
        return self._searcher.find(queries, embeddings, options)


def opened(
    location: Location, *, device: str = "auto", threads: int = 0, trust_model: bool = False
) -> Collection:
    """Open a collection. Deprecated: `Collection.open` does the same."""
    return Collection.open(location, device=device, threads=threads, trust_model=trust_model)


def _kind_of(location: Location) -> type[Collection]:
    """Return the class of the collection at a location."""
    name = backend_of(location)
    if name is None:
        return DirectoryCollection
    module, _, kind = name.rpartition(".")
    found: type[Collection] = getattr(import_module(module), kind)
    return found
