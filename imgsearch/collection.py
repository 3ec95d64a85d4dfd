"""`Collection`: a directory of embeddings, their index and the model that made them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import closing
from types import TracebackType
from typing import Literal, TypeAlias, Unpack, overload

from imgsearch.ann.vectors import Vectors, combine
from imgsearch.embedding.models import DEFAULT_MODEL
from imgsearch.embedding.runtime import pick_device
from imgsearch.errors import SettingError
from imgsearch.images.crop import Box
from imgsearch.images.limits import MAX_PIXELS, Limits
from imgsearch.indexing.create import check_model, create
from imgsearch.indexing.options import IndexKeywords, IndexOptions
from imgsearch.indexing.remove import remove
from imgsearch.indexing.report import IndexReport
from imgsearch.indexing.update import update
from imgsearch.maintenance.describe import describe
from imgsearch.querying.entries import Entries
from imgsearch.querying.hits import Answer, Hit, HitArrays
from imgsearch.querying.info import Info
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
from imgsearch.storage.layout import Layout
from imgsearch.storage.migrations import migrate, open_catalog
from imgsearch.storage.writer import CatalogWriter

__all__ = ["Collection"]

Queries: TypeAlias = Sequence[Query] | Vectors


class Collection:
    """A collection of images, opened for indexing and querying.

    Any number of threads may query it, also while one indexes; what is committed is found by the
    next query. A context manager. `entries` has what is known of each image.
    """

    def __init__(self, layout: Layout, device: str, threads: int, trust_model: bool) -> None:
        """Use `create` or `open`."""
        self._layout = layout
        self._device = device
        self._trust_model = trust_model
        self._catalog = open_catalog(layout)
        self._model = self._catalog.snapshot().model
        self._searcher = Searcher(
            layout, self._catalog, self._model, device, threads, trust_model=trust_model
        )
        self.entries = Entries(layout, self._catalog, self._searcher.view)

    @classmethod
    def create(
        cls,
        directory: str | os.PathLike[str],
        *,
        model: str = DEFAULT_MODEL,
        weights: str | None = None,
        device: str = "auto",
        progress: bool = False,
    ) -> Collection:
        """Make an empty collection and open it.

        Args:
            directory: empty, or not there yet.
            model: "mobilenet_v2" or "inception_v3".
            weights: a torchvision name such as "IMAGENET1K_V2", or a state-dict file; None for the
                model's default.
            device: see `open`.
            progress: show a download of weights on stderr.

        Raises:
            ImgsearchError: see `imgsearch.indexing.create.create`.
        """
        create(Layout.at(directory), model=model, weights=weights, progress=progress)
        return cls.open(directory, device=device)

    @classmethod
    def open(
        cls,
        directory: PathLike,
        *,
        device: str = "auto",
        threads: int = 0,
        trust_model: bool = False,
    ) -> Collection:
        """Open the collection in `directory`.

        One of an older format is read as it is, and brought up to date by `index` and `remove`.

        Args:
            directory: the collection itself.
            device: where models run: "cpu", "cuda" or "mps"; "auto" indexes on the best that is
                there and embeds single queries on the CPU.
            threads: that embed one query on the CPU; 0 for one a core.
            trust_model: Run even a model that imgsearch did not export (docs/security.md).

        Raises:
            NoCollectionError: there is none.
            DamagedError: it is damaged, or of another format version.
        """
        return cls(Layout.at(directory), device, threads, trust_model)

    def close(self) -> None:
        """Close it; no other method may be called then."""
        self._searcher.close()
        self._catalog.close()

    def __enter__(self) -> Collection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def index(
        self,
        paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = (),
        **options: Unpack[IndexKeywords],
    ) -> IndexReport:
        """Bring the collection up to date with the files under `paths`.

        Only contents whose digest is new are embedded, and what is gone leaves the answers.

        Args:
            paths: files, folders or URLs, which become roots; none for those that there are.
            options: Keywords, which `imgsearch.indexing.options.IndexOptions` documents.

        Raises:
            InputError: a path does not exist, or does not hold what has moved.
            GoneError: images were kept whose drive may be unplugged; it has the report.
            SettingError: there is nothing to index, or a number makes no sense.
            DamagedError: a file of the collection is missing or damaged.
            BusyError: another process is indexing.
            StorageError: the disk is full, or cannot be written.
            ModelError: the model or its device cannot be had.
        """
        self._catalog.check_open()
        settings, given = IndexOptions.of(**options), paths_of(paths)
        device = pick_device(self._device)
        migrate(self._layout)
        with closing(CatalogWriter(self._layout.catalog)) as catalog:
            return update(
                self._layout,
                catalog,
                given,
                settings,
                device=device,
                trust_model=self._trust_model,
            )

    def remove(self, paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> int:
        """Take images out until `index` is given the same name; return how many. Files stay.

        Args:
            paths: one or several: a file, a folder with all that is in it, now or later, or a
                pattern as of `fnmatch`, whose `*` stands for `/`, too.

        Raises:
            InputError: the collection has nothing at one of the paths; nothing was taken out.
            BusyError: another process is writing to the collection.
            StorageError: the disk is full, or cannot be written.
        """
        self._catalog.check_open()
        given = paths_of(paths)
        migrate(self._layout)
        with closing(CatalogWriter(self._layout.catalog)) as catalog:
            return remove(self._layout, catalog, given)

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
        return self._searcher.find(queries, self._searcher.embed(queries), settings)

    def answer(self, queries: Queries, **options: Unpack[QueryOptions]) -> list[Answer]:
        """Answer several queries at once, and tell how each was searched; see `query`.

        Args:
            queries: as for `query_many`.
            options: as for `query`.
        """
        settings, queries = SearchOptions.of(**options), queries_of(queries)
        return self._searcher.answer(queries, self._searcher.embed(queries), settings)

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
            max_pixels: an image file of more is refused.

        Raises:
            ImageError: an image cannot be read, is too large, or has no such part.
            InputError: a query is no image and no embedding.
            SettingError: the box is empty.
        """
        box = None if crop is None else Box.of(crop)
        limits = Limits(whole("max_pixels", max_pixels, 1))
        return self._searcher.embed(queries, box, limits)

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

    def info(self) -> Info:
        """Return what the collection holds."""
        return describe(self._layout, self._catalog, self._searcher.view(), self._device)

    def check_model(self, model: str | None, weights: str | None) -> None:
        """Raise `SettingError` if a model or weights that are given are not the collection's."""
        check_model(self._model, model, weights)
