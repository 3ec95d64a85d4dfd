"""`imgsearch duplicates`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imgsearch.cli import options
from imgsearch.cli.locate import locate
from imgsearch.cli.output import complain, counted, shown
from imgsearch.cli.progress import CountBar
from imgsearch.errors import InputError, SettingError

if TYPE_CHECKING:
    from imgsearch.maintenance.copies import Duplicates

import os
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from imgsearch.cli.html import EDGE, Thumbnailer, figure, image_element, link, write_document
from imgsearch.cli.output import dump, path_fields

if TYPE_CHECKING:
    from imgsearch.embedding.lanes import Lane
    from imgsearch.maintenance.copies import Copy, Duplicates, Group

__all__ = ["duplicates", "write_page"]


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
        complain("run `imgsearch index` to update the collection, then try again")
    if html is not None and write_page(html, found):
        click.echo(f"wrote {shown(str(html))}", err=True)
    if as_json:
        click.echo(_as_json(directory, found))
    elif html is None:
        click.echo(_as_text(found), nl=False)
    click.echo(_summary(found), err=True)
    if not found.groups:
        ctx.exit(NOTHING_FOUND)
    if delete or link:
        _discard(found, delete=delete, yes=yes)


def _discard(found: Duplicates, *, delete: bool, yes: bool) -> None:
    """Delete or link the copies, if the user confirms it."""
    from imgsearch.maintenance.discard import delete_copies, link_copies

    what = counted(found.count, "file")
    question = f"Delete {what}?" if delete else f"Replace {what} with links to those that are kept?"
    if not yes:
        if not sys.stdin.isatty():
            raise SettingError(
                "there is no terminal to ask for confirmation; nothing was changed; pass --yes to "
                "confirm"
            )
        if not click.confirm(question, err=True):
            click.echo("nothing was changed", err=True)
            return
    done = (delete_copies if delete else link_copies)(found)
    for failure in done.failures:
        complain(f"{failure.path} {failure.reason}; it was left as it is")
    verb = "deleted" if delete else "linked"
    click.echo(
        f"{verb} {counted(len(done.done), 'file')} of {_megabytes(done.size)}; run `imgsearch "
        f"index` to update the collection",
        err=True,
    )
    if done.interrupted:
        raise KeyboardInterrupt("all other files were left as they were")
    if done.failures:
        raise InputError(f"left as it was: {counted(len(done.failures), 'file')}")


def _as_text(found: Duplicates) -> str:
    """Return all groups as text, each with the image to keep first."""
    groups = [_group_as_text(group) for group in found.groups]
    for photo in found.photos:
        lines = [f"raw   {shown(photo.raw)}\n"]
        lines += [f"      {shown(path)}\n" for path in photo.images]
        groups.append("".join([*lines, "      one photo: none of these is a copy\n"]))
    return "\n".join(groups)


def _as_json(directory: Path, found: Duplicates) -> str:
    """Return all groups as one line of JSON."""
    groups = [
        {
            "keep": _fields(group.keep),
            "reason": group.reason,
            "others": [_fields(copy) for copy in group.others],
        }
        for group in found.groups
    ]
    failures = [
        {**path_fields(failure.path), "reason": failure.reason} for failure in found.unreadable
    ]
    fields = path_fields(str(directory.absolute()), "collection")
    photos = [
        {"raw": path_fields(photo.raw), "images": [path_fields(path) for path in photo.images]}
        for photo in found.photos
    ]
    return dump(
        {
            **fields,
            "images": found.images,
            "groups": groups,
            "photos": photos,
            "unreadable": failures,
        }
    )


def _summary(found: Duplicates) -> str:
    """Return a one-line _summary of the copies found."""
    if not found.groups:
        return f"no copies among {counted(found.images, 'image')}"
    groups, count = counted(len(found.groups), "group"), _copies(found.count)
    return f"{counted(found.images, 'image')}: {groups} with {count} of {_megabytes(found.size)}"


def _copies(count: int) -> str:
    return "1 copy" if count == 1 else f"{count:,} copies"


def write_page(path: Path, found: Duplicates) -> bool:
    """Write an HTML page of all groups; see `imgsearch.cli.html.write_document`."""
    from imgsearch.embedding.lanes import decoders

    with decoders(1) as lane:
        return write_document(path, _sections(found, partial(_thumbnail, lane)))


def _thumbnail(lane: Lane, source: str | bytes) -> bytes:
    """Return a JPEG thumbnail of a file, which a worker process decodes."""
    from imgsearch.embedding.decoder import Stored

    with lane.decoder() as decoder:
        return decoder.thumbnail(Stored(os.fsdecode(source)), EDGE).jpeg


def _megabytes(size: int) -> str:
    """Return a number of bytes in MB or kB."""
    return f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size / 1e3:,.1f} kB"


def _group_as_text(group: Group) -> str:
    rows = [("keep", "", group.keep), *(("", _likeness(copy), copy) for copy in group.others)]
    lines = []
    for word, likeness, copy in rows:
        pixels, size, day = _facts(copy)
        facts = f"{word:4}  {likeness:6}  {pixels:>13}  {size:>9}  {day:10}"
        lines.append(f"{facts}  {shown(copy.path)}\n")
    return "".join(lines)


def _likeness(copy: Copy) -> str:
    return "exact" if copy.exact else f"{copy.similarity:.4f}"


def _facts(copy: Copy) -> tuple[str, str, str]:
    """Return an image's dimensions, file size and date."""
    day = ""
    if copy.mtime is not None:
        day = datetime.fromtimestamp(copy.mtime).strftime("%Y-%m-%d")
    return f"{copy.width} x {copy.height}", _megabytes(copy.size), day


def _fields(copy: Copy) -> dict[str, Any]:
    return {
        "id": copy.id,
        **path_fields(copy.path),
        "width": copy.width,
        "height": copy.height,
        "size": copy.size,
        "mtime": copy.mtime,
        "digest": copy.digest.hex(),
        "exact": copy.exact,
        "similarity": round(copy.similarity, 6),
        "frames": copy.frames,
        "bits": copy.bits,
        "raw": copy.raw,
        "lossless": copy.lossless,
        "scale": copy.scale,
    }


def _sections(found: Duplicates, of: Thumbnailer) -> Iterator[str]:
    for number, group in enumerate(found.groups, 1):
        size = _megabytes(sum(copy.size for copy in group.others))
        yield f"<section>\n<h2>Group {number:,}</h2>\n"
        kept = f"the one to keep ({group.reason})" if group.reason else "the one to keep"
        yield f"<p>{_copies(len(group.others))} of {size} beside {kept}</p>\n<ol>\n"
        yield _figure(group.keep, of, "query", "keep ")
        for copy in group.others:
            yield _figure(copy, of, "hit", "")
        yield "</ol>\n</section>\n"


def _figure(copy: Copy, of: Thumbnailer, kind: str, word: str) -> str:
    image = image_element(copy.path, os.path.basename(copy.path), of)
    facts = [*_facts(copy), *([] if word else [_likeness(copy)])]
    return figure(kind, image, word + link(copy.path), "<br>".join(filter(None, facts)))
