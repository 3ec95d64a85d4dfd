"""Answer queries on the present state of a collection."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from imgsearch.embedding.images import pixels_of, read
from imgsearch.embedding.models import find_network
from imgsearch.embedding.runtime import OnnxRuntime, Runtime, TorchRuntime, pick_device
from imgsearch.errors import DamagedError, InputError
from imgsearch.hits import Hit, HitArrays, arrays_of, hits_of
from imgsearch.roots import Roots, real_path
from imgsearch.search.vectors import Ids, Vectors, as_queries
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import ModelRecord
from imgsearch.view import View, open_view

__all__ = ["Query", "Searcher", "open_torch"]

Query: TypeAlias = str | os.PathLike[str] | Image.Image | npt.NDArray[Any]


class Searcher:
    """Embeds queries and searches a collection. Safe for concurrent use."""

    def __init__(self, layout: Layout, catalog: Catalog, device: str) -> None:
        """Open nothing yet: the index is opened by the first search, the model by the first image.

        Args:
            layout: of the collection.
            catalog: of the collection; only read.
            device: "auto" embeds on the CPU, as a query is a handful of images.
        """
        self._layout = layout
        self._catalog = catalog
        self._device = device
        self._lock = threading.Lock()
        self._opened: tuple[int, View] | None = None
        self._runtime: Runtime | None = None

    def view(self) -> View:
        """Return a view of the present state; the one there is if nothing was committed since."""
        with self._lock:
            version = self._catalog.version()
            if self._opened is None or self._opened[0] != version:
                device = self._device if self._device.startswith("cuda") else "cpu"
                self._opened = version, open_view(self._layout, self._catalog, device=device)
            return self._opened[1]

    def embed(self, queries: Sequence[Query] | Vectors) -> Vectors:
        """See `imgsearch.collection.Collection.embed`."""
        model = self.view().snapshot.model
        if isinstance(queries, np.ndarray):
            return as_queries(queries, model.dim)
        rows = [self._embed_one(query, model) for query in queries]
        return np.concatenate(rows) if rows else np.empty((0, model.dim), np.float32)

    def find(
        self,
        embeddings: Vectors,
        *,
        k: int,
        nprobe: int | None = None,
        exact: bool = False,
        own: Ids | None = None,
    ) -> HitArrays:
        """Return the `k` nearest images of each embedding (fewer if the collection is smaller).

        Args:
            embeddings: float32 `[n, dim]`, L2-normalised.
            k: hits a query.
            nprobe: inverted lists to scan; None for what the collection chose.
            exact: compare with every image instead.
            own: an id to leave out for each embedding, -1 for none.

        Raises:
            DamagedError: a file of the collection is missing or damaged.
        """
        while True:
            view = self.view()
            try:
                return _search(view, embeddings, k, nprobe=nprobe, exact=exact, own=own)
            except FileNotFoundError as error:
                if view is self.view():  # else a writer has just replaced it
                    raise DamagedError(
                        f"{error.filename} is missing; restore it from a copy"
                    ) from error

    def find_hits(
        self,
        embeddings: Vectors,
        *,
        k: int,
        nprobe: int | None = None,
        exact: bool = False,
        own: Ids | None = None,
    ) -> list[list[Hit]]:
        """Do as `find`, and return the hits with their paths."""
        while True:
            view = self.view()
            found = self.find(embeddings, k=k, nprobe=nprobe, exact=exact, own=own)
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
                folder, name = os.path.split(real_path(query))
                place = roots.find(folder)
                id_ = self._catalog.id_at(place.root, place.folder, name) if place else None
                ids[row] = -1 if id_ is None else id_
        return ids

    def _embed_one(self, query: Query, model: ModelRecord) -> Vectors:
        size = model.input_size
        if isinstance(query, str | os.PathLike):
            pixels = read(os.fspath(query), size).pixels
        elif isinstance(query, Image.Image):
            pixels = pixels_of(query, size)
        elif query.dtype == np.uint8 and query.ndim in (2, 3):
            pixels = pixels_of(_image_of(query), size)
        else:
            return as_queries(query, model.dim)
        return self._model(model).embed(pixels[None])

    def _model(self, model: ModelRecord) -> Runtime:
        with self._lock:
            if self._runtime is None:
                device = "cpu" if self._device == "auto" else pick_device(self._device)
                if device == "cpu":
                    self._runtime = OnnxRuntime(self._layout.model)
                else:
                    self._runtime = open_torch(model, device)
            return self._runtime


def open_torch(model: ModelRecord, device: str) -> TorchRuntime:
    """Open a collection's model on a GPU, or raise `ModelError`."""
    return TorchRuntime(find_network(model.name), model.weights, model.weights_sha256, device)


def _search(
    view: View, queries: Vectors, k: int, *, nprobe: int | None, exact: bool, own: Ids | None
) -> HitArrays:
    k = min(k, view.count)
    if own is None or not k:
        return arrays_of(*view.search(queries, k, nprobe=nprobe, exact=exact))
    distances, ids = view.search(queries, k + 1, nprobe=nprobe, exact=exact)
    drop = ids == own[:, None]
    drop[~drop.any(axis=1), -1] = True
    return arrays_of(distances[~drop].reshape(-1, k), ids[~drop].reshape(-1, k))


def _image_of(pixels: npt.NDArray[Any]) -> Image.Image:
    try:
        return Image.fromarray(pixels)
    except TypeError:
        raise InputError(
            f"an array of the shape {list(pixels.shape)} is no image; give uint8 [h, w, 3]"
        ) from None
