"""`imgsearch tune`."""

from __future__ import annotations

from pathlib import Path

import click

from imgsearch.cli import options
from imgsearch.cli.locating import locate
from imgsearch.cli.plot import check_plot, draw
from imgsearch.cli.progress import CountBar
from imgsearch.cli.sweep import as_json as sweep_as_json
from imgsearch.cli.sweep import as_text as sweep_as_text

__all__ = ["tune"]


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

    Images held out of training are the queries. The collection stays as it is, but for --apply. On
    Ctrl-C, what was measured by then is shown.
    """
    from imgsearch.evaluation.tune import apply as apply_sweep
    from imgsearch.evaluation.tune import tune
    from imgsearch.storage.layout import Layout
    from imgsearch.storage.migrations import migrate

    files = check_plot(plot) if plot else []
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
        text = sweep_as_text(sweep)
        click.echo(sweep_as_json(str(directory.absolute()), sweep) if as_json else text)
        draw(sweep, files)
    if not sweep.complete:
        raise KeyboardInterrupt("the collection is as it was")
    if apply:
        apply_sweep(directory, sweep, device=device)
        click.echo("applied: the index was made anew", err=True)
