"""What a sweep over `nlist` and `nprobe` has measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Choice", "Point", "Sweep", "Trial"]


@dataclass(frozen=True, slots=True)
class Point:
    """What one `nprobe` gives and costs.

    Attributes:
        nprobe: lists scanned.
        recall: mean recall@10 against exact search, of the queries held out.
        bound: its one-sided lower 95 % confidence bound.
        distance: mean L2 distance of the 10 hits, 0 to 2.
        milliseconds: of a query, many at once on all cores.
    """

    nprobe: int
    recall: float
    bound: float
    distance: float
    milliseconds: float


@dataclass(frozen=True, slots=True)
class Trial:
    """One `nlist`; `build_seconds` is to train, to file all images, and to write the index."""

    nlist: int
    build_seconds: float
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """The fastest that keeps a recall."""

    nlist: int
    point: Point


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep over `nlist` and `nprobe`.

    Attributes:
        images: of the collection.
        queries: images that no centroid was trained on, and that are no hits themselves.
        recall: recall@10 that a choice is to keep.
        exact_distance: mean L2 distance of the 10 true neighbours.
        exact_milliseconds: of a query by exact search, many at once on all cores.
        trials: one a `nlist`, in ascending order.
        complete: False where it was interrupted; the trials are those that were done by then.
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
        """The fastest point whose bound is `recall` or more; of equals, that of fewer lists."""
        kept = list(self._kept())
        return min(kept, key=lambda each: each.point.milliseconds) if kept else None

    def _kept(self) -> Iterator[Choice]:
        for trial in self.trials:
            for point in trial.points:
                if point.bound >= self.recall:
                    yield Choice(trial.nlist, point)
