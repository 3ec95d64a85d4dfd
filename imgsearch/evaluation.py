"""What `evaluate` tells."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Estimate", "Evaluation", "Measures", "Searched", "WorstHit", "WorstQuery"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over queries, and its 95 % bootstrap interval; see `imgsearch.search.metrics`."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Measures:
    """How well a way of searching finds the class of a query.

    Attributes:
        precision_at_1: share of queries whose first hit is of their class.
        precision_at_k: share of the first k hits that are of the query's class.
        recall_at_k: share of the other images of the class that are among the first k hits.
        mean_average_precision: see `imgsearch.search.metrics.measure`.
    """

    precision_at_1: Estimate
    precision_at_k: Estimate
    recall_at_k: Estimate
    mean_average_precision: Estimate


@dataclass(frozen=True, slots=True)
class Searched:
    """How many queries the index answered, and how; see `imgsearch.hits.Search`.

    Attributes:
        ivf: by probing lists.
        wide: by probing all, as those probed first held fewer than k images.
        exact: by exact search.
        nprobe: the least and the most lists that were probed by `ivf`; 0 and 0 for none.
    """

    ivf: int
    wide: int
    exact: int
    nprobe: tuple[int, int]


@dataclass(frozen=True, slots=True)
class WorstHit:
    """A labelled image among the hits of a query; `right` where it is of the query's class."""

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
        labelled: paths that have a label; two of one image are one.
        images: those of them in the collection: only they are queries and hits.
        missing: the labelled paths that the collection does not have.
        unlabelled: images of the collection without a label, which take no rank.
        classes: labels of `images`.
        queries: images that were asked with.
        alone: images that are the only one of their class: hits for others, and no queries.
        k: of precision at k and recall at k.
        exact: measured with exact search.
        index: measured with the index; None where there is none.
        searched: how the index answered.
        worst: up to ten queries, the lowest average precision by exact search first; only such that
            it is less than 1.
        seconds: it took.
        warnings: about labels that are nearly the same, and paths that nearly are those of images.
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
