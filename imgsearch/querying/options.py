"""Check the input of a search: the kinds of queries, and the options."""

from __future__ import annotations

import operator
import os
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import (
    Any,
    BinaryIO,
    Protocol,
    SupportsFloat,
    SupportsIndex,
    TypeAlias,
    Unpack,
    cast,
)

import numpy as np
import numpy.typing as npt
from PIL import Image

from imgsearch.errors import InputError, SettingError, reason_of
from imgsearch.images.crop import Box
from imgsearch.images.limits import LIMITS, Limits
from imgsearch.querying.filters import NO_FILTER, Filter, FilterKeywords
from imgsearch.querying.ranking import BANDS, DEFAULT, RANKS, Band, Rank

__all__ = [
    "LEAST_ID",
    "PathLike",
    "Query",
    "QueryOptions",
    "SearchOptions",
    "Shown",
    "Words",
    "as_array",
    "check_names",
    "is_array",
    "items",
    "number",
    "paths_of",
    "patterns_of",
    "queries_of",
    "whole",
]

LEAST_ID = -(2**63)  # the least id that SQLite accepts

PathLike: TypeAlias = str | os.PathLike[str]


class _Array(Protocol):
    def __array__(self) -> npt.NDArray[Any]: ...


@dataclass(frozen=True, slots=True)
class Words:
    """A query in words, such as `Words("a red bicycle")`, for a network that embeds words as well.

    Hits of such a query have neither a band nor a `z`, and are ranked by cosine: similarities of
    words and images are on another scale than those of images.
    """

    text: str


