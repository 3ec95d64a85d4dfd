"""What the commands print."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from imgsearch.hits import Hit
    from imgsearch.reports import Failure, IndexReport, Info

__all__ = [
    "complain",
    "hits_as_json",
    "hits_as_table",
    "info_as_json",
    "info_as_text",
    "report_as_json",
    "report_as_text",
    "shown",
]

FAILURES_SHOWN = 20
LISTS_SHOWN = 12


def shown(text: str) -> str:
    """Return text that a terminal can take: control and formatting characters are escaped."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def dump(value: Any) -> str:
    """Return one line of JSON."""
    return json.dumps(value)


def path_fields(path: str, name: str = "path") -> dict[str, str]:
    """Return a path as a JSON field; its bytes, base64, beside it where it is not UTF-8."""
    raw = os.fsencode(path)
    text = raw.decode("utf-8", "replace")
    if text.encode() == raw:
        return {name: text}
    return {name: text, f"{name}_bytes": base64.b64encode(raw).decode("ascii")}


def hits_as_json(query: str, hits: list[Hit]) -> str:
    """Return the answer to one query as a line of JSON, paths absolute."""
    rows = [
        {
            "rank": hit.rank,
            "id": hit.id,
            **path_fields(hit.path),
            "distance": round(hit.distance, 6),
            "similarity": round(hit.similarity, 6),
        }
        for hit in hits
    ]
    path = os.path.abspath(os.path.expanduser(query))
    return dump({**path_fields(path, "query"), "hits": rows})


def hits_as_table(query: str, hits: list[Hit]) -> str:
    """Return the answer to one query as a table."""
    lines = [shown(query), "   #  similarity  distance  path"]
    lines += [
        f"{hit.rank:4}  {hit.similarity:10.4f}  {hit.distance:8.4f}  {shown(hit.path)}"
        for hit in hits
    ]
    return "\n".join(lines)


def report_as_json(collection: str, report: IndexReport) -> str:
    """Return what an indexing run did as a line of JSON."""
    fields = asdict(report)
    fields["failures"] = [_failure(failure) for failure in report.failures]
    fields["unreadable"] = [_failure(failure) for failure in report.unreadable]
    return dump({"collection": collection, **fields})


def report_as_text(report: IndexReport) -> str:
    """Return what an indexing run did: its failures, then the sum of it."""
    lines = [
        f"cannot list {shown(folder.path)}: {shown(folder.reason)}" for folder in report.unreadable
    ]
    lines += [
        f"failed: {shown(failure.path)}: {shown(failure.reason)}"
        for failure in report.failures[:FAILURES_SHOWN]
    ]
    if len(report.failures) > FAILURES_SHOWN:
        more = len(report.failures) - FAILURES_SHOWN
        lines.append(f"... and {more:,} more; --json lists all")
    lines.append(
        f"{report.found:,} found: {report.indexed:,} indexed, {report.unchanged:,} unchanged, "
        f"{report.failed:,} failed, {report.skipped:,} skipped, in {report.seconds:.1f} s"
    )
    return "\n".join(lines)


def info_as_json(info: Info) -> str:
    """Return what a collection holds as a line of JSON."""
    fields = asdict(info) | {"roots": [path_fields(root) for root in info.roots]}
    return dump(fields)


def info_as_text(info: Info, models: list[str]) -> str:
    """Return what a collection holds, a fact a line."""
    ivf, sizes = info.ivf, sorted(info.list_sizes)
    if ivf is None:
        index = "none: every search is exact (made from 256 images on, or by --nlist)"
    else:
        index = (
            f"IndexIVFFlat, nlist {ivf.nlist}, nprobe {ivf.nprobe} "
            f"(recall@10 {ivf.recall:.3f}, at least {ivf.recall_bound:.3f} with 95 % confidence)"
        )
    rows = [
        ("collection", info.directory),
        ("size", f"{info.bytes / 1e6:,.1f} MB"),
        ("images", f"{info.images:,} ({info.failed:,} files failed, {info.skipped:,} skipped)"),
        *(("root", root) for root in info.roots),
        ("model", f"{info.model.name}, {info.model.dim} values an image"),
        ("weights", f"{info.model.weights} (SHA-256 {info.model.weights_sha256[:16]}...)"),
        ("index", index),
    ]
    if sizes:
        middle = sizes[len(sizes) // 2]
        text = f"{len(sizes)} centroids with {sizes[0]} to {sizes[-1]} images, median {middle}"
        if len(sizes) <= LISTS_SHOWN:
            text += f": {' '.join(map(str, info.list_sizes))}"
        rows.append(("lists", text))
    if ivf is not None:
        rows.append(("tail", f"{info.tail:,} images not in the lists yet, searched exactly"))
    rows += [
        ("faiss", info.faiss),
        ("device", info.device),
        ("models", ", ".join(models)),
    ]
    return "\n".join(f"{name:<12}{shown(value)}" for name, value in rows)


def _failure(failure: Failure) -> dict[str, str]:
    return {**path_fields(failure.path), "reason": failure.reason}


def complain(message: str) -> None:
    """Print an error to stderr."""
    click.echo(f"imgsearch: {shown(message)}", err=True)
