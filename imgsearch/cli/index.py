"""`imgsearch index`."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from imgsearch.cli import options
from imgsearch.cli.chatter import libraries_silenced
from imgsearch.cli.locating import locate_any
from imgsearch.cli.output import shown, where
from imgsearch.cli.progress import ProgressBar
from imgsearch.cli.reports import report_as_json, report_as_text
from imgsearch.embedding.models import DEFAULT_MODEL
from imgsearch.errors import GoneError, InputError, SettingError

if TYPE_CHECKING:
    from imgsearch.engines import Engine
    from imgsearch.places import AnyCollection
    from imgsearch.reports import IndexReport
    from imgsearch.storage.records import Storage

__all__ = ["index"]


@click.command(epilog=options.OPPOSITES)
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=click.Path())
@options.promise_option
@options.prune_option
@options.model_option
@options.json_option
@options.moved_option
@options.nlist_option
@options.storage_option
@options.pca_option
@options.weights_option
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
    recall: float | None,
    prune: bool,
    moved: tuple[str, str] | None,
    model: str | None,
    weights: str | None,
    nlist: int | None,
    storage: Storage | None,
    pca: int | None,
    device: str,
    trust_model: bool,
    workers: int | None,
    time_limit: float,
    max_pixels: int,
    ray: str | None,
    staging: str | None,
    gpus: float,
    strict: bool,
    as_json: bool,
) -> None:
    """Embed and index the images under PATH, folders or files.

    Only what is new or has changed is embedded. Without a PATH, all folders that were given before.
    A PATH may be a URL, such as s3://bucket/photos.
    Interrupted, the same command resumes.
    """
    if moved and paths:
        raise click.UsageError("--moved takes the place of a PATH: give one or the other", ctx)
    directory = locate_any(ctx, collection, make=True)
    cluster = _cluster(ray, staging, directory, workers, gpus)
    with _open(directory, paths, model, weights, device, trust_model) as found:
        try:
            quiet = libraries_silenced() if ray else nullcontext()  # Ray logs what it raises, too
            with quiet, cluster as engine, ProgressBar() as bar:
                report = found.index(
                    paths,
                    recall=recall,
                    prune=prune,
                    moved=moved,
                    nlist=nlist,
                    storage=storage,
                    pca=pca,
                    workers=workers,
                    time_limit=time_limit,
                    max_pixels=max_pixels,
                    engine=engine,
                    progress=bar if bar.shown else None,
                )
        except KeyboardInterrupt as error:
            kept = "what was indexed is kept, and the same command goes on from there"
            raise KeyboardInterrupt(kept) from error
        except GoneError as error:
            if error.report is not None:
                _print(directory, cast("IndexReport", error.report), as_json)
            raise
    _print(directory, report, as_json)
    if strict and (report.failed or report.unreadable):
        ctx.exit(InputError.exit_code)


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
    from imgsearch.cluster import RayEngine

    if staging is None and isinstance(directory, Path):
        staging = directory.absolute() / "staging"
    if staging is None:
        raise SettingError(
            "what is embedded by --ray waits somewhere to be committed: say where, with --staging "
            "FOLDER or a URL like s3://bucket/folder"
        )
    return RayEngine(address, staging=staging, workers=workers, gpus=gpus)


def _open(
    directory: Path | str,
    paths: tuple[str, ...],
    model: str | None,
    weights: str | None,
    device: str,
    trust_model: bool,
) -> AnyCollection:
    """Open the collection, or make it."""
    from imgsearch.places import keeper_of
    from imgsearch.roots import existing

    keeper = keeper_of(directory)
    if keeper.exists(directory):
        found = keeper.open_at(directory, device=device, trust_model=trust_model)
        found.check_model(model, weights)
        return found
    if not paths:
        raise SettingError("nothing to index yet: name a folder, as in `imgsearch index FOLDER`")
    for path in paths:
        existing(path)
    model = model or DEFAULT_MODEL
    click.echo(f"making the collection {shown(str(directory))} with {model}", err=True)
    return keeper.create(directory, model=model, weights=weights, device=device, progress=True)
