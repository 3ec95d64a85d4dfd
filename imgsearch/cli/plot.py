"""The plot of `imgsearch tune`."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgsearch.errors import SettingError, StorageError, reason_of
from imgsearch.storage.files import user_cache

if TYPE_CHECKING:
    from imgsearch.evaluation.tune import Sweep

__all__ = ["check_plot", "draw"]

KINDS = (".png", ".svg")
MARKERS = "osD^vP*X"  # so that lines can be told apart without colours, too
PROBES = "nprobe (inverted lists scanned)"


def check_plot(path: Path) -> list[Path]:
    """Return the files to draw: `path` itself, or with both kinds where its name has neither.

    Raises:
        SettingError: there is no folder for them.
    """
    if not path.parent.is_dir():
        raise SettingError(f"there is no folder {path.parent} for the plot; make it first")
    if path.suffix.lower() in KINDS:
        return [path]
    return [path.with_name(path.name + kind) for kind in KINDS]


def draw(sweep: Sweep, paths: list[Path]) -> None:
    """Draw build time against nlist; recall, distance and time against nprobe, a line a nlist.

    Raises:
        StorageError: a file cannot be written.
    """
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells of its cache of fonts
    # It would make folders of its own below the user's cache and configuration.
    os.environ.setdefault("MPLCONFIGDIR", str(user_cache("matplotlib")))
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    figure.suptitle(
        f"nlist and nprobe on {sweep.images:,} images, {sweep.queries:,} held-out queries, k = 10"
    )
    (build, recall), (distance, time) = figure.subplots(2, 2)
    build.plot(
        [trial.nlist for trial in sweep.trials],
        [trial.build_seconds for trial in sweep.trials],
        "o-",
        color="black",
    )
    build.set_ylim(bottom=0)
    _label(build, "nlist (centroids)", "build time (s)")
    _lines(recall, sweep, "recall")
    recall.axhline(sweep.recall, color="grey", linestyle=":", label=f"asked for: {sweep.recall:g}")
    _label(recall, PROBES, "recall@10")
    _lines(distance, sweep, "distance")
    distance.axhline(sweep.exact_distance, color="grey", linestyle="--", label="exact search")
    _label(distance, PROBES, "mean L2 distance of the hits")
    _lines(time, sweep, "milliseconds")
    time.axhline(sweep.exact_milliseconds, color="grey", linestyle="--", label="exact search")
    time.set_yscale("log")
    _label(time, PROBES, "time a query (ms)")
    for axes in (recall, distance, time):
        axes.legend(fontsize="small")
    for path in paths:
        try:
            figure.savefig(path, dpi=120)
        except OSError as error:
            raise StorageError(f"cannot write {path}: {reason_of(error)}") from error


def _lines(axes: Any, sweep: Sweep, name: str) -> None:
    from matplotlib import colormaps

    shades = colormaps["viridis"].resampled(len(sweep.trials) + 1)  # the last is too pale
    for number, trial in enumerate(sweep.trials):
        axes.plot(
            [point.nprobe for point in trial.points],
            [getattr(point, name) for point in trial.points],
            marker=MARKERS[number % len(MARKERS)],
            markersize=4,
            color=shades(number),
            label=f"nlist {trial.nlist:,}",
        )


def _label(axes: Any, across: str, up: str) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(visible=True, alpha=0.3)
