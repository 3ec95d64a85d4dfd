"""Answer queries on the present state of a collection."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from imgsearch.embedding.images import Pixels, pixels_of, read
from imgsearch.embedding.models import find_network
from imgsearch.embedding.runtime import OnnxRuntime, Runtime, TorchRuntime, pick_device
from imgsearch.errors import DamagedError, ImageError, InputError, SettingError, missing, reason_of
from imgsearch.hits import Hit, HitArrays, arrays_of, hits_of
from imgsearch.roots import Roots, plain_path, real_path
from imgsearch.search.vectors import Ids, Vectors, as_queries
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import ModelRecord
from imgsearch.view import View, open_view

__all__ = ["Query", "SearchOptions", "Searcher", "open_torch"]

Query: TypeAlias = str | os.PathLike[str] | Image.Image | npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """How to search.

    Attributes:
        k: hits a query; fewer if the collection is smaller.
        recall: recall@10 to keep; None for what the collection promises.
        nprobe: inverted lists to scan, whatever recall that has; None for as many as `recall` takes.
        exact: compare with every image instead.
    """

    k: int
    recall: float | None
    nprobe: int | None
    exact: bool

    def __post_init__(self) -> None:
        if self.recall is not None and not 0 < self.recall <= 1:
            raise SettingError(f"recall is {self.recall}; it must be more than 0 and at most 1")
        for name, value in (("k", self.k), ("nprobe", self.nprobe)):
            if value is not None and value < 1:
                raise SettingError(f"{name} is {value}; it must be 1 or more")
        if self.exact and self.nprobe is not None:
            raise SettingError("exact search probes no lists: give exact or nprobe, not both")


class Searcher:
    """Embeds queries and searches a collection. Safe for concurrent use."""

    def __init__(self, layout: Layout, catalog: Catalog, record: ModelRecord, device: str) -> None:
        """Open nothing yet: the index is opened by the first search, the model by the first image.

        Args:
            layout: of the collection.
            catalog: of the collection; only read.
            record: of the model that made the collection.
            device: "auto" embeds on the CPU, as a query is a handful of images.
        """
        self._layout = layout
        self._catalog = catalog
        self._record = record
        self._device = device
        self._lock = threading.Lock()
        self._opened: tuple[int, View] | None = None
        self._runtime: Runtime | None = None

    def view(self) -> View:
        """Return a view of the present state; the one there is if nothing was committed since."""
        with self._lock:
            version = self._catalog.version()
            if self._opened is None or self._opened[0] != version:
                device = "cuda" if self._device == "cuda" else "cpu"
                self._opened = version, open_view(self._layout, self._catalog, device=device)
            return self._opened[1]

    def embed(self, queries: Sequence[Query] | Vectors) -> Vectors:
        """See `imgsearch.collection.Collection.embed`."""
        if isinstance(queries, np.ndarray):
            return as_queries(queries, self._record.dim)
        if isinstance(queries, str | os.PathLike | Image.Image):
            raise InputError("several queries are expected: give a list, even for one")
        rows = [self._embed_one(query) for query in queries]
        return np.concatenate(rows) if rows else np.empty((0, self._record.dim), np.float32)

    def find(self, embeddings: Vectors, options: SearchOptions, own: Ids | None) -> HitArrays:
        """Return the nearest images of each embedding.

        Args:
            embeddings: float32 `[n, dim]`, L2-normalised.
            options: how to search.
            own: an id to leave out for each embedding, -1 for none; None for none at all.

        Raises:
            DamagedError: a file of the collection is missing or damaged.
        """
        return self._find(embeddings, options, own)[1]

    def find_hits(
        self, embeddings: Vectors, options: SearchOptions, own: Ids | None
    ) -> list[list[Hit]]:
        """Do as `find`, and return the hits with their paths."""
        while True:
            view, found = self._find(embeddings, options, own)
            ids = np.unique(found.ids[found.ids >= 0]).tolist()
            paths = self._catalog.paths(ids)
            if len(paths) == len(ids):
                return hits_of(found, paths)
            if view is self.view():  # else an image was replaced meanwhile
                raise DamagedError(
                    f"{self._layout.catalog} lacks images whose embeddings are there; "
                    "restore the collection from a copy"
                )

    def ids_of(self, queries: Sequence[Query] | Vectors) -> Ids:
        """Return the id of the image at each query's path, int64 `[n]`, -1 where there is none."""
        roots = Roots(self._catalog.roots())
        ids = np.full(len(queries), -1, dtype=np.int64)
        for row, query in enumerate(queries):
            if isinstance(query, str | os.PathLike):
                ids[row] = self._id_at(roots, plain_path(query), real_path(query))
        return ids

    def _id_at(self, roots: Roots, *paths: bytes) -> int:
        for (
            path
        ) in paths:  # as it is written, for it may lead through a linked folder, and as it is
            folder, name = os.path.split(path)
            place = roots.find(folder)
            id_ = self._catalog.id_at(place.root, place.folder, name) if place else None
            if id_ is not None:
                return id_
        return -1

    def _find(
        self, embeddings: Vectors, options: SearchOptions, own: Ids | None
    ) -> tuple[View, HitArrays]:
        while True:
            view = self.view()
            try:
                return view, _search(view, embeddings, options, own)
            except FileNotFoundError as error:
                if view is self.view():  # else a writer has just replaced it
                    raise missing(error) from error

    def _embed_one(self, query: Query) -> Vectors:
        size = self._record.input_size
        if isinstance(query, str | os.PathLike):
            pixels = read(os.path.expanduser(query), size).pixels
        elif isinstance(query, Image.Image):
            pixels = _pixels_of(query, size)
        elif not isinstance(query, np.ndarray):
            raise InputError(
                f"a {type(query).__name__} is no query; give the path of an image, a Pillow image, "
                "an array of pixels or an embedding"
            )
        elif query.dtype == np.uint8 and query.ndim in (2, 3):
            pixels = _pixels_of(_image_of(query), size)
        elif query.ndim == 1:
            return as_queries(query, self._record.dim)
        else:
            raise InputError(
                f"a {query.dtype} array of the shape {list(query.shape)} is no query; give one "
                "embedding, or pixels as uint8 [h, w, 3]"
            )
        return self._model().embed(pixels[None])

    def _model(self) -> Runtime:
        with self._lock:
            if self._runtime is None:
                device = "cpu" if self._device == "auto" else pick_device(self._device)
                if device == "cpu":
                    self._runtime = OnnxRuntime(self._layout.model)
                else:
                    self._runtime = open_torch(self._record, device)
            return self._runtime


