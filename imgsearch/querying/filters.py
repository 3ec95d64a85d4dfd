"""Select the images to list or to search, by their names, dates, sizes, formats and cameras."""

from __future__ import annotations

import math
import os
import re
import textwrap
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import date, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, TypedDict, get_args

from imgsearch.errors import InputError, SettingError
from imgsearch.files.paths import is_at, is_below, plain_path, real_path, relative, resolved_path
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.selection import Dates, Fact, Range, Selection

if TYPE_CHECKING:
    from fractions import Fraction

__all__ = [
    "NO_FILTER",
    "ORDERS",
    "Filter",
    "FilterKeywords",
    "Order",
    "failures_matching",
    "ids_matching",
]

PathLike: TypeAlias = str | os.PathLike[str]
When: TypeAlias = str | date

#: The orders of a listing: by path, by the name of the file, by the time of the image or its file,
#: by bytes, or as added.
Order: TypeAlias = Literal["path", "name", "date", "size", "added"]
ORDERS: tuple[Order, ...] = get_args(Order)
OTHER_RAWS = (".cr3", ".crw", ".mrw", ".raf", ".x3f")  # besides those that look like TIFF files

_GLOB = re.compile(r"[*?\[/]")
_WORDS = re.compile(r"[^\W\d_]+|\d+")
_NUMBER = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)([a-z]*)")
_UNITS: dict[str, tuple[Fact, int]] = {
    "": ("edge", 1),
    "px": ("edge", 1),
    "mp": ("pixels", 10**6),
    "kb": ("bytes", 10**3),
    "mb": ("bytes", 10**6),
    "gb": ("bytes", 10**9),
}
_DIGITS = "0123456789."
_LARGEST = 2**63 - 1  # that SQLite can compare with


class FilterKeywords(TypedDict, total=False):
    """The keywords of a filter: see `Filter.of`."""

    name: str | Sequence[str]
    after: When | None
    before: When | None
    folder: PathLike | Sequence[PathLike]
    size: str | Sequence[str]
    format: str | Sequence[str]
    camera: str | Sequence[str]


class Size(NamedTuple):
    """A range of sizes, as it was given and as the catalog compares it."""

    text: str
    range: Range


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """A filter of images; one without any limits lets all of them pass.

    Attributes:
        name: Words or patterns, all of which must match the name of the file or of a folder.
        after: Local time from which on an image was taken, or its file was changed if the capture
            time is unknown.
        before: Local time before which this was.
        folder: Absolute paths of folders or URLs, one of which the image must be below.
        size: Ranges of sizes, all of which must hold.
        format: Extensions, in lower case, one of which the name of the file must have.
        camera: Words or patterns, one of which must match the make and model of the camera.
    """

    name: tuple[str, ...] = ()
    after: datetime | None = None
    before: datetime | None = None
    folder: tuple[str, ...] = ()
    size: tuple[Size, ...] = ()
    format: tuple[str, ...] = ()
    camera: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.after and self.before and self.after >= self.before:
            raise SettingError(
                f"no image can be from {self.after} on and before {self.before}; swap the two"
            )

    def __bool__(self) -> bool:
        return self is not NO_FILTER and any(getattr(self, field.name) for field in fields(self))

    @classmethod
    def of(cls, **keywords: Any) -> Filter:
        """Return the filter for keywords.

        Args:
            keywords: `name`, one or several: a whole word ("beach" is in "Beach_2019.jpg", but not
                in "beaches.jpg"), several words in a row, or a pattern such as "*beach*" or
                "2019/*.png" (see `imgsearch.files.exclusions`). `after` and `before`: a date, a
                datetime, or text in ISO 8601, which may be a year or a month; an image passes from
                the beginning of `after` on, until the beginning of `before`. `folder`: one or
                several. `size`, one or several: ">2000" or "<=800px" (the longer edge), ">12MP",
                ">2MB", or a range such as "1000..2000". `format`, one or several: "png", "jpeg",
                "raw", or an extension. `camera`, one or several: words or patterns as in `name`.

        Raises:
            SettingError: If a value makes no sense, or there is no such keyword.
            InputError: If a folder is not a path.
        """
        for keyword in keywords:
            if keyword not in FilterKeywords.__annotations__:
                known = ", ".join(FilterKeywords.__annotations__)
                raise SettingError(f"there is no filter {keyword!r}; there are {known}")
        given = {each: value for each, value in keywords.items() if value is not None}
        return cls(
            name=tuple(map(_name, _texts("name", given.get("name", ())))),
            after=_time("after", given.get("after")),
            before=_time("before", given.get("before")),
            folder=tuple(map(_folder, _several("folder", given.get("folder", ())))),
            size=tuple(map(_size, _texts("size", given.get("size", ())))),
            format=_extensions(_texts("format", given.get("format", ()))),
            camera=tuple(map(_name, _texts("camera", given.get("camera", ())))),
        )


