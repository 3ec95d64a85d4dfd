"""`Collection`: image embeddings, their index and the model that made them, in any backend."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property, partial
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeAlias, Unpack, cast, overload

import numpy as np
from PIL import Image

from imgsearch.ann.vectors import Ids, Vectors, combine
from imgsearch.embedding.models import DEFAULT_MODEL, find_network, is_file, names_same
from imgsearch.embedding.runtime import pick_device
from imgsearch.errors import ImgsearchError, InputError, SettingError
from imgsearch.images.crop import Box
from imgsearch.images.limits import LIMITS, MAX_PIXELS, Limits
from imgsearch.querying.embedder import Embedder, indexed_pixels
from imgsearch.querying.filters import FilterKeywords, Order
from imgsearch.querying.hits import Answer, Hit, HitArrays, Hits
from imgsearch.querying.options import (
    LEAST_ID,
    PathLike,
    Query,
    QueryOptions,
    SearchOptions,
    Words,
    items,
    paths_of,
    queries_of,
    whole,
)
from imgsearch.querying.search import Searcher
from imgsearch.storage.catalog import open_catalog
from imgsearch.storage.layout import Layout, Location, backend_of
from imgsearch.storage.records import Entry, ModelRecord

if TYPE_CHECKING:  # imported where they are used, so that no query waits for them
    import pandas as pd

    from imgsearch.evaluation.evaluate import Evaluation
    from imgsearch.images.decode import Pixels
    from imgsearch.indexing.options import IndexKeywords, IndexOptions
    from imgsearch.indexing.report import IndexReport
    from imgsearch.indexing.switch import Network, SwitchReport
    from imgsearch.indexing.watch import Seen
    from imgsearch.querying.explanation import Explanation
    from imgsearch.querying.info import Info
    from imgsearch.querying.looking import Looker
    from imgsearch.querying.map.make import Map
    from imgsearch.querying.view import View
    from imgsearch.storage.fingerprints import Light
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

    def ids(
        self, *, order: Order = "added", reverse: bool = False, **keywords: Unpack[FilterKeywords]
    ) -> list[int]:
        """Return the ids of the images that pass a filter."""
        ...

    def where(
        self, *, order: Order = "added", reverse: bool = False, **keywords: Unpack[FilterKeywords]
    ) -> Iterator[Entry]:
        """Yield the entries of the images that pass a filter."""
        ...

    def ids_after(self, id_: int, limit: int) -> list[int]:
        """Return up to `limit` ids above `id_`, in ascending order."""
        ...

    def sizes(self, ids: Sequence[int]) -> list[tuple[int, int] | None]:
        """Return width and height of images, in the order of `ids`; None where they are unknown."""
        ...

    def folders(self) -> list[tuple[str, int]]:
        """Return each folder that has images, and their number, by path."""
        ...

    def cameras(self) -> list[tuple[str, int]]:
        """Return each camera that took images, and their number, by name."""
        ...

    def version(self) -> object:
        """Return a value that differs once the images have changed."""
        ...

    def count(self) -> int:
        """Return the number of images."""
        ...

    def unread(self) -> int:
        """Return the number of images whose pixels, capture time and camera no run has read yet."""
        ...

    def failures(self, **keywords: Unpack[FilterKeywords]) -> Iterator[tuple[str, str]]:
        """Yield path and reason of the files that failed and pass a filter."""
        ...

    def embeddings(self, ids: Sequence[int]) -> Vectors:
        """Return the embeddings of images, float32 `[n, dim]`, in the order of `ids`."""
        ...

    def lights(self, ids: Sequence[int]) -> dict[int, Light]:
        """Return the small pictures of those images whose fingerprint has one, by id."""
        ...

    def hashes(self, ids: Sequence[int]) -> dict[int, int]:
        """Return the perceptual hashes, of 64 bits, of those images that have one, by id."""
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
        self._looker: Looker | None = None
        self._beginning = threading.Lock()

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
            model: "mobilenet_v2", "mobilenet_v2_320", "efficientnet_lite0", "efficientnet_lite2",
                "inception_v3", or "torchvision:" and the name of a network that torchvision lists,
                which "/" and the name of its weights may follow; or "open_clip:ARCH/WEIGHTS", whose
                networks embed words as well; or "timm:NAME"; or "onnx:FILE", a network of your own.
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

    @classmethod
    def switch(
        cls,
        location: Location,
        *,
        model: str,
        weights: str | None = None,
        keep_old: bool = False,
        device: str = "auto",
        **options: Unpack[IndexKeywords],
    ) -> SwitchReport:
        """Switch a collection to another network, which embeds all its images again.

        The collection goes on answering with the old network until it is replaced at once. What was
        embedded before an interruption is kept. Whoever has the collection open has to open it
        again. Ids of images stay the same.

        Args:
            location: As for `open`.
            model: As for `create`.
            weights: As for `create`.
            keep_old: Whether to keep the old collection beside the new one, in a directory named
                after its network. Files that do not change take no further room.
            device: As for `open`.
            options: As for `index`, of which `workers`, `time_limit`, `max_pixels`, `policy`,
                `engine` and `progress` apply.

        Raises:
            SettingError: If the collection is not in a directory, or made with this network.
            ImgsearchError: See `imgsearch.indexing.switch.switch`.
        """
        from imgsearch.indexing.options import IndexOptions
        from imgsearch.indexing.switch import Network

        network, given = Network(model, weights), IndexOptions.of(**options)
        return _kind_of(location)._switch(location, network, given, device, keep_old=keep_old)

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

    def __len__(self) -> int:
        """Return the number of images."""
        return self._count()

    def __bool__(self) -> bool:
        """Return True, even for an empty collection."""
        return True

    def __iter__(self) -> Iterator[Entry]:
        """Yield the images in the order in which they were added."""
        return self.entries.where()

    def __contains__(self, image: object) -> bool:
        """Tell whether there is an image at a path, or with an id."""
        if isinstance(image, str | os.PathLike):
            return bool(self._ids_at(image))
        return isinstance(image, int) and bool(self.entries.find([image]))

    def __repr__(self) -> str:
        try:
            state = f"{len(self):,} images, {self._model.name}"
        except InputError:
            state = "closed"
        except ImgsearchError as error:
            state = str(error)
        return f"<{type(self).__name__} {self._where!r}: {state}>"

    @property
    def ids(self) -> Ids:
        """The ids of all images, ascending, int64 `[n]`."""
        return np.array(self.entries.ids(), np.int64)

    @property
    def paths(self) -> list[str]:
        """The paths of all images, in the order of `ids`."""
        return [entry.path for entry in self]

    def id_of(self, path: PathLike) -> int:
        """Return the id of the image at a path, or raise `InputError`."""
        return self.entry_of(os.fspath(path)).id

    def embeddings(self, ids: Sequence[int] | Ids | None = None) -> Vectors:
        """Return the embeddings of images, float32 `[n, dim]`, in the order of `ids`.

        If they are stored one after the other, in one file and without removed images in between,
        they are a read-only view of that file, mapped into memory; otherwise, they are copied.

        Args:
            ids: Ids of images; None for all, in the order of the property `ids`.

        Raises:
            NoImageError: If an image is not, or no longer, in the collection.
        """
        return self.entries.embeddings(self.entries.ids() if ids is None else list(ids))

    def to_pandas(self, **keywords: Unpack[FilterKeywords]) -> pd.DataFrame:
        """Return a pandas data frame with a row per image, indexed by id.

        Args:
            keywords: Keywords of a filter, as for `query`.

        Raises:
            PackageError: If pandas is not installed.
        """
        from imgsearch.querying.tables import data_frame

        return data_frame(self.entries.where(**keywords))

    def to_arrow(self, **keywords: Unpack[FilterKeywords]) -> Any:
        """Return a `pyarrow.Table` with a row per image; see `to_pandas`."""
        from imgsearch.querying.tables import table

        return table(self.entries.where(**keywords))

    def export(
        self,
        path: PathLike,
        *,
        query: Query | None = None,
        force: bool = False,
        progress: Callable[[int, int], None] | None = None,
        **keywords: Unpack[FilterKeywords],
    ) -> int:
        """Export images and their embeddings to a file or a folder, and return how many.

        Args:
            path: A file that ends in ".parquet", ".csv" (which has no embeddings) or ".npz", or a
                folder of NumPy arrays and a CSV file. Images are ordered as in the property `ids`.
            query: A query, as for `query`, to tell how similar each image is.
            force: Whether to replace an earlier export.
            progress: Function that is called with the number of images done, and of all.
            keywords: Keywords of a filter, as for `query`.

        Raises:
            InputError: If no image passes the filter, or there is something at the path already.
            SettingError: If the suffix of the path is not one of these.
            BusyError: If images are removed again and again meanwhile.
            PackageError: If pyarrow, which ".parquet" needs, is not installed.
            StorageError: If the path cannot be written.
        """
        from imgsearch.querying.export import Chosen, export

        embedding = None if query is None else self.embed([query])

        def choose() -> Chosen:
            ids = self.entries.ids(**keywords)
            hits = None
            if embedding is not None and ids:
                hits = self.query_many(embedding, arrays=True, k=len(ids), exact=True, **keywords)
            return Chosen(sorted(ids), self._model.dim, hits)

        return export(self.entries, path, choose, force=force, progress=progress)

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

    def watch(
        self, paths: Paths = (), **options: Unpack[IndexKeywords]
    ) -> Generator[Seen, None, None]:
        """Index as `index` does, and then whenever something changes in a root, for ever.

        A drive that goes takes no image with it; when it is back, its changes are found. Roots at
        URLs, and changes that the system does not tell of, are looked for every 15 minutes.

        Args:
            paths: As for `index`.
            options: As for `index`, for each run; not `moved`.

        Yields:
            What each run did, and what kept it from doing more: see `imgsearch.indexing.watch`.

        Raises:
            PackageError: If watchdog is not installed.
            SettingError: If the collection is not in a directory, or there is nothing to watch.
            DamagedError: If a file of the collection is missing or damaged.
            ModelError: If the model or its device is unavailable.
        """
        from imgsearch.indexing.options import IndexOptions

        given = IndexOptions.of(**options)
        if given.moved is not None:
            raise SettingError("moved applies to one run: call index with it")
        return self._watch(paths_of(paths), given)

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

    def remove_ids(self, ids: Sequence[int] | Ids) -> int:
        """Remove images from the collection by their ids, but not their files; return how many.

        They stay out until `index` is given the name of the file. Ids that are not, or no longer,
        in the collection are ignored.

        Raises:
            SettingError: If an id makes no sense.
            BusyError: If another process is writing to the collection.
            StorageError: If the disk is full, or cannot be written.
        """
        return self._remove_ids([whole("an id", id_, LEAST_ID) for id_ in items("ids", ids)])

    def query(
        self,
        query: Query | None = None,
        *,
        id: int | None = None,  # noqa: A002 - what it is called everywhere
        **options: Unpack[QueryOptions],
    ) -> list[Hit]:
        """Return the `k` most similar images, best first.

        Args:
            query: The path of an image, its content as bytes or an open file, a Pillow image,
                its pixels (integers from 0 to 255 or floats from 0 to 1, `[h, w]` or
                `[h, w, 3]`), or an embedding (`[dim]`, which is L2-normalised). Pixels and
                embeddings may be NumPy arrays, torch tensors or lists. Or `Words("a red
                bicycle")`, if the collection's network embeds words.
            id: The id of an image of the collection, instead of a query.
            options: Keywords, above all `k=10`; see `SearchOptions` in
                `imgsearch.querying.options`.

        Raises:
            ImageError: If the image cannot be read.
            InputError: If the query is none of the above.
            NoImageError: If there is no image with that id.
            SettingError: If an option makes no sense, or more than one of recall, nprobe and
                exact is given.
            ModelError: If words are given, and the network embeds none.
            DamagedError: If a file of the collection is missing or damaged.
        """
        if (query is None) == (id is None):
            raise InputError("give either a query (an image or an embedding) or an id")
        asked = query
        if id is not None:
            asked = self.entries.embeddings([id])[0]
            if SearchOptions.of(**options).leaves_self_out:
                (excluded,) = SearchOptions.of(**options).exclude or [[]]
                options["exclude"] = [[*excluded, id]]
        return Hits(self.answer([cast("Query", asked)], **options)[0].hits)

    async def aquery(
        self,
        query: Query | None = None,
        *,
        id: int | None = None,  # noqa: A002 - what it is called everywhere
        **options: Unpack[QueryOptions],
    ) -> list[Hit]:
        """Return what `query` returns, which runs in a thread meanwhile.

        If the task is cancelled, the thread ends its query all the same.
        """
        import asyncio

        return await asyncio.to_thread(self.query, query, id=id, **options)

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
            return [Hits(answer.hits) for answer in self.answer(queries, **options)]
        queries = queries_of(queries)
        settings = _settings(queries, options)
        if settings.looks:
            raise SettingError("verify and fold do not apply to arrays; ask for hits")
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
        queries = queries_of(queries)
        settings = _settings(queries, options)
        if not settings.looks:
            return self._answer(queries, self._embed(queries), settings)
        from imgsearch.querying.looking import before_looking

        images = [_kept(query) for query in queries]
        answers = self._answer(images, self._embed(images), before_looking(settings))
        looker = self._looking()
        return [
            looker.refined(image, answer, settings)
            for image, answer in zip(images, answers, strict=True)
        ]

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

    def explain(
        self,
        query: Query,
        hit: Hit | PathLike | int,
        *,
        crop: tuple[float, float, float, float] | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Explanation:
        """Explain where the similarity of a query and an image of the collection comes from.

        Args:
            query: An image, as for `query`, but not an embedding.
            hit: The image of the collection: a hit, its path or its id.
            crop: The part of the query that was searched for, as for `embed`.
            max_pixels: Maximum number of pixels of an image file.

        Raises:
            ImageError: If an image cannot be read, is too large, or has changed since it was
                indexed.
            InputError: If the query is not an image, or the collection has no such image.
            ModelError: If the model is foreign.
            SettingError: If the box is empty.
            DamagedError: If a file of the collection is missing or damaged.
        """
        box = None if crop is None else Box.of(crop)
        limits = Limits(whole("max_pixels", max_pixels, 1))
        from imgsearch.querying.looking import match_with

        entry, query = self.entry_of(hit), _kept(query)
        pixels = self._embedder.pixels_of(query, box, limits)
        found = self.explain_pixels(pixels, entry, indexed_pixels(entry, len(pixels), limits))
        return replace(found, match=match_with(query, entry.path, box, limits))

    def explain_pixels(self, query: Pixels, hit: Entry, pixels: Pixels) -> Explanation:
        """Explain as `explain` does, with images that were decoded elsewhere.

        Args:
            query: Pixels of the query, uint8 `[input_size, input_size, 3]`.
            hit: Entry of the image of the collection.
            pixels: Pixels of that image, in the same form.
        """
        return self._explain(hit, np.stack([query, pixels]))

    def entry_of(self, image: Hit | PathLike | int) -> Entry:
        """Return the entry of an image, given as a hit, a path or an id.

        Raises:
            InputError: If the collection has no such image.
        """
        if isinstance(image, str | os.PathLike):
            for id_ in self._ids_at(image):
                return self.entries.get(id_)
            raise InputError(
                f"{os.fsdecode(image)} is not in the collection; give the path or the id of a hit"
            )
        return self.entries.get(image.id if isinstance(image, Hit) else image)

    def evaluate(
        self,
        labels: PathLike,
        *,
        k: int = 10,
        recall: float | None = None,
        nprobe: int | None = None,
        verify: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Evaluation:
        """Measure P@1, P@k, recall@k and mAP on labelled images: see `imgsearch.evaluate`."""
        options = SearchOptions(k=k, recall=recall, nprobe=nprobe, verify=verify)
        return self._evaluate(labels, options, progress)

    def map(
        self,
        *,
        update: bool = True,
        rebuild: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Map:
        """Return the images in a plane, those that look alike near each other.

        The map is kept in the user's cache. The first one takes a while; later, new images are
        placed among the others, until a quarter of all is new.

        Args:
            update: Whether to make the map, or to bring it up to date. Otherwise it is returned as
                it was made last, without the images that have been removed since.
            rebuild: Whether to lay out all images again in any case.
            progress: Function that is called with the number of steps done, and of all.

        Raises:
            NoMapError: If there is no map, and `update` is False.
            InputError: If there are no images.
            SettingError: If the collection is not in a directory, or has too many images.
            PackageError: If openTSNE is not installed.
            DamagedError: If a file of the collection is missing or damaged.
        """
        del update, rebuild, progress
        raise SettingError(f"only a collection in a directory has a map: {self!r}")

    @abstractmethod
    def info(self) -> Info:
        """Return a description of the collection's contents."""

    def check_model(self, model: str | None, weights: str | None) -> None:
        """Raise `SettingError` if the given model or weights are not the collection's."""
        if (difference := self.differs(model, weights)) is not None:
            raise SettingError(
                f"this collection was made with {difference}; create another one for it with -c"
            )

    def differs(self, model: str | None, weights: str | None) -> str | None:
        """Return how the model or weights differ from the collection's, None if they do not."""
        own = self._model
        if model is not None and not names_same(model, own.name):
            return f"{own.name}, not {model}"
        if model is not None and is_file(model):
            from imgsearch.embedding.own import digest_of, path_of

            changed = digest_of(path_of(model)) != own.weights_sha256
            return f"another {own.name}, not {model}" if changed else None
        if weights is None or weights == own.weights:
            return None
        if is_file(own.name):
            return f"{own.weights}, not {weights}"
        from imgsearch.embedding.weights import find_weights

        named = not os.path.isfile(os.path.expanduser(weights))
        other = named and not os.path.isabs(own.weights)
        if other or find_weights(find_network(own.name), weights).sha256 != own.weights_sha256:
            return f"the weights {own.weights}, not {weights}"
        return None

    def _looking(self) -> Looker:
        """Return the looker of this collection, which starts its workers when it is first used."""
        from imgsearch.querying.looking import Looker

        with self._beginning:
            if self._looker is None:
                self._looker = Looker(self.entries)
            return self._looker

    def _stop_looking(self) -> None:
        """End the workers of the looker, if there are any."""
        if self._looker is not None:
            self._looker.close()

    # Each backend implements these methods in its own way.

    @property
    @abstractmethod
    def _where(self) -> str:
        """The location of the collection."""

    @abstractmethod
    def _count(self) -> int:
        """Return the number of images."""

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

    @classmethod
    def _switch(
        cls,
        location: Location,
        network: Network,
        options: IndexOptions,
        device: str,
        *,
        keep_old: bool,
    ) -> SwitchReport:
        """Switch a collection to another network; see `switch`."""
        del network, options, device, keep_old
        raise SettingError(f"only a collection in a directory can be switched: {location!s}")

    @abstractmethod
    def _index(self, paths: list[PathLike], options: IndexOptions) -> IndexReport:
        """Bring the collection up to date; see `index`."""

    def _watch(self, paths: list[PathLike], options: IndexOptions) -> Generator[Seen, None, None]:
        """Index whenever something changes; see `watch`."""
        del paths, options
        raise SettingError(f"only a collection in a directory can be kept up to date: {self!r}")

    @abstractmethod
    def _remove(self, paths: list[PathLike]) -> int:
        """Remove images from the collection; see `remove`."""

    @abstractmethod
    def _remove_ids(self, ids: list[int]) -> int:
        """See `remove_ids`."""

    @abstractmethod
    def _embed(self, queries: Queries, crop: Box | None = None, limits: Limits = LIMITS) -> Vectors:
        """Return the embeddings of queries; see `embed`."""

    @abstractmethod
    def _answer(
        self, queries: Queries, embeddings: Vectors, options: SearchOptions
    ) -> list[Answer]:
        """Answer queries by their embeddings; `queries` tells which images to leave out."""

    @property
    @abstractmethod
    def _embedder(self) -> Embedder:
        """The embedder of queries."""

    @abstractmethod
    def _ids_at(self, path: PathLike) -> Sequence[int]:
        """Return the ids of the images at a path; none if there is none."""

    @abstractmethod
    def _explain(self, hit: Entry, pixels: Pixels) -> Explanation:
        """Explain the similarity of a query and an image; see `explain_pixels`."""

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

    @property
    def _where(self) -> str:
        return str(self._layout.directory)

    def _count(self) -> int:
        return self._searcher.view().count

    def close(self) -> None:
        """Close the collection; no other method may be called afterwards."""
        self._stop_looking()
        self._searcher.close()
        self._catalog.close()

    def map(
        self,
        *,
        update: bool = True,
        rebuild: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Map:
        """Return the images in a plane, those that look alike near each other."""
        from imgsearch.querying.map.make import make_map, read_map

        def found(view: View) -> Map:
            own = self._layout.directory, self._catalog, view
            return make_map(*own, rebuild=rebuild, progress=progress) if update else read_map(*own)

        return self._searcher.with_view(found)

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

    @classmethod
    def _switch(
        cls,
        location: Location,
        network: Network,
        options: IndexOptions,
        device: str,
        *,
        keep_old: bool,
    ) -> SwitchReport:
        from imgsearch.indexing.switch import switch

        layout = Layout.at(location)
        with closing(_writer(layout)) as catalog:
            given = layout, catalog, network, options
            return switch(*given, device=pick_device(device), keep_old=keep_old)

    def _index(
        self,
        paths: list[PathLike],
        options: IndexOptions,
        within: Iterable[bytes] | None = None,
    ) -> IndexReport:
        from imgsearch.indexing.update import update

        self._catalog.check_open()
        device = pick_device(self._device)
        with closing(_writer(self._layout)) as catalog:
            return update(
                self._layout,
                catalog,
                paths,
                options,
                device=device,
                trust_model=self._trust_model,
                within=within,
            )

    def _watch(self, paths: list[PathLike], options: IndexOptions) -> Generator[Seen, None, None]:
        from imgsearch.indexing.engine import WarmEngine
        from imgsearch.indexing.watch import Changes, Seen, WatchdogObserver, watch

        changes = Changes(os.path.realpath(os.fsencode(self._layout.directory)))
        engine = WarmEngine(workers=options.workers, device=pick_device(self._device))
        options = replace(options, engine=options.engine or engine)
        with engine, closing(WatchdogObserver(changes)) as observer:
            if paths or not self._catalog.roots():
                yield Seen(self._index(paths, options))
            run = partial(self._index, [], options)
            yield from watch(run, self._catalog.roots, observer, changes)

    def _remove(self, paths: list[PathLike]) -> int:
        from imgsearch.indexing.remove import remove

        self._catalog.check_open()
        with closing(_writer(self._layout)) as catalog:
            return remove(self._layout, catalog, paths)

    def _remove_ids(self, ids: list[int]) -> int:
        from imgsearch.indexing.remove import remove_ids

        self._catalog.check_open()
        with closing(_writer(self._layout)) as catalog:
            return remove_ids(self._layout, catalog, ids)

    def _embed(self, queries: Queries, crop: Box | None = None, limits: Limits = LIMITS) -> Vectors:
        return self._searcher.embed(queries, crop, limits)

    def _answer(
        self, queries: Queries, embeddings: Vectors, options: SearchOptions
    ) -> list[Answer]:
        return self._searcher.answer(queries, embeddings, options)

    @property
    def _embedder(self) -> Embedder:
        return self._searcher.embedder

    def _ids_at(self, path: PathLike) -> Sequence[int]:
        return self._searcher.ids_at(path)

    def _explain(self, hit: Entry, pixels: Pixels) -> Explanation:
        return self._searcher.explain(hit, pixels)

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
            verify=options.verify,
            progress=progress,
        )

    def _find(self, queries: Queries, embeddings: Vectors, options: SearchOptions) -> HitArrays:
        return self._searcher.find(queries, embeddings, options)


