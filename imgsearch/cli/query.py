"""`imgsearch query`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
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
from imgsearch.cli.output import ExitStatus, counted, libraries_silenced, shortened, shown
from imgsearch.cli.terminal import PICTURES, Style, Terminal
from imgsearch.errors import ImageError, InputError
from imgsearch.files.paths import dump, located, path_fields, plain_path
from imgsearch.files.sources import is_folder
from imgsearch.images.crop import Box
from imgsearch.images.limits import Limits, pillow_allows
from imgsearch.querying.hits import answer_fields, hit_fields
from imgsearch.querying.options import Words

if TYPE_CHECKING:
    from imgsearch.ann.vectors import Vectors
    from imgsearch.collection import Collection
    from imgsearch.querying.hits import Answer, Hit
    from imgsearch.querying.options import QueryOptions, Shown
    from imgsearch.querying.ranking import Rank

__all__ = [
    "STDIN",
    "Answered",
    "Crop",
    "Picture",
    "Request",
    "answers",
    "picture_of",
    "pictures",
    "query",
    "versions",
]

STDIN = "-"
BLOCK = 32  # queries searched together, as an exact search reads all vectors once per block
NAMED = 3  # combined images to name in a title, and images of folders to report one by one
Crop: TypeAlias = tuple[float, float, float, float]
_STYLES: dict[str | None, Style] = {
    "same picture": "green",
    "same thing": "green",
    "similar": "cyan",
    "weak": "dim",
}
#: An output format. It is lazy, so that each answer is printed as soon as it is available.
Form: TypeAlias = "Callable[[Iterable[Answered]], Iterator[str | bytes]]"


@click.command(epilog=options.OPPOSITES)
@click.argument("images", nargs=-1, metavar="[IMAGE]...", type=click.Path())
@options.k_option
@options.recall_option
@options.exact_option
@options.json_option
@options.csv_option
@options.paths_option
@options.null_option
@options.absolute_option
@options.distance_option
@options.preview_option
@options.html_option
@options.hits_open_option
@options.filter_options
@options.text_option
@options.combine_option
@options.unlike_option
@options.unlike_text_option
@options.crop_option
@options.min_band_option
@options.all_hits_option
@options.min_similarity_option
@options.rank_option
@options.verify_hits_option
@options.fold_option
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
    text: tuple[str, ...],
    collection: Path | str | None,
    k: int,
    html: Path | None,
    open: bool,  # noqa: A002 - the name of the option
    combine: bool,
    unlike: tuple[str, ...],
    unlike_text: tuple[str, ...],
    crop: Crop | None,
    max_pixels: int,
    min_similarity: float | None,
    rank: Rank,
    verify: bool,
    fold: bool,
    device: str,
    trust_model: bool,
    **_: object,  # the options that are mutually exclusive: see `choose`
) -> None:
    """Show the images most similar to each IMAGE, best first.

    IMAGE is a file, a folder for all images in it, or - for an image on stdin; --text takes words
    instead. Images that are not similar are left out, unless several images are combined, or
    --all, --min-band or --min-similarity says otherwise.
    """
    from imgsearch.collection import Collection

    if not images and not text:
        raise click.UsageError("Missing argument 'IMAGE...' or option '--text'.", ctx)
    if [*images, *unlike].count(STDIN) > 1:
        raise click.UsageError("- is given twice, but stdin holds one image", ctx)
    if verify and (_is_combined(ctx) or text):
        raise click.UsageError(
            "--verify compares one image with the hits; it cannot be used with a combined query, "
            "or with words",
            ctx,
        )
    form = choose(ctx, ("as_json",), ("as_csv",), ("html", "open"), ("paths", "null"))
    way = choose(ctx, ("recall",), ("nprobe",), ("exact",))
    itself = choose(ctx, ("include_self",), ("exclude_self",))
    request = Request(
        images=images,
        texts=text,
        unlike=unlike,
        unlike_texts=unlike_text,
        combine=combine,
        crop=crop,
        max_pixels=max_pixels,
        include_self=itself == "include_self",
        short=shortened(absolute=ctx.params["absolute"]),
        options=_search_options(
            ctx,
            way,
            {
                "k": k,
                "min_similarity": min_similarity,
                "rank": rank,
                "verify": verify,
                "fold": fold,
            },
        ),
    )
    status = ExitStatus()
    directory = locate_any(ctx, collection)
    found_there = Collection.open(directory, device=device, trust_model=trust_model)
    with libraries_silenced(), pillow_allows(max_pixels), found_there as found:
        answered = answers(found, request, status)
        if form == "html":
            from imgsearch.cli.query_page import own_page, write_page

            page = html or own_page()
            if write_page(page, answered, crop, max_pixels):
                if html is not None:
                    click.echo(f"wrote {shown(str(html))}", err=True)
                if open:
                    click.launch(page.absolute().as_uri())
        else:
            for part in _form(ctx, form)(answered):
                # Styles are written only where they are wanted; Click need not look for them.
                click.echo(part, nl=False, color=True)
    ctx.exit(status.code)


def _search_options(ctx: click.Context, way: str | None, given: QueryOptions) -> QueryOptions:
    """Return the search options, some of them as given, which others depend on."""
    found: QueryOptions = {**given, **options.filters_of(ctx)}
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
    return any(ctx.params[name] for name in ("combine", "unlike", "unlike_text"))


def _form(ctx: click.Context, name: str | None) -> Form:
    match name:
        case "as_json":
            return _as_json
        case "as_csv":
            asked = [name for name in ("verify", "fold") if ctx.params[name]]
            return partial(_as_csv, asked=asked, terminal=sys.stdout.isatty())
        case "paths" if ctx.params["null"]:
            return partial(_as_paths, end=b"\0", terminal=sys.stdout.isatty())
        case "paths":
            return partial(_as_paths, terminal=sys.stdout.isatty())
        case _:
            return partial(_as_table, look=_look(ctx))


@dataclass(frozen=True, slots=True)
class _Look:
    """How a table looks.

    Attributes:
        short: Function that shortens the path of a hit.
        distance: Whether to show the distances of the hits.
        terminal: What the terminal can show.
        preview: Whether to show pictures of the hits below their table.
        limits: Limits of the images that are shown.
    """

    short: Callable[[str], str]
    distance: bool
    terminal: Terminal
    preview: bool
    limits: Limits


def _look(ctx: click.Context) -> _Look:
    terminal, preview = Terminal.on_stdout(), ctx.params["preview"]
    if preview in PICTURES:
        terminal, preview = replace(terminal, pictures=preview), "always"
    return _Look(
        short=shortened(absolute=ctx.params["absolute"]),
        distance=ctx.params["distance"],
        terminal=terminal,
        preview=preview == "always"
        or (preview == "auto" and terminal.colour and terminal.pictures is not None),
        limits=Limits(ctx.params["max_pixels"]),
    )


@dataclass(frozen=True, slots=True)
class Picture:
    """A query image, or words to search for.

    Attributes:
        name: The name as it was given, for people to read.
        path: The absolute path; `STDIN` for the image on stdin; the words themselves.
        source: The path of the image, or its content; empty for words.
        listed: Whether it was found in a folder, so that it might not be an image at all.
        words: Words to search for, instead of an image.
    """

    name: str
    path: str
    source: str | bytes
    listed: bool = False
    words: Words | None = None

    @property
    def has_path(self) -> bool:
        """Whether it is a file."""
        return self.path != STDIN and self.words is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The queries given on a command line.

    Attributes:
        images: Arguments that name the images to search for; see `pictures`.
        texts: Words to search for.
        unlike: Arguments that name images which the hits should be unlike.
        unlike_texts: Words that the hits should be unlike.
        combine: Whether to search once for all images together, instead of for each.
        crop: The part of each image to search for; None for the whole image.
        max_pixels: Maximum number of pixels of an image; larger ones are refused.
        include_self: Whether the query images themselves may be hits.
        short: Function that shortens a path for people to read.
        options: Search options.
    """

    images: Sequence[str]
    texts: Sequence[str] = ()
    unlike: Sequence[str]
    unlike_texts: Sequence[str] = ()
    combine: bool
    crop: Crop | None
    max_pixels: int
    include_self: bool
    short: Callable[[str], str]
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
    unlike += _embed_words(collection, request.unlike_texts)
    words = _embed_words(collection, request.texts)
    like = _embed(collection, request.images, request.crop, request.max_pixels, status)
    if request.combine:
        all_ = [*like, *words]
        yield from _answers(collection, request, iter([all_] if all_ else []), unlike, status)
        return
    yield from _answers(collection, request, ([one] for one in like), unlike, status)
    yield from _answers(collection, request, ([one] for one in words), unlike, status)


