"""Answer queries on the current state of a collection."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

import numpy as np

from imgsearch.ann.vectors import Block, Ids, Neighbours, Vectors, rows_of
from imgsearch.errors import REPAIR_IT, DamagedError, InputError, NoCollectionError
from imgsearch.files.paths import plain_path, real_path, resolved_path
from imgsearch.files.stamps import Stamp, is_settled, stamp_of
from imgsearch.images.crop import Box
from imgsearch.images.limits import LIMITS, Limits
from imgsearch.querying.embedder import Embedder
from imgsearch.querying.filters import Filter, ids_matching
from imgsearch.querying.hits import Answer, HitArrays, Search, answers_of, arrays_of
from imgsearch.querying.options import PathLike, Query, SearchOptions
from imgsearch.querying.ranking import BANDS, RERANKED, Ranked, Ranking
from imgsearch.querying.view import EXACT, Found, OutdatedError, View, open_view, with_present
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import Entry, ModelRecord

if TYPE_CHECKING:  # imported where they are used, so that a plain query need not wait for them
    from imgsearch.ann.inverted import Chosen
    from imgsearch.images.decode import Pixels
    from imgsearch.querying.explanation import Explanation

__all__ = ["FoundHits", "Searchable", "Searcher", "left_out", "names_left_out", "search"]

_Result = TypeVar("_Result")

FILTERS = 8  # filters whose images are remembered for further queries


class FoundHits(NamedTuple):
    """The hits of n queries, and how each was searched."""

    hits: HitArrays
    searches: list[Search]


class Searcher:
    """A searcher of a collection, which also embeds queries. Safe for concurrent use.

    Attributes:
        model: The catalog's record of the model that made the collection.
        embedder: The embedder of queries.
    """

    def __init__(
        self,
        layout: Layout,
        catalog: Catalog,
        device: str,
        threads: int = 0,
        *,
        trust_model: bool = False,
    ) -> None:
        """Read the catalog; the first search opens the index, and the first image the model.

        Args:
            layout: Layout of the collection.
            catalog: Catalog of the collection, which is only read.
            device: Device to embed and search on; "auto" means the CPU, because a query is a
                handful of images.
            threads: Number of threads that embed one query on the CPU; 0 for one per core.
            trust_model: Whether a model that imgsearch did not export may be run.
        """
        self._layout = layout
        self._catalog = catalog
        self._device = device
        self._process = os.getpid()
        self._path = layout.catalog
        self._identity = _identity(_status(self._path))
        self._lock = threading.Lock()
        self._version = catalog.version()  # version of the snapshot, or an earlier one
        self._snapshot = catalog.snapshot()
        self._view: View | None = None  # view of the snapshot, once opened
        self._stamp: Stamp | None = None  # of the catalog, while it tells that the view is current
        self._filtered: list[tuple[View, Filter, Chosen]] = []  # the last first
        self.model = self._snapshot.model
        self.embedder = Embedder(
            *(self.model, device),
            partial(self._checked, layout.check_model, self.model.onnx_sha256),
            threads,
            words=partial(self._checked, layout.check_words, self.model.words_sha256 or ""),
            trust_model=trust_model,
        )

    def view(self) -> View:
        """Return a view of the current state, reusing the last one if nothing was committed since.

        Raises:
            NoCollectionError: If the directory now holds another collection, or none, or this one
                was switched to another network.
            InputError: If another process opened the collection, and this one was forked from it.
        """
        self._check_process()
        with self._lock:
            now, status = time.time_ns(), _status(self._path)
            # Before SQLite reads: the files beside the catalog may no longer belong to it.
            if _identity(status) != self._identity:
                raise NoCollectionError(
                    f"the collection at {self._layout.directory} was moved, deleted or replaced "
                    "after it was opened; open it again"
                )
            self._catalog.check_open()
            stamp = None if status is None else stamp_of(status)
            # Each commit writes to the catalog: while its times stay, SQLite need not look at it.
            if self._view is not None and stamp is not None and stamp == self._stamp:
                return self._view
            version = self._catalog.version()
            if self._version != version:
                self._snapshot = self._catalog.snapshot()
                self._check_network(self._snapshot.model)
            if self._view is None or self._version != version:
                self._view = open_view(
                    *(self._layout, self._catalog, self._snapshot),
                    device="cuda" if self._device == "cuda" else "cpu",
                    previous=self._view,
                )
                self._version = version
            self._stamp = stamp if stamp is not None and is_settled(stamp, now) else None
            return self._view

    def with_view(self, action: Callable[[View], _Result]) -> _Result:
        """Run an action on a view of the current state: see `with_present`."""
        return with_present(self.view, action)

    def close(self) -> None:
        """End the process of a foreign model, whatever it is doing."""
        self.embedder.close()

    def embed(
        self,
        queries: Sequence[Query] | Vectors,
        crop: Box | None = None,
        limits: Limits = LIMITS,
    ) -> Vectors:
        """See `imgsearch.collection.Collection.embed`."""
        if not isinstance(queries, np.ndarray):
            self._check_process()
        return self.embedder.embed(queries, crop, limits)

    def find(
        self, queries: Sequence[Query] | Vectors, embeddings: Vectors, options: SearchOptions
    ) -> HitArrays:
        """Return the nearest images of each query.

        Args:
            queries: Queries that were embedded, for the paths among them.
            embeddings: Embeddings of the queries, float32 `[n, dim]`, L2-normalised.
            options: Options of the search.

        Raises:
            DamagedError: If a file of the collection is missing or damaged.
        """
        return self.with_view(partial(self._find, queries, embeddings, options)).hits

    def answer(
        self, queries: Sequence[Query] | Vectors, embeddings: Vectors, options: SearchOptions
    ) -> list[Answer]:
        """Search as in `find`, and return the hits with their paths."""

        def answer(view: View) -> list[Answer]:
            found = self._find(queries, embeddings, options, view)
            ids = np.unique(found.hits.ids[found.hits.ids >= 0]).tolist()
            paths = self._catalog.paths(ids)
            if len(paths) < len(ids):
                raise OutdatedError(
                    f"{self._layout.catalog} lacks images whose embeddings exist; {REPAIR_IT}"
                )
            return answers_of(found.hits, found.searches, paths)

        return self.with_view(answer)

    def explain(self, entry: Entry, pixels: Pixels) -> Explanation:
        """Explain the similarity of a query and an image.

        Args:
            entry: Entry of the image.
            pixels: Pixels of the query and of the image, uint8 `[2, input_size, input_size, 3]`.
        """
        from imgsearch.querying.explanation import explain

        maps = self.embedder.maps(pixels)
        return self.with_view(lambda view: explain(entry, maps, view.ranking))

    def ids_at(self, path: PathLike) -> list[int]:
        """Return a list with the id of the image at a path, if any."""
        # The path as written, which may lead through a linked folder, and the path it resolves to.
        for absolute in dict.fromkeys((plain_path(path), real_path(path), resolved_path(path))):
            id_ = self._catalog.id_of(absolute)
            if id_ is not None:
                return [id_]
        return []

    def _find(
        self,
        queries: Sequence[Query] | Vectors,
        embeddings: Vectors,
        options: SearchOptions,
        view: View,
    ) -> FoundHits:
        named = names_left_out(queries, options)
        without = left_out(named, self.ids_at)
        among = self._chosen(options.filter, view) if options.filter else None
        by_path = any(not isinstance(image, int) for images in named for image in images)
        if (by_path or among is not None) and view is not self.view():
            # An image to leave out, or to search among, may have had another id in this view.
            raise OutdatedError(
                f"{self._layout.catalog} names other images than before; {REPAIR_IT}"
            )
        return search(view, embeddings, options, without, among)

    def _chosen(self, wanted: Filter, view: View) -> Chosen:
        """Return the images that pass a filter, as of a view if that is still the current one."""
        from imgsearch.ann.inverted import Chosen

        kept = [each for each in self._filtered if each[0] is view]
        found = next((chosen for _, other, chosen in kept if other == wanted), None)
        if found is None:
            found = Chosen(np.array(ids_matching(self._catalog, wanted), np.int64))
        others = [each for each in kept if each[1] != wanted]
        self._filtered = [(view, wanted, found), *others][:FILTERS]  # threads may forget some
        return found

    def _checked(self, check: Callable[[str], Path], sha256: str) -> Path:
        """Return the path of a file of the network, after checking that it is the recorded one."""
        try:
            return check(sha256)
        except DamagedError:
            self.view()  # it may be that of another network by now
            raise

    def _check_network(self, model: ModelRecord) -> None:
        """Refuse to compare embeddings of two networks."""
        own = self.model
        if (model.name, model.weights_sha256) != (own.name, own.weights_sha256):
            raise NoCollectionError(
                f"the collection at {self._layout.directory} was switched to {model.name} after it "
                "was opened; open it again"
            )

    def _check_process(self) -> None:
        """Refuse to work in a forked process, where locks and threads may wait forever."""
        if os.getpid() != self._process:
            raise InputError(
                f"the collection at {self._layout.directory} was opened before this process was "
                "forked; open it in each process"
            )


def _status(path: Path) -> os.stat_result | None:
    """Return the status of a catalog, or None if there is none."""
    try:
        return os.stat(path)
    except OSError:
        return None


def _identity(status: os.stat_result | None) -> tuple[int, int] | None:
    """Return an identity that tells catalogs at the same path apart, or None if there is none."""
    return None if status is None else (status.st_dev, status.st_ino)


class Searchable(Protocol):
    """The images of a collection as of one moment."""

    @property
    def count(self) -> int:
        """The number of images."""
        ...

    @property
    def has_index(self) -> bool:
        """Whether there are inverted lists; otherwise every search is exact."""
        ...

    @property
    def ranking(self) -> Ranking | None:
        """What the collection knows of itself; None while images are ranked by cosine."""
        ...

    def live_blocks(self) -> Iterable[Block]:
        """Yield all images, block by block."""
        ...

    def search(
        self,
        queries: Vectors,
        k: int,
        *,
        recall: float | None,
        nprobe: int | None,
        exact: bool,
        candidates: int = 0,
        among: Chosen | None = None,
    ) -> Found:
        """Return the `k` images nearest to each query, or more; tell how each was searched."""
        ...


def names_left_out(
    queries: Sequence[Query] | Vectors, options: SearchOptions
) -> list[list[PathLike | int]]:
    """Return the paths or ids of images to leave out of each query's hits; empty if there are none.

    Args:
        queries: Queries as given, for the paths among them.
        options: Options of the search.

    Raises:
        InputError: If `exclude` does not have one list for each query.
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
) -> list[Ids]:
    """Return the ids to leave out of each query's hits, int64, ascending.

    Args:
        named: Paths or ids for each query, as returned by `names_left_out`.
        ids_at: Function that returns the ids of the images at a path.
    """
    found = [
        {id_ for image in images for id_ in ([image] if isinstance(image, int) else ids_at(image))}
        for images in named
    ]
    return [np.array(sorted(ids), np.int64) for ids in found]


