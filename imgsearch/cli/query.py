"""`imgsearch query`."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click
import numpy as np

from imgsearch.cli import options
from imgsearch.cli.interrupt import waiting_for
from imgsearch.cli.locate import locate_any
from imgsearch.cli.options import choose
from imgsearch.cli.output import ExitStatus, libraries_silenced, shown
from imgsearch.errors import ImageError, InputError
from imgsearch.files.paths import dump, located, path_fields, plain_path
from imgsearch.files.sources import is_folder
from imgsearch.images.limits import pillow_allows
from imgsearch.querying.hits import answer_fields, hit_fields

if TYPE_CHECKING:
    from imgsearch.ann.vectors import Vectors
    from imgsearch.collection import Collection
    from imgsearch.querying.hits import Answer, Hit
    from imgsearch.querying.options import QueryOptions
    from imgsearch.querying.ranking import Rank

__all__ = ["STDIN", "Answered", "Crop", "Picture", "Request", "answers", "pictures", "query"]

STDIN = "-"
BLOCK = 32  # queries searched together, as an exact search reads all vectors once per block
NAMED = 3  # combined images to name in a title
Crop: TypeAlias = tuple[float, float, float, float]
#: First characters of a cell that a spreadsheet may take for a formula; some use full-width ones.
_FORMULA = frozenset("=+-@\t\r\n＝＋－＠")
#: An output format. It is lazy, so that each answer is printed as soon as it is available.
Form: TypeAlias = "Callable[[Iterable[Answered]], Iterator[str | bytes]]"


@click.command(epilog=options.OPPOSITES)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", type=click.Path())
@options.k_option
@options.recall_option
@options.exact_option
@options.json_option
@options.csv_option
@options.paths_option
@options.null_option
@options.html_option
@options.combine_option
@options.unlike_option
@options.crop_option
@options.min_band_option
@options.all_hits_option
@options.min_similarity_option
@options.rank_option
@options.include_self_option
@options.exclude_self_option
@options.max_pixels_option
@options.nprobe_option
@options.collection_option
@options.device_option
@options.trust_model_option
@click.pass_context
def query(
    ctx: click.Context,
    /,
    images: tuple[str, ...],
    collection: Path | str | None,
    k: int,
    html: Path | None,
    combine: bool,
    unlike: tuple[str, ...],
    crop: Crop | None,
    max_pixels: int,
    min_similarity: float | None,
    rank: Rank,
    device: str,
    trust_model: bool,
    **_: object,  # the options that are mutually exclusive: see `choose`
) -> None:
    """Show the images most similar to each IMAGE, best first.

    IMAGE is a file, a folder for all images in it, or - for an image on stdin. Images that are not
    similar are left out, unless several images are combined, or --all, --min-band or
    --min-similarity says otherwise.
    """
    from imgsearch.collection import Collection

    if [*images, *unlike].count(STDIN) > 1:
        raise click.UsageError("- is given twice, but stdin holds one image", ctx)
    form = choose(ctx, ("as_json",), ("as_csv",), ("html",), ("paths", "null"))
    way = choose(ctx, ("recall",), ("nprobe",), ("exact",))
    itself = choose(ctx, ("include_self",), ("exclude_self",))
    request = Request(
        images=images,
        unlike=unlike,
        combine=combine,
        crop=crop,
        max_pixels=max_pixels,
        include_self=itself == "include_self",
        options=_search_options(ctx, way, {"k": k, "min_similarity": min_similarity, "rank": rank}),
    )
    status = ExitStatus()
    directory = locate_any(ctx, collection)
    found_there = Collection.open(directory, device=device, trust_model=trust_model)
    with libraries_silenced(), pillow_allows(max_pixels), found_there as found:
        answered = answers(found, request, status)
        if form == "html" and html is not None:
            from imgsearch.cli.query_page import write_page

            if write_page(html, answered, crop, max_pixels):
                click.echo(f"wrote {shown(str(html))}", err=True)
        else:
            for text in _form(ctx, form)(answered):
                click.echo(text, nl=False)
    ctx.exit(status.code)


def _search_options(ctx: click.Context, way: str | None, given: QueryOptions) -> QueryOptions:
    """Return the search options, some of them as given, which others depend on."""
    found = given.copy()
    match choose(ctx, ("min_band",), ("all_hits",)):
        case "min_band":
            found["min_band"] = ctx.params["min_band"]
        case None if given["min_similarity"] is None and not _is_combined(ctx):
            found["min_band"] = "similar"
    match way:
        case "recall":
            found["recall"] = ctx.params["recall"]
        case "nprobe":
            found["nprobe"] = ctx.params["nprobe"]
        case "exact":
            found["exact"] = True
    return found


def _is_combined(ctx: click.Context) -> bool:
    """Tell whether a query is made of several images, which may all be far from the best hit."""
    return bool(ctx.params["combine"] or ctx.params["unlike"])


def _form(ctx: click.Context, name: str | None) -> Form:
    match name:
        case "as_json":
            return _as_json
        case "as_csv":
            return partial(_as_csv, terminal=sys.stdout.isatty())
        case "paths" if ctx.params["null"]:
            return partial(_as_paths, end=b"\0", terminal=sys.stdout.isatty())
        case "paths":
            return partial(_as_paths, terminal=sys.stdout.isatty())
        case _:
            return _as_table


@dataclass(frozen=True, slots=True)
class Picture:
    """A query image.

    Attributes:
        name: The name as it was given, for people to read.
        path: The absolute path; `STDIN` for the image on stdin.
        source: The path of the image, or its content.
        listed: Whether it was found in a folder, so that it might not be an image at all.
    """

    name: str
    path: str
    source: str | bytes
    listed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The queries given on a command line.

    Attributes:
        images: Arguments that name the images to search for; see `pictures`.
        unlike: Arguments that name images which the hits should be unlike.
        combine: Whether to search once for all images together, instead of for each.
        crop: The part of each image to search for; None for the whole image.
        max_pixels: Maximum number of pixels of an image; larger ones are refused.
        include_self: Whether the query images themselves may be hits.
        options: Search options.
    """

    images: Sequence[str]
    unlike: Sequence[str]
    combine: bool
    crop: Crop | None
    max_pixels: int
    include_self: bool
    options: QueryOptions


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer with its query: one image or several `combined`, possibly unlike others."""

    like: tuple[Picture, ...]
    unlike: tuple[Picture, ...]
    combined: bool
    answer: Answer
    nearest: Hit | None = None  # if there are hits, but all of them are too weak

    @property
    def title(self) -> str:
        """The query in one line, for people to read."""
        title = " + ".join(_names(self.like))
        return " - ".join([title, *_names(self.unlike)])


@dataclass(frozen=True, slots=True)
class _Embedded:
    picture: Picture
    embedding: Vectors


@dataclass(frozen=True, slots=True)
class _Query:
    like: tuple[Picture, ...]
    unlike: tuple[Picture, ...]
    embedding: Vectors


def answers(collection: Collection, request: Request, status: ExitStatus) -> Iterator[Answered]:
    """Answer a request lazily, in bounded memory however many images there are.

    Images that cannot be used and answers without hits are reported to `status`.
    """
    unlike = list(_embed(collection, request.unlike, None, request.max_pixels, status))
    if status.code:
        return  # without these images it would be a different query
    like = _embed(collection, request.images, request.crop, request.max_pixels, status)
    if request.combine:
        like_all = list(like)
        groups = iter([like_all] if like_all else [])
    else:
        groups = ([one] for one in like)
    told_empty = False
    while block := list(islice(groups, BLOCK)):
        for answered in _search(collection, request, _combine(collection, block, unlike, status)):
            if not answered.answer.hits:
                empty = not collection.entries.after(0, 1)
                if not (empty and told_empty):
                    status.miss(_why_nothing(collection, answered, request))
                told_empty = empty
            yield answered


def pictures(argument: str) -> Iterator[Picture | InputError]:
    """Yield the images that an argument names, and an error for each that cannot be read."""
    if argument == STDIN:
        yield _on_stdin()
        return
    try:
        source, path = located(argument), os.fsdecode(plain_path(argument))
    except InputError as error:
        yield error
        return
    if is_folder(os.fsencode(path)):
        yield from _under(argument, path)
    else:
        yield Picture(argument, path, os.fsdecode(source))


def _on_stdin() -> Picture | InputError:
    content = sys.stdin.buffer.read() if sys.stdin else b""
    if not content:
        return InputError("-: stdin is empty; send it an image, as in `< cat.jpg`")
    return Picture(STDIN, STDIN, content)


def _under(argument: str, folder: str) -> Iterator[Picture | InputError]:
    from imgsearch.files.listing import Unreadable, list_files

    for listing in list_files([os.fsencode(folder)], set()):
        if isinstance(listing, Unreadable):
            yield InputError(f"{os.fsdecode(listing.folder)}: cannot be listed: {listing.reason}")
            continue
        for file in listing.files:
            path = os.fsdecode(os.path.join(listing.folder, file.name))
            name = os.path.join(argument, os.path.relpath(path, folder))
            yield Picture(name, path, path, listed=True)


def _embed(
    collection: Collection,
    arguments: Sequence[str],
    crop: Crop | None,
    max_pixels: int,
    status: ExitStatus,
) -> Iterator[_Embedded]:
    for argument in arguments:
        empty = True
        for picture in pictures(argument):
            if isinstance(picture, InputError):
                status.refuse(picture)
                empty = False
                continue
            try:
                (embedding,) = waiting_for(
                    collection.embed, [picture.source], crop=crop, max_pixels=max_pixels
                )
            except ImageError as error:
                if picture.listed and not error.recognised:
                    continue
                status.refuse(InputError(f"{picture.name}: {error.reason}"))
            else:
                yield _Embedded(picture, embedding)
            empty = False
        if empty:
            status.refuse(InputError(f"{argument}: there is no image in this folder"))


def _combine(
    collection: Collection,
    groups: list[list[_Embedded]],
    unlike: list[_Embedded],
    status: ExitStatus,
) -> Iterator[_Query]:
    """Combine each group of images into one query."""
    for group in groups:
        embeddings = [one.embedding for one in group]
        embedding = embeddings[0]
        if len(group) > 1 or unlike:
            try:
                embedding = collection.combine(embeddings, unlike=[one.embedding for one in unlike])
            except InputError as error:
                status.refuse(error)
                continue
        yield _Query(_pictures(group), _pictures(unlike), embedding)


def _search(
    collection: Collection, request: Request, queries: Iterable[_Query]
) -> Iterator[Answered]:
    queries = list(queries)
    options = request.options.copy()
    if not request.include_self:
        options["exclude"] = [
            [picture.path for picture in query.like + query.unlike if picture.path != STDIN]
            for query in queries
        ]
    if not queries:
        return
    embeddings = np.stack([query.embedding for query in queries])
    found = collection.answer(embeddings, **options)
    for number, (query, answer) in enumerate(zip(queries, found, strict=True)):
        nearest = None
        if not answer.hits and options.get("min_band") is not None:
            again: QueryOptions = {**options, "k": 1, "min_band": None, "rank": "cosine"}
            if "exclude" in options:
                again["exclude"] = options["exclude"][number : number + 1]
            (weak,) = collection.answer([query.embedding], **again)
            nearest = next(iter(weak.hits), None)
        yield Answered(query.like, query.unlike, request.combine, answer, nearest)


def _pictures(group: list[_Embedded]) -> tuple[Picture, ...]:
    return tuple(one.picture for one in group)


def _names(pictures: Sequence[Picture]) -> list[str]:
    names = [picture.name for picture in pictures[:NAMED]]
    if len(pictures) > NAMED:
        names.append(f"{len(pictures) - NAMED:,} more")
    return names


def _why_nothing(collection: Collection, answered: Answered, request: Request) -> str:
    asked = len(answered.like) + len(answered.unlike)
    images = len(collection.entries.after(0, asked + 1))  # counted up to this limit
    if not images:
        return "nothing found: the collection is empty; add images with `imgsearch index FOLDER`"
    if answered.nearest is not None:
        hit, band = answered.nearest, request.options.get("min_band")
        nothing = "nothing similar" if band == "similar" else f"nothing in the band {band!r}"
        return (
            f"{answered.title}: {nothing}; the nearest: {hit.path} (similarity "
            f"{hit.similarity:.4f}); --all shows it"
        )
    other = "image" if request.include_self else "other image"
    least = request.options.get("min_similarity")
    if least is not None:
        why = f"no {other} has a similarity of {least:.15g} or more"
    elif images <= asked:
        why = f"the collection holds no {other}"
    else:
        hint = "pass --exact to compare with every image"
        why = f"the inverted lists that were searched hold no {other}; {hint}"
    return f"nothing found for {answered.title}: {why}"


def _as_table(answers: Iterable[Answered]) -> Iterator[str]:
    """Yield a table for each answer that has hits."""
    for number, answered in enumerate(one for one in answers if one.answer.hits):
        lines = [shown(answered.title), *_rows(answered.answer.hits)]
        yield ("\n" if number else "") + "\n".join(lines) + "\n"


def _rows(hits: Sequence[Hit]) -> Iterator[str]:
    """Yield the heading and the rows of a table, with the columns that the hits are ordered by."""
    if any(hit.score is not None for hit in hits):
        yield "   #  band        path"
        for hit in hits:
            yield f"{hit.rank:4}  {hit.band or '-':10}  {shown(hit.path)}"
        return
    banded = any(hit.band is not None for hit in hits)
    yield f"   #  similarity  distance  {'band        ' if banded else ''}path"
    for hit in hits:
        band = f"{hit.band or '-':10}  " if banded else ""
        numbers = f"{hit.rank:4}  {hit.similarity:10.4f}  {hit.distance:8.4f}"
        yield f"{numbers}  {band}{shown(hit.path)}"


def _as_json(answers: Iterable[Answered]) -> Iterator[str]:
    """Yield a line of JSON for each answer, with absolute paths."""
    for answered in answers:
        yield dump({**_asked(answered), **answer_fields(answered.answer)}) + "\n"


def _as_paths(
    answers: Iterable[Answered], end: bytes = b"\n", *, terminal: bool = False
) -> Iterator[bytes]:
    """Yield the path of each hit as raw bytes, followed by `end`.

    Args:
        answers: The answers to print.
        end: The terminator of each path.
        terminal: Whether to escape characters that a terminal would obey.
    """
    for answered in answers:
        for hit in answered.answer.hits:
            yield (shown(hit.path).encode() if terminal else os.fsencode(hit.path)) + end


def _as_csv(answers: Iterable[Answered], *, terminal: bool = False) -> Iterator[bytes]:
    """Yield a header, then a CSV row for each hit (RFC 4180, UTF-8), guarded against formulas.

    Paths are written as in JSON.

    Args:
        answers: The answers to print.
        terminal: Whether to escape characters that a terminal would obey.
    """
    text: Callable[[str], str] = shown if terminal else str
    facts = "distance", "similarity", "score", "z", "band"
    yield _row("query", "rank", "id", "path", *facts)
    for answered in answers:
        asked = answered.title if answered.combined else answered.like[0].path
        query = text(path_fields(asked)["path"])
        for hit in answered.answer.hits:
            fields = hit_fields(hit)
            path = text(fields["path"])
            yield _row(query, hit.rank, hit.id, path, *(fields[name] for name in facts))


def _row(*values: str | float | None) -> bytes:
    row = io.StringIO(newline="")
    csv.writer(row).writerow([_guarded(v) if isinstance(v, str) else v for v in values])
    return row.getvalue().encode()


def _guarded(text: str) -> str:
    """Return a cell, prefixed with an apostrophe if a spreadsheet might take it for a formula.

    Source: OWASP, "CSV Injection". A single `-`, the name of stdin, is not a formula.
    """
    return f"'{text}" if len(text) > 1 and text.lstrip(" ")[:1] in _FORMULA else text


def _asked(answered: Answered) -> dict[str, Any]:
    if answered.combined:
        fields: dict[str, Any] = {"queries": _paths(answered.like)}
    else:
        fields = dict(path_fields(answered.like[0].path, "query"))
    if answered.combined or answered.unlike:
        fields["unlike"] = _paths(answered.unlike)
    return fields


def _paths(pictures: Iterable[Picture]) -> list[dict[str, str]]:
    return [path_fields(picture.path) for picture in pictures]
