"""What `bench_growth` times: one update of a collection, and queries beside those of a fresh index.

Sizes are numbers of vectors, times are seconds.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

from benchmarks.subjects import ROWS, Vectors, commit_vectors, copy_collection
from imgsearch import Collection
from imgsearch.indexing.fold import fold, remove_orphans
from imgsearch.indexing.policy import POLICY, FoldPolicy
from imgsearch.querying.view import View, open_view
from imgsearch.storage.files import exclusive
from imgsearch.storage.layout import Layout
from imgsearch.storage.writer import CatalogWriter

__all__ = ["Checkpoint", "K", "Queries", "Update", "check", "run_update"]

K = 10


@dataclass(frozen=True, slots=True)
class Update:
    """One update.

    Attributes:
        images: that there are after it.
        seconds: of the whole update.
        committing: of these, what writing and committing the new vectors took, without the index.
        retrained: whether the centroids were retrained.
        segments: after it.
        shards: after it.
        tail: images that no segment holds, after it.
        nlist: number of lists, 0 if there are none.
        written: bytes of the files of vectors and segments that are new.
    """

    images: int
    seconds: float
    committing: float
    retrained: bool
    segments: int
    shards: int
    tail: int
    nlist: int
    written: int


@dataclass(frozen=True, slots=True)
class Queries:
    """Queries one at a time, of one collection.

    `p50` and `mean` are seconds, one figure a turn; `recall` is recall@10 against exact search,
    `exactly` the share of queries that were answered by exact search; `nprobe` of each band.
    """

    p50: tuple[float, ...]
    mean: tuple[float, ...]
    recall: float
    exactly: float
    nprobe: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A grown collection beside a fresh one, made of the same vectors in one go.

    `due` tells whether the next update retrains, which is when the index is at its worst;
    `fresh_seconds` is what the fresh one's index took.
    """

    images: int
    due: bool
    trained: int
    segments: int
    shards: int
    tail: int
    nlist: int
    fresh_nlist: int
    fresh_shards: int
    fresh_seconds: float
    grown: Queries
    fresh: Queries

    @property
    def p50(self) -> float:
        """Return the median time of a query by those of the fresh one; median of the turns."""
        return _ratio(self.grown.p50, self.fresh.p50)

    @property
    def mean(self) -> float:
        """Return the same of the mean time."""
        return _ratio(self.grown.mean, self.fresh.mean)


def run_update(
    layout: Layout,
    catalog: CatalogWriter,
    vectors: Vectors,
    commit: int,
    policy: FoldPolicy = POLICY,
) -> Update:
    """Do what an indexing run does with new embeddings, `commit` of them at a time."""
    before, was = _files(layout), catalog.snapshot().ivf
    started = time.perf_counter()
    with exclusive(layout.directory):
        remove_orphans(layout, catalog)
        committing, tail = 0.0, 0
        for start in range(0, len(vectors), commit):
            block = vectors[start : start + commit]
            begun = time.perf_counter()
            commit_vectors(layout, catalog, block)
            committing += time.perf_counter() - begun
            tail += len(block)
            if tail >= policy.tail_most:
                fold(layout, catalog, device="cpu", meanwhile=True, policy=policy)
                tail = 0
        fold(layout, catalog, device="cpu", policy=policy)
    seconds = time.perf_counter() - started
    view = open_view(layout, catalog)
    ivf = view.snapshot.ivf
    return Update(
        images=view.count,
        seconds=seconds,
        committing=committing,
        retrained=ivf is not None and (was is None or ivf.trained != was.trained),
        segments=len(view.segments),
        shards=len(view.snapshot.shards),
        tail=view.tail_count,
        nlist=ivf.nlist if ivf else 0,
        written=sum(size for name, size in _files(layout).items() if name not in before),
    )


def _files(layout: Layout) -> dict[Path, int]:
    folders = (layout.vectors, layout.segments)
    return {path: path.stat().st_size for folder in folders for path in folder.iterdir()}


