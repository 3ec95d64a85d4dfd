"""What `imgsearch tune` prints."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from imgsearch.cli.output import dump, path_fields

if TYPE_CHECKING:
    from imgsearch.evaluation.tune import Sweep

__all__ = ["as_json", "as_text"]

COLUMNS = ("nlist", "build s", "nprobe", "recall@10", "at least", "distance", "ms a query")


def as_json(collection: str, sweep: Sweep) -> str:
    """Return what was measured as a line of JSON."""
    choice = None if sweep.choice is None else asdict(sweep.choice)
    return dump({**path_fields(collection, "collection"), **asdict(sweep), "choice": choice})


def as_text(sweep: Sweep) -> str:
    """Return the table of what was measured, and what is recommended."""
    rows = [COLUMNS]
    for trial in sweep.trials:
        for number, point in enumerate(trial.points):
            first = (f"{trial.nlist:,}", f"{trial.build_seconds:.2f}") if not number else ("", "")
            rows.append(
                (
                    *first,
                    f"{point.nprobe:,}",
                    f"{point.recall:.4f}",
                    f"{point.bound:.4f}",
                    f"{point.distance:.4f}",
                    f"{point.milliseconds:.3f}",
                )
            )
    exact = f"{sweep.exact_distance:.4f}", f"{sweep.exact_milliseconds:.3f}"
    rows.append(("exact", "", "", "1.0000", "1.0000", *exact))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    about = (
        f"{sweep.images:,} images; {sweep.queries:,} of them, held out of training, are the "
        "queries, all at once"
    )
    return "\n".join([*table, about, _recommendation(sweep)])


def _recommendation(sweep: Sweep) -> str:
    choice = sweep.choice
    if choice is None:
        return f"nothing of this keeps recall@10 {sweep.recall:g}: let nprobe be larger"
    return (
        f"recommended for recall@10 {sweep.recall:g}: --nlist {choice.nlist}, where nprobe "
        f"{choice.point.nprobe} is the fastest that keeps it"
    )
