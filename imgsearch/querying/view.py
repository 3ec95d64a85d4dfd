"""A view: a collection as of one commit, opened for searching.

Search = segments ∪ tail − removed. The tail consists of all ids above the last segment. It is
searched exactly, so that an image is found from the moment it is committed.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from imgsearch.ann.exact import candidates_for, merge, rerank, rerank_estimated, search_exactly
from imgsearch.ann.threads import in_parts
from imgsearch.ann.vectors import Block, Ids, Neighbours, Vectors, rows_of
from imgsearch.errors import DamagedError, NoImageError, missing
from imgsearch.images.limits import machine_memory
from imgsearch.querying.hits import Search
from imgsearch.querying.ranking import Ranking
from imgsearch.querying.segments import open_segment
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.layers import Layers
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import IvfRecord, Shard, Snapshot
from imgsearch.storage.shards import ShardCache, read_ahead

if TYPE_CHECKING:  # a small collection has no lists
    from imgsearch.ann.inverted import Chosen, InvertedFile, NearestLists
    from imgsearch.ann.promise import Promise

__all__ = ["EXACT", "Found", "OutdatedError", "View", "open_view", "with_present"]

TAIL_KEPT = 128 << 20  # maximum bytes of a tail kept in memory; a longer one is read each time
SHARE_OF_MEMORY = 0.5  # of the machine: more embeddings may not all stay in it
FEW_ROWS = 16  # of each shard, up to which candidates are copied
AHEAD = 512  # shards of which rows are read ahead
EXACT = Search("exact", 0, 1.0)
#: Number of chosen images up to which all of them are compared, which takes a few milliseconds.
FEW_CHOSEN = 3_000
FEW_QUERIES = 8  # of a batch, up to which they are compared one by one
TEN = 10  # hits that recall@10 counts
MOST = 0.5  # share of the chosen images from which on comparing all is as quick as scanning lists

_State = TypeVar("_State")
_Result = TypeVar("_Result")
_Number = TypeVar("_Number", np.int64, np.float32)


class Found(NamedTuple):
    """The result of a search: the fields of `Neighbours`, and how each query was searched."""

    distances: Vectors
    ids: Ids
    searches: list[Search]

    @classmethod
    def joined(cls, parts: Sequence[Found]) -> Found:
        """Combine the results of parts of a batch, in their order."""
        distances, ids, searches = zip(*parts, strict=True)
        return cls(np.concatenate(distances), np.concatenate(ids), list(chain(*searches)))


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Queries that are searched alike.

    Attributes:
        rows: Row numbers of the queries, int64 `[m]`.
        searches: Search of each query, as reported.
        nearest: Lists to probe; None for exact search.
    """

    rows: Ids
    searches: Sequence[Search]
    nearest: NearestLists | None = None