NO_FILTER = Filter()


def ids_matching(catalog: Catalog, wanted: Filter, order: Order = "added") -> list[int]:
    """Return the ids of the images that pass a filter, in an order."""
    selection = _selection(catalog, wanted)
    by_name = bool(wanted.name or wanted.format)
    if not by_name and order == "added":
        return sorted(id_ for (id_,) in catalog.select(selection, "id"))
    facts = {"date": ("taken", "file_time"), "size": ("bytes",)}.get(order, ())
    rows = catalog.select(selection, "id", "folder", "name", *facts)
    names = _Names(catalog, wanted)
    if by_name:
        rows = [row for row in rows if names.match(row[1], row[2])]
    keys: dict[Order, Callable[[tuple[Any, ...]], Any]] = {
        "path": lambda row: (names.path(row[1]), row[2]),
        "name": lambda row: (row[2].lower(), row[0]),
        "date": lambda row: (_local_seconds(row[3], row[4]), row[0]),
        "size": lambda row: (row[3], row[0]),
        "added": lambda row: row[0],
    }
    rows.sort(key=keys[order])
    return [row[0] for row in rows]


def failures_matching(catalog: Catalog, wanted: Filter) -> list[tuple[bytes, str]]:
    """Return the path and the reason of each file that failed and passes a filter, by path.

    Raises:
        SettingError: If the filter is about more than names and folders.
    """
    if wanted != Filter(name=wanted.name, folder=wanted.folder, format=wanted.format):
        raise SettingError(
            "failed files can be filtered only by name, folder and format; leave out other filters"
        )
    names = _Names(catalog, wanted)
    rows = catalog.select_failures(_folders(catalog, wanted.folder))
    found = [row for row in rows if names.match(row[0], row[1])]
    return sorted((os.path.join(names.path(row[0]), row[1]), row[2]) for row in found)


