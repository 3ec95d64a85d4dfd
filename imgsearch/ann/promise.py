"""The promise: how many lists a query probes to keep a recall, according to measured curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imgsearch.ann.vectors import Vectors

__all__ = [
    "BANDS",
    "FEWEST",
    "WITHIN",
    "Plan",
    "Promise",
    "RecallSample",
    "Step",
    "curve",
    "ladder",
    "lower_bound",
]


_NONE = np.iinfo(np.int64).max  # more than any nprobe: none of them keeps the recall
BANDS = 3
WITHIN = 0.95  # share of the held-out images that the bands cover
FEWEST = 20  # queries of a sample in a band: fewer are judged together with the other sample
FARTHEST = 4.0  # maximum squared distance of two unit vectors
_Z95 = 1.6449  # one-sided 95 % quantile of the standard normal distribution


@dataclass(frozen=True, slots=True)
class Step:
    """Recall@10 measured at one `nprobe`, for queries of one band.

    Attributes:
        up_to: Squared distance from the nearest centroid at which the band ends.
        nprobe: Number of lists probed.
        recall: Mean recall of the held-out images in the band.
        bound: Lower 95 % confidence bound of the recall, valid for out-of-distribution queries too.
        milliseconds: Time of one query in milliseconds.
    """

    up_to: float
    nprobe: int
    recall: float
    bound: float
    milliseconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """How to keep a recall: the `nprobe` and the expected `recall` of each band, `[bands]`.

    An `nprobe` of 0 stands for exact search. `lists` is `nprobe`, followed by a 0 for whatever is
    beyond the last band.
    """

    nprobe: npt.NDArray[np.int64]
    recall: npt.NDArray[np.float64]
    lists: npt.NDArray[np.int64]


class Promise:
    """The measurements of an index, by band and `nprobe`."""

    def __init__(self, steps: Sequence[Step]) -> None:
        """Arrange the steps by band; each band has the same `nprobe`s."""
        edges = sorted({step.up_to for step in steps})
        self._edges = np.array(edges, np.float64)
        self._bands = [
            sorted((step for step in steps if step.up_to == edge), key=lambda step: step.nprobe)
            for edge in edges
        ]
        self._plans: dict[float, Plan] = {}

    @property
    def bands(self) -> int:
        """The number of bands."""
        return len(self._bands)

    def band_of(self, distances: Vectors) -> npt.NDArray[np.int64]:
        """Return the band of each squared distance `[n]`, or `bands` beyond the last band."""
        return np.asarray(self._edges.searchsorted(distances), np.int64)

    def keep(self, recall: float) -> Plan:
        """Plan the fewest lists per band whose confidence bound is at least `recall`."""
        plan = self._plans.get(recall)
        if plan is None:
            plan = self._plan(recall)
            self._plans = {
                recall: plan
            }  # at once: other threads may read it; few recalls are asked
        return plan

    def _plan(self, recall: float) -> Plan:
        chosen = [
            next((step.nprobe for step in band if step.bound >= recall), _NONE)
            for band in self._bands
        ]
        # A farther band never probes fewer lists than a nearer one, whatever chance measured.
        reached = np.maximum.accumulate(np.array(chosen, np.int64))
        nprobe = np.where(reached == _NONE, 0, reached)
        expected = [
            self.expected(band, count) if count else 1.0
            for band, count in enumerate(nprobe.tolist())
        ]
        return Plan(nprobe, np.array(expected, np.float64), np.append(nprobe, 0))

    def expected(self, band: int, nprobe: int) -> float | None:
        """Return the recall at the largest measured `nprobe` up to this one; None without one."""
        if band >= self.bands:
            return None
        reached = [step.recall for step in self._bands[band] if step.nprobe <= nprobe]
        return reached[-1] if reached else None


@dataclass(frozen=True, slots=True, eq=False)
class RecallSample:
    """The measurements of a sample of queries.

    `distance` is the squared distance to the nearest centroid, float32 `[n]`. `recall` is the
    recall@10 at each `nprobe` from 1 to nlist, float32 `[n, nlist]`; its rows never decrease.
    """

    distance: Vectors
    recall: Vectors

    def joined(self, other: RecallSample) -> RecallSample:
        """Return both samples as one."""
        return RecallSample(
            np.concatenate([self.distance, other.distance]),
            np.concatenate([self.recall, other.recall]),
        )


def ladder(nlist: int) -> list[int]:
    """Return the `nprobe`s of a curve: from 1 to `nlist`, each about √2 times the previous."""
    steps = [1]
    while steps[-1] < nlist:
        steps.append(min(nlist, max(steps[-1] + 1, round(steps[-1] * math.sqrt(2)))))
    return steps


def curve(
    held_out: RecallSample,
    ood: RecallSample,
    clock: Callable[[int], float],
    *,
    lossy: bool = False,
    beyond: float | None = None,
    fewest: int = FEWEST,
) -> list[Step]:
    """Return the recall and its bound for each band and each `nprobe` of the `ladder`.

    The bands divide the held-out images, without the farthest 5 %, into three parts of equal size
    by their distance from the nearest centroid. An outer band follows, up to the distance within
    which all but 5 % of the out-of-distribution queries lie: no measurement here represents
    anything farther away.

    Args:
        held_out: Sample of queries like the collection.
        ood: Sample of out-of-distribution queries.
        clock: Function that returns the milliseconds that one query takes at an `nprobe`.
        lossy: Whether a search of all lists is still not exact.
        beyond: Share of the out-of-distribution queries that an outer band leaves out; None for no
            such band.
        fewest: Number of queries from which on a sample is judged by itself in a band.
    """
    nlist = held_out.recall.shape[1]
    if not len(held_out.distance):  # the collection has a single image
        return [Step(FARTHEST, nlist, 1.0, 0.0 if lossy else 1.0, clock(nlist))]
    shares = np.linspace(0, WITHIN, BANDS + 1)[1:]
    edges = np.unique(np.quantile(held_out.distance, shares).astype(np.float64))
    if beyond is not None and len(ood.distance) and len(edges) == BANDS:
        end = float(np.quantile(ood.distance, 1 - beyond))
        edges = np.append(edges, end) if end > edges[-1] else edges
    both = held_out.joined(ood)
    steps = []
    reached = dict.fromkeys(edges.tolist(), 0.0)  # a bound for fewer lists holds for more
    for nprobe in ladder(nlist):
        milliseconds, above = clock(nprobe), -1.0
        for edge in edges.tolist():
            values = [
                sample.recall[(sample.distance > above) & (sample.distance <= edge), nprobe - 1]
                for sample in (both, held_out, ood)
            ]
            judged = [part for part in values if len(part) >= fewest]
            # The most that a sample without a single miss can prove, by the rule of three (Hanley
            # and Lippman-Hand, "If Nothing Goes Wrong, Is Everything All Right?", JAMA 1983).
            most = 1 - 3 / max(len(values[0]), 3)
            bound = min((most, *map(lower_bound, judged))) if judged else 0.0
            bound = max(reached[edge], bound)
            bound = 1.0 if nprobe == nlist and not lossy else bound
            reached[edge] = bound
            shown = values[1] if len(values[1]) else values[0]
            recall = float(shown.mean()) if len(shown) else bound
            steps.append(Step(edge, nprobe, recall, bound, milliseconds))
            above = edge
    return steps


def lower_bound(values: npt.NDArray[np.float32]) -> float:
    """Return the one-sided lower 95 % confidence bound of the mean of a sample.

    This is the normal approximation, mean - 1.645 s / √n (Wasserman, All of Statistics, 2004,
    section 6.3.2); it takes at least two values.
    """
    return float(values.mean() - _Z95 * values.std(ddof=1) / math.sqrt(len(values)))
