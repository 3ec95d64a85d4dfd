"""`imgsearch duplicates`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imgsearch.cli import copies, options
from imgsearch.cli.locate import locate
from imgsearch.cli.output import complain, counted, shown
from imgsearch.cli.progress import CountBar
from imgsearch.errors import InputError, SettingError

if TYPE_CHECKING:
    from imgsearch.maintenance.copies import Duplicates

__all__ = ["duplicates"]

NOTHING_FOUND = 1


@click.command(short_help="Find images that are copies of one another.", epilog=options.OPPOSITES)
@options.copies_html_option
@options.json_option
@options.copies_delete_option
@options.copies_link_option
@options.copies_yes_option
@options.copies_similarity_option
@options.collection_option
@click.pass_context
def duplicates(
    ctx: click.Context,
    html: Path | None,
    as_json: bool,
    delete: bool,
    link: bool,
    yes: bool,
    min_similarity: float,
    collection: Path | None,
) -> None:
    """Find groups of near-identical images: the same photo, encoded again, resized or cropped.

    The first of each group is suggested to be kept: a raw, else the one with the most frames, the
    finest tones, the most detail, the most bytes, else the oldest. A copy shows nothing that the
    image to be kept does not show, too. Nothing is changed unless --delete or --link says so, and
    you confirm.
    """
    from imgsearch.maintenance.duplicates import find_duplicates

    if delete and link:
        raise SettingError("give one of --delete and --link")
    directory = locate(ctx, collection)
    with CountBar("comparing", " images") as bar:
        found = find_duplicates(directory, min_similarity=min_similarity, progress=bar)
    for failure in found.unreadable:
        complain(f"{failure.path} {failure.reason}; it was not compared")
    if found.unreadable:
        complain("`imgsearch index` takes note of what has changed or is gone; then try again")
    if html is not None and copies.write_page(html, found):
        click.echo(f"wrote {shown(str(html))}", err=True)
    if as_json:
        click.echo(copies.as_json(directory, found))
    elif html is None:
        click.echo(copies.as_text(found), nl=False)
    click.echo(copies.summary(found), err=True)
    if not found.groups:
        ctx.exit(NOTHING_FOUND)
    if delete or link:
        _discard(found, delete=delete, yes=yes)


def _discard(found: Duplicates, *, delete: bool, yes: bool) -> None:
    """Delete or link the copies, if the user confirms it."""
    from imgsearch.maintenance.discard import delete_copies, link_copies

    what = counted(found.count, "file")
    question = f"Delete {what}?" if delete else f"Replace {what} by links to those that are kept?"
    if not yes:
        if not sys.stdin.isatty():
            raise SettingError("nobody is there to confirm it; nothing was changed: say --yes")
        if not click.confirm(question, err=True):
            click.echo("nothing was changed", err=True)
            return
    done = (delete_copies if delete else link_copies)(found)
    for failure in done.failures:
        complain(f"{failure.path} {failure.reason}; it was left as it is")
    verb = "deleted" if delete else "linked"
    click.echo(
        f"{verb} {counted(len(done.done), 'file')} of {copies.megabytes(done.size)}; "
        "`imgsearch index` takes note of it",
        err=True,
    )
    if done.interrupted:
        raise KeyboardInterrupt("all other files were left as they were")
    if done.failures:
        raise InputError(f"left as it was: {counted(len(done.failures), 'file')}")
