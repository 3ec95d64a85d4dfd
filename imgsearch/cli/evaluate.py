"""`imgsearch evaluate`."""

from __future__ import annotations

from pathlib import Path

import click

from imgsearch.cli import options
from imgsearch.cli.choice import choose
from imgsearch.cli.evaluation import as_json as evaluation_as_json
from imgsearch.cli.evaluation import as_text as evaluation_as_text
from imgsearch.cli.locating import locate_any
from imgsearch.cli.output import complain, where
from imgsearch.cli.progress import CountBar

__all__ = ["evaluate"]


@click.command(
    short_help="Measure P@k, recall@k and mAP on labelled images.", epilog=options.OPPOSITES
)
@click.argument("labels", metavar="LABELS", type=click.Path())
@options.depth_option
@options.recall_option
@options.json_option
@options.nprobe_option
@options.collection_option
@click.pass_context
def evaluate(
    ctx: click.Context,
    labels: str,
    k: int,
    recall: float | None,
    as_json: bool,
    nprobe: int | None,
    collection: Path | str | None,
) -> None:
    """Measure how well the images of the collection find those of their class.

    LABELS is a CSV file with the columns path and label, or a folder with a sub-folder for each
    class. Each labelled image is a query; the others are its hits, by exact search and by the
    index. Images without a label are left out.
    """
    from imgsearch.places import keeper_of

    chosen = choose(ctx, ("recall",), ("nprobe",))
    directory = locate_any(ctx, collection)
    with CountBar("evaluating", " queries") as bar:
        found = keeper_of(directory).evaluate(
            directory,
            labels,
            k=k,
            recall=recall if chosen == "recall" else None,
            nprobe=nprobe if chosen == "nprobe" else None,
            progress=bar,
        )
    for warning in found.warnings:
        complain(f"warning: {warning}")
    place = where(directory)
    click.echo(
        evaluation_as_json(place, found) if as_json else evaluation_as_text(place, labels, found)
    )