#: A path, the content of an image file, an open file, a Pillow image, words, or numbers in an
#: array, a tensor or lists: pixels (integers from 0 to 255, or fractions from 0 to 1) or an
#: embedding.
Query: TypeAlias = (
    PathLike
    | bytes
    | bytearray
    | memoryview
    | BinaryIO
    | Image.Image
    | Words
    | _Array
    | Sequence[Any]
)


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """An embedding with the image that it was made from: a query that is not embedded again.

    Attributes:
        embedding: The embedding, float32 `[dim]`.
        source: Path of the image, or its content.
        crop: The part of the image that is searched for; None for all of it.
        limits: Maximum pixels of the image.
    """

    embedding: npt.NDArray[np.float32]
    source: str | bytes
    crop: Box | None = None
    limits: Limits = LIMITS

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Return the embedding."""
        return np.array(self.embedding, dtype, copy=copy)


class QueryOptions(FilterKeywords, total=False):
    """The keywords of `Collection.query` and similar methods: those of `SearchOptions`.

    The keywords of a filter stand for its `filter`.
    """

    k: int
    recall: float | None
    nprobe: int | None
    exact: bool
    include_self: bool
    exclude_self: bool
    exclude: Sequence[Sequence[PathLike | int]]
    min_similarity: float | None
    min_band: Band | None
    rank: Rank
    verify: bool
    fold: bool
    by_words: bool


#: The keywords of a query, those of its filter last.
_NAMES = tuple(
    sorted(QueryOptions.__annotations__, key=lambda name: name in FilterKeywords.__annotations__)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """The options of a search; at most one of `recall`, `nprobe` and `exact` may be given.

    Attributes:
        k: Number of hits per query; fewer if the collection is smaller.
        recall: Recall@10 to keep; None for the recall that the collection promises.
        nprobe: Number of inverted lists to scan, whatever the recall; None for as many as `recall`
            requires.
        exact: Whether to compare each query with every image instead.
        include_self: Whether to keep the image at each query's own path among its hits; by default
            it is left out, while copies of it elsewhere are hits.
        exclude_self: Whether to leave that image out, which is the default; False means
            `include_self`.
        exclude: Paths or ids of images to leave out of the hits, as one list for each query.
        min_similarity: Minimum similarity of a hit.
        min_band: The weakest band of a hit, "similar" or "same thing"; None or "weak" for all hits.
            In a collection with too few images to tell bands, all are hits.
        rank: What to rank by: "collection" for what the collection knows of its images, wherever it
            knows enough, or "cosine", by which the similarity of the hits falls. Hits to verify
            are always ranked by cosine.
        verify: Whether to compare local features of the query and the first 50 hits: hits that show
            the same object, or part of the same picture, come first, whatever their band.
        fold: Whether to show versions of the same picture as one hit.
        by_words: Whether the embeddings that are searched for were made of words, so that hits have
            no band and are ranked by cosine, whatever `rank` says; `Words` among the queries imply
            it for all of them.
        filter: Images to search among.

    Raises:
        SettingError: If a value is invalid, or options contradict each other.
    """

    k: int = 10
    recall: float | None = None
    nprobe: int | None = None
    exact: bool = False
    include_self: bool = False
    exclude_self: bool | None = None
    exclude: Sequence[Sequence[PathLike | int]] = ()
    min_similarity: float | None = None
    min_band: Band | None = None
    rank: Rank = DEFAULT
    verify: bool = False
    fold: bool = False
    by_words: bool = False
    filter: Filter = NO_FILTER

    def __post_init__(self) -> None:
        for name in ("k", "nprobe"):
            if name == "k" or getattr(self, name) is not None:
                self._set(name, whole(name, getattr(self, name), 1))
        for name, least in (("recall", 0), ("min_similarity", -1)):
            if getattr(self, name) is not None:
                self._set(name, number(name, getattr(self, name), least, 1))
        for name, choices in (("min_band", BANDS), ("rank", RANKS)):
            value = getattr(self, name)
            if value not in choices and not (value is None and name == "min_band"):
                named = " or ".join(map(repr, choices))
                raise SettingError(f"{name} is {_shown(value)}; it must be {named}")
        if self.recall == 0:
            raise SettingError("recall is 0; it must be more than 0 and at most 1")
        for name in ("exact", "include_self", "exclude_self", "verify", "fold", "by_words"):
            value = getattr(self, name)
            if value is None and name == "exclude_self":
                continue
            if not isinstance(value, bool | np.bool_):
                raise SettingError(f"{name} is {_shown(value)}; it must be True or False")
        self._set("exclude", [_images_of(images) for images in items("exclude", self.exclude)])
        if self.include_self and self.exclude_self:
            raise SettingError(
                "include_self and exclude_self are mutually exclusive: give one of them"
            )
        if self.by_words and self.verify:
            raise SettingError("verify compares images; leave it out of a query by words")
        if (self.recall is not None) + (self.nprobe is not None) + bool(self.exact) > 1:
            raise SettingError(
                "exact search probes no lists, and nprobe sets their number regardless of the "
                "recall: give one of recall, nprobe and exact"
            )

    @classmethod
    def of(cls, **options: Unpack[QueryOptions]) -> SearchOptions:
        """Return the options for the keywords of a query; raises `SettingError` for others."""
        check_names(options, _NAMES)
        given: dict[str, Any] = dict(options)
        wanted = {name: given.pop(name) for name in FilterKeywords.__annotations__ if name in given}
        return cls(**given, filter=Filter.of(**wanted) if wanted else NO_FILTER)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)  # the instance is frozen, but still being created

    @property
    def looks(self) -> bool:
        """Whether the search looks at the images of hits."""
        return self.verify or self.fold

    @property
    def leaves_self_out(self) -> bool:
        """Whether to leave the image at a query's own path out of its hits."""
        return not self.include_self and self.exclude_self is not False


def check_names(given: Iterable[str], known: Iterable[str]) -> None:
    """Check that every keyword names an option, or raise `SettingError`."""
    for name in given:
        if name not in known:
            raise SettingError(f"there is no option {name!r}; there are {', '.join(known)}")


