"""`Collection`: embeddings of images, their index and the model that made them, wherever it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Protocol, Self, TypeAlias, Unpack, overload

from imgsearch.ann.vectors import Vectors, combine
from imgsearch.embedding.models import DEFAULT_MODEL
from imgsearch.embedding.runtime import pick_device
from imgsearch.errors import SettingError
from imgsearch.images.crop import Box
from imgsearch.images.limits import LIMITS, MAX_PIXELS, Limits
from imgsearch.querying.entries import Entries
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
from imgsearch.storage.layout import Layout
from imgsearch.storage.locations import Location, backend_of
from imgsearch.storage.records import Entry, ModelRecord

if TYPE_CHECKING:  # what no query should wait for is imported where it is called
    from imgsearch.evaluation.evaluate import Evaluation
    from imgsearch.indexing.options import IndexKeywords, IndexOptions
    from imgsearch.indexing.report import IndexReport
    from imgsearch.querying.info import Info

__all__ = ["AnyEntries", "Collection", "DirectoryCollection", "Queries", "opened"]

Paths: TypeAlias = PathLike | Iterable[PathLike]
Queries: TypeAlias = Sequence[Query] | Vectors


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


class Collection(ABC):
    """A collection of images, opened for indexing and querying.

    Any number of threads may query it, also while one indexes; what is committed is found by the
    next query. A context manager. `entries` has what is known of each image.

    A backend is a subclass that implements what is abstract, and a line in
    `imgsearch.storage.locations.BACKENDS`.
    """

    entries: AnyEntries

    def __init__(self, model: ModelRecord, device: str, *, trust_model: bool) -> None:
        """Use `create` or `open`."""
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
        """Make an empty collection and open it.

        Args:
            location: A directory that is empty or does not exist yet, or a URL, as for `open`.
            model: "mobilenet_v2" or "inception_v3".
            weights: A torchvision name such as "IMAGENET1K_V2", or a state-dict file; None for the
                model's default.
            device: See `open`.
            progress: Show a download of weights on stderr.

        Raises:
            ImgsearchError: see `imgsearch.indexing.create.create`.
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

        One of an older format is read as it is, and brought up to date by `index` and `remove`.

        Args:
            location: The collection's directory; or for one in Milvus, `milvus://HOST:PORT/NAME` or
                `milvus:FILE.db`.
            device: Where models run: "cpu", "cuda" or "mps"; "auto" indexes on the best that there
                is and embeds single queries on the CPU.
            threads: Number of threads that embed one query on the CPU; 0 for one per core.
            trust_model: Run even a model that imgsearch did not export (docs/security.md).

        Raises:
            NoCollectionError: there is none.
            DamagedError: it is damaged, or of another format version.
            SettingError: the URL is malformed.
            PackageError: it takes a package that is not installed.
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
        """Remove a collection that never had an image; tell whether it is gone.

        Raises:
            BusyError: another process is writing to it.
            StorageError: it cannot be removed.
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
        """Close it; no other method may be called then."""

    def index(self, paths: Paths = (), **options: Unpack[IndexKeywords]) -> IndexReport:
        """Bring the collection up to date with the files under `paths`.

        Only contents whose digest is new are embedded, and what is gone leaves the answers.

        Args:
            paths: Files, folders or URLs, which become roots; none for those that there are.
            options: Keywords, which `imgsearch.indexing.options.IndexOptions` documents.

        Raises:
            InputError: a path does not exist, or does not hold what has moved.
            GoneError: images were kept whose drive may be unplugged; it has the report.
            SettingError: there is nothing to index, or an option makes no sense.
            DamagedError: a file of the collection is missing or damaged.
            BusyError: another process is indexing.
            StorageError: the disk is full, or cannot be written.
            ModelError: the model or its device cannot be had.
        """
        from imgsearch.indexing.options import IndexOptions

        return self._index(paths_of(paths), IndexOptions.of(**options))

    def remove(self, paths: Paths) -> int:
        """Take images out until `index` is given the same name; return how many. Files stay.

        Args:
            paths: One or several: a file, a folder with all that is in it, now or later, or a
                pattern as of `fnmatch`, whose `*` stands for `/`, too.

        Raises:
            InputError: the collection has nothing at one of the paths; nothing was taken out.
            BusyError: another process is writing to the collection.
            StorageError: the disk is full, or cannot be written.
        """
        return self._remove(paths_of(paths))

    def query(self, query: Query, **options: Unpack[QueryOptions]) -> list[Hit]:
        """Return the `k` most similar images, best first.

        Args:
            query: the path of an image, its content as bytes or as an open file, a Pillow image,
                its pixels (whole from 0 to 255, or floats from 0 to 1, `[h, w]` or `[h, w, 3]`), or
                an embedding (`[dim]`, which is L2-normalised), the last two as an array of NumPy, a
                tensor of torch or lists.
            options: keywords: those of `SearchOptions` in `imgsearch.querying.options`, `k=10`
                first of all.

        Raises:
            ImageError: the image cannot be read.
            InputError: it is nothing of the above.
            SettingError: an option makes no sense, or more than one of recall, nprobe and exact
                is given.
            DamagedError: a file of the collection is missing or damaged.
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
            queries: a list of what `query` takes, or embeddings as one array `[n, dim]`.
            arrays: return arrays `[n, k]` without looking paths up; `k` is at most the number of
                images, and `min_similarity` is left to a comparison with `similarities`.
            options: as for `query`.
        """
        if not arrays:
            return [list(answer.hits) for answer in self.answer(queries, **options)]
        settings, queries = SearchOptions.of(**options), queries_of(queries)
        if settings.min_similarity is not None:
            raise SettingError("arrays hold all hits: compare their similarities yourself")
        return self._find(queries, self._embed(queries), settings)

    def answer(self, queries: Queries, **options: Unpack[QueryOptions]) -> list[Answer]:
        """Answer several queries at once, and tell how each was searched; see `query`.

        Args:
            queries: as for `query_many`.
            options: as for `query`.
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
            queries: as for `query_many`.
            crop: left, top, right and bottom of the part of each image that is meant, as people see
                it (upright): in pixels, or, if none is more than 1, as fractions of width and
                height. What juts out of the image is cut off.
            max_pixels: Maximum number of pixels of an image file.

        Raises:
            ImageError: an image cannot be read, is too large, or has no such part.
            InputError: a query is no image and no embedding.
            SettingError: the box is empty.
        """
        box = None if crop is None else Box.of(crop)
        limits = Limits(whole("max_pixels", max_pixels, 1))
        return self._embed(queries_of(queries), box, limits)

    def combine(
        self, queries: Queries, *, unlike: Queries = (), weights: Sequence[float] | None = None
    ) -> Vectors:
        """Return one embedding, float32 `[dim]`, for what is like all `queries` and not `unlike`.

        See `imgsearch.ann.vectors.combine`, also for `weights`. To leave the images themselves
        out of the hits: `photos.query(photos.combine(paths), exclude=[paths])`.

        Raises:
            ImageError: an image cannot be read.
            InputError: there are no queries, they are none, or they cancel one another out.
        """
        return combine(self.embed(queries), self.embed(unlike), weights)

    @abstractmethod
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

    @abstractmethod
    def info(self) -> Info:
        """Return what the collection holds."""

    def check_model(self, model: str | None, weights: str | None) -> None:
        """Raise `SettingError` if a model or weights that are given are not the collection's."""
        from imgsearch.indexing.create import check_model

        check_model(self._model, model, weights)

    # What each backend does in its own way.

    @classmethod
    @abstractmethod
    def _create(
        cls, location: Location, *, model: str, weights: str | None, progress: bool
    ) -> None:
        """Make an empty collection; see `create`."""

    @classmethod
    @abstractmethod
    def _open(
        cls, location: Location, *, device: str, threads: int = 0, trust_model: bool = False
    ) -> Collection:
        """Open a collection; see `open`."""

    @classmethod
    @abstractmethod
    def _exists(cls, location: Location) -> bool:
        """Tell whether there is a collection."""

    @classmethod
    @abstractmethod
    def _discard(cls, location: Location) -> bool:
        """Remove a collection that never had an image; see `discard`."""

    @abstractmethod
    def _index(self, paths: list[PathLike], options: IndexOptions) -> IndexReport:
        """See `index`."""

    @abstractmethod
    def _remove(self, paths: list[PathLike]) -> int:
        """See `remove`."""

    @abstractmethod
    def _embed(self, queries: Queries, crop: Box | None = None, limits: Limits = LIMITS) -> Vectors:
        """See `embed`."""

    @abstractmethod
    def _answer(
        self, queries: Queries, embeddings: Vectors, options: SearchOptions
    ) -> list[Answer]:
        """Answer queries by their embeddings; the queries themselves name images to leave out."""

    @abstractmethod
    def _find(self, queries: Queries, embeddings: Vectors, options: SearchOptions) -> HitArrays:
        """Do as `_answer`, without the paths and without a least similarity."""


