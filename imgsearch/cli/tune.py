"""`imgsearch tune`."""

from __future__ import annotations

import logging
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imgsearch.cli import options
from imgsearch.cli.locate import locate
from imgsearch.cli.output import dump, path_fields
from imgsearch.cli.progress import CountBar
from imgsearch.errors import SettingError, StorageError, check_installed, reason_of
from imgsearch.storage.files import user_cache

if TYPE_CHECKING:
    from imgsearch.evaluation.tune import Choice, Sweep, Timing

__all__ = ["tune"]
COLUMNS = ("nlist", "build s", "nprobe", "recall@10", "at least", "distance", "ms/query")
INTERVAL = "  95 % interval"
KINDS = (".png", ".svg")
MARKERS = "osD^vP*X"  # so that lines can also be told apart without colours
PROBES = "nprobe (inverted lists scanned)"


@click.command(
    short_help="Measure which nlist and nprobe suit the collection.", epilog=options.OPPOSITES
)
@options.recall_option
@options.apply_option
@options.plot_option
@options.json_option
@options.nlists_option
@options.nprobes_option
@options.queries_option
@options.collection_option
@options.device_option
@click.pass_context
def tune(
    ctx: click.Context,
    recall: float | None,
    apply: bool,
    plot: Path | None,
    as_json: bool,
    nlist: tuple[int, ...],
    nprobe: tuple[int, ...],
    queries: int,
    collection: Path | None,
    device: str,
) -> None:
    """Build the index with several nlist, and measure recall, distance and time against nprobe.

    Images held out of training are the queries. Settings are timed in turns, so that a machine that
    is busy with other work does not favour any of them, and one is recommended only if it is
    clearly faster than the others. Meanwhile, the disk needs room for an index with each nlist. The
    collection stays as it is unless --apply is given. Ctrl-C ends early, and shows what was
    measured so far.
    """
    from imgsearch.evaluation.tune import apply as apply_sweep
    from imgsearch.evaluation.tune import tune
    from imgsearch.storage.layout import Layout
    from imgsearch.storage.migrations import migrate

    files = _check_plot(plot) if plot else []
    directory = locate(ctx, collection)
    if apply:
        migrate(Layout.at(directory))
    with CountBar("tuning", " steps") as bar:
        sweep = tune(
            directory,
            nlist=nlist,
            nprobe=nprobe,
            recall=recall,
            queries=queries,
            device=device,
            progress=bar,
        )
    if sweep.trials:
        text = _as_text(sweep)
        click.echo(_as_json(str(directory.absolute()), sweep) if as_json else text)
        _draw(sweep, files)
    if not sweep.complete:
        raise KeyboardInterrupt("the collection was not changed")
    if apply and len(sweep.fastest) > 1:
        click.echo("nothing was applied: none of the settings is clearly the fastest", err=True)
    elif apply:
        apply_sweep(directory, sweep, device=device)
        click.echo("applied: the index was rebuilt", err=True)


def _as_json(collection: str, sweep: Sweep) -> str:
    """Return the measurements as a line of JSON."""
    told = asdict(sweep)
    told["exact_milliseconds"] = sweep.exact_milliseconds
    for trial, fields in zip(sweep.trials, told["trials"], strict=True):
        for point, more in zip(trial.points, fields["points"], strict=True):
            more["milliseconds"] = point.milliseconds
    told["fastest"] = [_choice_fields(choice) for choice in sweep.fastest]
    told["choice"] = None if sweep.choice is None else _choice_fields(sweep.choice)
    return dump({**path_fields(collection, "collection"), **told})


def _choice_fields(choice: Choice) -> dict[str, Any]:
    point = {**asdict(choice.point), "milliseconds": choice.point.milliseconds}
    return {"nlist": choice.nlist, "point": point}


def _as_text(sweep: Sweep) -> str:
    """Return a table of the measurements, and the recommendation."""
    rows = [COLUMNS]
    intervals = [INTERVAL]
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
            intervals.append(_interval(point.timing))
    exact = f"{sweep.exact_distance:.4f}", f"{sweep.exact_milliseconds:.3f}"
    rows.append(("exact", "", "", "1.0000", "1.0000", *exact))
    intervals.append(_interval(sweep.exact_timing))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) + interval
        for row, interval in zip(rows, intervals, strict=True)
    ]
    about = (
        f"{sweep.images:,} images; {sweep.queries:,} of them are held out of training, and are "
        f"the queries, all at once"
    )
    return "\n".join([*table, about, *_recommendation(sweep)])