def _local_seconds(taken: int | None, file_time: int | None) -> float:
    """Return when an image was taken, or else when its file was changed, for comparison only."""
    if taken is not None:
        return taken
    if file_time is None:
        return -math.inf
    seconds, rest = divmod(file_time, 10**9)
    return seconds + _offset(seconds // 900) + rest / 1e9


@lru_cache(100_000)
def _offset(quarter: int) -> float:
    """Return how far local time is ahead in a quarter of an hour since 1970, in seconds."""
    with suppress(OverflowError, ValueError, OSError):
        return _seconds(datetime.fromtimestamp(quarter * 900)) - quarter * 900
    return 0.0  # beyond what the system's own calendar knows


def _selection(catalog: Catalog, wanted: Filter) -> Selection:
    """Return what the catalog itself can select by."""
    cameras = None
    if wanted.camera:
        words = [_matcher(each) for each in wanted.camera]
        known = ((camera, camera.encode("utf-8", "replace")) for camera in catalog.cameras())
        cameras = tuple(c for c, raw in known if any(each.has_file(b"", raw) for each in words))
    return Selection(
        tuple(size.range for size in wanted.size),
        Dates(*(_limits(time) for time in (wanted.after, wanted.before))),
        _folders(catalog, wanted.folder),
        cameras,
    )


def _limits(time: datetime | None) -> tuple[int, int] | None:
    """Return a local time as the catalog compares it: see `Dates`."""
    return None if time is None else (math.ceil(_seconds(time)), _nanoseconds(time))


def _folders(catalog: Catalog, wanted: Sequence[str]) -> tuple[int, ...] | None:
    """Return the ids of the folders at or below one of some paths; None for no paths."""
    if not wanted:
        return None
    roots = catalog.roots()
    found: set[int] = set()
    for path in wanted:
        # The path as written, which may lead through a linked folder, then what it resolves to.
        for top in dict.fromkeys(way(path) for way in (plain_path, real_path, resolved_path)):
            here: set[int] = set()
            for root in roots:
                if is_at(root.path, top):
                    here.update(id_ for id_, _ in catalog.folders_below(root.id, b""))
                elif is_below(top, root.path):
                    below = relative(top, root.path)
                    here.update(id_ for id_, _ in catalog.folders_below(root.id, below))
            found |= here
            if here:
                break
    return tuple(sorted(found))


class _Names:
    """The names of files and folders, compared with words and patterns."""

    def __init__(self, catalog: Catalog, wanted: Filter) -> None:
        self._places = {
            id_: (root.path, os.path.join(root.path, path) if path else root.path)
            for root in catalog.roots()
            for id_, path in catalog.folders_below(root.id, b"")
        }
        self._wanted = [_matcher(each) for each in wanted.name]
        self._extensions = tuple(f".{each}".encode() for each in wanted.format)
        self._left: dict[int, list[_Pattern | _Words]] = {}

    def path(self, folder: int) -> bytes:
        """Return the absolute path of a folder."""
        return self._places[folder][1]

    def match(self, folder: int, name: bytes) -> bool:
        """Tell whether a file has one of the extensions, and it or a folder above it every name."""
        if self._extensions and not name.lower().endswith(self._extensions):
            return False
        left = self._left.get(folder)
        if left is None:
            place = self._places[folder]
            left = [each for each in self._wanted if not each.has_folder(*place)]
            self._left[folder] = left
        return all(each.has_file(self._places[folder][1], name) for each in left)


class _Pattern:
    """A pattern of file and folder names."""

    def __init__(self, pattern: str) -> None:
        from imgsearch.files.exclusions import Exclusions

        self._matcher = Exclusions([pattern])

    def has_folder(self, root: bytes, folder: bytes) -> bool:
        """Tell whether the pattern matches a folder, or one above it up to its root."""
        return self._matcher.covers(folder, root) or self._matcher.has_folder(root)

    def has_file(self, folder: bytes, name: bytes) -> bool:
        """Tell whether the pattern matches a file."""
        return self._matcher.has_file(folder, name)


class _Words:
    """Words in a row, in the name of a file or a folder."""

    def __init__(self, text: str) -> None:
        words = _WORDS.findall(_plain(text))
        ends = [r"\d" if word.isdecimal() else r"[^\W\d_]" for word in (words[0], words[-1])]
        inner = r"[\W_]*".join(map(re.escape, words))
        self._words = re.compile(rf"(?<!{ends[0]}){inner}(?!{ends[1]})")

    def has_folder(self, root: bytes, folder: bytes) -> bool:
        """Tell whether the name of a folder has the words, or one above it up to its root."""
        names = [os.path.basename(root), *relative(folder, root).split(b"/")]
        return any(self.has_file(b"", name) for name in names if name)

    def has_file(self, _: bytes, name: bytes) -> bool:
        """Tell whether the name of a file has the words."""
        return self._words.search(_plain(os.fsdecode(name))) is not None


def _matcher(text: str) -> _Pattern | _Words:
    return _Pattern(text) if _GLOB.search(text) else _Words(text)


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def _texts(keyword: str, values: object) -> list[str]:
    found = _several(keyword, values)
    for value in found:
        if not isinstance(value, str):
            raise SettingError(f"{keyword} is {_shown(value)}; it must be a string")
    return found


def _several(keyword: str, values: object) -> list[Any]:
    """Return the values of a keyword that may be one or a list."""
    if isinstance(values, str | os.PathLike):
        return [values]
    if isinstance(values, bytes | Mapping) or not isinstance(values, Iterable):
        raise SettingError(f"{keyword} is {_shown(values)}; give a string or a list of strings")
    return list(values)


def _name(text: str) -> str:
    if _GLOB.search(text):
        if not text.strip("/") or "\0" in text:
            raise SettingError(f"the pattern {_shown(text)} is not valid; give one such as '*.png'")
        return text
    if not _WORDS.search(_plain(text)):
        raise SettingError(f"{_shown(text)} has no letters or digits; give a word")
    return text


def _folder(path: object) -> str:
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"{_shown(path)} is not a path; give a str or a Path")
    return os.fsdecode(plain_path(path))


