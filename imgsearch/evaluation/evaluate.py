"""Evaluate how well the images of a collection find those of their class."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from imgsearch.ann.metrics import Values, interval, measure
from imgsearch.ann.vectors import Ids, Neighbours, Vectors, rows_of
from imgsearch.errors import BusyError, missing
from imgsearch.evaluation.ground_truth import GroundTruth, Lists, ground_truth
from imgsearch.evaluation.labels import read_labels
from imgsearch.querying.entries import Entries
from imgsearch.querying.hits import Search
from imgsearch.querying.options import SearchOptions
from imgsearch.querying.ranking import RERANKED, Ranking
from imgsearch.querying.search import Searchable
from imgsearch.querying.view import Found, open_view
from imgsearch.storage.catalog import open_catalog
from imgsearch.storage.layout import Layout

if TYPE_CHECKING:
    from imgsearch.evaluation.verified import Reorder

__all__ = [
    "Estimate",
    "Evaluation",
    "Measures",
    "Searched",
    "WorstHit",
    "WorstQuery",
    "evaluate",
    "judge",
]

WORST = 10  # queries that are reported
_CELLS = 1 << 22  # cells of the query-image matrix at a time, some 35 bytes each
_MEASURES = 4  # measures per way of searching: see imgsearch.ann.metrics.measure


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over queries, and its 95 % bootstrap interval; see `imgsearch.ann.metrics`."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Measures:
    """How well a way of searching finds the class of a query.

    Attributes:
        precision_at_1: Share of queries whose first hit is of their class.
        precision_at_k: Share of the first k hits that are of the query's class.
        recall_at_k: Share of the other images of the class that are among the first k hits.
        mean_average_precision: The mAP, see `imgsearch.ann.metrics.measure`.
    """

    precision_at_1: Estimate
    precision_at_k: Estimate
    recall_at_k: Estimate
    mean_average_precision: Estimate


@dataclass(frozen=True, slots=True)
class Searched:
    """How many queries the index answered in each way; see `imgsearch.querying.hits.Search`.

    Attributes:
        ivf: Queries answered by probing lists.
        wide: Queries answered by probing all lists: see `imgsearch.querying.hits.Search`.
        exact: Queries answered by exact search.
        nprobe: The fewest and the most lists probed for `ivf` queries; 0 and 0 if there were none.
    """

    ivf: int
    wide: int
    exact: int
    nprobe: tuple[int, int]


@dataclass(frozen=True, slots=True)
class WorstHit:
    """A labelled image among the hits of a query; `right` if it is of the query's class."""

    rank: int
    path: str
    label: str
    right: bool
    similarity: float


