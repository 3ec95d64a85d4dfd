"""`imgsearch verify`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imgsearch.cli import options
from imgsearch.cli.locate import locate
from imgsearch.cli.output import counted, dump, path_fields, shown
from imgsearch.cli.progress import ByteBar
from imgsearch.errors import DamagedError

if TYPE_CHECKING:
    from imgsearch.maintenance.damage import Damage, Verification

__all__ = ["verify"]


REPAIRED = 8
CHANGED_SHOWN = 20


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

    The index must cover the images, and a sample of these is embedded again. Image files that have
    changed since they were indexed are named, but are not damage. Exit codes: 0 the collection is
    sound, 8 it was repaired, 4 it is damaged.
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
    text = _as_text(report)
    click.echo(_as_json(str(directory.absolute()), report) if as_json else text)
    if report.left:
        remedy = (
            "restore it from a backup" if repair else "`imgsearch verify --repair` may repair it"
        )
        raise DamagedError(f"{directory.absolute()} is damaged; {remedy}")
    if report.damages:
        ctx.exit(REPAIRED)


def _as_json(collection: str, report: Verification) -> str:
    """Return the findings and repairs as a line of JSON."""
    return dump(
        {
            **path_fields(collection, "collection"),
            "images": report.images,
            "files": report.files,
            "bytes": report.bytes,
            "sampled": report.sampled,
            "embedded": report.embedded,
            "sealed": report.sealed,
            "leftovers": report.leftovers,
            "damages": _damages(report.damages),
            "changed": [path_fields(path) for path in report.changed],
            "gone": report.gone,
            "repairs": list(report.repairs),
            "left": _damages(report.left),
            "oddities": [{"file": each.file, "reason": each.reason} for each in report.oddities],
            "seconds": report.seconds,
        }
    )


def _as_text(report: Verification) -> str:
    """Return the findings and repairs as text: the damage, the repairs and a summary."""
    lines = [f"changed: {shown(path)}" for path in report.changed[:CHANGED_SHOWN]]
    if len(report.changed) > CHANGED_SHOWN:
        lines.append(f"... and {len(report.changed) - CHANGED_SHOWN:,} more; --json lists all")
    lines += [f"damaged: {shown(each.file)}: {shown(each.reason)}" for each in report.damages]
    lines += [f"odd: {shown(each.file)}: {shown(each.reason)}" for each in report.oddities]
    lines += [f"repaired: {shown(repair)}" for repair in report.repairs]
    lines += [
        f"not repaired: {shown(each.file)}: {shown(each.reason)}"
        for each in report.left
        if report.repairs or each not in report.damages
    ]
    if not report.sealed and not report.damages:
        lines.append("the last run was interrupted: the next `imgsearch index` seals its commits")
    if report.leftovers:
        lines.append(
            f"{counted(report.leftovers, 'file')} left by an interrupted run; the next run "
            f"deletes them"
        )
    size = f"{report.bytes / 1e6:,.1f} MB"
    checked = f"{counted(report.images, 'image')}, {counted(report.files, 'file')} of {size}"
    sample = f"{report.sampled:,} searched for, {report.embedded:,} of them embedded again"
    state = _originals(report) or "all is well"
    if report.damages:
        state = "damaged" if report.left else "repaired"
    return "\n".join([*lines, f"{checked}; {sample}; in {report.seconds:.1f} s: {state}"])


def _originals(report: Verification) -> str:
    """Return a remark on image files that changed since indexing; an empty string if none did."""
    changed, parts = len(report.changed), []
    if changed:
        files = "1 file is" if changed == 1 else f"{changed:,} files are"
        parts.append(f"{files} not what was indexed")
    if report.gone:
        parts.append(f"{report.gone:,} {'is' if report.gone == 1 else 'are'} not there")
    remedy = "; `imgsearch index` brings it up to date"
    return f"the collection is sound, but {' and '.join(parts)}{remedy}" if parts else ""


def _damages(damages: Sequence[Damage]) -> list[dict[str, str]]:
    return [{"part": each.part.value, "file": each.file, "reason": each.reason} for each in damages]
