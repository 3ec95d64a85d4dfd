"""Answer queries on the present state of a collection."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from imgsearch.ann.vectors import Ids, Vectors, rows_of
from imgsearch.errors import MEND, DamagedError, InputError, NoCollectionError, missing
from imgsearch.files.paths import plain_path, real_path, resolved_path
from imgsearch.images.crop import Box
from imgsearch.images.limits import LIMITS, Limits
from imgsearch.querying.embedder import Embedder
from imgsearch.querying.hits import Answer, HitArrays, Search, answers_of, arrays_of
from imgsearch.querying.options import PathLike, Query, SearchOptions
from imgsearch.querying.view import View, open_view
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import ModelRecord
from imgsearch.storage.roots import Roots

__all__ = ["Searchable", "Searcher", "left_out", "names_left_out", "search"]


class Searcher:
    """Embeds queries and searches a collection. Safe for concurrent use."""

    def __init__(
        self,
        layout: Layout,
        catalog: Catalog,
        record: ModelRecord,
        device: str,
        threads: int = 0,
        *,
        trust_model: bool = False,
    ) -> None:
        """Open nothing yet: the index is opened by the first search, the model by the first image.

        Args:
            layout: of the collection.
            catalog: of the collection; only read.
            record: of the model that made the collection.
            device: "auto" embeds on the CPU, as a query is a handful of images.
            threads: that embed one query on the CPU; 0 for one a core.
            trust_model: Whether a model that imgsearch did not export may be run.
        """
        self._layout = layout
        self._catalog = catalog
        self._record = record
        self._device = device
        self._embedder = Embedder(record, device, self._model, threads, trust_model=trust_model)
        self._process = os.getpid()
        self._identity = _identity(layout)
        self._lock = threading.Lock()
        self._opened: tuple[int, View] | None = None
        self._roots: tuple[View, Roots] | None = None

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

    def close(self) -> None:
        """End what runs a foreign model, whatever it is at."""
        self._embedder.close()

    def embed(
        self,
        queries: Sequence[Query] | Vectors,
        crop: Box | None = None,
        limits: Limits = LIMITS,
    ) -> Vectors:
        """See `imgsearch.collection.Collection.embed`."""
        if not isinstance(queries, np.ndarray):
            self._check_process()
        return self._embedder.embed(queries, crop, limits)

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
            ids = sorted({id_ for row in found.ids.tolist() for id_ in row if id_ >= 0})
            paths = self._catalog.paths(ids)
            if len(paths) == len(ids):
                return answers_of(found, searches, paths)
            if view is self.view():  # else an image was replaced meanwhile
                raise DamagedError(
                    f"{self._layout.catalog} lacks images whose embeddings are there; {MEND}"
                )

    def _roots_of(self, view: View) -> Roots:
        """Return the roots of the collection as of a view, or later."""
        known = self._roots
        if known is None or known[0] is not view:
            self._roots = known = view, Roots(self._catalog.roots())
        return known[1]

    def _ids_at(self, view: View, path: PathLike) -> list[int]:
        """Return the id of the image at a path as of a view or later, nothing if there is none."""
        roots = self._roots_of(view)
        # As it is written, for it may lead through a linked folder, and as it is.
        for absolute in dict.fromkeys((plain_path(path), real_path(path), resolved_path(path))):
            folder, name = os.path.split(absolute)
            place = roots.find(folder)
            id_ = self._catalog.id_at(place.spot(name)) if place else None
            if id_ is not None:
                return [id_]
        return []

    def _find(
        self, queries: Sequence[Query] | Vectors, embeddings: Vectors, options: SearchOptions
    ) -> tuple[View, HitArrays, list[Search]]:
        named = names_left_out(queries, options)
        by_path = any(not isinstance(image, int) for images in named for image in images)
        while True:
            view = self.view()
            without = None
            if named:
                without = left_out(named, partial(self._ids_at, view))
                if by_path and view is not self.view():
                    continue  # an image to be left out may have had another id in this view
            try:
                return view, *search(view, embeddings, options, without)
            except FileNotFoundError as error:
                if view is self.view():  # else a writer has just replaced it
                    raise missing(error) from error

    def _model(self) -> Path:
        self._layout.check_model(self._record.onnx_sha256)
        return self._layout.model

    def _check_process(self) -> None:
        """Refuse to work in a forked process, where locks and threads may wait for ever."""
        if os.getpid() != self._process:
            raise InputError(
                f"the collection at {self._layout.directory} was opened before this process was "
                "forked; open it in each process"
            )


def _identity(layout: Layout) -> tuple[int, int] | None:
    """Return what tells a catalog from another at the same place; None if there is none."""
    try:
        status = os.stat(layout.catalog)
    except OSError:
        return None
    return status.st_dev, status.st_ino


class Searchable(Protocol):
    """The images of a collection as of one moment."""

    @property
    def count(self) -> int:
        """The number of images."""
        ...

    @property
    def has_index(self) -> bool:
        """Whether there are inverted lists; else every search is exact."""
        ...

    def live_blocks(self) -> Iterable[tuple[Ids, Vectors]]:
        """Yield ids int64 `[m]` and vectors float32 `[m, dim]` block by block."""
        ...

    def search(
        self, queries: Vectors, k: int, *, recall: float | None, nprobe: int | None, exact: bool
    ) -> tuple[Vectors, Ids, list[Search]]:
        """Return squared L2 distances and ids `[n, k]`, nearest first, and how they were found."""
        ...


def names_left_out(
    queries: Sequence[Query] | Vectors, options: SearchOptions
) -> list[list[PathLike | int]]:
    """Return the paths or ids of images that are no hits of each query; nothing if there are none.

    Args:
        queries: as they were asked, for the paths among them.
        options: how to search.

    Raises:
        InputError: `exclude` has not one list for each query.
    """
    if options.exclude and len(options.exclude) != len(queries):
        raise InputError(
            f"exclude has {len(options.exclude)} entries for {len(queries)} queries; "
            "give a list of paths or ids for each query"
        )
    own: list[list[PathLike | int]] = []
    if options.leaves_self_out and not isinstance(queries, np.ndarray):
        own = [[query] if isinstance(query, str | os.PathLike) else [] for query in queries]
    named = [list(images) for images in options.exclude]
    if named and own:
        named = [images + self for images, self in zip(named, own, strict=True)]
    named = named or own
    return named if any(named) else []


def left_out(
    named: list[list[PathLike | int]], ids_at: Callable[[PathLike], Collection[int]]
) -> Ids:
    """Return the ids that are no hits of each query, int64 `[n, m]`; -1 stands for none.

    Args:
        named: as from `names_left_out`.
        ids_at: returns the ids of the images at a path.
    """
    found = [
        {id_ for image in images for id_ in ([image] if isinstance(image, int) else ids_at(image))}
        for images in named
    ]
    out = np.full((len(found), max(map(len, found), default=0)), -1, dtype=np.int64)
    for row, ids in zip(out, found, strict=True):
        row[: len(ids)] = sorted(ids)
    return out


def search(
    view: Searchable, queries: Vectors, options: SearchOptions, without: Ids | None
) -> tuple[HitArrays, list[Search]]:
    """Return the nearest images of each query, and how they were found.

    Args:
        view: what is searched.
        queries: float32 `[n, dim]`, L2-normalised.
        options: how to search.
        without: as from `left_out`; None for nothing.
    """
    k = min(options.k, view.count)
    if not k:
        nothing = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        return arrays_of(*nothing), [Search("exact", 0, 1.0)] * len(queries)
    distances, ids, searches = view.search(
        queries,
        k if without is None else k + without.shape[1],
        recall=options.recall,
        nprobe=options.nprobe,
        exact=options.exact,
    )
    if without is not None and without.size:
        distances, ids = _without(distances, ids, without)
    found = arrays_of(distances[:, :k], ids[:, :k])
    if options.min_similarity is not None:
        # 5e-7, so that what is printed with six digits is compared as it is printed.
        near = found.similarities >= options.min_similarity - 5e-7
        found = HitArrays(np.where(near, found.ids, -1), found.distances, found.similarities)
    return found, searches


def _without(distances: Vectors, ids: Ids, left_out: Ids) -> tuple[Vectors, Ids]:
    """Put the ids to be left out of each row behind all others, as -1."""
    sorted_out = np.sort(left_out)
    drop = np.array([rows_of(row, out) for row, out in zip(ids, sorted_out, strict=True)])
    drop &= ids >= 0
    order = np.argsort(drop, axis=1, kind="stable")
    rows = np.arange(len(ids))[:, None]
    return distances[rows, order], np.where(drop, -1, ids)[rows, order]
