"""What `imgsearch index` and `imgsearch info` print."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from imgsearch.cli.output import counted, shown
from imgsearch.files.kinds import OTHER
from imgsearch.files.paths import dump, path_fields
from imgsearch.querying.info import info_fields

if TYPE_CHECKING:
    from imgsearch.indexing.report import Failure, IndexReport
    from imgsearch.querying.info import Info
    from imgsearch.storage.records import IvfRecord

__all__ = ["info_as_json", "info_as_text", "report_as_json", "report_as_text"]

FAILURES_SHOWN = 20
ENOUGH = 0.999  # recall from which on the curve is of no more interest
LISTS_SHOWN = 12
KINDS_SHOWN = 8


def report_as_json(collection: str, report: IndexReport) -> str:
    """Return what an indexing run did as a line of JSON."""
    fields = asdict(report)
    fields["skipped_kinds"] = dict(report.skipped_kinds)
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
    if report.skipped:
        lines.append(f"{report.skipped:,} skipped: {_kinds(report.skipped_kinds)}")
    return "\n".join([*lines, _sum(report)])


def _kinds(kinds: tuple[tuple[str, int], ...]) -> str:
    """Return how many there are of each kind, the rarest ones together."""
    named = [(kind, count) for kind, count in kinds if kind != OTHER][:KINDS_SHOWN]
    rest = sum(count for _, count in kinds) - sum(count for _, count in named)
    parts = [f"{count:,} {shown(kind)}" for kind, count in named]
    return ", ".join([*parts, f"{rest:,} {OTHER}"] if rest else parts)


def _sum(report: IndexReport) -> str:
    always = {"indexed", "unchanged", "failed", "skipped"}
    counts = {
        "indexed": report.indexed,
        "copied": report.copied,
        "moved": report.moved,
        "unchanged": report.unchanged,
        "failed": report.failed,
        "skipped": report.skipped,
        "excluded": report.excluded,
    }
    parts = [f"{count:,} {name}" for name, count in counts.items() if count or name in always]
    gone = f"; {report.removed:,} removed" if report.removed else ""
    out = f"; {report.left_out:,} left out" if report.left_out else ""
    return f"{report.found:,} found: {', '.join(parts)}{gone}{out}, in {report.seconds:.1f} s"


def info_as_json(info: Info) -> str:
    """Return what a collection holds as a line of JSON."""
    return dump(info_fields(info))


def info_as_text(info: Info, models: list[str]) -> str:
    """Return what a collection holds, a fact a line."""
    out = f", {info.excluded:,} taken out" if info.excluded else ""
    rows = [
        ("collection", info.directory),
        ("size", f"{info.bytes / 1e6:,.1f} MB"),
        (
            "images",
            f"{info.images:,} ({info.failed:,} files failed, {info.skipped:,} skipped{out})",
        ),
        *(("root", root) for root in info.roots),
        ("left out", " ".join(map(_quoted, info.left_out))),
        ("model", f"{info.model.name}, {info.model.dim} values an image"),
        ("weights", f"{info.model.weights} (SHA-256 {info.model.weights_sha256[:16]}...)"),
        *_decoder_rows(info),
        *_index_rows(info),
        ("faiss", info.faiss),
        ("device", info.device),
        ("models", ", ".join(models)),
    ]
    return "\n".join(f"{name:<12}{shown(value)}" for name, value in rows)


def _decoder_rows(info: Info) -> Iterator[tuple[str, str]]:
    """Say what an older decoder means for what it made."""
    from imgsearch.images.decode import DECODER  # not above: `imgsearch --help` needs no Pillow

    if info.model.decoder < DECODER:
        text = (
            f"{info.model.decoder}, and this imgsearch has {DECODER}: images of more than 8 bits, "
            "images with an ICC profile, raws and animations may have been read otherwise; "
            "to embed all alike, index into a new collection"
        )
        yield "decoder", text


def _quoted(pattern: str) -> str:
    return shlex.quote(pattern) if " " in pattern else pattern


def _index_rows(info: Info) -> Iterator[tuple[str, str]]:
    ivf, sizes = info.ivf, sorted(info.list_sizes)
    if ivf is None:
        yield "index", "none: every search is exact (made from 256 images on, or by --nlist)"
        yield "promise", f"recall@10 {info.settings.recall:g}, kept by exact search"
        return
    kind = "IndexIVFFlat"
    if ivf.pca is not None:
        kind = f"IndexIVFScalarQuantizer (SQ8) of {ivf.pca} values that PCA leaves"
    each = round(info.index_bytes / max(sum(sizes) or info.images, 1))
    files = f", in {counted(info.segments, 'file')}" if info.segments else ""
    yield "index", f"{kind}, nlist {ivf.nlist}{files}, {each:,} bytes an image"
    yield "promise", _promise(info, ivf)
    yield from _curve_rows(ivf)
    if sizes:
        middle = sizes[len(sizes) // 2]
        text = f"{len(sizes)} centroids with {sizes[0]} to {sizes[-1]} images, median {middle}"
        if len(sizes) <= LISTS_SHOWN:
            text += f": {' '.join(map(str, info.list_sizes))}"
        yield "lists", text
    yield "tail", f"{counted(info.tail, 'image')} not in the lists yet, searched exactly"


def _curve_rows(ivf: IvfRecord) -> Iterator[tuple[str, str]]:
    """Show recall by nprobe, a column a band, as far as it still rises."""
    edges = sorted({step.up_to for step in ivf.curve})
    head = "  ".join(f"to {edge**0.5:.2f}" for edge in edges)
    bands = f" and by the distance from the nearest centroid ({head})" if len(edges) > 1 else ""
    yield "curve", f"recall@10 by nprobe{bands}"
    for nprobe in sorted({step.nprobe for step in ivf.curve}):
        steps = sorted(
            (step for step in ivf.curve if step.nprobe == nprobe), key=lambda step: step.up_to
        )
        recalls = "  ".join(f"{step.recall:7.3f}" for step in steps)
        yield "", f"{nprobe:6}  {recalls}  {steps[0].milliseconds:8.2f} ms"
        if all(step.recall >= ENOUGH for step in steps):
            return


def _promise(info: Info, ivf: IvfRecord) -> str:
    """Say which recall is kept, by how many lists, and what was measured of that."""
    text = f"recall@10 {info.settings.recall:g}"
    if info.nprobe:
        text += f" by {_probed(info.nprobe)}"
    edges = sorted({step.up_to for step in ivf.curve})
    chosen = set(zip(edges, info.nprobe, strict=False))
    kept = [step for step in ivf.curve if (step.up_to, step.nprobe) in chosen]
    if kept:
        worst = min(kept, key=lambda step: step.recall_bound)
        measured = f"measured {worst.recall:.3f}, at least {worst.recall_bound:.3f}"
        text += f" ({measured} with 95 % confidence)"
    if info.outgrown:
        text += "; the images have changed much since: `imgsearch index` makes it anew"
    return text


def _probed(nprobe: tuple[int, ...]) -> str:
    """Say how many lists are probed; 0 stands for exact search."""
    lists = sorted({count for count in nprobe if count})
    if not lists:
        return "exact search"
    text = "nprobe " + " to ".join(str(count) for count in dict.fromkeys((lists[0], lists[-1])))
    away = "centroids" if len(nprobe) > 1 else "images"
    return f"{text}, and by exact search far from all {away}"


def _failure(failure: Failure) -> dict[str, str]:
    return {**path_fields(failure.path), "reason": failure.reason}
