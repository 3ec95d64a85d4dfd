"""Select images of the catalog by what it says about them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

__all__ = ["Dates", "Fact", "Range", "Selection", "failures_where", "images_where"]

#: A size of an image: bytes of its file, its longer edge in pixels, or its number of pixels.
Fact: TypeAlias = Literal["bytes", "edge", "pixels"]

#: The time of the last change stands for one that was too recent to be trusted.
_FILE_TIME = "coalesce(mtime_ns, ctime_ns)"
_FACTS: dict[str, str] = {
    "bytes": "size",
    "edge": "max(width, height)",
    "pixels": "width * height",
    "file_time": _FILE_TIME,
}


class Range(NamedTuple):
    """A range of the values of a fact, ends included; None where there is no limit."""

    fact: Fact
    least: int | None = None
    most: int | None = None


class Dates(NamedTuple):
    """A range of times, without its end; None where there is no limit.

    Each time is given twice: as in `images.taken`, and in nanoseconds since 1970, for the time of
    the file, which counts if the capture time is unknown.
    """

    first: tuple[int, int] | None = None
    end: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """The conditions of a filter: all of the `ranges`, the dates, one folder and one camera.

    `folders` holds ids of folders. None stands for all folders or cameras. An unknown fact is
    outside every range.
    """

    ranges: tuple[Range, ...]
    dates: Dates
    folders: tuple[int, ...] | None
    cameras: tuple[str, ...] | None


def images_where(selection: Selection, *columns: str) -> tuple[str, list[object]]:
    """Return the statement that selects columns of images, or facts of them, and its values."""
    conditions, values = ["folder > 0"], list[object]()
    for fact, least, most in selection.ranges:
        for limit, sign in ((least, ">="), (most, "<=")):
            if limit is not None:
                conditions.append(f"{_FACTS[fact]} {sign} ?")
                values.append(limit)
    for limits, sign in zip(selection.dates, (">=", "<"), strict=True):
        if limits is not None:
            compared = f"taken {sign} ? ELSE {_FILE_TIME} {sign} ?"
            conditions.append(f"CASE WHEN taken IS NOT NULL THEN {compared} END")
            values += limits
    if selection.folders is not None:
        conditions.append("folder IN (SELECT value FROM json_each(?))")
        values.append(json.dumps(selection.folders))
    if selection.cameras is not None:
        conditions.append("camera IN (SELECT value FROM json_each(?))")
        values.append(json.dumps(selection.cameras))
    named = ", ".join(_FACTS.get(each, each) for each in columns)
    return _statement(named, "images", conditions), values


def failures_where(folders: Sequence[int] | None) -> tuple[str, list[object]]:
    """Return the statement that selects the files that failed in some folders, and its values."""
    conditions, values = ["reason IS NOT NULL"], list[object]()
    if folders is not None:
        conditions.append("folder IN (SELECT value FROM json_each(?))")
        values.append(json.dumps(folders))
    return _statement("folder, name, reason", "failures", conditions), values


def _statement(columns: str, table: str, conditions: Sequence[str]) -> str:
    where = " AND ".join(conditions)
    return f"SELECT {columns} FROM {table} WHERE {where}"  # noqa: S608 - it holds no data