def _answers(
    collection: Collection,
    request: Request,
    groups: Iterator[list[_Embedded]],
    unlike: list[_Embedded],
    status: ExitStatus,
) -> Iterator[Answered]:
    """Answer the query that each group of images or words makes."""
    told_empty, in_folders = False, 0
    while block := list(islice(groups, BLOCK)):
        for answered in _search(collection, request, _combine(collection, block, unlike, status)):
            if not answered.answer.hits:
                empty = not collection.entries.after(0, 1)
                listed = answered.like[0].listed and not empty
                in_folders += listed
                if not (empty and told_empty) and not (listed and in_folders > NAMED):
                    status.miss(_why_nothing(collection, answered, request))
                told_empty = empty
            yield answered
    if in_folders > NAMED:
        status.miss(f"nothing found for {counted(in_folders - NAMED, 'more image')}")


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


def picture_of(argument: str) -> Picture:
    """Return the one image that an argument names, or raise `InputError`."""
    found = list(islice(pictures(argument), 2))
    if len(found) != 1 or (isinstance(found[0], Picture) and found[0].listed):
        raise InputError(f"{argument} is a folder; give one image")
    if isinstance(found[0], InputError):
        raise found[0]
    return found[0]


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


def _embed_words(collection: Collection, texts: Sequence[str]) -> list[_Embedded]:
    found = []
    for text in texts:
        (embedding,) = waiting_for(collection.embed, [Words(text)])
        found.append(_Embedded(Picture(f'"{text}"', text, "", words=Words(text)), embedding))
    return found


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
            [picture.path for picture in query.like + query.unlike if picture.has_path]
            for query in queries
        ]
    if not queries:
        return
    asked = [picture for query in queries for picture in query.like + query.unlike]
    options["by_words"] = any(picture.words is not None for picture in asked)
    if options.get("verify") or options.get("fold"):
        seen = [_shown(query, request) for query in queries]
        found = waiting_for(collection.answer, seen, **options)  # which decodes images
    else:
        found = collection.answer(np.stack([query.embedding for query in queries]), **options)
    for number, (query, answer) in enumerate(zip(queries, found, strict=True)):
        nearest = None
        if not answer.hits and options.get("min_band") is not None:
            again: QueryOptions = {**options, "k": 1, "min_band": None, "rank": "cosine"}
            again |= {"verify": False, "fold": False}
            if "exclude" in options:
                again["exclude"] = options["exclude"][number : number + 1]
            (weak,) = collection.answer([query.embedding], **again)
            nearest = next(iter(weak.hits), None)
        yield Answered(query.like, query.unlike, request.combine, answer, nearest)


