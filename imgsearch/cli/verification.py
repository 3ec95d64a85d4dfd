"""What `imgsearch verify` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from imgsearch.cli.output import counted, dump, path_fields, shown

if TYPE_CHECKING:
    from imgsearch.maintenance.damage import Damage, Verification

__all__ = ["as_json", "as_text"]

CHANGED_SHOWN = 20


def as_json(collection: str, report: Verification) -> str:
    """Return what was found and done as a line of JSON."""
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


def as_text(report: Verification) -> str:
    """Return what was found and done: the damage, the repairs, the sum of it."""
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
        lines.append(
            "the last run was interrupted: its commits are sealed by the next `imgsearch index`"
        )
    if report.leftovers:
        lines.append(
            f"{counted(report.leftovers, 'file')} of an interrupted run, which the next deletes"
        )
    size = f"{report.bytes / 1e6:,.1f} MB"
    checked = f"{counted(report.images, 'image')}, {counted(report.files, 'file')} of {size}"
    sample = f"{report.sampled:,} searched for, {report.embedded:,} of them embedded again"
    state = _originals(report) or "all is well"
    if report.damages:
        state = "damaged" if report.left else "repaired"
    return "\n".join([*lines, f"{checked}; {sample}; in {report.seconds:.1f} s: {state}"])


def _originals(report: Verification) -> str:
    """Return what is to be said of the images' files, nothing if they are as they were indexed."""
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
