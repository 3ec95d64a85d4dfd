"""`Collection`: a directory of embeddings, their index and the model that made them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeAlias, overload

import numpy as np
import numpy.typing as npt
from PIL import Image

from imgsearch.creating import create
from imgsearch.embedding.images import pixels_of, read
from imgsearch.embedding.models import find_network
from imgsearch.embedding.runtime import OnnxRuntime, Runtime, TorchRuntime, pick_device
from imgsearch.embedding.weights import find_weights
from imgsearch.errors import DamagedError, InputError, SettingError
from imgsearch.hits import Hit, HitArrays, arrays_of, hits_of
from imgsearch.roots import Roots, real_path
from imgsearch.search.ivf import describe_faiss
from imgsearch.search.vectors import Ids, Vectors, as_queries
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import IvfRecord, ModelRecord
from imgsearch.updating import IndexReport, Progress, UpdateOptions, update
from imgsearch.view import View, open_view

__all__ = ["Collection", "Info", "Query"]

Query: TypeAlias = str | os.PathLike[str] | Image.Image | npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Info:
    """What a collection holds.

    Attributes:
        directory: where it is.
        images: that can be found.
        failed: files that could not be used.
        skipped: files that are plainly no images.
        roots: folders that were indexed.
        model: that made the embeddings: name, length of an embedding, weights and their SHA-256.
        ivf: the index; None while every search is exact.
        list_sizes: images in each inverted list.
        tail: images that are searched exactly because no inverted list holds them yet.
        bytes: all files together.
        device: that this collection was opened for.
        faiss: which Faiss searches, and where.
    """

    directory: str
    images: int
    failed: int
    skipped: int
    roots: tuple[str, ...]
    model: ModelRecord
    ivf: IvfRecord | None
    list_sizes: tuple[int, ...]
    tail: int
    bytes: int
    device: str
    faiss: str


class Collection:
    """A collection of images, opened for indexing and querying.

    Any number of threads may query it, also while one indexes; what is committed is found by the
    next query. A context manager.
    """

    def __init__(self, layout: Layout, device: str) -> None:
        """Use `create` or `open`."""
        self._layout = layout
        self._device = device
        self._catalog = Catalog(layout.catalog)
        self._lock = threading.Lock()
        self._view: tuple[int, View] | None = None
        self._runtime: Runtime | None = None

    @classmethod
    def create(
        cls,
        directory: str | os.PathLike[str],
        *,
        model: str = "mobilenet_v2",
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
            SettingError: there is no such model, or there are no such weights.
            ModelError: the weights cannot be had.
            InputError: there is a collection already, or something else.
            StorageError: the disk cannot be written.
        """
        create(Layout(Path(directory)), model=model, weights=weights, progress=progress)
        return cls.open(directory, device=device)

    @classmethod
    def open(cls, directory: str | os.PathLike[str], *, device: str = "auto") -> Collection:
        """Open the collection in `directory`.

        Args:
            directory: the collection itself.
            device: where models run: "cpu", "cuda" or "mps"; "auto" indexes on the best that is
                there and embeds single queries on the CPU.

        Raises:
            NoCollectionError: there is none.
            DamagedError: it is damaged, or of another format version.
        """
        layout = Layout(Path(directory))
        layout.check()
        return cls(layout, device)

    def close(self) -> None:
        """Close it; no other method may be called then."""
        self._view = None
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
        paths: Iterable[str | os.PathLike[str]] = (),
        *,
        nlist: int | None = None,
        workers: int | None = None,
        time_limit: float = 60.0,
        progress: Callable[[Progress], None] | None = None,
    ) -> IndexReport:
        """Add the images under `paths`, files or folders; embed only what is new or changed.

        Args:
            paths: a folder becomes a root of the collection; none for all roots that it has.
            nlist: number of centroids; kept for later runs. None for what was given before, else
                by the number of images.
            workers: processes; None for one a core.
            time_limit: seconds that a file may take before it is given up.
            progress: called now and then.

        Raises:
            InputError: a path does not exist.
            SettingError: there is nothing to index, or a number makes no sense.
            BusyError: another process is indexing.
            StorageError: the disk is full, or cannot be written.
            ModelError: the model or its device cannot be had.
        """
        given = {"nlist": nlist, "workers": workers, "time_limit": time_limit}
        for name, value in given.items():
            if value is not None and value <= 0:
                raise SettingError(f"{name} is {value}; it must be more than 0")
        device = pick_device(self._device)
        catalog = Catalog(self._layout.catalog)  # its own, so that queries see its commits
        try:
            options = UpdateOptions(
                nlist=nlist,
                workers=workers or _cores(),
                time_limit=time_limit,
                device=device,
                gpu=None if device == "cpu" else self._torch(device),
                progress=progress,
            )
            return update(self._layout, catalog, list(paths), options)
        finally:
            catalog.close()

    def query(
        self,
        query: Query,
        *,
        k: int = 10,
        nprobe: int | None = None,
        exact: bool = False,
        exclude_self: bool = False,
    ) -> list[Hit]:
        """Return the `k` most similar images, best first.

        Args:
            query: the path of an image, a Pillow image, its pixels (uint8 `[h, w]` or `[h, w, 3]`),
                or an L2-normalised embedding (float `[dim]`).
            k: hits.
            nprobe: inverted lists to scan; None for what the collection chose.
            exact: compare with every image instead.
            exclude_self: leave the image at the query's own path out.

        Raises:
            ImageError: the image cannot be read.
            InputError: it is nothing of the above.
            SettingError: `k` or `nprobe` makes no sense.
            DamagedError: a file of the collection is missing or damaged.
        """
        return self.query_many([query], k=k, nprobe=nprobe, exact=exact, exclude_self=exclude_self)[
            0
        ]

    @overload
    def query_many(
        self,
        queries: Sequence[Query] | Vectors,
        *,
        k: int = ...,
        nprobe: int | None = ...,
        exact: bool = ...,
        exclude_self: bool = ...,
        arrays: Literal[False] = ...,
    ) -> list[list[Hit]]: ...

    @overload
    def query_many(
        self,
        queries: Sequence[Query] | Vectors,
        *,
        k: int = ...,
        nprobe: int | None = ...,
        exact: bool = ...,
        exclude_self: bool = ...,
        arrays: Literal[True],
    ) -> HitArrays: ...

    def query_many(
        self,
        queries: Sequence[Query] | Vectors,
        *,
        k: int = 10,
        nprobe: int | None = None,
        exact: bool = False,
        exclude_self: bool = False,
        arrays: bool = False,
    ) -> list[list[Hit]] | HitArrays:
        """Answer several queries at once; see `query`.

        Args:
            queries: as for `query`, or embeddings as one float array `[n, dim]`.
            k: hits a query.
            nprobe: inverted lists to scan; None for what the collection chose.
            exact: compare with every image instead.
            exclude_self: leave the image at each query's own path out.
            arrays: return arrays `[n, k]` without looking paths up; `k` is at most the number of
                images.
        """
        for name, value in (("k", k), ("nprobe", nprobe)):
            if value is not None and value < 1:
                raise SettingError(f"{name} is {value}; it must be 1 or more")
        if exact and nprobe is not None:
            raise SettingError("exact search probes no lists: give exact or nprobe, not both")
        embeddings = self.embed(queries)
        own = self._ids_of(queries) if exclude_self else None
        while True:
            view = self._fresh_view()
            try:
                found = _search(view, embeddings, k, nprobe=nprobe, exact=exact, own=own)
            except FileNotFoundError as error:
                if view is self._fresh_view():
                    raise DamagedError(
                        f"{error.filename} is missing; restore it from a copy"
                    ) from error
                continue
            if arrays:
                return found
            ids = np.unique(found.ids[found.ids >= 0]).tolist()
            paths = self._catalog.paths(ids)
            if len(paths) == len(ids):
                return hits_of(found, paths)
            # A writer replaced an image since the view was opened: search the present state.

    def embed(self, queries: Sequence[Query] | Vectors) -> Vectors:
        """Return the embeddings of queries, float32 `[n, dim]`, L2-normalised.

        Raises:
            ImageError: an image cannot be read.
            InputError: a query is no image and no embedding.
        """
        model = self._fresh_view().snapshot.model
        if isinstance(queries, np.ndarray):
            return as_queries(queries, model.dim)
        rows = [self._embed_one(query, model) for query in queries]
        return np.concatenate(rows) if rows else np.empty((0, model.dim), np.float32)

    def info(self) -> Info:
        """Return what the collection holds."""
        view = self._fresh_view()
        counts = self._catalog.counts()
        sizes = [index.list_sizes() for index in view.segments]
        device = pick_device(self._device)
        return Info(
            directory=str(self._layout.directory.absolute()),
            images=view.count,
            failed=counts.failed,
            skipped=counts.skipped,
            roots=tuple(os.fsdecode(root.path) for root in self._catalog.roots()),
            model=view.snapshot.model,
            ivf=view.snapshot.ivf,
            list_sizes=tuple(np.sum(sizes, axis=0).tolist()) if sizes else (),
            tail=view.tail_count,
            bytes=self._layout.size(),
            device=device,
            faiss=describe_faiss(device),
        )

    def check_model(self, model: str | None, weights: str | None) -> None:
        """Check that a model and weights, where given, are those of this collection.

        Raises:
            SettingError: they are others.
        """
        own = self._fresh_view().snapshot.model
        if model not in (None, own.name):
            raise SettingError(
                f"this collection was made with {own.name}, not {model}; "
                "make another one for it with -c"
            )
        if weights in (None, own.weights):
            return
        if find_weights(find_network(own.name), weights).sha256 != own.weights_sha256:
            raise SettingError(
                f"this collection was made with the weights {own.weights}, not {weights}; "
                "make another one for them with -c"
            )

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
        return self._model().embed(pixels[None])

    def _model(self) -> Runtime:
        with self._lock:
            if self._runtime is None:
                device = "cpu" if self._device == "auto" else pick_device(self._device)
                local = device == "cpu"
                self._runtime = OnnxRuntime(self._layout.model) if local else self._torch(device)
            return self._runtime

    def _torch(self, device: str) -> Runtime:
        model = self._catalog.snapshot().model
        network = find_network(model.name)
        return TorchRuntime(network, model.weights, model.weights_sha256, device)

    def _fresh_view(self) -> View:
        """Return a view of the present state; the one there is if nothing was committed since."""
        with self._lock:
            version = self._catalog.version()
            if self._view is None or self._view[0] != version:
                device = self._device if self._device.startswith("cuda") else "cpu"
                self._view = version, open_view(self._layout, self._catalog, device=device)
            return self._view[1]

    def _ids_of(self, queries: Sequence[Query] | Vectors) -> Ids:
        """Return the id of the image at each query's path, -1 where there is none."""
        roots = Roots(self._catalog.roots())
        ids = []
        for query in queries:
            id_ = None
            if isinstance(query, str | os.PathLike):
                folder, name = os.path.split(real_path(query))
                place = roots.find(folder)
                id_ = self._catalog.id_at(place.root, place.folder, name) if place else None
            ids.append(-1 if id_ is None else id_)
        return np.array(ids, dtype=np.int64)


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


def _cores() -> int:
    """Return the number of cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1