def _time(keyword: str, value: object) -> datetime | None:
    """Return the local time at which a date, a month or a year begins."""
    try:
        if isinstance(value, str):
            text = value.strip()
            text += {4: "-01-01", 7: "-01"}.get(len(text), "")
            value = datetime.fromisoformat(text)
        elif isinstance(value, date) and not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day)
        if isinstance(value, datetime):
            return value.astimezone().replace(tzinfo=None) if value.tzinfo else value
    except (ValueError, OverflowError, OSError):
        pass
    if value is None:
        return None
    raise SettingError(
        f"{keyword} is {_shown(value)}; give a date such as 2024-05-17, 2024-05 or 2024"
    )


def _seconds(time: datetime) -> float:
    """Return the seconds of a local time since 1970 by the same clock, as in `images.taken`."""
    return (time - datetime(1970, 1, 1)).total_seconds()


def _nanoseconds(time: datetime) -> int:
    """Return a local time in nanoseconds since 1970, as far as that fits into 64 bits."""
    try:
        seconds = time.timestamp()
    except (OverflowError, ValueError, OSError):  # beyond what the system's own calendar knows
        seconds = _seconds(time)
    return max(-_LARGEST, min(round(seconds * 1e6) * 1_000, _LARGEST))


def _extensions(names: Sequence[str]) -> tuple[str, ...]:
    """Return the extensions of formats, without the dot and in lower case."""
    if not names:
        return ()
    from imgsearch.images.formats import FORMATS, RAW
    from imgsearch.images.raw import EXTENSIONS

    groups = {name.casefold(): row.extensions for name, row in FORMATS.items()}
    groups[RAW.casefold()] = (*EXTENSIONS, *OTHER_RAWS)
    found: dict[str, None] = {}
    for name in names:
        known = name.casefold().removeprefix(".")
        if not known.isalnum() or not known.isascii():
            raise SettingError(f"format is {_shown(name)}; give one such as png, jpeg or raw")
        same = [row for format_, row in groups.items() if known == format_ or f".{known}" in row]
        found |= dict.fromkeys(each[1:] for row in same for each in row) or {known: None}
    return tuple(found)


def _size(text: str) -> Size:
    """Return a range of sizes from its text."""
    given = "".join(text.casefold().split())
    sign = next((each for each in (">=", "<=", ">", "<", "=") if given.startswith(each)), "")
    low, to, high = given.removeprefix(sign).partition("..")
    unit = next((end.strip(_DIGITS) for end in (high, low) if end.strip(_DIGITS)), "")
    ends = [end for end in (_end(low, unit), _end(high, unit)) if end is not None]
    if len(ends) != bool(low) + bool(high) or len({fact for fact, _ in ends}) != 1 or (sign and to):
        raise SettingError(
            f"size is {_shown(text)}; give '>2000' for the longer edge in pixels, '>12MP', "
            "'<=500kB', or a range such as 1000..2000"
        )
    (fact, first), (_, last) = ends[0], ends[-1]
    # Sizes are whole numbers: the least and the most that a limit lets pass.
    least, most = math.ceil(first), math.floor(last)
    limits: tuple[int | None, int | None]
    match sign:
        case ">":
            limits = (math.floor(first) + 1, None)
        case "<":
            limits = (None, math.ceil(first) - 1)
        case ">=":
            limits = (least, None)
        case "<=":
            limits = (None, most)
        case _:
            limits = (least if low else None, most if high or not to else None)
    return Size(text, Range(fact, *limits))


def _end(text: str, unit: str) -> tuple[Fact, Fraction] | None:
    """Return what an end of a range limits, and its number; None if it is not valid."""
    from fractions import Fraction

    number = _NUMBER.fullmatch(text)
    found = _UNITS.get(number[2] or unit) if number else None
    if number is None or found is None:
        return None
    return found[0], min(Fraction(number[1]) * found[1], Fraction(_LARGEST))


def _shown(value: object) -> str:
    return textwrap.shorten(repr(value), 60, placeholder=" ...")