class DirectoryCollection(Collection):
    """A collection in a directory."""

    def __init__(self, layout: Layout, device: str, threads: int, *, trust_model: bool) -> None:
        """Use `Collection.open`."""
        self._layout = layout
        self._catalog = open_catalog(layout)
        self._searcher = Searcher(layout, self._catalog, device, threads, trust_model=trust_model)
        super().__init__(self._searcher.model, device, trust_model=trust_model)
        self.entries = Entries(layout, self._catalog, self._searcher.view)

    def close(self) -> None:
        """Close it; no other method may be called then."""
        self._searcher.close()
        self._catalog.close()

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
        from imgsearch.evaluation.evaluate import evaluate

        return evaluate(
            self._layout.directory, labels, k=k, recall=recall, nprobe=nprobe, progress=progress
        )

    def info(self) -> Info:
        """Return what the collection holds."""
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
        from imgsearch.storage.migrations import migrate
        from imgsearch.storage.writer import CatalogWriter

        self._catalog.check_open()
        device = pick_device(self._device)
        migrate(self._layout)
        with closing(CatalogWriter(self._layout.catalog)) as catalog:
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
        from imgsearch.storage.migrations import migrate
        from imgsearch.storage.writer import CatalogWriter

        self._catalog.check_open()
        migrate(self._layout)
        with closing(CatalogWriter(self._layout.catalog)) as catalog:
            return remove(self._layout, catalog, paths)

    def _embed(self, queries: Queries, crop: Box | None = None, limits: Limits = LIMITS) -> Vectors:
        return self._searcher.embed(queries, crop, limits)

    def _answer(
        self, queries: Queries, embeddings: Vectors, options: SearchOptions
    ) -> list[Answer]:
        return self._searcher.answer(queries, embeddings, options)

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
