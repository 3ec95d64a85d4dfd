"""Sweep `nlist` and `nprobe`: build an index with each `nlist`, and measure it.

A machine that does other things as well is now slow, now fast. So times are taken in turns: each
turn measures all settings once, in a random order, and two settings are compared turn by turn.
What a setting costs is the median of its turns, and an interval says how sure that is.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

import numpy as np

from imgsearch.ann.compact import train_compact
from imgsearch.ann.exact import search_exactly
from imgsearch.ann.flat import IvfIndex
from imgsearch.ann.inverted import InvertedFile
from imgsearch.ann.kmeans import choose_nlist, train, training_size
from imgsearch.ann.promise import ladder, lower_bound
from imgsearch.ann.recall import K
from imgsearch.ann.vectors import Ids, Neighbours, Vectors
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

__all__ = ["QUERIES", "SAME", "Choice", "Point", "Sweep", "Timing", "Trial", "apply", "tune"]
QUERIES = 1_000
RECALL_ENOUGH = 0.999  # recall above which more lists are not worth measuring
TURNS = 9
TIMED_SECONDS = 0.01  # minimum time to measure a setting in a turn, in rounds of all queries
CLOSE_SECONDS = 0.1  # the same for settings that may be recommended
LONG = 2.0  # seconds that exact search may take to be measured in every turn
SAME = 1.05  # ratio of two times up to which they count as equal: not worth a new index
CONFIDENCE = 0.95
_SEED = 4321


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds per query, with many at once on all cores.

    Attributes:
        median: The median of the turns.
        low: The lower end of the 95 % confidence interval of the median; None if there were fewer
            than six turns.
        high: Its upper end.
        turns: The time in each turn. Those of one turn can be compared with one another.
    """

    median: float
    low: float | None
    high: float | None
    turns: tuple[float, ...]

    @classmethod
    def of(cls, turns: Sequence[float]) -> Timing:
        """Summarise the times of one turn or more."""
        return cls(median(turns), *_interval(turns), tuple(turns))

    def is_faster_than(self, other: Timing) -> bool:
        """Tell whether `other` takes longer by more than 5 %, beyond doubt.

        The ratios of the two times in each turn decide: their median has to be larger, with a
        confidence of 95 %.
        """
        pairs = zip(self.turns, other.turns, strict=False)
        low, _ = _interval([theirs / ours for ours, theirs in pairs])
        return low is not None and low > SAME


@dataclass(frozen=True, slots=True)
class Point:
    """The quality and the cost of one `nprobe`.

    Attributes:
        nprobe: The number of lists scanned.
        recall: The mean recall@10 of the held-out queries, against exact search.
        bound: The one-sided lower 95 % confidence bound of the recall.
        distance: The mean L2 distance of the 10 hits, 0 to 2.
        timing: The time per query.
    """

    nprobe: int
    recall: float
    bound: float
    distance: float
    timing: Timing

    @property
    def milliseconds(self) -> float:
        """The median time per query."""
        return self.timing.median


