"""Sweep `nlist` and `nprobe`: build an index with each `nlist`, and measure it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from imgsearch.ann.compact import train_compact
from imgsearch.ann.exact import search_exactly
from imgsearch.ann.flat import IvfIndex
from imgsearch.ann.inverted import InvertedFile
from imgsearch.ann.kmeans import choose_nlist, train, training_size
from imgsearch.ann.promise import ladder, lower_bound
from imgsearch.ann.recall import K
from imgsearch.ann.vectors import Ids, Vectors
from imgsearch.embedding.runtime import pick_device
from imgsearch.errors import SettingError
from imgsearch.indexing.fold import fold, remove_orphans
from imgsearch.indexing.policy import POLICY
from imgsearch.indexing.train import build, fetch
from imgsearch.querying.options import SearchOptions, items, whole
from imgsearch.querying.segments import open_segment
from imgsearch.querying.view import View, open_view
from imgsearch.storage.layout import Layout
from imgsearch.storage.migrations import check_present, migrate
from imgsearch.storage.seal import writing
from imgsearch.storage.writer import CatalogWriter

__all__ = ["QUERIES", "Choice", "Point", "Sweep", "Trial", "apply", "tune"]
QUERIES = 1_000
RECALL_ENOUGH = 0.999  # recall above which more lists are not worth measuring
TIMED_SECONDS = 0.1  # minimum time to measure a point, in rounds of all queries
ROUNDS = 3  # minimum, of which the fastest counts; fewer if they take long
LONG = 2.0  # seconds
_SEED = 4321


@dataclass(frozen=True, slots=True)
class Point:
    """The quality and the cost of one `nprobe`.

    Attributes:
        nprobe: The number of lists scanned.
        recall: The mean recall@10 of the held-out queries, against exact search.
        bound: The one-sided lower 95 % confidence bound of the recall.
        distance: The mean L2 distance of the 10 hits, 0 to 2.
        milliseconds: The time per query, with many at once on all cores.
    """

    nprobe: int
    recall: float
    bound: float
    distance: float
    milliseconds: float


@dataclass(frozen=True, slots=True)
class Trial:
    """One `nlist`; `build_seconds` covers training, assigning all images and writing the index."""

    nlist: int
    build_seconds: float
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """The fastest setting that keeps a recall."""

    nlist: int
    point: Point


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep over `nlist` and `nprobe`.

    Attributes:
        images: The number of images in the collection.
        queries: The number of images used as queries, left out of training and of the hits.
        recall: The recall@10 that a choice should keep.
        exact_distance: The mean L2 distance of the 10 true neighbours.
        exact_milliseconds: The time per query of exact search, with many at once on all cores.
        trials: One trial per `nlist`, in ascending order.
        complete: Whether all trials were made; if not, the sweep was interrupted, and `trials` are
            those that were finished.
    """

    images: int
    queries: int
    recall: float
    exact_distance: float
    exact_milliseconds: float
    trials: tuple[Trial, ...]
    complete: bool

    @property
    def choice(self) -> Choice | None:
        """The fastest point whose bound is at least `recall`; of equals, that with fewer lists."""
        kept = list(self._kept())
        return min(kept, key=lambda each: each.point.milliseconds) if kept else None

    def _kept(self) -> Iterator[Choice]:
        for trial in self.trials:
            for point in trial.points:
                if point.bound >= self.recall:
                    yield Choice(trial.nlist, point)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """The options of `tune`."""

    nlist: Sequence[int]
    nprobe: Sequence[int]
    recall: float | None
    queries: int
    device: str
    progress: Callable[[int, int], None] | None


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    """The queries, by ascending ids, the rows to train on, and the result of exact search.

    The result is D and ids `[n, K]`, with the milliseconds per query.
    """

    ids: Ids
    vectors: Vectors
    rows: Ids
    distances: Vectors
    neighbours: Ids
    milliseconds: float


