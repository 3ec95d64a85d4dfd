"""Answer queries on the present state of a collection."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

import numpy as np
from PIL import Image

from imgsearch.embedding.cropping import Box
from imgsearch.embedding.limits import MAX_PIXELS
from imgsearch.embedding.models import find_network
from imgsearch.embedding.runtime import OnnxRuntime, Runtime, TorchRuntime, pick_device
from imgsearch.errors import MEND, DamagedError, InputError, NoCollectionError, missing
from imgsearch.hits import Answer, HitArrays, Search, answers_of, arrays_of
from imgsearch.queries import PathLike, Query, SearchOptions, pixels_of_query
from imgsearch.roots import Roots, plain_path, real_path
from imgsearch.search.vectors import Ids, Vectors, as_queries, rows_of
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import ModelRecord
from imgsearch.view import View, open_view

__all__ = ["Searcher", "open_torch"]


class Searcher:
    """Embeds queries and searches a collection. Safe for concurrent use."""

    def __init__(
        self,
        layout: Layout,
        catalog: Catalog,
        record: ModelRecord,
        device: str,
        threads: int = 0,
    ) -> None:
        """Open nothing yet: the index is opened by the first search, the model by the first image.

        Args:
            layout: of the collection.
            catalog: of the collection; only read.
            record: of the model that made the collection.
            device: "auto" embeds on the CPU, as a query is a handful of images.
            threads: that embed one query on the CPU; 0 for one a core.
        """
        self._layout = layout
        self._catalog = catalog
        self._record = record
        self._device = device
        self._threads = threads
        self._process = os.getpid()
        self._identity = _identity(layout)
        self._lock = threading.Lock()
        self._opened: tuple[int, View] | None = None
        self._runtime: Runtime | None = None

    def view(self) -> View:
        """Return a view of the present state; the one there is if nothing was committed since.

        Raises:
            NoCollectionError: the directory holds another collection by now, or none.
            InputError: this is another process than the one that opened the collection.
        """
        self._check_process()
        with self._lock:
            # Before SQLite reads: what lies beside the file may not belong to it any more.
            if _identity(self._layout) != self._identity:
                raise NoCollectionError(
                    f"the collection at {self._layout.directory} was moved, deleted or replaced "
                    "after it was opened; open it again"
                )
            version = self._catalog.version()
            if self._opened is None or self._opened[0] != version:
                device = "cuda" if self._device == "cuda" else "cpu"
                before = self._opened[1] if self._opened else None
                view = open_view(self._layout, self._catalog, device=device, previous=before)
                self._opened = version, view
            return self._opened[1]

    def embed(
        self,
        queries: Sequence[Query] | Vectors,
        crop: Box | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Vectors:
        """See `imgsearch.collection.Collection.embed`."""
        if isinstance(queries, np.ndarray) and crop is None:
            return as_queries(queries, self._record.dim)
        if isinstance(queries, str | bytes | os.PathLike | Image.Image):
            raise InputError("several queries are expected: give a list, even for one")
        rows = [self._embed_one(query, crop, max_pixels) for query in queries]
        return np.concatenate(rows) if rows else np.empty((0, self._record.dim), np.float32)

    def find(
        self, queries: Sequence[Query] | Vectors, embeddings: Vectors, options: SearchOptions
    ) -> HitArrays:
        """Return the nearest images of each query.

        Args:
            queries: what was embedded, for the paths among them.
            embeddings: of the queries, float32 `[n, dim]`, L2-normalised.
            options: how to search.

        Raises:
            DamagedError: a file of the collection is missing or damaged.
        """
        return self._find(queries, embeddings, options)[1]

    def answer(
        self, queries: Sequence[Query] | Vectors, embeddings: Vectors, options: SearchOptions
    ) -> list[Answer]:
        """Do as `find`, and return the hits with their paths."""
        while True:
            view, found, searches = self._find(queries, embeddings, options)
            ids = np.unique(found.ids[found.ids >= 0]).tolist()
            paths = self._catalog.paths(ids)
            if len(paths) == len(ids):
                return answers_of(found, searches, paths)
            if view is self.view():  # else an image was replaced meanwhile
                raise DamagedError(
                    f"{self._layout.catalog} lacks images whose embeddings are there; {MEND}"
                )

    def _left_out(self, queries: Sequence[Query] | Vectors, options: SearchOptions) -> Ids:
        """Return the ids that are no hits of each query, int64 `[n, m]`; -1 stands for none."""
        if not options.exclude_self and not options.exclude:
            return np.empty((len(queries), 0), np.int64)
        if options.exclude and len(options.exclude) != len(queries):
            raise InputError(
                f"exclude has {len(options.exclude)} entries for {len(queries)} queries; "
                "give a list of paths for each query"
            )
        named: list[list[PathLike]] = [list(paths) for paths in options.exclude]
        named = named or [[] for _ in queries]
        if options.exclude_self:
            for paths, query in zip(named, queries, strict=True):
                paths += [query] if isinstance(query, str | os.PathLike) else []
        roots = Roots(self._catalog.roots())
        found = [{self._id_at(roots, path) for path in paths} - {-1} for paths in named]
        left_out = np.full((len(found), max(map(len, found), default=0)), -1, dtype=np.int64)
        for row, ids in zip(left_out, found, strict=True):
            row[: len(ids)] = sorted(ids)
        return left_out

    def _id_at(self, roots: Roots, path: PathLike) -> int:
        """Return the id of the image at a path, -1 if there is none."""
        # As it is written, for it may lead through a linked folder, and as it is.
        for absolute in (plain_path(path), real_path(path)):
            folder, name = os.path.split(absolute)
            place = roots.find(folder)
            id_ = self._catalog.id_at(place.spot(name)) if place else None
            if id_ is not None:
                return id_
        return -1

    def _find(
        self, queries: Sequence[Query] | Vectors, embeddings: Vectors, options: SearchOptions
    ) -> tuple[View, HitArrays, list[Search]]:
        while True:
            view = self.view()
            left_out = self._left_out(queries, options)
            if (options.exclude or options.exclude_self) and view is not self.view():
                continue  # an image to be left out may have had another id in this view
            try:
                return view, *_search(view, embeddings, options, left_out)
            except FileNotFoundError as error:
                if view is self.view():  # else a writer has just replaced it
                    raise missing(error) from error

    def _embed_one(self, query: Query, crop: Box | None, max_pixels: int) -> Vectors:
        pixels = pixels_of_query(query, self._record.input_size, crop, max_pixels)
        if pixels is None:
            return as_queries(np.asarray(query), self._record.dim)
        return self._model().embed(pixels[None])

    def _check_process(self) -> None:
        """Refuse to work in a forked process, where locks and threads may wait for ever."""
        if os.getpid() != self._process:
            raise InputError(
                f"the collection at {self._layout.directory} was opened before this process was "
                "forked; open it in each process"
            )

    def _model(self) -> Runtime:
        self._check_process()
        with self._lock:
            if self._runtime is None:
                device = "cpu" if self._device == "auto" else pick_device(self._device)
                if device == "cpu":
                    self._layout.check_model(self._record.onnx_sha256)
                    self._runtime = OnnxRuntime(self._layout.model, threads=self._threads)
                else:
                    self._runtime = open_torch(self._record, device)
            return self._runtime


def open_torch(model: ModelRecord, device: str) -> TorchRuntime:
    """Open a collection's model on a GPU, or raise `ModelError`."""
    return TorchRuntime(find_network(model.name), model.weights, model.weights_sha256, device)