def check(
    grown: Layout, empty: Path, scratch: Path, queries: Vectors, *, turns: int, due: bool
) -> Checkpoint:
    """Compare a grown collection with one that is made of the same vectors in one go.

    Args:
        grown: the collection.
        empty: an empty one.
        scratch: where to make the other; removed again.
        queries: float32 `[n, dim]`.
        turns: in which each of the two answers all queries, one at a time.
        due: see `Checkpoint`.
    """
    fresh_seconds = _rebuild(grown, empty, scratch)
    with Collection.open(grown.directory) as one, Collection.open(scratch) as other:
        truth = one.query_many(queries, k=K, exact=True, arrays=True, rank="cosine").ids
        times = _alternate(one, other, queries, turns)
        infos = one.info(), other.info()
        result = Checkpoint(
            images=infos[0].images,
            due=due,
            trained=infos[0].ivf.trained if infos[0].ivf else 0,
            segments=infos[0].segments,
            shards=_shards(grown),
            tail=infos[0].tail,
            nlist=infos[0].ivf.nlist if infos[0].ivf else 0,
            fresh_nlist=infos[1].ivf.nlist if infos[1].ivf else 0,
            fresh_shards=_shards(Layout(scratch)),
            fresh_seconds=fresh_seconds,
            grown=_queries(one, queries, truth, times[0]),
            fresh=_queries(other, queries, truth, times[1]),
        )
    shutil.rmtree(scratch)
    return result


def _rebuild(grown: Layout, empty: Path, scratch: Path) -> float:
    """Make a collection of the vectors of another; return the seconds that its index takes."""
    fresh = copy_collection(empty, scratch)
    with closing(CatalogWriter(grown.catalog)) as catalog:
        view = open_view(grown, catalog)
    with closing(CatalogWriter(fresh.catalog)) as catalog, exclusive(scratch):
        for vectors in _blocks(view):
            commit_vectors(fresh, catalog, vectors)
        started = time.perf_counter()
        fold(fresh, catalog, device="cpu")
        return time.perf_counter() - started


def _blocks(view: View) -> Iterator[Vectors]:
    """Yield all vectors of a collection, `ROWS` at a time, in the order of their ids."""
    parts: list[Vectors] = []
    for _, vectors in view.live_blocks():
        parts.append(vectors)
        if sum(map(len, parts)) >= ROWS:
            yield np.concatenate(parts)
            parts = []
    if parts:
        yield np.concatenate(parts)


def _alternate(
    one: Collection, other: Collection, queries: Vectors, turns: int
) -> tuple[list[list[float]], list[list[float]]]:
    """Return the seconds of each query in each turn, of both; they take turns, first or second."""
    times: tuple[list[list[float]], list[list[float]]] = ([], [])
    both = (one, times[0]), (other, times[1])
    for collection, _ in both:
        _time(collection, queries)  # warms up
    for turn in range(turns):
        for collection, row in both if turn % 2 else both[::-1]:
            row.append(_time(collection, queries))
    return times


def _time(collection: Collection, queries: Vectors) -> list[float]:
    seconds = []
    for row in range(len(queries)):
        query = queries[row : row + 1]
        started = time.perf_counter()
        collection.query_many(query, k=K, arrays=True, rank="cosine")
        seconds.append(time.perf_counter() - started)
    return seconds


def _shards(layout: Layout) -> int:
    with closing(CatalogWriter(layout.catalog)) as catalog:
        return len(catalog.shards())


def _queries(
    collection: Collection,
    queries: Vectors,
    truth: npt.NDArray[np.int64],
    times: list[list[float]],
) -> Queries:
    found = collection.query_many(queries, k=K, arrays=True, rank="cosine").ids
    answers = collection.answer(queries, k=K)
    return Queries(
        p50=tuple(median(turn) for turn in times),
        mean=tuple(float(np.mean(turn)) for turn in times),
        recall=float(np.mean([np.isin(*pair).mean() for pair in zip(truth, found, strict=True)])),
        exactly=float(np.mean([answer.search.kind == "exact" for answer in answers])),
        nprobe=collection.info().nprobe,
    )


def _ratio(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    return median(a / b for a, b in zip(one, other, strict=True))