class View:
    """A `snapshot` with its files opened. Safe for concurrent searches.

    `count` is the number of images; `removed` has the ids that must not be found, int64, sorted;
    `promise` is None if there are no lists; `ranking` is None while images are ranked by cosine.
    """

    def __init__(
        self,
        layout: Layout,
        snapshot: Snapshot,
        *,
        device: str = "cpu",
        previous: View | None = None,
    ) -> None:
        """Open the segments; shards are mapped when they are read.

        Args:
            layout: Layout of the collection.
            snapshot: Snapshot of its catalog.
            device: Device for searching the segments.
            previous: Earlier view with the same device, whose open files are reused.

        Raises:
            FileNotFoundError: If a file is missing; another process may just have replaced it.
            DamagedError: If a file does not match the catalog.
        """
        self.snapshot = snapshot
        self._on_gpu = device != "cpu"  # which shares a batch among its own threads
        self.removed: Ids = np.array(snapshot.removed, dtype=np.int64)
        self.count = sum(shard.count for shard in snapshot.shards) - len(self.removed)
        self._stale: Ids = np.array(snapshot.stale, dtype=np.int64)
        there = previous._opened if previous else {}
        ivf = snapshot.ivf
        compact = ivf is not None and ivf.pca is not None
        self._opened: dict[int, InvertedFile] = {
            segment.number: there.get(segment.number)
            or open_segment(layout, segment, compact=compact, device=device)
            for segment in snapshot.segments
        }
        self.segments = list(self._opened.values())
        self._first_ids = np.array([shard.first_id for shard in snapshot.shards], np.int64)
        self._last_ids = np.array([shard.last_id for shard in snapshot.shards], np.int64)
        self.promise = _promise_of(ivf) if ivf and self.segments else None
        self._indexed = max((segment.last_id for segment in snapshot.segments), default=0)
        self._tail = [shard for shard in snapshot.shards if shard.last_id > self._indexed]
        self._kept: Block | None = None
        self._spread: tuple[Chosen, Ids] | None = None
        cache = previous._cache if previous else ShardCache(layout.vectors, snapshot.model.dim)
        self._cache: ShardCache = cache.kept(snapshot.shards)
        size = 4 * snapshot.model.dim * self.count
        self._exceeds_memory = size > SHARE_OF_MEMORY * machine_memory()
        self.ranking: Ranking | None = None
        if snapshot.ranking is not None:
            layers = Layers.open(layout.layers, snapshot.layers, snapshot.model.dim)
            # A cycle of references would keep the files of an outdated view mapped for a while.
            self.ranking = Ranking(snapshot.ranking, layers, weakref.proxy(self))

    @property
    def folder(self) -> Path:
        """The folder of the embeddings."""
        return self._cache.folder

    @property
    def has_index(self) -> bool:
        """Whether there are inverted lists; otherwise every search is exact."""
        return self.promise is not None

    @property
    def outdated(self) -> bool:
        """Whether the segments are of a kind that a newer one has replaced."""
        return any(segment.outdated for segment in self.segments)

    @property
    def tail_count(self) -> int:
        """The number of images that no segment holds."""
        dead = int((self.removed > self._indexed).sum())
        return sum(shard.count for shard in self._tail) - dead

    @property
    def nprobe(self) -> tuple[int, ...]:
        """The number of lists that keeps the promise in each band; 0 stands for exact search."""
        if self.promise is None:
            return ()
        plan = self.promise.keep(self.snapshot.settings.recall)
        return tuple(plan.nprobe.tolist())

    def embeddings(self, ids: Sequence[int]) -> Vectors:
        """Return the embeddings of images, float32 `[n, dim]`, in the order of `ids`.

        If they are consecutive rows of one shard, they are a read-only view of its file.

        Raises:
            NoImageError: If an image is not, or no longer, in the collection.
        """
        wanted = np.array(ids, np.int64)
        for id_ in wanted[rows_of(wanted, self.removed)].tolist():
            raise NoImageError(id_)
        for there, vectors in self._read(self._shards_of(wanted[:1])):
            row = int(there.searchsorted(wanted[0]))
            if np.array_equal(there[row : row + len(wanted)], wanted):
                return vectors[row : row + len(wanted)]
        distinct, places = np.unique(wanted, return_inverse=True)
        return self.rows(distinct)[places]

    def has(self, ids: Ids) -> npt.NDArray[np.bool_]:
        """Tell which of some distinct ids, ascending, are those of images, bool `[n]`."""
        known = np.zeros(len(ids), np.bool_)
        for there, _ in self._read(self._shards_of(ids)):
            known |= rows_of(ids, there)
        return np.asarray(known & ~rows_of(ids, self.removed))

    def rows(self, ids: Ids) -> Vectors:
        """Return the embeddings of distinct ids, ascending, float32 `[n, dim]`.

        Raises:
            NoImageError: If there is no embedding of an id.
        """
        found, known = self._copied(ids)
        for id_ in ids[~known].tolist():
            raise NoImageError(id_)
        return found

    def _copied(self, ids: Ids) -> tuple[Vectors, npt.NDArray[np.bool_]]:
        """Return the embeddings of distinct ids, ascending, and a mask of those that exist."""
        found = np.empty((len(ids), self.snapshot.model.dim), np.float32)
        known = np.zeros(len(ids), np.bool_)
        parts = list(self._found(ids))
        if self._exceeds_memory:
            for _, rows, vectors in parts:
                read_ahead(vectors, rows)
        for places, rows, vectors in parts:
            if rows.size == 1:  # as are most of a few in many shards
                found[places] = vectors[rows[0]]
            elif isinstance(places, slice):  # without another copy; "raise" would make one
                vectors.take(rows, axis=0, out=found[places], mode="clip")
            else:
                found[places] = vectors.take(rows, axis=0)
            known[places] = True
        return found, known

    def _blocks_of(self, ids: Ids) -> Iterator[Block]:
        """Yield the embeddings of distinct ids, ascending, shard by shard, as far as they exist."""
        for places, rows, vectors in self._found(ids):
            if rows.size == rows[-1] - rows[0] + 1:  # without a copy
                yield Block(ids[places], vectors[rows[0] : rows[-1] + 1])
            else:
                yield Block(ids[places], vectors.take(rows, axis=0))

    def _found(self, ids: Ids) -> Iterator[tuple[slice | Ids, Ids, Vectors]]:
        """Yield places in distinct ids, ascending, their rows in a shard, and its embeddings."""
        owners = self._last_ids.searchsorted(ids)
        edges = np.flatnonzero(np.diff(owners, prepend=-1, append=-1)).tolist()
        numbers = owners[edges[:-1]].tolist()
        rows_of_all = ids - self._first_ids.take(owners, mode="clip")
        for number, start, end in zip(numbers, edges, edges[1:], strict=False):
            if number == len(self.snapshot.shards):  # beyond the last one
                return
            shard = self.snapshot.shards[number]
            there, vectors = self._cache.rows(shard)
            rows = rows_of_all[start:end]
            if shard.ids_sha256 is None and rows[0] >= 0:  # without a gap
                yield slice(start, end), rows, vectors
                continue
            places = slice(start, end)
            rows = np.searchsorted(there, ids[places])
            known = there[rows] == ids[places]
            if known.any():
                yield start + np.flatnonzero(known), rows[known], vectors

    def live_ids(self) -> Ids:
        """Return the ids of all images, ascending, int64."""
        blocks = [block.ids for block in self._read(self.snapshot.shards)]
        ids = np.concatenate([np.empty(0, np.int64), *blocks])
        return np.asarray(ids[~rows_of(ids, self.removed)])

    def live_blocks(self) -> Iterator[Block]:
        """Yield the ids and vectors of each shard, without removed images."""
        return map(self._live, self._read(self.snapshot.shards))

    def live_tail(self) -> Iterator[Block]:
        """Yield the ids and vectors of the tail, without removed images."""
        return map(self._live, self._read(self._tail))

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
        """Return the `k` images nearest to each query, or more.

        Args:
            queries: Queries, float32 `[n, dim]`.
            k: Number of hits per query.
            recall: Recall@10 to keep; None for the recall that the collection promises.
            nprobe: Number of lists per query, whatever the recall; None for as many as `recall`
                requires.
            exact: Whether to compare with every vector instead.
            candidates: Number of images to return if it is more than `k` and the lists that are
                searched for `k` hold so many.
            among: Images to find; None for all.
        """
        search = partial(
            self._search, k=k, width=max(k, candidates), recall=recall, nprobe=nprobe, among=among
        )
        if exact or among is not None or self.promise is None or self._on_gpu:
            return search(queries, exact=exact)
        parts = in_parts(len(queries), lambda rows: search(queries[rows], exact=False))
        return parts[0] if len(parts) == 1 else Found.joined(parts)

    def _search(
        self,
        queries: Vectors,
        *,
        k: int,
        width: int,
        recall: float | None,
        nprobe: int | None,
        exact: bool,
        among: Chosen | None,
    ) -> Found:
        """Return the `width` images nearest to each query, of which `k` must be right."""
        recall = recall or self.snapshot.settings.recall
        few = among is not None and len(among.ids) <= FEW_CHOSEN
        exact = exact or (nprobe is None and (recall >= 1 or few))
        if exact or self.promise is None or not len(queries):
            groups = [_exactly(np.arange(len(queries)))]
        elif nprobe is not None:
            groups = self._plan_lists(queries, nprobe, self.promise)
        elif among is not None:
            groups = self._plan_among(queries, recall, self.promise, among)
        else:
            groups = self._plan_recall(queries, recall, self.promise)
        found = [self._run(queries, k, width, group, among) for group in groups]
        if nprobe is None and self.promise is not None:
            more = self._plan_more(queries, k, groups, found, among)
            groups = groups + more
            found += [self._run(queries, k, width, group, among) for group in more]
        return _gathered(len(queries), width, groups, found)

    def _plan_lists(self, queries: Vectors, nprobe: int, promise: Promise) -> list[_Group]:
        """Plan to probe the requested number of lists, with the recall to expect from them."""
        nearest = self.segments[0].assign(queries, min(nprobe, self.segments[0].nlist))
        nprobe = nearest.lists.shape[1]
        bands = promise.band_of(nearest.distances[:, 0]).tolist()
        ways = {band: Search("ivf", nprobe, promise.expected(band, nprobe)) for band in set(bands)}
        return [_Group(np.arange(len(queries)), [ways[band] for band in bands], nearest)]

    def _plan_recall(self, queries: Vectors, recall: float, promise: Promise) -> list[_Group]:
        """Plan to keep `recall`: see `imgsearch.ann.promise`."""
        plan = promise.keep(recall)
        nearest = self.segments[0].assign(queries, max(1, int(plan.nprobe.max())))
        bands = promise.band_of(nearest.distances[:, 0])
        planned = plan.lists[bands]
        groups = []
        for nprobe in sorted(set(planned.tolist())):
            rows = (planned == nprobe).nonzero()[0]
            if not nprobe:
                groups.append(self._far(queries, rows))
                continue
            own = bands[rows].tolist()
            ways = {band: Search("ivf", nprobe, float(plan.recall[band])) for band in set(own)}
            searches = [ways[band] for band in own]
            groups.append(_Group(rows, searches, nearest.of(rows, nprobe)))
        return groups

    def _far(self, queries: Vectors, rows: Ids) -> _Group:
        """Plan for queries that no number of lists is known to suffice for.

        To compare them with every embedding takes a minute if these have to be read from the disk:
        then all codes of a compact index are compared instead.
        """
        index = self.segments[0]
        if not (index.lossy and self._exceeds_memory):
            return _exactly(rows)
        wide = Search("wide", index.nlist, None)
        return _Group(rows, [wide] * len(rows), index.assign(queries[rows], index.nlist))

    def _plan_among(
        self, queries: Vectors, recall: float, promise: Promise, among: Chosen
    ) -> list[_Group]:
        """Plan to keep `recall` among the chosen images.

        Lists without any of them do not count, as if their centroids did not exist: then the bands
        mean what they were measured with, which is queries whose nearest lists were left out. The
        band is that of the distance within which there are ten of them. And as many of them are
        compared as would be of all images, because the nearest of a share of the images are spread
        over more lists.
        """
        index, held = self.segments[0], self._held(among)
        if not held.any():
            return [_exactly(np.arange(len(queries)))]
        near = index.assign(queries, index.nlist).only(held > 0)
        compared = np.cumsum(held[near.lists], axis=1)
        plan = promise.keep(recall)
        # Not the nearest of these lists: it may hold but one of the chosen images.
        ten = 1 + np.sum(compared < TEN, axis=1)
        bands = promise.band_of(_at(near.distances, ten))
        planned = plan.lists[bands]
        sizes = np.sum([segment.list_sizes() for segment in self.segments], axis=0)
        usual = _at(np.cumsum(sizes[near.lists], axis=1), planned)
        nprobe = np.maximum(planned, 1 + np.sum(compared < usual[:, None], axis=1))
        nprobe = nprobe.clip(max=near.lists.shape[1])
        exactly = (planned == 0) | (_at(compared, nprobe) > MOST * len(among.ids))
        rows = np.flatnonzero(~exactly)
        groups = [_exactly(np.flatnonzero(exactly))] if exactly.any() else []
        if rows.size:
            facts = zip(nprobe[rows].tolist(), bands[rows].tolist(), strict=True)
            searches = [Search("ivf", count, float(plan.recall[band])) for count, band in facts]
            groups.append(_Group(rows, searches, near.each(rows, nprobe[rows])))
        return groups

    def _held(self, among: Chosen) -> Ids:
        """Return how many chosen images each list holds, int64 `[nlist]`."""
        if self._spread is None or self._spread[0] is not among:
            counts: Ids = np.sum([segment.counts_of(among) for segment in self.segments], axis=0)
            self._spread = among, counts
            return counts
        return self._spread[1]

    def _plan_more(
        self,
        queries: Vectors,
        k: int,
        groups: Sequence[_Group],
        found: Sequence[Neighbours],
        among: Chosen | None,
    ) -> list[_Group]:
        """Plan again for the queries whose lists hold fewer than `k` images."""
        short = [
            group.rows[part.ids[:, k - 1] < 0]
            for group, part in zip(groups, found, strict=True)
            if group.nearest is not None
        ]
        if not any(map(len, short)):
            return []
        rows = np.concatenate(short)
        index = self.segments[0]
        if among is not None:  # a search of all lists is dearer
            return [_exactly(rows)]
        if index.lossy:  # and still not exact
            return [self._far(queries, rows)]
        wide = Search("wide", index.nlist, 1.0)
        return [_Group(rows, [wide] * len(rows), index.assign(queries[rows], index.nlist))]

    def _run(
        self, queries: Vectors, k: int, width: int, group: _Group, among: Chosen | None
    ) -> Neighbours:
        """Return the `width` nearest for one group of queries, of which `k` must be right."""
        if len(group.rows) < len(queries):
            queries = queries[group.rows]
        if group.nearest is None:
            if among is not None:
                return self._compare(queries, among.ids, width)
            return search_exactly(queries, self._read(self.snapshot.shards), width, self.removed)
        found = self.search_lists(
            self.segments, queries, k, group.nearest, among=among, width=width
        )
        if not self._tail:
            return found
        tail = self._tail_blocks()
        if among is not None:
            tail = self._blocks_of(among.ids[among.ids > self._indexed])
        return merge([found, search_exactly(queries, tail, width)], width)

    def _compare(self, queries: Vectors, ids: Ids, k: int) -> Neighbours:
        """Return the `k` nearest of some images, by comparing all of them."""
        if len(queries) > FEW_QUERIES or len(ids) > FEW_CHOSEN:
            return search_exactly(queries, self._blocks_of(ids), k)
        # Without copying their embeddings, which would take longer than to compare them.
        padded = np.pad(ids, (0, max(0, k - len(ids))), constant_values=-1)
        candidates = np.broadcast_to(padded, (len(queries), len(padded)))
        return rerank(queries, candidates, self._read(self._shards_of(ids)), k)

    def search_lists(
        self,
        segments: Sequence[InvertedFile],
        queries: Vectors,
        k: int,
        nearest: NearestLists,
        excluded: Ids | None = None,
        among: Chosen | None = None,
        width: int = 0,
    ) -> Neighbours:
        """Return the `k` nearest images in the lists of segments, or more.

        Args:
            segments: Segments of this view, or others with the same training and images of it.
            queries: Queries, float32 `[n, dim]`.
            k: Number of hits per query.
            nearest: Lists of each query, as returned by `InvertedFile.assign`.
            excluded: Sorted ids to skip; None for the removed ids that segments may still hold.
            among: Images to find; None for all.
            width: Number of images to return if it is more than `k`; of a compact index, those
                beyond the `k` nearest are not always the next ones.
        """
        pca = segments[0].pca
        count = self.count if among is None else len(among.ids)
        width = max(k, width)
        compared = width if pca is None else max(candidates_for(k, count, pca), width)
        out = self._stale if excluded is None else excluded
        parts = [index.search(compared, nearest, out, among) for index in segments]
        found = merge(parts, compared) if len(parts) > 1 else parts[0]
        if pca is None:
            return found
        return rerank_estimated(queries, found, self.candidates, width, pca)

    def candidates(self, ids: Ids) -> Iterator[Block]:
        """Yield blocks with some images, `[n]` or `[n, m]`: copies of a few, or whole shards."""
        if ids.size <= FEW_ROWS * len(self._first_ids):  # quicker than to visit each shard
            distinct = np.unique(ids)
            vectors, known = self._copied(distinct)
            return iter([Block(distinct[known], vectors if known.all() else vectors[known])])
        if self._exceeds_memory:
            return self._read_ahead(np.unique(ids))
        return self._read(self._shards_of(ids))

    def _read_ahead(self, ids: Ids) -> Iterator[Block]:
        """Yield the shards of some images, ascending, some of whose rows will be read."""
        shards = self._shards_of(ids)
        for start in range(0, len(shards), AHEAD):
            some = shards[start : start + AHEAD]
            first, last = np.searchsorted(ids, (some[0].first_id, some[-1].last_id + 1))
            for _, rows, vectors in self._found(ids[first:last]):
                read_ahead(vectors, rows)
            yield from self._read(some)

    def _shards_of(self, ids: Ids) -> list[Shard]:
        """Return the shards whose ranges may contain any of the ids, `[n]` or `[n, m]`."""
        places = self._first_ids.searchsorted(ids.reshape(-1), side="right")  # 0: in no shard
        touched = np.flatnonzero(np.bincount(places)[1:])
        return [self.snapshot.shards[place] for place in touched.tolist()]

    def _tail_blocks(self) -> Iterable[Block]:
        size = 4 * self.snapshot.model.dim * sum(shard.count for shard in self._tail)
        if size > TAIL_KEPT:
            return self.live_tail()
        if self._kept is None:  # two threads may do this at once, with the same result
            self._kept = Block(*map(np.concatenate, zip(*self.live_tail(), strict=True)))
        return [self._kept]

    def _read(self, shards: Iterable[Shard]) -> Iterator[Block]:
        return (Block(*rows) for rows in self._cache.read(shards))

    def _live(self, block: Block) -> Block:
        live = ~rows_of(block.ids, self.removed)
        return block if live.all() else Block(block.ids[live], block.vectors[live])


