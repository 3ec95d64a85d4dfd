"""`imgsearch verify`."""

from __future__ import annotations

from pathlib import Path

import click

from imgsearch.cli import options
from imgsearch.cli.locating import locate
from imgsearch.cli.progress import ByteBar
from imgsearch.cli.verification import as_json as verification_as_json
from imgsearch.cli.verification import as_text as verification_as_text
from imgsearch.errors import DamagedError

__all__ = ["verify"]

REPAIRED = 8


@click.command(
    short_help="Check every file of the collection, and repair it.", epilog=options.OPPOSITES
)
@options.repair_option
@options.sample_option
@options.json_option
@options.collection_option
@options.workers_option
@options.trust_model_option
@click.pass_context
def verify(
    ctx: click.Context,
    repair: bool,
    sample: int,
    as_json: bool,
    collection: Path | None,
    workers: int | None,
    trust_model: bool,
) -> None:
    """Check that every file of the collection is as it was written.

    Its index has to cover its images, and a sample of these is embedded again. Files that are not
    what was indexed any more are named, and are no damage. Exit codes: 0 the collection is sound, 8
    it was repaired, 4 it is damaged.
    """
    from imgsearch.maintenance.verify import verify

    directory = locate(ctx, collection)
    with ByteBar("verifying") as bar:
        report = verify(
            directory,
            repair=repair,
            sample=sample,
            workers=workers,
            trust_model=trust_model,
            progress=bar,
        )
    text = verification_as_text(report)
    click.echo(verification_as_json(str(directory.absolute()), report) if as_json else text)
    if report.left:
        remedy = "restore it from a copy" if repair else "`imgsearch verify --repair` may mend it"
        raise DamagedError(f"{directory.absolute()} is damaged; {remedy}")
    if report.damages:
        ctx.exit(REPAIRED)