@dataclass(frozen=True, slots=True)
class WorstQuery:
    """A query whose class was found badly by exact search, and its first k hits."""

    path: str
    label: str
    average_precision: float
    hits: tuple[WorstHit, ...]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How well labelled images of a collection find their class.

    `labelled = images + len(missing)`, and `images = queries + alone`.

    Attributes:
        labelled: The number of labelled paths; two paths of one image count as one.
        images: The number of labelled images in the collection: only they are queries and hits.
        missing: The labelled paths that are not in the collection.
        unlabelled: The number of images in the collection without a label, which take no rank.
        classes: The number of different labels of `images`.
        queries: The number of images used as queries.
        alone: The number of images that are the only one of their class: hits, but not queries.
        k: The rank limit of precision at k and recall at k.
        exact: The measures of exact search by cosine.
        index: The measures of the index by cosine; None if there is no index.
        searched: The ways in which the index answered.
        worst: Up to ten queries with an average precision by exact search below 1, the lowest
            first.
        seconds: The duration of the evaluation.
        collection: The measures of all images ranked by what the collection knows of them; None if
            it knows too little.
        collection_index: The same for the index, whose nearest are ranked again as in a query.
        gain: The differences between `collection` and `exact`, query by query.
        index_gain: The differences between `collection_index` and `index`.
        verified: The measures of exact search whose first 50 hits are verified by local features;
            None if that was not asked for.
        verified_gain: The differences between `verified` and `exact`.
        warnings: Warnings about labels that are nearly the same, and about paths that nearly match
            those of images.
    """

    labelled: int
    images: int
    missing: tuple[str, ...]
    unlabelled: int
    classes: int
    queries: int
    alone: int
    k: int
    exact: Measures
    index: Measures | None
    searched: Searched
    worst: tuple[WorstQuery, ...]
    seconds: float
    warnings: tuple[str, ...] = ()
    collection: Measures | None = None
    collection_index: Measures | None = None
    gain: Measures | None = None
    index_gain: Measures | None = None
    verified: Measures | None = None
    verified_gain: Measures | None = None


def evaluate(
    directory: str | os.PathLike[str],
    labels: str | os.PathLike[str],
    *,
    k: int = 10,
    recall: float | None = None,
    nprobe: int | None = None,
    verify: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Measure P@1, P@k, recall@k and mAP on the labelled images of a collection.

    Each image is a query by its stored embedding, and is left out of its own hits. Only labelled
    images are hits and take ranks: nobody has said whether any other would be right. Everything is
    measured twice, with exact search and with the index. The ranking of the index is that of the
    lists that a query for k images scans: images outside them are not retrieved, and add 0 to the
    average precision.

    Time is quadratic in the number of labelled images; memory is not: queries are made in blocks.

    Args:
        directory: The collection itself.
        labels: The labels, see `imgsearch.evaluation.labels.read_labels`.
        k: The number of ranks that P@k and recall@k consider.
        recall: The recall@10 that the index should keep; by default, what the collection promises.
        nprobe: The number of inverted lists to scan instead, whatever the resulting recall.
        verify: Whether to verify the first 50 hits of exact search by local features, too, which
            takes a third of a second and more for each image.
        progress: A function called with the number of queries made, and the total.

    Raises:
        PackageError: If `verify` is given, and OpenCV is not installed.
        NoCollectionError: If there is no collection.
        InputError: If the labels cannot be read or contradict each other, or if none of their
            classes has two images in the collection.
        SettingError: If a number makes no sense, or both recall and nprobe are given.
        DamagedError: If a file of the collection is missing or damaged.
        BusyError: If the collection changed so much meanwhile that its files are gone.
    """
    started = time.monotonic()
    options = SearchOptions(k=k, recall=recall, nprobe=nprobe, verify=verify)
    layout = Layout.at(directory)
    labelled = read_labels(labels)
    with closing(open_catalog(layout)) as catalog, ExitStack() as looking:
        view = open_view(layout, catalog)
        try:
            there = np.concatenate([np.empty(0, np.int64), *(ids for ids, _ in view.live_blocks())])
            truth = ground_truth(
                catalog.paths(there.tolist()),
                lambda ids: (view, Lists.of(view, ids)),
                labelled,
                os.fsdecode(labels),
            )
            reorder = None
            if options.verify:
                from imgsearch.evaluation.verified import verified
                from imgsearch.querying.looking import Looker

                ids = truth.ids.tolist()
                looker = looking.enter_context(Looker(Entries(layout, catalog, lambda: view)))
                reorder = verified(looker, ids, {each.id: each for each in catalog.entries_of(ids)})
            return judge(truth, options, progress, started, reorder)
        except FileNotFoundError as error:
            if catalog.snapshot() == view.snapshot:
                raise missing(error) from error
            raise BusyError(
                f"another imgsearch has replaced files of {layout.directory} meanwhile; "
                "try again when it is done"
            ) from error