def _shown(query: _Query, request: Request) -> Shown | Vectors:
    """Return a query with its image, if it is of one image."""
    from imgsearch.querying.options import Shown

    if len(query.like) != 1 or query.unlike or query.like[0].words is not None:
        return query.embedding
    crop = None if request.crop is None else Box(*request.crop)
    return Shown(query.embedding, query.like[0].source, crop, Limits(request.max_pixels))


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
            f"{answered.title}: {nothing}; the nearest: {request.short(hit.path)} (similarity "
            f"{hit.similarity:.4f}); --all shows it"
        )
    wanted = [name for name in options.FILTERS if name in request.options]
    other = "image" if request.include_self else "other image"
    other += " that passes the filter" if wanted else ""
    least = request.options.get("min_similarity")
    if least is not None:
        why = f"no {other} has a similarity of {least:.15g} or more"
    elif images <= asked or (wanted and "nprobe" not in request.options):
        why = f"the collection holds no {other}{options.what_is_unread(collection, wanted)}"
    else:
        hint = "pass --exact to compare with every image"
        why = f"the inverted lists that were searched hold no {other}; {hint}"
    return f"nothing found for {answered.title}: {why}"


def _as_table(answers: Iterable[Answered], *, look: _Look) -> Iterator[str]:
    """Yield a table for each answer that has hits, and pictures of them if they are wanted."""
    for number, answered in enumerate(one for one in answers if one.answer.hits):
        hits = answered.answer.hits
        lines = [look.terminal.styled(shown(answered.title), "bold"), *_rows(hits, look)]
        yield ("\n" if number else "") + "\n".join(lines) + "\n"
        if look.preview:
            from imgsearch.cli.preview import previews

            yield from previews(hits, look.terminal, partial(_thumbnail, look.limits))


