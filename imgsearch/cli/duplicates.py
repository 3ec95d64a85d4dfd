"""`imgsearch duplicates`."""

from __future__ import annotations

import codecs
import json
import os
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imgsearch.cli import duplicates_page, options
from imgsearch.cli.locate import locate
from imgsearch.cli.output import complain, counted, dump, path_fields, shown
from imgsearch.cli.progress import CountBar
from imgsearch.errors import InputError, SettingError, StorageError, reason_of

if TYPE_CHECKING:
    from imgsearch.maintenance.copies import (
        Against,
        Copy,
        Discarded,
        Duplicates,
        Group,
        Owned,
    )

__all__ = ["duplicates", "write_page"]


NOTHING_FOUND = 1
ACTS = ("not_duplicates", "forget", "against", "delete", "delete_forever", "link")


@click.command(short_help="Find images that are copies of one another.", epilog=options.OPPOSITES)
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=click.Path())
@options.copies_distinct_option
@options.copies_forget_option
@options.copies_against_option
@options.copies_html_option
@options.json_option
@options.copies_csv_option
@options.copies_apply_option
@options.copies_delete_option
@options.copies_delete_forever_option
@options.copies_link_option
@options.copies_yes_option
@options.copies_keep_option
@options.copies_prefer_option
@options.copies_similarity_option
@options.collection_option
@options.trust_model_option
@click.pass_context
def duplicates(
    ctx: click.Context,
    /,
    paths: tuple[str, ...],
    against: str | None,
    html: Path | None,
    applied: Path | None,
    yes: bool,
    keep_in: tuple[str, ...],
    prefer: str | None,
    min_similarity: float,
    collection: Path | None,
    trust_model: bool,
    **_: object,  # what to do with the copies: see `choose`
) -> None:
    """Find groups of near-identical images: the same photo, encoded again, resized or cropped.

    The first image of each group is the one to keep: a raw if there is one, otherwise the one with
    the most frames, the finest tones, the most detail, the most bytes or, if all that is equal, the
    oldest. A copy shows nothing that the image to keep does not show. Pictures that were framed,
    captioned, edited, or turned by any angle are shown with it, but never discarded. Nothing is
    changed unless --delete, --delete-forever or --link says so, and you confirm. PATH is given only
    with --not-duplicates and --forget.
    """
    act = options.choose(ctx, *((name,) for name in ACTS))
    form = options.choose(ctx, ("as_json",), ("as_csv",))
    if paths and act not in ("not_duplicates", "forget"):
        raise click.UsageError("PATH is given only with --not-duplicates and --forget", ctx)
    directory = locate(ctx, collection)
    if act in ("not_duplicates", "forget"):
        _judge(directory, paths, forget=act == "forget", as_json=form == "as_json")
        return
    if act == "against" and against is not None:
        if html is not None or applied is not None:
            raise click.UsageError("--against cannot be combined with --html or --apply", ctx)
        if not _compare(directory, against, min_similarity, form, trust_model=trust_model):
            ctx.exit(NOTHING_FOUND)
        return
    wanted = None if applied is None else _listed(applied)
    from imgsearch.maintenance.duplicates import find_duplicates

    with CountBar("comparing", " images") as bar:
        found = find_duplicates(
            directory,
            min_similarity=min_similarity,
            keep_in=keep_in,
            prefer=prefer,
            progress=bar,
        )
    for failure in found.unreadable:
        complain(f"{failure.path} {failure.reason}; it was not compared")
    if found.unreadable:
        complain("run `imgsearch index` to update the collection, then try again")
    missing: tuple[str, ...] = ()
    if wanted is not None:
        act = act or "delete"
        found, missing = found.chosen(wanted)
        for path in missing:
            complain(f"{path} is not a copy of any image; it was left unchanged")
    if html is not None and write_page(html, found):
        click.echo(f"wrote {shown(str(html))}", err=True)
    if form == "as_json":
        click.echo(_as_json(directory, found))
    elif form == "as_csv":
        sys.stdout.buffer.writelines(_as_csv(found, terminal=sys.stdout.isatty()))
    elif html is None:
        click.echo(_as_text(found), nl=False)
    click.echo(_summary(found), err=True)
    if not found.groups and not missing:
        ctx.exit(NOTHING_FOUND)
    # A copy that somebody picked is discarded even if it is turned, but a link would not show it.
    picked = wanted is not None and act != "link"
    if act and (count := found.count + (found.turned if picked else 0)):
        _discard(found, act, count, yes=yes, turned=picked)
    if wanted is not None and act == "link" and found.turned:
        raise InputError(
            f"left unchanged: {_turned(found)}; a link would show the image the other way round"
        )
    if missing:
        raise InputError(f"left unchanged: {counted(len(missing), 'file')}, not found to be a copy")