def judge(
    truth: GroundTruth,
    options: SearchOptions,
    progress: Callable[[int, int], None] | None,
    started: float,
    reorder: Reorder | None = None,
) -> Evaluation:
    """Measure as `evaluate` does, counting time from `started`, by `time.monotonic`.

    Args:
        truth: The labelled images.
        options: Options of the search.
        progress: As for `evaluate`.
        started: When the evaluation was started.
        reorder: Function that verifies the hits of exact search; None not to verify them.
    """
    asked = truth.ids[truth.totals > 0]
    ranking = truth.view.ranking
    ways_measured = (2 if ranking is None else 4) + (reorder is not None)
    values = np.empty((len(asked), ways_measured * _MEASURES))
    ways: list[Search] = []
    size = max(1, _CELLS // max(len(truth.ids), min(options.k, truth.view.count)))
    for ids, vectors in truth.blocks(asked, size):
        found = _search(truth.view, vectors, options)
        rows = np.searchsorted(asked, ids)
        values[rows] = _measure(truth, ids, vectors, found, options.k, reorder)
        ways += found.searches
        if progress:
            progress(len(ways), len(asked))
    verified = values[:, -_MEASURES:] if reorder else np.empty((len(asked), 0))
    values = values[:, : values.shape[1] - verified.shape[1]]
    if ranking is not None:
        half = 2 * _MEASURES
        values = np.hstack([values, values[:, half:] - values[:, :half]])
    if reorder is not None:
        values = np.hstack([values, verified, verified - values[:, :_MEASURES]])
    low, high = interval(values)
    columns = zip(values.mean(axis=0).tolist(), low.tolist(), high.tolist(), strict=True)
    estimates = [Estimate(*column) for column in columns]
    parts = [
        Measures(*estimates[start : start + _MEASURES])
        for start in range(0, len(estimates), _MEASURES)
    ]
    by_index = [part if truth.view.has_index else None for part in parts[1::2]]
    return Evaluation(
        labelled=len(truth.ids) + len(truth.missing),
        images=len(truth.ids),
        missing=tuple(truth.missing),
        unlabelled=truth.view.count - len(truth.ids),
        classes=len(truth.names),
        queries=len(asked),
        alone=len(truth.ids) - len(asked),
        k=options.k,
        exact=parts[0],
        index=by_index[0],
        searched=_searched(ways),
        worst=tuple(_worst(truth, asked, values[:, _MEASURES - 1], options.k)),
        seconds=time.monotonic() - started,
        warnings=tuple(truth.warnings),
        collection=None if ranking is None else parts[2],
        collection_index=None if ranking is None else by_index[1],
        gain=None if ranking is None else parts[4],
        index_gain=None if ranking is None else by_index[2],
        verified=None if reorder is None else parts[-2],
        verified_gain=None if reorder is None else parts[-1],
    )


def _search(
    view: Searchable, vectors: Vectors, options: SearchOptions, *, exact: bool = False
) -> Found:
    """Search as `query` does, except that an image is not left out of its own hits."""
    k = min(options.k, view.count) + 1
    return view.search(
        vectors,
        k,
        recall=options.recall,
        nprobe=options.nprobe,
        exact=exact,
        candidates=0 if view.ranking is None else min(RERANKED, view.count) + 1,
    )


def _measure(
    truth: GroundTruth,
    ids: Ids,
    vectors: Vectors,
    found: Found,
    k: int,
    reorder: Reorder | None,
) -> Values:
    """Return the measures of exact search and of the index, side by side, by each ranking.

    The last are those of exact search as verified, if there is `reorder`.
    """
    own, order, distances = truth.rank(ids, vectors)
    totals = truth.totals[own]
    others = order != own[:, None]
    relevant = truth.classes[order] == truth.classes[own][:, None]
    reached = truth.scanned(vectors, found.searches)
    scanned = np.take_along_axis(reached, order, 1)
    parts = [measure(relevant, others, totals, k), measure(relevant, others & scanned, totals, k)]
    ranking = truth.view.ranking
    if ranking is not None:
        nearest = _search(truth.view, vectors, SearchOptions(k=k), exact=True)
        np.put_along_axis(distances, own[:, None], np.inf, 1)
        every = ranking.order_all(vectors, _others(ids, nearest), truth.ids, distances)
        again = _ranked_again(truth, vectors, order, ranking, _others(ids, found))
        for columns, retrieved in ((every, None), (again, reached)):
            relevant = truth.classes[columns] == truth.classes[own][:, None]
            others = columns != own[:, None]
            if retrieved is not None:
                others &= np.take_along_axis(retrieved, columns, 1)
            parts.append(measure(relevant, others, totals, k))
    if reorder is not None:
        columns = reorder(own, order)
        relevant = truth.classes[columns] == truth.classes[own][:, None]
        parts.append(measure(relevant, columns != own[:, None], totals, k))
    return np.concatenate(parts, axis=1)


def _others(ids: Ids, found: Found) -> Neighbours:
    """Return what was found of each query without the image that is the query, nearest first."""
    width = found.ids.shape[1]
    neighbours = Neighbours(found.distances, found.ids)
    return neighbours.without(found.ids == ids[:, None]).first(max(width - 1, 1))


def _ranked_again(
    truth: GroundTruth, vectors: Vectors, order: Ids, ranking: Ranking, found: Neighbours
) -> Ids:
    """Return all columns by rank, the found ones as a query ranks them and then the others."""
    hits = ranking.order(vectors, found, rank="collection").neighbours.ids
    ranks = np.empty(order.shape, np.int64)
    np.put_along_axis(ranks, order, np.arange(order.shape[1])[None] + hits.shape[1], 1)
    rows, places = np.nonzero(rows_of(hits, truth.ids))
    columns = np.searchsorted(truth.ids, hits[rows, places])
    ranks[rows, columns] = places
    return np.argsort(ranks, axis=1, kind="stable")


def _searched(ways: Iterable[Search]) -> Searched:
    ways = list(ways)
    kinds = [way.kind for way in ways]
    probed = [way.nprobe for way in ways if way.kind == "ivf"] or [0]
    return Searched(
        ivf=kinds.count("ivf"),
        wide=kinds.count("wide"),
        exact=kinds.count("exact"),
        nprobe=(min(probed), max(probed)),
    )


def _worst(truth: GroundTruth, asked: Ids, average: Values, k: int) -> Iterator[WorstQuery]:
    order = np.argsort(average, kind="stable")[:WORST]
    precision = {int(asked[row]): float(average[row]) for row in order if average[row] < 1}
    answers = {
        id_: hits
        for ids, vectors in truth.blocks(np.array(sorted(precision), np.int64), WORST)
        for id_, hits in zip(ids.tolist(), _hits(truth, ids, vectors, k), strict=True)
    }
    for id_, value in precision.items():
        column = int(np.searchsorted(truth.ids, id_))
        label = truth.names[truth.classes[column]]
        yield WorstQuery(truth.paths[column], label, value, answers[id_])


def _hits(truth: GroundTruth, ids: Ids, vectors: Vectors, k: int) -> Iterator[tuple[WorstHit, ...]]:
    """Yield the first k hits of each query."""
    own, order, distances = truth.rank(ids, vectors)
    for row, itself in enumerate(own.tolist()):
        columns = order[row][order[row] != itself][:k]
        yield tuple(
            WorstHit(
                rank,
                truth.paths[column],
                truth.names[truth.classes[column]],
                bool(truth.classes[column] == truth.classes[itself]),
                float(1 - distances[row, column] / 2),
            )
            for rank, column in enumerate(columns.tolist(), 1)
        )
