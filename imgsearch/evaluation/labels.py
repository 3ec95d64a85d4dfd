"""Read the class of each image from a CSV file, or from a folder per class."""

from __future__ import annotations

import csv
import io
import os
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from imgsearch.errors import InputError, reason_of
from imgsearch.files.paths import is_url, located
from imgsearch.files.walk import Unreadable, walk

__all__ = ["Labelled", "difference", "near_labels", "near_miss", "read_labels"]

MAX_BYTES = 256 << 20  # bytes per file: some three million lines
COLUMNS = ("path", "label")
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_QUOTES = "\"'`\u201c\u201d\u2018\u2019"


@dataclass(frozen=True, slots=True)
class Labelled:
    """An image and its class.

    Attributes:
        path: The absolute path, decoded with `os.fsdecode`.
        label: The label of its class.
        where: The origin of this label, for messages.
    """

    path: str
    label: str
    where: str


def read_labels(labels: str | os.PathLike[str]) -> list[Labelled]:
    """Return the labelled images, each path once.

    Args:
        labels: A CSV file (RFC 4180, UTF-8) whose first line names its columns, including `path`
            and `label`; relative paths start from the folder of the file, `~` is the home
            directory, and URLs are allowed. Or a folder with a sub-folder for each class, whose
            name is the label of all files below it, except hidden ones.

    Raises:
        InputError: If it cannot be read, is neither, labels nothing, or gives a path two labels.
    """
    path = Path(os.path.abspath(os.fsdecode(located(labels))))
    found = _distinct(_of_folder(path) if path.is_dir() else _of_file(path))
    if not found:
        raise InputError(f"{path} labels no image; give each a line, or a sub-folder for its class")
    return found


def near_miss(text: str) -> str:
    """Return a key that is equal for texts that people take for the same path or label."""
    plain = unicodedata.normalize("NFKC", text).replace("\\", "/").casefold()
    parts = (part.strip(_QUOTES + " \t\r\n\ufeff") for part in plain.split("/"))
    return os.path.normpath("/".join(" ".join(part.split()) for part in parts))


def difference(one: str, other: str) -> str:
    """Describe the difference between two texts with the same `near_miss`."""
    unify = unicodedata.normalize
    if unify("NFC", one) == unify("NFC", other):
        return "the Unicode form of its letters (NFC or NFD)"
    if ("\\" in one) != ("\\" in other):
        return "backslashes in place of slashes"
    if _without(_QUOTES, one) == _without(_QUOTES, other):
        return "quotation marks"
    if one.casefold() == other.casefold():
        return "upper and lower case"
    if "".join(one.split()) == "".join(other.split()):
        return "spaces"
    return "spaces, case or the form of its letters"


def _without(signs: str, text: str) -> str:
    return "".join(character for character in text if character not in signs)


def near_labels(labels: Iterable[str]) -> list[str]:
    """Return a warning for each pair of labels that differ slightly, and so are two classes."""
    first: dict[str, str] = {}
    warnings = []
    for label in sorted(set(labels)):
        other = first.setdefault(near_miss(label), label)
        if other != label:
            warnings.append(
                f"{other!r} and {label!r} count as two classes, and differ only by "
                f"{difference(other, label).replace(' its ', ' their ')}"
            )
    return warnings


def _distinct(rows: Iterable[Labelled]) -> list[Labelled]:
    first: dict[str, Labelled] = {}
    for row in rows:
        known = first.setdefault(row.path, row)
        if known.label != row.label:
            raise InputError(
                f"{row.where}: {row.path} is {row.label!r} here, and {known.label!r} in "
                f"{known.where}; keep one of them"
            )
    return list(first.values())


def _of_file(path: Path) -> Iterator[Labelled]:
    rows = _rows(path, _text(path))
    line, header = next(rows, (1, []))
    for name in COLUMNS:
        if header.count(name) != 1:
            raise InputError(
                f"{path}, line {line}: there must be one column {name!r}, in {','.join(header)!r}"
                f"; {_header_hint(header, name)}the first line must be: path,label"
            )
    columns = [header.index(name) for name in COLUMNS]
    for line, row in rows:
        where = f"{path}, line {line}"
        if len(row) <= max(columns):
            raise InputError(
                f"{where}: has {len(row)} of the {len(header)} columns; "
                f"{_separator_hint(','.join(row))}add the rest"
            )
        image, label = (row[column] for column in columns)
        if not image or not label or "\0" in image:
            raise InputError(f"{where}: has no usable path, or no label; complete or delete it")
        yield Labelled(_absolute(image, path.parent, where), label, where)


def _absolute(image: str, folder: Path, where: str) -> str:
    try:
        there = os.fsdecode(located(image))
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    return there if is_url(there) else os.path.abspath(folder / there)


def _header_hint(header: list[str], name: str) -> str:
    near = [column for column in header if near_miss(column) == name and column != name]
    if near:
        return f"{near[0]!r} differs by {difference(near[0], name)}; "
    return _separator_hint(",".join(header))


def _separator_hint(line: str) -> str:
    """Say which character separates the columns, if it is not a comma."""
    if "," not in line:
        for sign, name in _SEPARATORS.items():
            if sign in line:
                return f"separate the columns by commas, not by {name}; "
    return ""


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)  # a device may be endless
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read: {reason_of(error)}; give a CSV file, or a folder"
        ) from error
    if len(content) > MAX_BYTES:
        raise InputError(f"{path}: has more than {MAX_BYTES:,} bytes; split it, or give a folder")
    try:
        return content.decode("utf-8-sig")  # spreadsheets put a byte order mark before it
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: is not UTF-8; save the file as such") from error


def _rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not empty, with the numbers of the lines where they end."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        yield from ((reader.line_num, row) for row in reader if row)
    except csv.Error as error:
        raise InputError(
            f"{path}, line {reader.line_num}: is not valid CSV: {error}; correct the line"
        ) from error


def _of_folder(path: Path) -> Iterator[Labelled]:
    for folder in _classes(path):
        for found in walk([os.fsencode(folder)], set()):
            where = os.fsdecode(found.folder)
            if isinstance(found, Unreadable):
                raise InputError(f"{where}: cannot be listed: {found.reason}; make it readable")
            for name in found.names:
                if not name.startswith(b"."):
                    image = os.path.join(where, os.fsdecode(name))
                    yield Labelled(image, folder.name, where)


def _classes(path: Path) -> list[Path]:
    try:
        folders = [each for each in path.iterdir() if each.is_dir()]
    except OSError as error:
        raise InputError(
            f"{path}: cannot be listed: {reason_of(error)}; make it readable"
        ) from error
    return sorted(folder for folder in folders if not folder.name.startswith("."))