@dataclass(frozen=True, slots=True)
class Trial:
    """One `nlist`; `build_seconds` covers training, assigning all images and writing the index."""

    nlist: int
    build_seconds: float
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """An `nlist`, with the smallest `nprobe` that keeps a recall."""

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
        exact_timing: The time per query of exact search.
        present: The `nlist` by the settings of the collection.
        trials: One trial per `nlist`, in ascending order.
        complete: Whether all was measured; if not, the sweep was interrupted, and `trials` are
            those whose index was built by then.
    """

    images: int
    queries: int
    recall: float
    exact_distance: float
    exact_timing: Timing
    present: int
    trials: tuple[Trial, ...]
    complete: bool

    @property
    def exact_milliseconds(self) -> float:
        """The median time per query of exact search."""
        return self.exact_timing.median

    @property
    def kept(self) -> tuple[Choice, ...]:
        """For each `nlist`, the smallest `nprobe` whose bound is at least `recall`."""
        return tuple(
            Choice(trial.nlist, kept[0])
            for trial in self.trials
            if (kept := [point for point in trial.points if point.bound >= self.recall])
        )

    @property
    def fastest(self) -> tuple[Choice, ...]:
        """The settings that keep `recall` and are not slower than the first beyond doubt.

        The first is the one with the lowest median.
        """
        kept = sorted(self.kept, key=lambda each: each.point.milliseconds)
        return tuple(
            each for each in kept if not kept[0].point.timing.is_faster_than(each.point.timing)
        )

    @property
    def choice(self) -> Choice | None:
        """The fastest setting that keeps `recall`; None if several cannot be told apart."""
        fastest = self.fastest
        return fastest[0] if len(fastest) == 1 else None


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

    The result is D and ids `[n, K]`, with the seconds that it took.
    """

    ids: Ids
    vectors: Vectors
    rows: Ids
    distances: Vectors
    neighbours: Ids
    seconds: float


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

    The collection is not changed. The disk has to have room for all these indexes at once, because
    they are measured in turns. Ctrl-C ends the sweep early, and the measurements so far are
    returned: see `Sweep.complete`.

    Args:
        directory: The directory of the collection.
        nlist: The numbers of centroids; if empty, the present one, and five from a quarter of the
            usual number to four times that.
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
        StorageError: If the disk has no room for the indexes.
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
        SettingError: If no trial keeps the recall, or several do and none is known to be fastest.
        BusyError: If another process is writing to the collection.
        StorageError: If the disk is full, or cannot be written.
    """
    if found.choice is None:
        if found.fastest:
            raise SettingError("the settings that were tried cannot be told apart by their times")
        raise SettingError(f"none of the settings that were tried keeps recall@10 {found.recall:g}")
    layout = Layout.at(directory)
    migrate(layout)
    with closing(CatalogWriter(layout.catalog)) as catalog, writing(layout):
        catalog.change_settings(nlist=found.choice.nlist, recall=found.recall)
        fold(layout, catalog, device=pick_device(device))


def _sweep(layout: Layout, catalog: CatalogWriter, options: _Options) -> Sweep:
    remove_orphans(layout, catalog)
    view = open_view(layout, catalog)
    present = view.snapshot.settings.nlist or choose_nlist(view.count)
    counts = _nlists(view.count, present, options)
    found = Sweep(
        images=view.count,
        queries=0,
        recall=options.recall or view.snapshot.settings.recall,
        exact_distance=0.0,
        exact_timing=Timing(0.0, None, None, ()),
        present=present,
        trials=(),
        complete=False,
    )
    try:
        held = _hold_out(view, min(options.queries, view.count // 5))
        found = replace(
            found,
            queries=len(held.ids),
            exact_distance=_mean_distance(held.distances),
            exact_timing=Timing.of([1_000 * held.seconds / len(held.ids)]),
        )
        steps = _Steps(options.progress, len(counts) + TURNS)
        built: list[list[InvertedFile]] = []
        for nlist in counts:
            number = catalog.next_segment() + sum(map(len, built))
            started = time.perf_counter()
            indexes = _index(layout, view, held, nlist, first=number, device=options.device)
            seconds = time.perf_counter() - started
            points = tuple(_points(view, indexes, held, nlist, options))
            built.append(indexes)
            found = replace(found, trials=(*found.trials, Trial(nlist, seconds, points)))
            steps.advance()
        for timed in _timed(view, held, built, found):
            found = timed
            steps.advance()
        found = replace(found, complete=True)
    except KeyboardInterrupt:
        pass
    finally:
        remove_orphans(layout, catalog)
    return found


def _nlists(count: int, present: int, options: _Options) -> list[int]:
    """Return the numbers of centroids to try, ascending."""
    if count < POLICY.ivf_from:
        raise SettingError(
            f"{count:,} images need no index, because exact search is as fast; "
            f"tuning needs {POLICY.ivf_from} or more"
        )
    usual = choose_nlist(count)
    counts = sorted({*options.nlist} or {present, *(max(1, usual * 2**n // 4) for n in range(5))})
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
    seconds = time.perf_counter() - started
    return _Held(ids, vectors, rows, distances, neighbours, seconds)


class _Steps:
    """The steps of a sweep: an index that is built, or a turn."""

    def __init__(self, progress: Callable[[int, int], None] | None, total: int) -> None:
        self._progress = progress
        self._done, self._total = 0, total

    def advance(self) -> None:
        self._done += 1
        if self._progress:
            self._progress(self._done, self._total)


def _index(
    layout: Layout, view: View, held: _Held, nlist: int, *, first: int, device: str
) -> list[InvertedFile]:
    """Write an index that the catalog does not name, its segments from number `first`; open it."""
    dim = view.snapshot.model.dim
    size = training_size(len(held.rows), nlist, dim)
    chosen = np.random.default_rng(_SEED).choice(held.rows, size, replace=False)
    vectors, pca = fetch(view, np.sort(chosen))[1], view.snapshot.pca
    index: InvertedFile
    if pca is None:
        index = IvfIndex.empty(train(vectors, nlist, device=device), device=device)
    else:
        index = train_compact(vectors, nlist, pca, device=device)
    made = build(layout, view, index, first=first)
    return [open_segment(layout, segment, compact=pca is not None) for segment in made]


def _points(
    view: View, indexes: Sequence[InvertedFile], held: _Held, nlist: int, options: _Options
) -> Iterator[Point]:
    """Yield the quality at each `nprobe`, with the time of this first search."""
    asked = sorted({min(nprobe, nlist) for nprobe in options.nprobe})
    for nprobe in asked or ladder(nlist):
        started = time.perf_counter()
        distances, ids = _search(view, indexes, held, nprobe)
        seconds = time.perf_counter() - started
        true = held.neighbours[:, :, None]
        hits = ((true == ids[:, None, :]) & (true >= 0)).any(axis=2).sum(axis=1)
        recall = (hits / np.maximum((held.neighbours >= 0).sum(axis=1), 1)).astype(np.float32)
        yield Point(
            nprobe=nprobe,
            recall=float(recall.mean()),
            bound=lower_bound(recall),
            distance=_mean_distance(np.where(ids >= 0, distances, np.inf)),
            timing=Timing.of([1_000 * seconds / len(held.ids)]),
        )
        if recall.mean() >= RECALL_ENOUGH and not asked:
            break


def _timed(
    view: View, held: _Held, built: Sequence[Sequence[InvertedFile]], found: Sweep
) -> Iterator[Sweep]:
    """Measure all settings in turns, and yield the sweep with the times after each of them."""
    kept = {(each.nlist, each.point.nprobe) for each in found.kept}
    searches: list[tuple[Callable[[], object], float]] = [
        (
            partial(_search, view, indexes, held, point.nprobe),
            CLOSE_SECONDS if (trial.nlist, point.nprobe) in kept else TIMED_SECONDS,
        )
        for indexes, trial in zip(built, found.trials, strict=True)
        for point in trial.points
    ]
    exact_too = held.seconds <= LONG
    if exact_too:
        searches.append((partial(_search_exactly, view, held), TIMED_SECONDS))
    turns: list[list[float]] = [[] for _ in searches]
    order = np.random.default_rng(_SEED)
    for _ in range(TURNS):
        for number in order.permutation(len(searches)):
            turns[number].append(1_000 * _seconds(*searches[number]) / len(held.ids))
        times = iter([Timing.of(each) for each in turns])
        trials = [
            replace(
                trial,
                points=tuple(replace(point, timing=next(times)) for point in trial.points),
            )
            for trial in found.trials
        ]
        exactly = next(times) if exact_too else found.exact_timing
        yield replace(found, trials=tuple(trials), exact_timing=exactly)


def _search_exactly(view: View, held: _Held) -> Neighbours:
    """Return D and ids `[n, K]` of the true neighbours of all queries."""
    return search_exactly(held.vectors, view.live_blocks(), K, held.ids)


def _search(view: View, indexes: Sequence[InvertedFile], held: _Held, nprobe: int) -> Neighbours:
    """Search for all queries, and return D and ids `[n, K]`."""
    nearest = indexes[0].assign(held.vectors, nprobe)
    return view.search_lists(indexes, held.vectors, K, nearest, held.ids)


def _seconds(action: Callable[[], object], least: float) -> float:
    """Return the median time of an action, in as many rounds as take `least` seconds."""
    rounds: list[float] = []
    while sum(rounds) < least:
        started = time.perf_counter()
        action()
        rounds.append(time.perf_counter() - started)
    return median(rounds)


def _interval(sample: Sequence[float]) -> tuple[float | None, float | None]:
    """Return the 95 % confidence interval of the median, or None if the sample is too small.

    Its ends are members of the sample, whatever the distribution (Conover, Practical Nonparametric
    Statistics, 1999, section 3.2): it is the narrowest symmetric pair of ranks that the median lies
    between with this probability.
    """
    count = len(sample)
    outside, rank = 1.0 / 2**count, 0  # the probability that all lie on one side
    while 2 * outside <= 1 - CONFIDENCE:
        rank += 1
        outside += math.comb(count, rank) / 2**count
    if not rank:
        return None, None
    ordered = sorted(sample)
    return ordered[rank - 1], ordered[-rank]


def _mean_distance(squared: Vectors) -> float:
    """Return the mean L2 distance of the existing hits."""
    there = squared[np.isfinite(squared)]
    return float(np.sqrt(np.maximum(there, 0)).mean()) if there.size else 0.0