def whole(name: str, value: object, least: int) -> int:
    """Return an argument that is a whole number, from Python, NumPy or torch.

    Raises:
        SettingError: If the value is not a whole number, is less than `least`, or exceeds a signed
            64-bit integer.
    """
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        found = operator.index(cast("SupportsIndex", value))
    except (TypeError, ValueError, RuntimeError):
        raise SettingError(f"{name} is {_shown(value)}; it must be a whole number") from None
    if not least <= found < 2**63:
        raise SettingError(f"{name} is {found}; it must be {least} or more")
    return found


def number(name: str, value: object, least: float, most: float) -> float:
    """Return an argument that is a number from `least` to `most`, or raise `SettingError`."""
    try:
        if isinstance(value, bool | np.bool_ | str | bytes):
            raise TypeError
        found = float(cast("SupportsFloat", value))
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise SettingError(f"{name} is {_shown(value)}; it must be a number") from None
    if not least <= found <= most:
        raise SettingError(f"{name} is {value}; it must be from {least:g} to {most:g}")
    return found


def items(name: str, values: object) -> list[Any]:
    """Return the items of an argument that is a list, or raise `InputError`."""
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise InputError(f"{name} is a {type(values).__name__}; give a list")
    return list(values)


def paths_of(paths: object) -> list[PathLike]:
    """Return the paths in an argument that is one path or a list of them.

    Raises:
        InputError: If the argument is neither.
    """
    found = [paths] if isinstance(paths, str | os.PathLike) else items("paths", paths)
    for path in found:
        if not isinstance(path, str | os.PathLike):
            raise InputError(f"{_shown(path)} is not a path; give a str or a Path")
    return found


def _images_of(images: object) -> list[PathLike | int]:
    """Return the images in an argument that is a list of paths and ids, or raise `InputError`."""
    if isinstance(images, str | os.PathLike):
        return [images]
    found: list[PathLike | int] = []
    for image in items("exclude", images):
        if isinstance(image, str | os.PathLike):
            found.append(image)
            continue
        try:
            found.append(whole("an id", image, LEAST_ID))
        except SettingError:
            raise InputError(f"{_shown(image)} is not a path or an id") from None
    return found


def patterns_of(patterns: object) -> list[str]:
    """Return the patterns in an argument: one, or a list of them; raises as `paths_of`."""
    return [os.fsdecode(pattern) for pattern in paths_of(patterns)]


def queries_of(queries: object) -> Sequence[Query] | npt.NDArray[Any]:
    """Return several queries as a list, or embeddings as an array `[n, dim]`, one as `[dim]`.

    Raises:
        InputError: If the argument is a single query, or is not a list of queries.
    """
    if isinstance(queries, str | bytes | bytearray | memoryview | os.PathLike | Image.Image):
        raise InputError("several queries are expected: give a list, even for one")
    if not is_array(queries):
        return items("queries", queries)
    array = as_array(queries)
    if array.dtype != object and array.ndim in (1, 2):
        return array
    if array.ndim in (1, 4):  # of objects, or of images
        return list(array)
    raise InputError(
        f"several queries are expected, and this array has the shape {list(array.shape)}: give a "
        "list, even for one"
    )


def as_array(values: object) -> npt.NDArray[Any]:
    """Convert a NumPy array, a torch tensor, nested lists or anything similar to a NumPy array.

    Raises:
        InputError: If the values cannot be converted to an array.
    """
    try:
        for step in ("detach", "cpu"):  # methods of torch, which need not be imported to call them
            values = getattr(values, step, lambda values=values: values)()
        return np.asarray(values)
    except Exception as error:  # another library may raise anything
        kind = type(values).__name__
        raise InputError(f"this {kind} is not an array of numbers: {reason_of(error)}") from error


def _shown(value: object) -> str:
    """Return an argument for a message, shortened to one line."""
    return textwrap.shorten(repr(value), 60, placeholder=" ...")


def is_array(query: object) -> bool:
    """Tell whether a query is an array, a tensor or anything else that NumPy can convert."""
    return hasattr(query, "__array__") or hasattr(query, "__array_interface__")