def _thumbnail(limits: Limits, path: str, edge: int) -> bytes:
    from imgsearch.images.render import thumbnail

    return waiting_for(thumbnail, path, edge, limits=limits)


def _rows(hits: Sequence[Hit], look: _Look) -> Iterator[str]:
    """Yield the heading and the rows of a table, with the columns that the hits are ordered by."""
    ranked = any(hit.score is not None for hit in hits)  # not in the order of similarities
    banded = ranked or any(hit.band is not None for hit in hits)
    wide = 12 if any(hit.band == "same picture" for hit in hits) else 10
    verified = any(hit.inliers is not None for hit in hits)

    def band(hit: Hit) -> str:
        return look.terminal.styled((hit.band or "-").ljust(wide), _STYLES.get(hit.band))

    def path(hit: Hit) -> str:
        return look.terminal.linked(shown(look.short(hit.path)), hit.path) + versions(hit)

    columns: list[tuple[str, Callable[[Hit], str], bool]] = [
        ("   #", lambda hit: f"{hit.rank:4}", True),
        ("inliers", lambda hit: f"{hit.inliers or '-':>7}", verified),
        ("similarity", lambda hit: f"{hit.similarity:10.4f}", not ranked),
        ("distance", lambda hit: f"{hit.distance:8.4f}", look.distance),
        ("band".ljust(wide), band, banded),
        ("path", path, True),
    ]
    shown_columns = [column[:2] for column in columns if column[2]]
    yield look.terminal.styled("  ".join(title for title, _ in shown_columns), "dim")
    for hit in hits:
        yield "  ".join(cell(hit) for _, cell in shown_columns)


def versions(hit: Hit) -> str:
    """Return how many other versions are folded into a hit, for a line that ends with it."""
    count = len(hit.copies or ())
    return f" (and {count:,} more version{'s' * (count > 1)})" if count else ""


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


def _as_csv(
    answers: Iterable[Answered], *, asked: Sequence[str] = (), terminal: bool = False
) -> Iterator[bytes]:
    """Yield a header, then a CSV row for each hit (RFC 4180, UTF-8), guarded against formulas.

    Paths are written as in JSON.

    Args:
        answers: The answers to print.
        asked: Options that ask for more columns: "verify" for the number of inliers, "fold" for
            the number of other versions.
        terminal: Whether to escape characters that a terminal would obey.
    """
    from imgsearch.querying.tables import csv_row

    text: Callable[[str], str] = shown if terminal else str
    facts = "distance", "similarity", "score", "z", "band"
    more = [{"verify": "inliers", "fold": "copies"}[name] for name in asked]
    yield csv_row("query", "rank", "id", "path", *facts, *more)
    for answered in answers:
        title = answered.title if answered.combined else answered.like[0].path
        query = text(path_fields(title)["path"])
        for hit in answered.answer.hits:
            fields = hit_fields(hit)
            path = text(fields["path"])
            counts = {"inliers": hit.inliers, "copies": len(hit.copies or ())}
            row = *(fields[name] for name in facts), *(counts[name] for name in more)
            yield csv_row(query, hit.rank, hit.id, path, *row)


def _asked(answered: Answered) -> dict[str, Any]:
    if answered.combined:
        fields: dict[str, Any] = {"queries": _paths(answered.like)}
    else:
        fields = _fields(answered.like[0], "query")
    if answered.combined or answered.unlike:
        fields["unlike"] = _paths(answered.unlike)
    return fields


def _paths(pictures: Iterable[Picture]) -> list[dict[str, str]]:
    return [_fields(picture, "path") for picture in pictures]


def _fields(picture: Picture, name: str) -> dict[str, Any]:
    """Return a query image as JSON fields, or words as `text`."""
    if picture.words is not None:
        return {"text": picture.words.text}
    return dict(path_fields(picture.path, name))
