"""`imgsearch index`."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Unpack, cast

import click
from click.core import ParameterSource

from imgsearch.cli import options
from imgsearch.cli.locate import locate_any
from imgsearch.cli.output import NOTHING_FOUND, complain, libraries_silenced, shown, where
from imgsearch.cli.progress import ProgressBar
from imgsearch.embedding.models import DEFAULT_MODEL, MODELS, check_name
from imgsearch.embedding.weights import are_packaged
from imgsearch.errors import GoneError, InputError, SettingError
from imgsearch.storage.layout import Layout

if TYPE_CHECKING:
    from imgsearch.collection import Collection
    from imgsearch.indexing.engine import Engine
    from imgsearch.indexing.options import IndexKeywords
    from imgsearch.indexing.report import IndexReport
    from imgsearch.indexing.switch import Network, SwitchReport

from dataclasses import asdict
from typing import TYPE_CHECKING

from imgsearch.files.kinds import OTHER
from imgsearch.files.paths import dump, path_fields

if TYPE_CHECKING:
    from imgsearch.indexing.report import Failure, IndexReport

__all__ = ["exists", "index", "open_or_create", "report_as_json", "report_as_text"]
FAILURES_SHOWN = 20
KINDS_SHOWN = 8


@click.command(epilog=options.OPPOSITES)
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=click.Path())
@options.promise_option
@options.prune_option
@options.model_option
@options.json_option
@options.exclude_option
@options.include_option
@options.rehash_option
@options.moved_option
@options.nlist_option
@options.storage_option
@options.pca_option
@options.weights_option
@options.keep_old_option
@options.collection_option
@options.device_option
@options.trust_model_option
@options.workers_option
@options.time_limit_option
@options.max_pixels_option
@options.ray_option
@options.staging_option
@options.gpus_option
@options.strict_option
@click.pass_context
def index(
    ctx: click.Context,
    paths: tuple[str, ...],
    collection: Path | str | None,
    model: str | None,
    weights: str | None,
    device: str,
    trust_model: bool,
    ray: str | None,
    staging: str | None,
    gpus: float,
    keep_old: bool,
    strict: bool,
    as_json: bool,
    **settings: Unpack[IndexKeywords],
) -> None:
    """Embed and index the images under PATH, folders or files.

    Only what is new or has changed is embedded. Without a PATH, all folders that were given before
    are looked through. A PATH may be a URL, such as s3://bucket/photos. Run the same command again
    to resume an interrupted run.

    With a --model other than its own, the collection is switched to that network: all images are
    embedded again, while the old network goes on answering.
    """
    if settings.get("moved") and paths:
        raise click.UsageError("--moved takes the place of a PATH: give one or the other", ctx)
    directory = locate_any(ctx, collection, make=True)
    cluster = _cluster(ray, staging, directory, settings.get("workers"), gpus)
    is_new = not exists(directory)
    another = _is_named(ctx) and not is_new
    asked = (None, None) if another else (model, weights)
    with open_or_create(directory, paths, *asked, device, trust_model, is_new=is_new) as found:
        network = _other_network(found, directory, model, weights) if another else None
        if not another and isinstance(directory, Path):
            _tell_of_a_switch(directory)
        if network and ray:
            raise SettingError("--ray does not switch to another network; leave it out")
        try:
            quiet = libraries_silenced() if ray else nullcontext()  # Ray also logs what it raises
            with quiet, cluster as engine, ProgressBar() as bar:
                settings["engine"], settings["progress"] = engine, bar
                report = found.index(paths, **settings)
        except KeyboardInterrupt as error:
            kept = "everything indexed so far is kept; run the same command again to resume"
            raise KeyboardInterrupt(kept) from error
        except GoneError as error:
            if error.report is not None:
                _print(directory, cast("IndexReport", error.report), as_json)
            raise
    if network is None:
        _print(directory, report, as_json)
    else:
        click.echo(report_as_text(report), err=True)
        switched = _switch(directory, network, device, settings, keep_old=keep_old)
        if as_json:
            click.echo(report_as_json(where(directory), report, switched))
    if _holds_nothing(report) and (is_new or not report.found) and paths:
        _complain_of_nothing(directory, paths, is_new=is_new)
        ctx.exit(InputError.exit_code if strict and report.failed else NOTHING_FOUND)
    if strict and (report.failed or report.unreadable):
        ctx.exit(InputError.exit_code)


def _is_named(ctx: click.Context) -> bool:
    """Tell whether this very command names a network or weights: a file of settings never does.

    A collection is switched to another network only on such a command.
    """
    sources = map(ctx.get_parameter_source, ("model", "weights"))
    return ParameterSource.COMMANDLINE in sources


def _other_network(
    found: Collection, directory: Path | str, model: str | None, weights: str | None
) -> Network | None:
    """Return the network to switch to, None if it is that of the collection.

    An unfinished switch is given up if the collection's own network is named.
    """
    from imgsearch.indexing.switch import Network, give_up, unfinished

    if not isinstance(directory, Path):
        found.check_model(model, weights)
        return None
    if (difference := found.differs(model, weights)) is None:
        layout = Layout.at(directory)
        if unfinished(layout) is not None:
            give_up(layout)
            complain(f"the unfinished switch to another network was given up; {directory} is kept")
        return None
    name = found.info().model.name if model is None else model
    check_name(name)
    click.echo(
        f"this collection was made with {difference}: all images are embedded again", err=True
    )
    return Network(name, weights)


def _tell_of_a_switch(directory: Path) -> None:
    """Tell how to go on with a switch to another network that was interrupted."""
    layout = Layout.at(directory)
    if layout.next.exists():
        from imgsearch.indexing.switch import unfinished

        if (new := unfinished(layout)) is not None:
            complain(
                f"a switch to {new.name} is unfinished: `imgsearch index --model {new.name}` "
                "resumes it, and with the collection's own network, that command gives it up"
            )


def _switch(
    directory: Path | str,
    network: Network,
    device: str,
    settings: IndexKeywords,
    *,
    keep_old: bool,
) -> SwitchReport:
    """Switch to another network, and say so."""
    from imgsearch.collection import Collection

    try:
        with ProgressBar() as bar:
            settings["progress"] = bar
            report = Collection.switch(
                directory,
                model=network.name,
                weights=network.weights,
                keep_old=keep_old,
                device=device,
                **settings,
            )
    except KeyboardInterrupt as error:
        kept = "the old network still answers; run the same command again to resume"
        raise KeyboardInterrupt(kept) from error
    text = f"switched from {report.before} to {report.after}: {report.images:,} images"
    if report.resumed:
        text += f", {report.resumed:,} of them embedded by an earlier run"
    if report.left_out:
        text += f"; {report.left_out:,} left out, whose files have changed: run `imgsearch index`"
    if report.kept is not None:
        text += f"; the old collection is kept as {shown(report.kept)}"
    click.echo(f"{text}, in {report.seconds:.1f} s", err=True)
    return report


def exists(directory: Path | str) -> bool:
    """Tell whether there is a collection, avoiding slow imports where possible."""
    if isinstance(directory, Path):
        return Layout.at(directory).exists()
    from imgsearch.collection import Collection

    return Collection.exists(directory)


def _holds_nothing(report: IndexReport) -> bool:
    return not report.indexed + report.copied + report.moved + report.unchanged


def _complain_of_nothing(directory: Path | str, paths: tuple[str, ...], *, is_new: bool) -> None:
    """Report that there were no images, and remove a collection that was created for them."""
    from imgsearch.collection import Collection

    places = paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1:,} more places"
    removed = is_new and Collection.discard(directory)
    kept = "; the collection created for them was removed" if removed else ""
    complain(f"there are no images in {places}{kept}")


def _print(directory: Path | str, report: IndexReport, as_json: bool) -> None:
    click.echo(report_as_text(report), err=True)
    if as_json:
        click.echo(report_as_json(where(directory), report))


def _cluster(
    address: str | None,
    staging: str | Path | None,
    directory: Path | str,
    workers: int | None,
    gpus: float,
) -> AbstractContextManager[Engine | None]:
    if address is None:
        return nullcontext()
    from imgsearch.backends.ray import RayEngine

    if staging is None and isinstance(directory, Path):
        staging = directory.absolute() / "staging"
    if staging is None:
        raise SettingError(
            "--ray keeps embeddings outside the collection until they are committed; pass "
            "--staging with a folder, or with a URL such as s3://bucket/folder"
        )
    return RayEngine(address, staging=staging, workers=workers, gpus=gpus)


def open_or_create(
    directory: Path | str,
    paths: tuple[str, ...],
    model: str | None,
    weights: str | None,
    device: str,
    trust_model: bool,
    *,
    is_new: bool,
) -> Collection:
    """Open the collection, or create it."""
    if is_new:
        if not paths:
            raise SettingError(
                "there is nothing to index yet; name a folder, as in `imgsearch index FOLDER`"
            )
        if not all(os.path.exists(os.path.expanduser(path)) for path in paths):
            from imgsearch.files.sources import existing

            for path in paths:
                existing(path)
        model = model or DEFAULT_MODEL
        check_name(model)
        fast = are_packaged(MODELS.get(model), weights)
        slow = "" if fast else "; exporting the network takes a few seconds"
        making = f"creating the collection {shown(str(directory))} with {model}{slow}"
        click.echo(making, err=True)  # before the slow steps: importing and exporting
    from imgsearch.collection import Collection

    if not is_new:
        found = Collection.open(directory, device=device, trust_model=trust_model)
        found.check_model(model, weights)
        return found
    model = model or DEFAULT_MODEL
    return Collection.create(directory, model=model, weights=weights, device=device, progress=True)


def report_as_json(
    collection: str, report: IndexReport, switched: SwitchReport | None = None
) -> str:
    """Return the report of an indexing run, and of a switch after it, as a line of JSON."""
    fields = asdict(report)
    fields["skipped_kinds"] = dict(report.skipped_kinds)
    fields["failures"] = [_failure(failure) for failure in report.failures]
    fields["unreadable"] = [_failure(failure) for failure in report.unreadable]
    if switched is not None:
        fields["switched"] = asdict(switched)
    return dump({"collection": collection, **fields})


def report_as_text(report: IndexReport) -> str:
    """Return the report of an indexing run as text: its failures, then a summary."""
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
    """Return the number of files of each kind, counting the rarest kinds together."""
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


def _failure(failure: Failure) -> dict[str, str]:
    return {**path_fields(failure.path), "reason": failure.reason}