def opened(
    location: Location, *, device: str = "auto", threads: int = 0, trust_model: bool = False
) -> Collection:
    """Open a collection. Deprecated: `Collection.open` does the same."""
    return Collection.open(location, device=device, threads=threads, trust_model=trust_model)


def _writer(layout: Layout) -> CatalogWriter:
    """Open a catalog for writing, after bringing an older format up to date."""
    from imgsearch.storage.writer import CatalogWriter

    if not layout.is_current():
        from imgsearch.storage.migrations import migrate

        migrate(layout)
    return CatalogWriter(layout.catalog)


def _settings(queries: Queries, options: QueryOptions) -> SearchOptions:
    """Return the options of a search, which is by words if any of the queries is."""
    if not isinstance(queries, np.ndarray) and any(isinstance(each, Words) for each in queries):
        options = {**options, "by_words": True}
    return SearchOptions.of(**options)


def _kept(query: Query) -> Query:
    """Return a query that can be read twice."""
    if hasattr(query, "read") and not isinstance(query, Image.Image):
        content: bytes = query.read()
        return content
    return query


def _kind_of(location: Location) -> type[Collection]:
    """Return the class of the collection at a location."""
    name = backend_of(location)
    if name is None:
        return DirectoryCollection
    module, _, kind = name.rpartition(".")
    found: type[Collection] = getattr(import_module(module), kind)
    return found