def _judge(directory: Path, paths: tuple[str, ...], *, forget: bool, as_json: bool) -> None:
    """Remember, or forget, that some images are not copies of one another."""
    from imgsearch.maintenance.judging import forget_not_duplicates, mark_not_duplicates

    if forget:
        count = forget_not_duplicates(directory, paths)
        click.echo(f"forgot the judgement of {counted(count, 'image')}", err=True)
    else:
        count = mark_not_duplicates(directory, paths)
        told = "are not copies of one another"
        click.echo(f"remembered: these {counted(count, 'image')} {told}", err=True)
    if as_json:
        fields = path_fields(str(directory.absolute()), "collection")
        click.echo(dump({**fields, "judged": count}))


def _compare(
    directory: Path, against: str, min_similarity: float, form: str | None, *, trust_model: bool
) -> bool:
    """Show which files of a folder the collection has, and tell whether it has any."""
    from imgsearch.maintenance.against import find_against

    with CountBar("comparing", " images") as bar:
        found = find_against(
            directory,
            against,
            min_similarity=min_similarity,
            trust_model=trust_model,
            progress=bar,
        )
    _show_against(directory, found, form)
    return found.count("new") < len(found.files)


def _show_against(directory: Path, found: Against, form: str | None) -> None:
    """Show which files the collection has."""
    for failure in found.unreadable:
        complain(f"{failure.path} {failure.reason}; it was not compared")
    if form == "as_json":
        files = [_owned_fields(file) for file in found.files]
        fields = path_fields(str(directory.absolute()), "collection")
        failures = [{**path_fields(each.path), "reason": each.reason} for each in found.unreadable]
        click.echo(dump({**fields, "files": files, "unreadable": failures}))
    elif form == "as_csv":
        rows = _owned_rows(found, terminal=sys.stdout.isatty())
        sys.stdout.buffer.writelines(rows)
    else:
        for file in found.files:
            kind = f"lacks {file.lacks}" if file.lacks else file.kind
            beside = f"  {shown(file.image)}" if file.image else ""
            click.echo(f"{file.state:4}  {kind:14}  {shown(file.path)}{beside}")
    have, less, new = (found.count(state) for state in ("have", "less", "new"))
    click.echo(
        f"{counted(len(found.files), 'image')}: {have:,} in the collection, {less:,} there with "
        f"less, {new:,} new",
        err=True,
    )


def _owned_fields(file: Owned) -> dict[str, Any]:
    return {
        **path_fields(file.path),
        "state": file.state,
        "size": file.size,
        "digest": file.digest.hex(),
        **(path_fields(file.image, "image") if file.image else {"image": None}),
        "id": file.id or None,
        "kind": file.kind,
        "share": round(file.share, 3),
        "orientation": file.orientation,
        "lacks": file.lacks,
    }


def _owned_rows(found: Against, *, terminal: bool) -> Iterator[bytes]:
    """Yield a header, then a CSV row for each file; see `_as_csv`."""
    from imgsearch.querying.tables import csv_row

    names = "state", "kind", "lacks", "path", "image", "share", "orientation", "size", "digest"
    yield csv_row(*names)
    for file in found.files:
        fields = _owned_fields(file)
        cells = [shown(v) if terminal and isinstance(v, str) else v for v in fields.values()]
        fields = dict(zip(fields, cells, strict=True))
        yield csv_row(*(fields[name] for name in names))


def _listed(file: Path) -> list[str]:
    """Return the paths in a file, one per line, either plain or as a JSON string.

    Raises:
        InputError: If it cannot be read.
    """
    try:
        lines = file.read_bytes().removeprefix(codecs.BOM_UTF8).splitlines()
        return [
            str(json.loads(line)) if line.startswith(b'"') else os.fsdecode(line)
            for line in lines
            if line
        ]
    except OSError as error:
        raise InputError(f"cannot read {file}: {reason_of(error)}") from error
    except ValueError as error:
        raise InputError(f"{file} is not a list of paths, one per line: {error}") from error


def _discard(found: Duplicates, act: str, count: int, *, yes: bool, turned: bool) -> None:
    """Discard the copies, if the user confirms it."""
    from imgsearch.maintenance.discard import delete_copies, link_copies, trash_copies

    trash, delete = (partial(each, turned=turned) for each in (trash_copies, delete_copies))
    what = counted(count, "file")
    ways: dict[str, tuple[Callable[[Duplicates], Discarded], str, str, str]] = {
        "delete": (trash, f"Move {what} to the trash?", "moved", " to the trash"),
        "delete_forever": (delete, f"Delete {what} forever?", "deleted", " forever"),
        "link": (link_copies, f"Replace {what} with links to those that are kept?", "linked", ""),
    }
    discard, question, verb, to = ways[act]
    if not yes:
        if not sys.stdin.isatty():
            raise SettingError(
                "there is no terminal to ask for confirmation; nothing was changed; pass --yes to "
                "confirm"
            )
        if not click.confirm(question, err=True):
            click.echo("nothing was changed", err=True)
            return
    done = discard(found)
    for failure in (*done.failures, *done.untrashed[:1]):
        complain(f"{failure.path} {failure.reason}; it was left as it is")
    if len(done.untrashed) > 1:
        complain(f"{counted(len(done.untrashed) - 1, 'other file')} cannot be moved there, either")
    click.echo(
        f"{verb} {counted(len(done.done), 'file')} of {_megabytes(done.size)}{to}; run `imgsearch "
        f"index` to update the collection",
        err=True,
    )
    if done.interrupted:
        raise KeyboardInterrupt("all other files were left as they were")
    if done.stopped:
        raise StorageError(done.stopped)
    left = len(done.failures) + len(done.untrashed)
    if left:
        without = "; --delete-forever deletes files for which there is no trash"
        message = f"left unchanged: {counted(left, 'file')}"
        raise InputError(message + without if done.untrashed else message)