def tune(
    directory: str | os.PathLike[str],
    *,
    nlist: Sequence[int] = (),
    nprobe: Sequence[int] = (),
    recall: float | None = None,
    queries: int = QUERIES,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> Sweep:
    """Build an index with each `nlist`, measure it at each `nprobe`, and delete it again.

    The collection is not changed. Ctrl-C ends the sweep early, and the measurements so far are
    returned: see `Sweep.complete`.

    Args:
        directory: The directory of the collection.
        nlist: The numbers of centroids; if empty, from a quarter of the usual number to four times
            that.
        nprobe: The numbers of lists to scan; if empty, from 1, each about √2 times the last.
        recall: The recall@10 for which to recommend; None for what the collection promises.
        queries: The number of images to hold out of training, at most a fifth of all.
        device: The device that trains and assigns: "cpu", "cuda", "mps", or "auto" for the best.
        progress: A function called with the number of steps done, and the total.

    Raises:
        NoCollectionError: If there is no collection.
        DamagedError: If it is damaged, or has an older format.
        SettingError: If there are too few images, or a number makes no sense.
        BusyError: If another process is writing to the collection.
        StorageError: If the disk has no room for one more index.
    """
    options = _Options(
        nlist=[whole("nlist", count, 1) for count in items("nlist", nlist)],
        nprobe=[whole("nprobe", count, 1) for count in items("nprobe", nprobe)],
        recall=SearchOptions(recall=recall).recall,
        queries=whole("queries", queries, 1),
        device=pick_device(device),
        progress=progress,
    )
    layout = Layout.at(directory)
    check_present(layout)
    with closing(CatalogWriter(layout.catalog)) as catalog, writing(layout):
        return _sweep(layout, catalog, options)


def apply(directory: str | os.PathLike[str], found: Sweep, *, device: str = "auto") -> None:
    """Rebuild the index as a sweep recommends, and keep these settings.

    Raises:
        NoCollectionError: If there is no collection.
        SettingError: If no trial keeps the recall.
        BusyError: If another process is writing to the collection.
        StorageError: If the disk is full, or cannot be written.
    """
    if found.choice is None:
        raise SettingError(f"none of the settings that were tried keeps recall@10 {found.recall:g}")
    layout = Layout.at(directory)
    migrate(layout)
    with closing(CatalogWriter(layout.catalog)) as catalog, writing(layout):
        catalog.change_settings(nlist=found.choice.nlist, recall=found.recall)
        fold(layout, catalog, device=pick_device(device))


def _sweep(layout: Layout, catalog: CatalogWriter, options: _Options) -> Sweep:
    remove_orphans(layout, catalog)
    view = open_view(layout, catalog)
    counts = _nlists(view.count, options)
    found = Sweep(
        images=view.count,
        queries=0,
        recall=options.recall or view.snapshot.settings.recall,
        exact_distance=0.0,
        exact_milliseconds=0.0,
        trials=(),
        complete=False,
    )
    try:
        held = _hold_out(view, min(options.queries, view.count // 5))
        found = replace(
            found,
            queries=len(held.ids),
            exact_distance=_mean_distance(held.distances),
            exact_milliseconds=held.milliseconds,
        )
        for trial in _trials(layout, catalog, view, held, counts, options):
            found = replace(found, trials=(*found.trials, trial))
        found = replace(found, complete=True)
    except KeyboardInterrupt:
        pass
    finally:
        remove_orphans(layout, catalog)
    return found


def _nlists(count: int, options: _Options) -> list[int]:
    """Return the numbers of centroids to try, ascending."""
    if count < POLICY.ivf_from:
        raise SettingError(
            f"{count:,} images need no index, because exact search is as fast; "
            f"tuning needs {POLICY.ivf_from} or more"
        )
    usual = choose_nlist(count)
    counts = sorted({*options.nlist} or {max(1, usual * 2**n // 4) for n in range(5)})
    most = count - min(options.queries, count // 5)
    if counts[-1] > most and options.nlist:
        raise SettingError(
            f"nlist is {counts[-1]:,}, but only {most:,} of {count:,} images are available to "
            f"train centroids; give a smaller one"
        )
    return [nlist for nlist in counts if nlist <= most]


def _hold_out(view: View, size: int) -> _Held:
    drawn = np.sort(np.random.default_rng(_SEED).choice(view.count, size, replace=False))
    ids, vectors = fetch(view, drawn)
    rows = np.delete(np.arange(view.count), drawn)
    started = time.perf_counter()
    distances, neighbours = search_exactly(vectors, view.live_blocks(), K, ids)
    milliseconds = 1_000 * (time.perf_counter() - started) / len(ids)
    return _Held(ids, vectors, rows, distances, neighbours, milliseconds)


def _trials(
    layout: Layout,
    catalog: CatalogWriter,
    view: View,
    held: _Held,
    counts: Sequence[int],
    options: _Options,
) -> Iterator[Trial]:
    steps = {
        nlist: sorted({min(nprobe, nlist) for nprobe in options.nprobe} or ladder(nlist))
        for nlist in counts
    }
    total = sum(1 + len(step) for step in steps.values())
    done = 0
    for nlist, probes in steps.items():
        started = time.perf_counter()
        indexes = _index(layout, catalog, view, held, nlist, options.device)
        seconds = time.perf_counter() - started
        points: list[Point] = []
        for number, nprobe in enumerate(probes, 1):
            if options.progress:
                options.progress(done + number, total)
            points.append(_measure(view, indexes, held, nprobe))
            if points[-1].recall >= RECALL_ENOUGH and not options.nprobe:
                break
        done += 1 + len(probes)
        yield Trial(nlist, seconds, tuple(points))
        remove_orphans(layout, catalog)
    if options.progress:
        options.progress(total, total)


def _index(
    layout: Layout, catalog: CatalogWriter, view: View, held: _Held, nlist: int, device: str
) -> list[InvertedFile]:
    """Write an index that the catalog does not name, and open it."""
    dim = view.snapshot.model.dim
    size = training_size(len(held.rows), nlist, dim)
    chosen = np.random.default_rng(_SEED).choice(held.rows, size, replace=False)
    vectors, pca = fetch(view, np.sort(chosen))[1], view.snapshot.pca
    index: InvertedFile
    if pca is None:
        index = IvfIndex.empty(train(vectors, nlist, device=device), device=device)
    else:
        index = train_compact(vectors, nlist, pca, device=device)
    made = build(layout, view, index, first=catalog.next_segment())
    return [open_segment(layout, segment, compact=pca is not None) for segment in made]


def _measure(view: View, indexes: Sequence[InvertedFile], held: _Held, nprobe: int) -> Point:
    rounds: list[float] = []
    while True:
        started = time.perf_counter()
        nearest = indexes[0].assign(held.vectors, nprobe)
        distances, ids = view.search_lists(indexes, held.vectors, K, nearest, held.ids)
        rounds.append(time.perf_counter() - started)
        if sum(rounds) > LONG or (sum(rounds) > TIMED_SECONDS and len(rounds) >= ROUNDS):
            break
    true = held.neighbours[:, :, None]
    hits = ((true == ids[:, None, :]) & (true >= 0)).any(axis=2).sum(axis=1)
    recall = (hits / np.maximum((held.neighbours >= 0).sum(axis=1), 1)).astype(np.float32)
    return Point(
        nprobe=nprobe,
        recall=float(recall.mean()),
        bound=lower_bound(recall),
        distance=_mean_distance(np.where(ids >= 0, distances, np.inf)),
        milliseconds=1_000 * min(rounds) / len(held.ids),
    )


def _mean_distance(squared: Vectors) -> float:
    """Return the mean L2 distance of the existing hits."""
    there = squared[np.isfinite(squared)]
    return float(np.sqrt(np.maximum(there, 0)).mean()) if there.size else 0.0
