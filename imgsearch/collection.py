"""`Collection`: a directory of embeddings, their index and the model that made them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Literal, overload

import numpy as np

from imgsearch.creating import create
from imgsearch.embedding.models import DEFAULT_MODEL, find_network
from imgsearch.embedding.runtime import pick_device
from imgsearch.embedding.weights import find_weights
from imgsearch.errors import SettingError
from imgsearch.hits import Hit, HitArrays
from imgsearch.querying import Query, Searcher, SearchOptions, open_torch
from imgsearch.reports import IndexReport, Info, Progress
from imgsearch.search.ivf import describe_faiss
from imgsearch.search.vectors import Vectors
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.layout import Layout
from imgsearch.updating import UpdateOptions, update

__all__ = ["Collection"]


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
        self._model = self._catalog.snapshot().model
        self._searcher = Searcher(layout, self._catalog, self._model, device)

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
            SettingError: there is no such model, or there are no such weights.
            ModelError: the weights cannot be had.
            InputError: there is a collection already, or something else.
            StorageError: the disk cannot be written.
        """
        create(Layout.at(directory), model=model, weights=weights, progress=progress)
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
        layout = Layout.at(directory)
        layout.check()
        return cls(layout, device)

    def close(self) -> None:
        """Close it; no other method may be called then."""
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
        *,
        nlist: int | None = None,
        workers: int | None = None,
        time_limit: float = 60.0,
        progress: Callable[[Progress], None] | None = None,
    ) -> IndexReport:
        """Add the images under `paths`, files or folders; embed only what is new or changed.

        Args:
            paths: one or several; a folder becomes a root of the collection. None for all roots
                that it has.
            nlist: number of centroids; kept with the index that is made. None for what was given
                when it was made, else by the number of images.
            workers: processes; None for one a core.
            time_limit: seconds that a file may take before it is given up.
            progress: called now and then.

        Raises:
            InputError: a path does not exist.
            SettingError: there is nothing to index, or a number makes no sense.
            DamagedError: a file of the collection is missing or damaged.
            BusyError: another process is indexing.
            StorageError: the disk is full, or cannot be written.
            ModelError: the model or its device cannot be had.
        """
        given = {"nlist": nlist, "workers": workers, "time_limit": time_limit}
        for name, value in given.items():
            if value is not None and not 0 < value < math.inf:
                raise SettingError(f"{name} is {value}; it must be more than 0")
        device = pick_device(self._device)
        catalog = Catalog(self._layout.catalog)  # its own, so that queries see its commits
        try:
            options = UpdateOptions(
                nlist=nlist,
                workers=workers or _cores(),
                time_limit=time_limit,
                device=device,
                gpu=None if device == "cpu" else open_torch(self._model, device),
                progress=progress,
            )
            given_paths = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
            return update(self._layout, catalog, given_paths, options)
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
        options = SearchOptions(k=k, recall=None, nprobe=nprobe, exact=exact)
        embeddings = self._searcher.embed(queries)
        own = self._searcher.ids_of(queries) if exclude_self else None
        find = self._searcher.find if arrays else self._searcher.find_hits
        return find(embeddings, options, own)

    def embed(self, queries: Sequence[Query] | Vectors) -> Vectors:
        """Return the embeddings of queries, float32 `[n, dim]`, L2-normalised.

        Raises:
            ImageError: an image cannot be read.
            InputError: a query is no image and no embedding.
        """
        return self._searcher.embed(queries)

    def info(self) -> Info:
        """Return what the collection holds."""
        view = self._searcher.view()
        counts = self._catalog.counts()
        sizes = [index.list_sizes() for index in view.segments]
        device = pick_device(self._device)
        return Info(
            directory=str(self._layout.directory),
            images=view.count,
            failed=counts.failed,
            skipped=counts.skipped,
            roots=tuple(os.fsdecode(root.path) for root in self._catalog.roots()),
            model=self._model,
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
        own = self._model
        if model not in (None, own.name):
            raise SettingError(
                f"this collection was made with {own.name}, not {model}; "
                "make another one for it with -c"
            )
        if weights in (None, own.weights):
            return
        named = not os.path.isfile(os.path.expanduser(weights))
        if named and not os.path.isabs(own.weights):
            raise SettingError(
                f"this collection was made with the weights {own.weights}, not {weights}; "
                "make another one for them with -c"
            )
        if find_weights(find_network(own.name), weights).sha256 != own.weights_sha256:
            raise SettingError(
                f"this collection was made with the weights {own.weights}, not {weights}; "
                "make another one for them with -c"
            )


def _cores() -> int:
    """Return the number of cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1
