"""`imgsearch watch`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import click

from imgsearch.cli import options
from imgsearch.cli.index import exists, open_or_create, report_as_json, report_as_text
from imgsearch.cli.interrupt import leave_the_next_to_the_system
from imgsearch.cli.locate import locate_any
from imgsearch.cli.output import complain, where
from imgsearch.cli.progress import ProgressBar
from imgsearch.errors import BusyError, GoneError, SettingError
from imgsearch.indexing.watch import check_watchdog

if TYPE_CHECKING:
    from imgsearch.indexing.report import IndexReport
    from imgsearch.indexing.watch import Seen

__all__ = ["watch"]


class _Limits(TypedDict):
    """What applies to every run."""

    workers: int | None
    time_limit: float
    max_pixels: int


@click.command(epilog=options.OPPOSITES)
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=click.Path())
@options.json_option
@options.workers_option
@options.time_limit_option
@options.max_pixels_option
@options.collection_option
@options.device_option
@options.trust_model_option
@click.pass_context
def watch(
    ctx: click.Context,
    paths: tuple[str, ...],
    as_json: bool,
    workers: int | None,
    time_limit: float,
    max_pixels: int,
    collection: Path | str | None,
    device: str,
    trust_model: bool,
) -> None:
    """Index folders whenever something in them changes, until Ctrl-C.

    All folders of the collection are watched; a PATH is added to them first.
    Unplugging a drive removes none of its images. Ctrl-C ends the command with exit code 0.
    """
    directory = locate_any(ctx, collection, make=True)
    if not isinstance(directory, Path):
        raise SettingError(f"`imgsearch watch` works only on a directory, not on {directory}")
    check_watchdog()
    limits: _Limits = {
        "workers": workers,
        "time_limit": time_limit,
        "max_pixels": max_pixels,
    }
    is_new = not exists(directory)
    told = _Told(directory, as_json=as_json)
    opened = open_or_create(directory, paths, None, None, device, trust_model, is_new=is_new)
    try:
        with opened as found:
            with ProgressBar() as bar:
                try:
                    told.first(found.index(paths, progress=bar, **limits))
                except (BusyError, GoneError) as error:  # which may pass
                    complain(str(error))
            for number, seen in enumerate(found.watch(**limits)):
                if not number:
                    click.echo("watching for changes; press Ctrl-C to stop", err=True)
                told.tell(seen)
    except KeyboardInterrupt:  # the only way to end it
        leave_the_next_to_the_system()
        click.echo("stopped; everything indexed so far is kept", err=True)


class _Told:
    """What has been told, so that a file that stays as it is does not fail again and again."""

    def __init__(self, directory: Path, *, as_json: bool) -> None:
        self._directory = directory
        self._as_json = as_json
        self._failures: dict[str, str] = {}

    def first(self, report: IndexReport) -> None:
        """Tell what the first run did."""
        self._failures = {failure.path: failure.reason for failure in report.failures}
        click.echo(report_as_text(report), err=True)
        self._print(report)

    def tell(self, seen: Seen) -> None:
        """Tell what a later run did, if anything."""
        if seen.problem is not None:
            complain(seen.problem)
        report = seen.report
        if report is None:
            return
        new = [each for each in report.failures if self._failures.get(each.path) != each.reason]
        self._failures |= {failure.path: failure.reason for failure in new}
        counts = {
            "indexed": report.indexed,
            "copied": report.copied,
            "moved": report.moved,
            "failed": len(new),
            "removed": report.removed,
        }
        did = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
        for failure in new:
            complain(f"failed: {failure.path}: {failure.reason}")
        if did:
            now = time.strftime("%H:%M:%S")
            click.echo(f"{now}  {did}, in {report.seconds:.1f} s", err=True)
            self._print(report)

    def _print(self, report: IndexReport) -> None:
        if self._as_json:
            click.echo(report_as_json(where(self._directory), report))
