"""Answer what `imgsearch query` is asked, going on after an image that cannot be used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

from imgsearch.cli.outcome import Outcome
from imgsearch.cli.pictures import STDIN, Picture, pictures
from imgsearch.cli.waiting import waiting_for
from imgsearch.errors import ImageError, InputError

if TYPE_CHECKING:
    from imgsearch.ann.vectors import Vectors
    from imgsearch.places import AnyCollection
    from imgsearch.querying.hits import Answer
    from imgsearch.querying.options import QueryOptions

__all__ = ["Answered", "Crop", "Request", "answers"]

BLOCK = 32  # queries that are searched together: an exact search reads all vectors for each block
NAMED = 3  # of the images that were combined, in a title

Crop: TypeAlias = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked.

    Attributes:
        images: arguments, see `imgsearch.cli.pictures.pictures`.
        unlike: arguments; what is found is to be unlike these.
        combine: search once for all images, not for each.
        crop: the part of each image that is meant; None for all of it.
        max_pixels: an image of more is refused.
        include_self: images that are asked with may be hits, too.
        options: how to search.
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
    """An answer, and what it answers: one image, or several `combined`; perhaps unlike others."""

    like: tuple[Picture, ...]
    unlike: tuple[Picture, ...]
    combined: bool
    answer: Answer

    @property
    def title(self) -> str:
        """What was searched for, in a line for people."""
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


def answers(collection: AnyCollection, request: Request, outcome: Outcome) -> Iterator[Answered]:
    """Answer a request, lazily and in bounded memory, however many images there are.

    An image that cannot be used is reported to `outcome`, and so is an answer without a hit.
    """
    unlike = list(_embed(collection, request.unlike, None, request.max_pixels, outcome))
    if outcome.code:
        return  # without these it would be another question
    like = _embed(collection, request.images, request.crop, request.max_pixels, outcome)
    if request.combine:
        like_all = list(like)
        groups = iter([like_all] if like_all else [])
    else:
        groups = ([one] for one in like)
    told_empty = False
    while block := list(islice(groups, BLOCK)):
        for answered in _search(collection, request, _combine(collection, block, unlike, outcome)):
            if not answered.answer.hits:
                empty = not collection.entries.after(0, 1)
                if not (empty and told_empty):
                    outcome.miss(_why_nothing(collection, answered, request))
                told_empty = empty
            yield answered


def _embed(
    collection: AnyCollection,
    arguments: Sequence[str],
    crop: Crop | None,
    max_pixels: int,
    outcome: Outcome,
) -> Iterator[_Embedded]:
    for argument in arguments:
        empty = True
        for picture in pictures(argument):
            if isinstance(picture, InputError):
                outcome.refuse(picture)
                empty = False
                continue
            try:
                (embedding,) = waiting_for(
                    collection.embed, [picture.source], crop=crop, max_pixels=max_pixels
                )
            except ImageError as error:
                if picture.listed and not error.recognised:
                    continue
                outcome.refuse(InputError(f"{picture.name}: {error.reason}"))
            else:
                yield _Embedded(picture, embedding)
            empty = False
        if empty:
            outcome.refuse(InputError(f"{argument}: there is no image in this folder"))


def _combine(
    collection: AnyCollection,
    groups: list[list[_Embedded]],
    unlike: list[_Embedded],
    outcome: Outcome,
) -> Iterator[_Query]:
    """Make each group of images one query."""
    for group in groups:
        embeddings = [one.embedding for one in group]
        embedding = embeddings[0]
        if len(group) > 1 or unlike:
            try:
                embedding = collection.combine(embeddings, unlike=[one.embedding for one in unlike])
            except InputError as error:
                outcome.refuse(error)
                continue
        yield _Query(_pictures(group), _pictures(unlike), embedding)


def _search(
    collection: AnyCollection, request: Request, queries: Iterable[_Query]
) -> Iterator[Answered]:
    queries = list(queries)
    options = request.options.copy()
    if not request.include_self:
        options["exclude"] = [
            [picture.path for picture in query.like + query.unlike if picture.path != STDIN]
            for query in queries
        ]
    found = collection.answer([query.embedding for query in queries], **options)
    for query, answer in zip(queries, found, strict=True):
        yield Answered(query.like, query.unlike, request.combine, answer)


def _pictures(group: list[_Embedded]) -> tuple[Picture, ...]:
    return tuple(one.picture for one in group)


def _names(pictures: Sequence[Picture]) -> list[str]:
    names = [picture.name for picture in pictures[:NAMED]]
    if len(pictures) > NAMED:
        names.append(f"{len(pictures) - NAMED:,} more")
    return names


def _why_nothing(collection: AnyCollection, answered: Answered, request: Request) -> str:
    asked = len(answered.like) + len(answered.unlike)
    images = len(collection.entries.after(0, asked + 1))  # or fewer than that
    if not images:
        return "nothing found: the collection is empty; `imgsearch index FOLDER` fills it"
    other = "image" if request.include_self else "other image"
    least = request.options.get("min_similarity")
    if least is not None:
        why = f"no {other} has a similarity of {least:.15g} or more"
    elif images <= asked:
        why = f"the collection holds no {other}"
    else:
        why = f"the inverted lists that were searched hold no {other}; --exact compares with all"
    return f"nothing found for {answered.title}: {why}"