def _interval(timing: Timing) -> str:
    """Return the interval of a time as a cell, empty if it is not known."""
    return "" if timing.low is None else f"  {timing.low:.3f} to {timing.high:.3f}"


def _recommendation(sweep: Sweep) -> list[str]:
    """Return the lines that say which setting to choose, and why."""
    fastest, kept = sweep.fastest, f"recall@10 {sweep.recall:g}"
    if not fastest:
        return [f"none of these settings keeps {kept}; try a larger nprobe"]
    if sweep.choice is not None:
        return [
            f"recommended for {kept}: --nlist {sweep.choice.nlist}, where nprobe "
            f"{sweep.choice.point.nprobe} is the fastest that keeps it"
        ]
    names = ", ".join(
        f"{each.nlist:,} (nprobe {each.point.nprobe:,})"
        for each in sorted(fastest, key=lambda each: each.nlist)
    )
    if any(each.nlist == sweep.present for each in fastest):
        advice = f"keep the present nlist, {sweep.present:,}"
    else:
        advice = "any of them will do: --nlist N --apply"
    return [f"these nlist keep {kept}, and none is clearly the fastest: {names}", advice]


def _check_plot(path: Path) -> list[Path]:
    """Return the files to draw: `path` itself, or, if it has no known suffix, one of each kind.

    Raises:
        PackageError: If Matplotlib is not installed.
        SettingError: If the folder of the files does not exist.
    """
    check_installed("--plot", "matplotlib")
    if not path.parent.is_dir():
        raise SettingError(f"there is no folder {path.parent} for the plot; create it first")
    if path.suffix.lower() in KINDS:
        return [path]
    return [path.with_name(path.name + kind) for kind in KINDS]


def _draw(sweep: Sweep, paths: list[Path]) -> None:
    """Draw build time by nlist; and recall, distance and time by nprobe, with a line per nlist.

    Raises:
        StorageError: If a file cannot be written.
    """
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it logs that it builds a font cache
    # By default, it would create its own folders in the user's cache and configuration folders.
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
    recall.axhline(sweep.recall, color="grey", linestyle=":", label=f"requested: {sweep.recall:g}")
    _label(recall, PROBES, "recall@10")
    _lines(distance, sweep, "distance")
    distance.axhline(sweep.exact_distance, color="grey", linestyle="--", label="exact search")
    _label(distance, PROBES, "mean L2 distance of the hits")
    _lines(time, sweep, "milliseconds")
    time.axhline(sweep.exact_milliseconds, color="grey", linestyle="--", label="exact search")
    time.set_yscale("log")
    _label(time, PROBES, "time per query (ms)")
    _shade(time, sweep)
    for axes in (recall, distance, time):
        axes.legend(fontsize="small")
    for path in paths:
        try:
            figure.savefig(path, dpi=120)
        except OSError as error:
            raise StorageError(f"cannot write {path}: {reason_of(error)}") from error


def _lines(axes: Any, sweep: Sweep, name: str) -> None:
    for number, trial in enumerate(sweep.trials):
        axes.plot(
            [point.nprobe for point in trial.points],
            [getattr(point, name) for point in trial.points],
            marker=MARKERS[number % len(MARKERS)],
            markersize=4,
            color=_colour(sweep, number),
            label=f"nlist {trial.nlist:,}",
        )


def _shade(axes: Any, sweep: Sweep) -> None:
    """Draw the intervals of the times around their lines."""
    for number, trial in enumerate(sweep.trials):
        known = [point for point in trial.points if point.timing.low is not None]
        axes.fill_between(
            [point.nprobe for point in known],
            [point.timing.low for point in known],
            [point.timing.high for point in known],
            color=_colour(sweep, number),
            alpha=0.2,
            linewidth=0,
        )


def _colour(sweep: Sweep, number: int) -> Any:
    """Return the colour of a trial."""
    from matplotlib import colormaps

    return colormaps["viridis"].resampled(len(sweep.trials) + 1)(number)  # the last is too pale


def _label(axes: Any, across: str, up: str) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(visible=True, alpha=0.3)