def _promise_of(ivf: IvfRecord) -> Promise | None:
    """Return the promise of an index, or None if its recall was never measured."""
    from imgsearch.ann.promise import Promise, Step

    steps = [Step(*astuple(step)) for step in ivf.curve]
    return Promise(steps) if steps else None


def _at(values: npt.NDArray[_Number], counts: Ids) -> npt.NDArray[_Number]:
    """Return the last of the first `counts` values of each row, or the nearest that there is."""
    last = (counts - 1).clip(0, values.shape[1] - 1)
    return np.asarray(np.take_along_axis(values, last[:, None], 1)[:, 0])


def _exactly(rows: Ids) -> _Group:
    return _Group(rows, [EXACT] * len(rows))


def _gathered(queries: int, k: int, groups: Sequence[_Group], found: Sequence[Neighbours]) -> Found:
    """Combine the results of groups of queries; a later group prevails."""
    if len(groups) == 1:
        return Found(*found[0], list(groups[0].searches))
    rows = [group.rows for group in groups]
    searches = [EXACT] * queries
    for group in groups:
        for row, search in zip(group.rows.tolist(), group.searches, strict=True):
            searches[row] = search
    return Found(*Neighbours.scattered(queries, k, zip(rows, found, strict=True)), searches)


class OutdatedError(Exception):
    """An inconsistency in the data that was read; a writer may have made changes meanwhile.

    The message says what is damaged if no writer has.
    """