def _identity(layout: Layout) -> tuple[int, int] | None:
    """Return what tells a catalog from another at the same place; None if there is none."""
    try:
        status = os.stat(layout.catalog)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _search(
    view: View, queries: Vectors, options: SearchOptions, left_out: Ids
) -> tuple[HitArrays, list[Search]]:
    k = min(options.k, view.count)
    if not k:
        nothing = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        return arrays_of(*nothing), [Search("exact", 0, 1.0)] * len(queries)
    distances, ids, searches = view.search(
        queries,
        k + left_out.shape[1],
        recall=options.recall,
        nprobe=options.nprobe,
        exact=options.exact,
    )
    if left_out.size:
        distances, ids = _without(distances, ids, left_out)
    found = arrays_of(distances[:, :k], ids[:, :k])
    if options.min_similarity is not None:
        # 5e-7, so that what is printed with six digits is compared as it is printed.
        near = found.similarities >= options.min_similarity - 5e-7
        found = HitArrays(np.where(near, found.ids, -1), found.distances, found.similarities)
    return found, searches


def _without(distances: Vectors, ids: Ids, left_out: Ids) -> tuple[Vectors, Ids]:
    """Put the ids to be left out of each row behind all others, as -1."""
    # A row and an id as one number: the same id may be a hit of one query and not of another.
    base = int(max(ids.max(), left_out.max())) + 2
    rows = np.arange(len(ids), dtype=np.int64)[:, None] * base
    drop = rows_of(rows + ids, np.unique(rows + left_out)) & (ids >= 0)
    order = np.argsort(drop, axis=1, kind="stable")
    ids = np.where(drop, -1, ids)
    return np.take_along_axis(distances, order, 1), np.take_along_axis(ids, order, 1)
