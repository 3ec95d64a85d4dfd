"""What `bench_growth` found: the figures, the tables, and whether they are as required."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.common import print_table
from benchmarks.growing import Checkpoint, K, Update

__all__ = ["MOST_UPDATE", "Growth", "Step", "print_growth", "usual"]

MOST_UPDATE = 3.0
MOST_QUERY = 2.0
PROMISED = 0.95  # recall@10, by default
SHORTFALL = 0.01
SHOWN = 4  # of the worst
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Step:
    """An update, and the same one alone; `alone` is empty if that was not measured."""

    update: Update
    alone: tuple[Update, ...]


@dataclass(frozen=True, slots=True)
class Growth:
    """All steps and checkpoints."""

    steps: tuple[Step, ...]
    checkpoints: tuple[Checkpoint, ...]
    embedding: float  # seconds an image

    def costs(self) -> list[tuple[Update, float]]:
        """Return updates with the seconds that the same takes alone, re-trainings left out."""
        typical = usual(self.steps)
        return [
            (step.update, _seconds(step.alone) if step.alone else typical)
            for step in self.steps
            if not step.update.retrained
        ]


def print_growth(growth: Growth) -> None:
    """Print all tables."""
    _print_updates(growth)
    _print_checkpoints(growth.checkpoints)
    _print_verdicts(growth)


def _seconds(updates: tuple[Update, ...]) -> float:
    return median(update.seconds for update in updates)


def usual(steps: Sequence[Step]) -> float:
    """Return the median seconds of the steps that were measured alone."""
    return median([_seconds(step.alone) for step in steps if step.alone] or [0.0])


def _print_updates(growth: Growth) -> None:
    kinds: dict[str, list[Update]] = {}
    previous = 0
    for step in growth.steps:
        update = step.update
        if update.retrained:
            kind = "retrained"
        else:
            kind = "into the tail" if update.tail > previous else "a new segment"
        previous = update.tail
        kinds.setdefault(kind, []).append(update)
    kinds["alone"] = [update for step in growth.steps for update in step.alone]
    print_table(
        "Updates, seconds",
        ("kind", "updates", "median", "most", "bare, median", "MiB written, median", "most"),
        [
            (
                kind,
                str(len(updates)),
                f"{median(u.seconds for u in updates):.3f}",
                f"{max(u.seconds for u in updates):.3f}",
                f"{median(u.committing for u in updates):.3f}",
                f"{median(u.written for u in updates) / MIB:.0f}",
                f"{max(u.written for u in updates) / MIB:.0f}",
            )
            for kind, updates in kinds.items()
        ],
    )


def _print_checkpoints(checkpoints: tuple[Checkpoint, ...]) -> None:
    print_table(
        f"Queries, one at a time, k = {K}, ms, medians (* just before retraining)",
        (
            "images",
            "trained for",
            "segments",
            "shards",
            "fresh",
            "tail",
            "nprobe/nlist",
            "fresh",
            "p50",
            "fresh",
            "ratio",
            "mean",
            "fresh",
            "ratio",
            "recall@10",
            "fresh",
            "exactly",
            "fresh",
        ),
        [
            (
                f"{c.images}{'*' if c.due else ''}",
                str(c.trained),
                str(c.segments),
                str(c.shards),
                str(c.fresh_shards),
                str(c.tail),
                f"{','.join(map(str, c.grown.nprobe))}/{c.nlist}",
                f"{','.join(map(str, c.fresh.nprobe))}/{c.fresh_nlist}",
                f"{1e3 * median(c.grown.p50):.2f}",
                f"{1e3 * median(c.fresh.p50):.2f}",
                f"{c.p50:.2f}",
                f"{1e3 * median(c.grown.mean):.2f}",
                f"{1e3 * median(c.fresh.mean):.2f}",
                f"{c.mean:.2f}",
                f"{c.grown.recall:.3f}",
                f"{c.fresh.recall:.3f}",
                f"{c.grown.exactly:.3f}",
                f"{c.fresh.exactly:.3f}",
            )
            for c in checkpoints
        ],
    )


def _print_verdicts(growth: Growth) -> None:
    """Print what is required, and where it is not kept."""
    costs = growth.costs()
    bare = median(update.committing for step in growth.steps for update in step.alone)
    embedding = growth.embedding * growth.steps[0].update.images  # of one step
    updates = {
        "update / alone": [u.seconds / alone for u, alone in costs],
        "the same, embedding included": [
            (embedding + u.seconds) / (embedding + alone) for u, alone in costs
        ],
        "update / bare, embedding included": [
            (embedding + u.seconds) / (embedding + bare) for u, _ in costs
        ],
    }
    queries = {
        "query p50 / fresh": (MOST_QUERY, [c.p50 for c in growth.checkpoints]),
        "query mean / fresh": (MOST_QUERY, [c.mean for c in growth.checkpoints]),
        "0.95 - recall@10": (SHORTFALL, [PROMISED - c.grown.recall for c in growth.checkpoints]),
        "the same, fresh": (SHORTFALL, [PROMISED - c.fresh.recall for c in growth.checkpoints]),
    }
    sizes = [update.images for update, _ in costs]
    rows = [(what, MOST_UPDATE, sizes, figures) for what, figures in updates.items()]
    sizes = [checkpoint.images for checkpoint in growth.checkpoints]
    rows += [(what, limit, sizes, figures) for what, (limit, figures) in queries.items()]
    print(
        f"\n  Embedding takes {1e3 * growth.embedding:.2f} ms an image, {embedding:.2f} s a step."
    )
    print_table(
        "Verdicts",
        ("what", "at most", "median", "worst", "of", "violated", "worst at"),
        [
            (
                what,
                f"{limit:g}",
                f"{median(figures):.3f}",
                f"{max(figures):.3f}",
                str(len(figures)),
                str(sum(figure > limit for figure in figures)),
                _worst(sizes, figures),
            )
            for what, limit, sizes, figures in rows
            if figures
        ],
    )


def _worst(sizes: list[int], figures: list[float]) -> str:
    order = sorted(range(len(figures)), key=lambda i: -figures[i])[:SHOWN]
    return ", ".join(f"{sizes[i]} ({figures[i]:.2f})" for i in order)