def with_present(present: Callable[[], _State], action: Callable[[_State], _Result]) -> _Result:
    """Run an action on the current state of a collection, and return its result.

    Between reading the state and opening the files that it names, a writer may replace the files:
    then the action runs again on the new current state.

    Args:
        present: Function that returns the state, an equal one as long as nothing is committed.
        action: Function of the state, to run.

    Raises:
        DamagedError: If files that the catalog names are missing or inconsistent.
    """
    while True:
        state = present()
        try:
            return action(state)
        except FileNotFoundError as error:
            if present() == state:
                raise missing(error) from error
        except OutdatedError as error:
            if present() == state:
                raise DamagedError(str(error)) from error


def open_view(
    layout: Layout,
    catalog: Catalog,
    snapshot: Snapshot | None = None,
    *,
    device: str = "cpu",
    previous: View | None = None,
) -> View:
    """Open the current state of a collection; raises as `with_present`.

    Args:
        layout: Layout of the collection.
        catalog: Catalog of the collection.
        snapshot: Snapshot of the catalog, if one has just been read.
        device: Device for searching: see `View`.
        previous: Earlier view to reuse: see `View`.
    """
    snapshots = chain([snapshot] if snapshot else [], iter(catalog.snapshot, None))
    return with_present(
        partial(next, snapshots),
        lambda snapshot: View(layout, snapshot, device=device, previous=previous),
    )
