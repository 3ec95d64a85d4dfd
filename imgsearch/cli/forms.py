"""The forms in which `imgsearch query` prints its answers: each turns answers into text."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

from imgsearch.cli.answers import Answered
from imgsearch.cli.output import shown
from imgsearch.cli.pictures import Picture
from imgsearch.files.paths import dump, path_fields
from imgsearch.querying.hits import answer_fields, hit_fields

__all__ = ["Form", "as_csv", "as_json", "as_paths", "as_table"]

#: What a cell begins with that a spreadsheet may take for a formula; full-width in some countries.
_FORMULA = frozenset("=+-@\t\r\n＝＋－＠")

#: Lazy, so that an answer is printed as soon as it is there.
Form: TypeAlias = Callable[[Iterable[Answered]], Iterator[str | bytes]]


def as_table(answers: Iterable[Answered]) -> Iterator[str]:
    """Yield a table for each answer with a hit."""
    for number, answered in enumerate(one for one in answers if one.answer.hits):
        lines = [shown(answered.title), "   #  similarity  distance  path"]
        lines += [
            f"{hit.rank:4}  {hit.similarity:10.4f}  {hit.distance:8.4f}  {shown(hit.path)}"
            for hit in answered.answer.hits
        ]
        yield ("\n" if number else "") + "\n".join(lines) + "\n"


def as_json(answers: Iterable[Answered]) -> Iterator[str]:
    """Yield a line of JSON for each answer, paths absolute."""
    for answered in answers:
        yield dump({**_asked(answered), **answer_fields(answered.answer)}) + "\n"


def as_paths(
    answers: Iterable[Answered], end: bytes = b"\n", *, terminal: bool = False
) -> Iterator[bytes]:
    """Yield the path of each hit, its bytes as they are, and `end` behind it.

    Args:
        answers: to be printed.
        end: of a path.
        terminal: escape what a terminal would obey.
    """
    for answered in answers:
        for hit in answered.answer.hits:
            yield (shown(hit.path).encode() if terminal else os.fsencode(hit.path)) + end


def as_csv(answers: Iterable[Answered], *, terminal: bool = False) -> Iterator[bytes]:
    """Yield a header and a row for each hit (RFC 4180, UTF-8), paths as in JSON; no formulas.

    Args:
        answers: to be printed.
        terminal: escape what a terminal would obey.
    """
    text: Callable[[str], str] = shown if terminal else str
    yield _row("query", "rank", "id", "path", "distance", "similarity")
    for answered in answers:
        asked = answered.title if answered.combined else answered.like[0].path
        query = text(path_fields(asked)["path"])
        for hit in answered.answer.hits:
            fields = hit_fields(hit)
            path = text(fields["path"])
            yield _row(query, hit.rank, hit.id, path, fields["distance"], fields["similarity"])


def _row(*values: str | float) -> bytes:
    row = io.StringIO(newline="")
    csv.writer(row).writerow([_guarded(v) if isinstance(v, str) else v for v in values])
    return row.getvalue().encode()


def _guarded(text: str) -> str:
    """Return a cell that no spreadsheet takes for a formula: an apostrophe is put before it.

    After OWASP, "CSV Injection". A mere `-`, as stdin is called, is none.
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
