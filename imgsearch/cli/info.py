"""`imgsearch info`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imgsearch.cli import options
from imgsearch.cli.locate import locate_any
from imgsearch.cli.output import counted, shown
from imgsearch.embedding.models import MODELS
from imgsearch.files.paths import dump, path_fields
from imgsearch.images import DECODER
from imgsearch.querying.info import info_fields

if TYPE_CHECKING:
    from imgsearch.querying.info import Info
    from imgsearch.storage.records import IvfRecord

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from click.core import ParameterSource

from imgsearch.cli.config import commands_of, config_path

__all__ = ["info"]
RECALL_ENOUGH = 0.999  # recall at which the displayed curve ends
LISTS_SHOWN = 12
ROOTS_SHOWN = 3
SettingSource: TypeAlias = Literal["flag", "variable", "file", "default"]
_SOURCES: dict[ParameterSource | None, SettingSource] = {
    ParameterSource.COMMANDLINE: "flag",
    ParameterSource.ENVIRONMENT: "variable",
    ParameterSource.DEFAULT_MAP: "file",
}


@click.command(epilog=options.OPPOSITES)
@options.settings_option
@options.verbose_option
@options.json_option
@options.collection_option
@options.device_option
@click.pass_context
def info(
    ctx: click.Context,
    settings: bool,
    verbose: bool,
    as_json: bool,
    collection: Path | str | None,
    device: str,
) -> None:
    """Show what is in the collection, and how it is searched."""
    if settings:
        rows = settings_of(ctx)
        click.echo(settings_as_json(rows) if as_json else settings_as_text(rows))
        return
    from imgsearch.collection import Collection

    with Collection.open(locate_any(ctx, collection), device=device) as found:
        facts = found.info()
    if as_json:
        click.echo(info_as_json(facts))
    else:
        click.echo(info_as_text(facts, list(MODELS)) if verbose else summary_of(facts))


def info_as_json(info: Info) -> str:
    """Return the facts about a collection as a line of JSON."""
    return dump(info_fields(info))


def summary_of(info: Info) -> str:
    """Return the main facts about a collection: six lines, or more if decoders are missing."""
    roots = list(info.roots[:ROOTS_SHOWN])
    if len(info.roots) > ROOTS_SHOWN:
        roots.append(f"{len(info.roots) - ROOTS_SHOWN:,} more")
    files = [
        f"{counted(info.failed, 'file')} failed (`imgsearch list --failed`)" if info.failed else "",
        f"{info.skipped:,} skipped (not images)" if info.skipped else "",
        f"{info.excluded:,} taken out by `imgsearch remove`" if info.excluded else "",
    ]
    rows = [
        ("collection", f"{info.directory} ({info.bytes / 1e6:,.1f} MB)"),
        ("images", f"{info.images:,}"),
        ("folders", ", ".join(roots) or "none; add some with `imgsearch index FOLDER`"),
        ("other files", ", ".join(filter(None, files)) or "none"),
        ("search", _how_searched(info)),
        ("model", f"{info.model.name}, {info.model.dim} values per image"),
        *_decoder_rows(info),
    ]
    return "\n".join(f"{name:<12}{shown(value)}" for name, value in rows)


def _how_searched(info: Info) -> str:
    if info.ivf is None:
        return "exact: a query is compared with every image"
    least = f"{100 * info.settings.recall:g} %"
    text = f"by an index, which finds at least {least} of the 10 nearest images on average"
    if info.tail:
        text += f"; not in it yet, but compared with every query: {counted(info.tail, 'image')}"
    if info.outgrown:
        text += "; the images have changed a lot: run `imgsearch index` to rebuild it"
    return text


def info_as_text(info: Info, models: list[str]) -> str:
    """Return the facts about a collection as text, one per line."""
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
        ("model", f"{info.model.name}, {info.model.dim} values per image"),
        ("weights", f"{info.model.weights} (SHA-256 {info.model.weights_sha256[:16]}...)"),
        *_decoder_rows(info),
        *_index_rows(info),
        ("ranking", _ranking(info)),
        ("faiss", info.faiss),
        ("device", info.device),
        ("models", ", ".join(models)),
    ]
    return "\n".join(f"{name:<12}{shown(value)}" for name, value in rows)


def _decoder_rows(info: Info) -> Iterator[tuple[str, str]]:
    """Yield a row that explains what an older decoder means for the embeddings made with it."""
    if info.model.decoder < DECODER:
        text = (
            f"{info.model.decoder}, but this imgsearch has {DECODER}: images with more than 8 "
            f"bits, images with an ICC profile, raws and animations may have been decoded "
            f"differently; to embed all images alike, index them into a new collection"
        )
        yield "decoder", text


def _quoted(pattern: str) -> str:
    return shlex.quote(pattern) if " " in pattern else pattern


def _index_rows(info: Info) -> Iterator[tuple[str, str]]:
    ivf, sizes = info.ivf, sorted(info.list_sizes)
    if ivf is None:
        built = "an index is built from 256 images on, or with --nlist"
        yield "index", f"none: every search is exact ({built})"
        yield "promise", f"recall@10 {info.settings.recall:g}, kept by exact search"
        return
    kind = "IndexIVFFlat"
    if ivf.pca is not None:
        kind = f"compact, of {ivf.pca} values that PCA leaves"
    each = round(info.index_bytes / max(sum(sizes) or info.images, 1))
    files = f", in {counted(info.segments, 'file')}" if info.segments else ""
    yield "index", f"{kind}, nlist {ivf.nlist}{files}, {each:,} bytes per image"
    yield "promise", _promise(info, ivf)
    yield from _curve_rows(ivf)
    if sizes:
        middle = sizes[len(sizes) // 2]
        text = f"{len(sizes)} centroids with {sizes[0]} to {sizes[-1]} images, median {middle}"
        if len(sizes) <= LISTS_SHOWN:
            text += f": {' '.join(map(str, info.list_sizes))}"
        yield "lists", text
    yield "tail", f"{counted(info.tail, 'image')} not in the lists yet, searched exactly"


def _ranking(info: Info) -> str:
    """Return what queries rank by, and what that takes on the disk."""
    if info.rank == "cosine":
        return "by cosine, without bands (there are bands from 256 images on)"
    each = round(info.ranking_bytes / max(info.images - info.unranked, 1))
    text = f"by the collection, or by cosine with --rank cosine; {each:,} bytes per image"
    if info.unranked:
        text += f"; {counted(info.unranked, 'image')} not in it yet"
    return text


def _curve_rows(ivf: IvfRecord) -> Iterator[tuple[str, str]]:
    """Yield rows of recall by nprobe, with one column per band, up to `RECALL_ENOUGH`."""
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
        if all(step.recall >= RECALL_ENOUGH for step in steps):
            return


def _promise(info: Info, ivf: IvfRecord) -> str:
    """Return the promised recall, the number of lists it takes, and the recall measured."""
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
        text += "; the images have changed a lot since; `imgsearch index` rebuilds it"
    return text


def _probed(nprobe: tuple[int, ...]) -> str:
    """Return in words how many lists are probed; 0 stands for exact search."""
    lists = sorted({count for count in nprobe if count})
    if not lists:
        return "exact search"
    text = "nprobe " + " to ".join(str(count) for count in dict.fromkeys((lists[0], lists[-1])))
    away = "centroids" if len(nprobe) > 1 else "images"
    return f"{text}, and by exact search far from all {away}"


@dataclass(frozen=True, slots=True)
class Setting:
    """The current value of a command's option, and its source.

    Attributes:
        command: Name of the command.
        option: Longest name of the option without dashes, as in a configuration file.
        value: Value as the command gets it; None if there is none.
        source: Kind of source that the value came from.
        where: The flag, the name of the variable or the path of the file; None for a default.
    """

    command: str
    option: str
    value: Any
    source: SettingSource
    where: str | None


def settings_of(ctx: click.Context) -> list[Setting]:
    """Return the settings of all commands; those of the running command include its flags.

    Click resolves them as it does for the command itself.

    Args:
        ctx: Context of the running command, whose parent is the group.

    Raises:
        UsageError: If a variable or a file holds a value that makes no sense.
    """
    group = ctx.find_root()
    commands = commands_of(group.command)
    source = _source(group, "config")
    where = {"flag": "--config", "variable": "IMGSEARCH_CONFIG"}.get(source)
    settings = [Setting(str(group.info_name), "config", config_path(ctx), source, where)]
    for name, command in commands.items():
        own = ctx if command is ctx.command else _resolve(command, name, group)
        settings += _settings(own, group)
    return settings


def _resolve(command: click.Command, name: str, group: click.Context) -> click.Context:
    """Return the context that a command would have without any flags."""
    arguments = [part for part in command.params if isinstance(part, click.Argument)]
    needed = [
        argument.type.choices[0] if isinstance(argument.type, click.Choice) else "."
        for argument in arguments
        if argument.required
    ]
    return command.make_context(name, needed, parent=group)


def _settings(ctx: click.Context, group: click.Context) -> Iterator[Setting]:
    for option in ctx.command.params:
        if not isinstance(option, click.Option):
            continue
        name = str(option.name)
        value, source = ctx.params[name], _source(ctx, name)
        if name == "collection":
            value = locate_any(ctx, value, make=True)
            if source != "flag" and group.obj is not None:  # given before the command
                source = _source(group, name)
        flag = max(option.opts, key=len)
        where = {"flag": flag, "variable": str(option.envvar), "file": _file(ctx)}.get(source)
        yield Setting(str(ctx.info_name), flag.lstrip("-"), value, source, where)


def _source(ctx: click.Context, name: str) -> SettingSource:
    return _SOURCES.get(ctx.get_parameter_source(name), "default")


def _file(ctx: click.Context) -> str:
    return os.path.abspath(config_path(ctx) or "")


def settings_as_text(settings: Sequence[Setting]) -> str:
    """Return the settings as a table, one line per setting."""
    rows = [("command", "option", "value", "from")]
    rows += [
        (row.command, row.option, shown(_text(row.value)), shown(row.where or row.source))
        for row in settings
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]])
        for row in rows
    )


def settings_as_json(settings: Sequence[Setting]) -> str:
    """Return the settings as a line of JSON."""
    return dump(
        {
            "settings": [
                {
                    "command": row.command,
                    "option": row.option,
                    "value": _plain(row.value),
                    "source": row.source,
                    "where": row.where and path_fields(row.where)["path"],
                }
                for row in settings
            ]
        }
    )


def _plain(value: Any) -> Any:
    if isinstance(value, str | os.PathLike):
        return path_fields(os.fspath(value))["path"]
    return [_plain(part) for part in value] if isinstance(value, tuple) else value


def _text(value: Any) -> str:
    match value:
        case None | ():
            return "-"
        case bool():
            return str(value).lower()
        case tuple():
            return ", ".join(map(_text, value))
        case float():
            return f"{value:g}"
        case _:
            return str(value)