def open_torch(model: ModelRecord, device: str) -> TorchRuntime:
    """Open a collection's model on a GPU, or raise `ModelError`."""
    return TorchRuntime(find_network(model.name), model.weights, model.weights_sha256, device)


def _search(view: View, queries: Vectors, options: SearchOptions, own: Ids | None) -> HitArrays:
    k = min(options.k, view.count)
    if not k:
        return arrays_of(np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), int))
    settings: dict[str, Any] = {
        "recall": options.recall,
        "nprobe": options.nprobe,
        "exact": options.exact,
    }
    if own is None:
        return arrays_of(*view.search(queries, k, **settings)[:2])
    distances, ids, _ = view.search(queries, k + 1, **settings)
    drop = (ids == own[:, None]) & (ids >= 0)
    drop[~drop.any(axis=1), -1] = True
    return arrays_of(distances[~drop].reshape(-1, k), ids[~drop].reshape(-1, k))


def _pixels_of(image: Image.Image, size: int) -> Pixels:
    try:
        return pixels_of(image, size)
    except Exception as error:
        # An image that is opened is not decoded yet: see imgsearch.embedding.images.decode.
        raise ImageError("image", f"cannot be decoded: {reason_of(error)}") from error


def _image_of(pixels: npt.NDArray[Any]) -> Image.Image:
    if pixels.size:
        with suppress(TypeError):
            return Image.fromarray(pixels)
    raise InputError(
        f"an array of the shape {list(pixels.shape)} is no image; give uint8 [h, w, 3]"
    )
