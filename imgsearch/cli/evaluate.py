"""`imgsearch evaluate`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imgsearch.cli import options
from imgsearch.cli.locate import locate_any
from imgsearch.cli.options import choose
from imgsearch.cli.output import complain, counted, dump, path_fields, shortened, shown, where
from imgsearch.cli.progress import CountBar

if TYPE_CHECKING:
    from imgsearch.evaluation.evaluate import Estimate, Evaluation, Measures, WorstQuery
    from imgsearch.indexing.options import IndexOptions

__all__ = ["evaluate"]
DIGITS = 6
HITS_SHOWN = 5  # hits shown per query; --json has k


@click.command(
    short_help="Measure P@k, recall@k and mAP on labelled images.", epilog=options.OPPOSITES
)
@click.argument("labels", metavar="LABELS", type=click.Path())
@options.depth_option
@options.recall_option
@options.json_option
@options.nprobe_option
@options.worst_option
@options.verify_ranking_option
@options.models_option
@options.collection_option
@options.device_option
@options.workers_option
@click.pass_context
def evaluate(
    ctx: click.Context,
    labels: str,
    k: int,
    recall: float | None,
    as_json: bool,
    nprobe: int | None,
    worst: int,
    verify: bool,
    models: str | None,
    collection: Path | str | None,
    device: str,
    workers: int | None,
) -> None:
    """Measure how well the images of the collection find those of their class.

    LABELS is a CSV file with the columns path and label, or a folder with a sub-folder for each
    class. Each labelled image is a query; the others are its hits, by exact search and by the
    index. Images without a label are left out.

    With --models, the labelled images are embedded with each of these networks instead, and no
    collection is needed.
    """
    if models is not None:
        if verify or recall is not None or nprobe is not None:
            raise click.UsageError("--models compares by exact search, without these options", ctx)
        from imgsearch.indexing.options import IndexOptions

        asked = IndexOptions.of(workers=workers)
        _compare(models.split(","), labels, k=k, options=asked, device=device, as_json=as_json)
        return
    from imgsearch.collection import Collection

    chosen = choose(ctx, ("recall",), ("nprobe",))
    directory = locate_any(ctx, collection)
    with (
        Collection.open(directory, device="cpu") as there,
        CountBar("evaluating", " queries") as bar,
    ):
        found = there.evaluate(
            labels,
            k=k,
            recall=recall if chosen == "recall" else None,
            nprobe=nprobe if chosen == "nprobe" else None,
            verify=verify,
            progress=bar,
        )
    for warning in found.warnings:
        complain(f"warning: {warning}")
    place = where(directory)
    click.echo(_as_json(place, found) if as_json else _as_text(place, labels, found, worst))


def _compare(
    models: Sequence[str],
    labels: str,
    *,
    k: int,
    options: IndexOptions,
    device: str,
    as_json: bool,
) -> None:
    """Print how well the labelled images are found with each network."""
    from imgsearch.evaluation.compare import compare_models

    found: list[tuple[str, Evaluation]] = []
    names = [model.strip() for model in models]
    click.echo(f"embedding the labelled images with {names[0]}", err=True)
    for model, each in compare_models(names, labels, k=k, options=options, device=device):
        found.append((model, each))
        if len(found) < len(names):
            click.echo(f"embedding the labelled images with {names[len(found)]}", err=True)
    for warning in dict.fromkeys(warning for _, each in found for warning in each.warnings):
        complain(f"warning: {warning}")
    if as_json:
        rows = [
            {
                "model": model,
                "images": each.images,
                "queries": each.queries,
                "k": each.k,
                "exact": _measures(each.exact),
                "by_collection": _measures(each.collection),
            }
            for model, each in found
        ]
        click.echo(dump({"models": rows}))
        return
    click.echo("\n".join(_compared(found, k)))


def _compared(found: Sequence[tuple[str, Evaluation]], k: int) -> Iterator[str]:
    """Yield a table with a row for each network, in the order in which they were given."""
    width = max(len("model"), *(len(model) for model, _ in found))
    first = found[0][1]
    yield f"{first.images:,} images of {first.classes:,} classes, exact search by the cosine"
    yield ""
    heads = f"{'P@1':>6}  {f'P@{k}':>6}  {f'recall@{k}':>9}  {'mAP':>6}"
    yield f"{'model':<{width}}  {heads}  95 % interval"
    for model, each in found:
        p1, pk, recall, ap = _estimates(each.exact)
        yield (
            f"{shown(model):<{width}}  {p1.mean:6.4f}  {pk.mean:6.4f}  {recall.mean:9.4f}  "
            f"{ap.mean:6.4f}  {ap.low:.4f} to {ap.high:.4f}"
        )


def _as_json(collection: str, found: Evaluation) -> str:
    """Return the evaluation as a line of JSON."""
    return dump(
        {
            **path_fields(collection, "collection"),
            "labelled": found.labelled,
            "images": found.images,
            "missing": [path_fields(path) for path in found.missing],
            "unlabelled": found.unlabelled,
            "classes": found.classes,
            "queries": found.queries,
            "alone": found.alone,
            "k": found.k,
            "exact": _measures(found.exact),
            "index": _measures(found.index),
            "by_collection": _measures(found.collection),
            "index_by_collection": _measures(found.collection_index),
            "gain": _measures(found.gain),
            "index_gain": _measures(found.index_gain),
            "verified": _measures(found.verified),
            "verified_gain": _measures(found.verified_gain),
            "searched": asdict(found.searched),
            "worst": [_worst(query) for query in found.worst],
            "seconds": found.seconds,
            "warnings": [path_fields(text, "warning")["warning"] for text in found.warnings],
        }
    )


def _as_text(collection: str, labels: str, found: Evaluation, worst: int) -> str:
    """Return the evaluation as text: what was evaluated, a table, and some of the worst queries."""
    rows = [
        ("collection", collection),
        ("labels", labels),
        ("images", _images(found)),
        ("left out", _left_out(found)),
        ("queries", f"{found.queries:,}, each against all other labelled images"),
        ("index", _searched(found)),
    ]
    lines = [f"{name:<12}{shown(value)}" for name, value in rows if value]
    lines += ["", *_table(found), *_worst_lines(found.worst[:worst])]
    return "\n".join(lines)


def _images(found: Evaluation) -> str:
    text = f"{found.images:,} with a label, of {found.classes:,} classes"
    if found.missing:
        files = "file is" if len(found.missing) == 1 else "files are"
        text += f"; {len(found.missing):,} labelled {files} not in the collection, "
        text += f"such as {found.missing[0]}"
    return text


def _left_out(found: Evaluation) -> str:
    parts = []
    if found.unlabelled:
        parts.append(f"as hits, {counted(found.unlabelled, 'image')} without a label")
    if found.alone:
        text = counted(found.alone, "image")
        parts.append(f"as queries, {text} without another of the class")
    return "; ".join(parts)


def _searched(found: Evaluation) -> str:
    if found.index is None:
        return "none: every search is exact"
    searched = found.searched
    least, most = searched.nprobe
    probed = str(least) if least == most else f"{least} to {most}"
    parts = [f"{searched.ivf:,} queries by nprobe {probed}"] if searched.ivf else []
    parts += [f"{searched.wide:,} by all lists"] if searched.wide else []
    parts += [f"{searched.exact:,} by exact search"] if searched.exact else []
    return ", ".join(parts)


def _table(found: Evaluation) -> Iterator[str]:
    ways = {"exact": found.exact, "index": found.index}
    if found.collection is None:
        yield from _columns(found, ways)
    else:
        gain = {"cosine": found.exact, "collection": found.collection, "gain": found.gain}
        yield "exact search, ranked by the cosine and by what the collection knows of its images"
        yield from _columns(found, gain)
        if found.index:
            again = found.collection_index
            gain = {"cosine": found.index, "collection": again, "gain": found.index_gain}
            yield ""
            yield "the index, its nearest ranked again"
            yield from _columns(found, gain)
    if found.verified:
        gain = {"cosine": found.exact, "verified": found.verified, "gain": found.verified_gain}
        yield ""
        yield "exact search by the cosine, its first 50 hits verified by local features"
        yield from _columns(found, gain)
    if found.index:
        yield "(In the mAP of the index, an image in a list that is not scanned counts as 0.)"


def _columns(found: Evaluation, ways: Mapping[str, Measures | None]) -> Iterator[str]:
    """Yield a table with two columns for each way that there is."""
    names = ("P@1", f"P@{found.k}", f"recall@{found.k}", "mAP")
    shown = {way: _estimates(measures) for way, measures in ways.items() if measures}
    widths = [max(len(way), 7 if way == "gain" else 6) for way in shown]
    heads = (
        f"{way:>{width}}  {'95 % interval':<{16 + 2 * (way == 'gain')}}"
        for way, width in zip(shown, widths, strict=True)
    )
    yield (f"{'':<12}" + "  ".join(heads)).rstrip()
    for number, name in enumerate(names):
        cells = []
        for (way, estimates), width in zip(shown.items(), widths, strict=True):
            each, sign = estimates[number], "+" if way == "gain" else ""
            cells.append(
                f"{each.mean:{sign}{width}.4f}  {each.low:{sign}.4f} to {each.high:{sign}.4f}"
            )
        yield f"{name:<12}" + "  ".join(cells)


def _worst_lines(worst: Sequence[WorstQuery]) -> Iterator[str]:
    short = shortened(absolute=False)
    if worst:
        yield ""
        yield "worst       by the average precision (AP) of exact search"
    for query in worst:
        yield f"AP {query.average_precision:.4f}   {shown(query.label)}: {shown(short(query.path))}"
        for hit in query.hits[:HITS_SHOWN]:
            verdict = "right" if hit.right else "wrong"
            text = f"{shown(hit.label)}: {shown(short(hit.path))}"
            yield f"{hit.rank:4}  {verdict}  {hit.similarity:7.4f}  {text}"


def _estimates(measures: Measures) -> list[Estimate]:
    return [getattr(measures, field.name) for field in fields(measures)]


def _measures(measures: Measures | None) -> dict[str, Any] | None:
    if measures is None:
        return None
    values: dict[str, dict[str, float]] = asdict(measures)
    return {
        name: {part: round(value, DIGITS) for part, value in estimate.items()}
        for name, estimate in values.items()
    }


def _worst(query: WorstQuery) -> dict[str, Any]:
    hits = [
        {
            "rank": hit.rank,
            **path_fields(hit.path),
            **path_fields(hit.label, "label"),  # may be a folder's name, and so not UTF-8
            "right": hit.right,
            "similarity": round(hit.similarity, DIGITS),
        }
        for hit in query.hits
    ]
    return {
        **path_fields(query.path),
        **path_fields(query.label, "label"),
        "average_precision": round(query.average_precision, DIGITS),
        "hits": hits,
    }