def search(
    view: Searchable,
    queries: Vectors,
    options: SearchOptions,
    without: Sequence[Ids] = (),
    among: Chosen | None = None,
) -> FoundHits:
    """Return the images nearest to each query, and how each query was searched.

    Args:
        view: Images to search.
        queries: Embeddings of the queries, float32 `[n, dim]`, L2-normalised.
        options: Options of the search.
        without: Ids to leave out for each query, as returned by `left_out`; empty for none.
        among: Images to search among; None for all.
    """
    count = view.count if among is None else len(among.ids)
    k = min(options.k, count)
    if not k:
        none = Ranked.plain(Neighbours.none(len(queries), 0))
        return FoundHits(arrays_of(none), [EXACT] * len(queries))
    more = max(map(len, without), default=0)
    ranking = view.ranking if len(queries) and not options.by_words else None
    ranked_again = RERANKED if ranking and options.rank == "collection" else 0
    found = view.search(
        queries,
        k + more,
        recall=options.recall,
        nprobe=options.nprobe,
        exact=options.exact,
        candidates=min(ranked_again, count) + more,
        among=among,
    )
    neighbours = Neighbours(found.distances, found.ids)
    if more:
        rows = zip(neighbours.ids, without, strict=True)
        dropped = np.array([rows_of(ids, excluded) for ids, excluded in rows])
        neighbours = neighbours.without(dropped & neighbours.there)
    if ranking is None:
        ranked = Ranked.plain(neighbours.first(k))
    else:
        neighbours = neighbours.first(max(k, ranked_again))
        ranked = ranking.order(queries, neighbours, rank=options.rank, k=k)
    return FoundHits(arrays_of(_only_wanted(ranked, options)), found.searches)


def _only_wanted(ranked: Ranked, options: SearchOptions) -> Ranked:
    """Drop the hits below the minimum similarity or band; a hit of no band is never too weak."""
    if options.min_similarity is None and options.min_band is None:
        return ranked
    kept = ranked.neighbours.there
    if options.min_similarity is not None:
        # 5e-7, so that a similarity is compared as it is printed, with six digits.
        most = 2 * (1 - (options.min_similarity - 5e-7))
        kept &= np.maximum(ranked.neighbours.distances, 0) <= most
    if options.min_band is not None:
        kept &= (ranked.bands < 0) | (ranked.bands >= BANDS.index(options.min_band))
    return ranked if kept.all() else ranked.only(kept)