def _as_text(found: Duplicates) -> str:
    """Return all groups as text, each with the image to keep first."""
    groups = [_group_as_text(group) for group in found.groups]
    for photo in found.photos:
        lines = [f"raw   {shown(photo.raw)}\n"]
        lines += [f"      {shown(path)}\n" for path in photo.images]
        groups.append("".join([*lines, "      one photo: none of these is a copy\n"]))
    return "\n".join(groups)


def _as_csv(found: Duplicates, *, terminal: bool) -> Iterator[bytes]:
    """Yield a header, then a CSV row for each image (RFC 4180, UTF-8), guarded against formulas.

    Args:
        found: The groups.
        terminal: Whether to escape characters that a terminal would obey.
    """
    from imgsearch.maintenance.copies import copy_fields
    from imgsearch.querying.tables import csv_row

    facts = (
        *("kind", "share", "orientation", "protected", "width", "height", "size", "mtime"),
        *("similarity", "digest", "id", "angle", "own"),
    )
    yield csv_row("group", "role", "path", *facts)
    for number, group in enumerate(found.groups, 1):
        for copy in (group.keep, *group.others):
            fields = copy_fields(copy)
            path = shown(fields["path"]) if terminal else fields["path"]
            role = "keep" if copy is group.keep else "copy"
            yield csv_row(number, role, path, *(fields[name] for name in facts))


def _as_json(directory: Path, found: Duplicates) -> str:
    """Return all groups as one line of JSON."""
    from imgsearch.maintenance.copies import copy_fields

    groups = [
        {
            "keep": copy_fields(group.keep),
            "reason": group.reason,
            "others": [copy_fields(copy) for copy in group.others],
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
    turned = f", and {_turned(found)}" if found.turned else ""
    turned += f", and {_related(found)}" if found.related else ""
    images = counted(found.images, "image")
    return f"{images}: {groups} with {count} of {_megabytes(found.size)}{turned}"


def _turned(found: Duplicates) -> str:
    are = "is" if found.turned == 1 else "are"
    return f"{_copies(found.turned)} that {are} mirrored or turned"


def _related(found: Duplicates) -> str:
    whose = "its" if found.related == 1 else "their"
    return f"{counted(found.related, 'image')} with something of {whose} own"


def _copies(count: int) -> str:
    return "1 copy" if count == 1 else f"{count:,} copies"


def _megabytes(size: int) -> str:
    """Return a number of bytes in MB or kB."""
    return f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size / 1e3:,.1f} kB"


def _group_as_text(group: Group) -> str:
    rows = [("keep", "", group.keep)]
    rows += [
        ("keep" if copy.protected or copy.own else "", _likeness(copy), copy)
        for copy in group.others
    ]
    lines = []
    for word, likeness, copy in rows:
        pixels, size, day = _facts(copy)
        facts = f"{word:4}  {likeness:14}  {pixels:>13}  {size:>9}  {day:10}"
        lines.append(f"{facts}  {shown(copy.path)}\n")
    return "".join(lines)


def _likeness(copy: Copy) -> str:
    """Return how a copy was made and, if it was cropped or turned, how much."""
    if copy.kind == "cropped":
        return f"cropped to {copy.share:.0%}"
    return f"turned by {copy.angle:.0f}°" if copy.angle else copy.kind


def write_page(path: Path, found: Duplicates) -> bool:
    """Write an HTML page of all copies; see `imgsearch.cli.duplicates_page`."""

    def facts(copy: Copy) -> list[str]:
        own = f"not discarded: it has {copy.own}" if copy.own else ""
        return [fact for fact in (*_facts(copy), _likeness(copy), own) if fact]

    return duplicates_page.write_page(path, found, facts)


def _facts(copy: Copy) -> tuple[str, str, str]:
    """Return an image's dimensions, file size and date."""
    day = ""
    if copy.mtime is not None:
        day = datetime.fromtimestamp(copy.mtime).strftime("%Y-%m-%d")
    return f"{copy.width} x {copy.height}", _megabytes(copy.size), day
