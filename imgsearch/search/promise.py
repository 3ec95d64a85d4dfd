"""The promise: how many lists a query probes so that it keeps a recall, and what it can expect.

A fixed `nprobe` keeps its recall for queries like the collection only: one that is far from every
centroid has its neighbours scattered over many lists. So queries are told apart by their squared
distance to the nearest centroid. Each band of distances has an `nprobe` of its own, and beyond the
last band nothing is promised but by exact search; nor in a band where no `nprobe` keeps the recall,
as may be if the lists are lossy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imgsearch.search.vectors import Vectors

__all__ = ["Plan", "Promise", "Step"]

_NONE = np.iinfo(np.int64).max  # more than any nprobe: none of them keeps the recall


@dataclass(frozen=True, slots=True)
class Step:
    """Recall@10 measured at one `nprobe`, for queries of one band.

    Attributes:
        up_to: squared distance from the nearest centroid at which the band ends.
        nprobe: lists probed.
        recall: mean recall of the held-out images of the band.
        bound: its lower 95 % confidence bound, also for images that are unlike all others.
        milliseconds: that one query takes.
    """

    up_to: float
    nprobe: int
    recall: float
    bound: float
    milliseconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """How to keep a recall: for each band `nprobe` and the `recall` to expect, `[bands]`.

    An `nprobe` of 0 stands for exact search.
    """

    nprobe: npt.NDArray[np.int64]
    recall: npt.NDArray[np.float64]


class Promise:
    """What was measured of an index, by band and `nprobe`."""

    def __init__(self, steps: Sequence[Step]) -> None:
        """Arrange the steps; each band has the same `nprobe`s."""
        edges = sorted({step.up_to for step in steps})
        self._edges = np.array(edges, np.float64)
        self._bands = [
            sorted((step for step in steps if step.up_to == edge), key=lambda step: step.nprobe)
            for edge in edges
        ]

    @property
    def bands(self) -> int:
        """The number of bands."""
        return len(self._bands)

    def band_of(self, distances: Vectors) -> npt.NDArray[np.int64]:
        """Return the band of each squared distance `[n]`; `bands` for what is beyond the last."""
        return np.searchsorted(self._edges, distances).astype(np.int64)

    def keep(self, recall: float) -> Plan:
        """Return the fewest lists a band whose confidence bound is `recall` or more."""
        chosen = [
            next((step.nprobe for step in band if step.bound >= recall), _NONE)
            for band in self._bands
        ]
        # A band farther out never probes less than a nearer one, whatever chance measured.
        reached = np.maximum.accumulate(np.array(chosen, np.int64))
        nprobe = np.where(reached == _NONE, 0, reached)
        expected = [
            self.expected(band, count) if count else 1.0
            for band, count in enumerate(nprobe.tolist())
        ]
        return Plan(nprobe, np.array(expected, np.float64))

    def expected(self, band: int, nprobe: int) -> float | None:
        """Return the recall that `nprobe` was measured to have at least; None if it was not."""
        if band >= self.bands:
            return None
        reached = [step.recall for step in self._bands[band] if step.nprobe <= nprobe]
        return reached[-1] if reached else None
