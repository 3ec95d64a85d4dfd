"""Read which image belongs to which class: from a CSV file, or from a folder a class."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from imgsearch.embedding.sources import is_url
from imgsearch.embedding.walking import Unreadable, walk
from imgsearch.errors import InputError, reason_of

__all__ = ["Labelled", "read_labels"]

COLUMNS = ("path", "label")


@dataclass(frozen=True, slots=True)
class Labelled:
    """An image and its class.

    Attributes:
        path: absolute, decoded with `os.fsdecode`.
        label: of its class.
        where: that was read, for messages.
    """

    path: str
    label: str
    where: str


def read_labels(labels: str | os.PathLike[str]) -> list[Labelled]:
    """Return the labelled images, each path once.

    Args:
        labels: a CSV file (RFC 4180, UTF-8) whose first line names its columns, `path` and `label`
            among them; a relative path is looked for from the folder of the file. Or a folder with
            a sub-folder for each class, whose name is the label of all files below it; what is
            hidden is left out.

    Raises:
        InputError: it cannot be read, is neither, labels nothing, or gives a path two labels.
    """
    path = Path(os.path.abspath(os.path.expanduser(os.fsdecode(labels))))
    found = _distinct(_of_folder(path) if path.is_dir() else _of_file(path))
    if not found:
        raise InputError(f"{path} labels no image; give each a line, or a sub-folder for its class")
    return found


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
                f"{path}, line {line}: there has to be one column {name!r}, in {','.join(header)!r}"
                "; the first line is to be: path,label"
            )
    columns = [header.index(name) for name in COLUMNS]
    for line, row in rows:
        where = f"{path}, line {line}"
        if len(row) <= max(columns):
            raise InputError(f"{where}: has {len(row)} of the {len(header)} columns; add the rest")
        image, label = (row[column] for column in columns)
        if not image or not label or "\0" in image:
            raise InputError(f"{where}: has no usable path, or no label; complete or delete it")
        absolute = image if is_url(image) else os.path.abspath(path.parent / image)
        yield Labelled(absolute, label, where)


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read: {reason_of(error)}; give a CSV file, or a folder"
        ) from error
    try:
        return content.decode("utf-8-sig")  # spreadsheets put a byte order mark before it
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: is not UTF-8; save the file as such") from error


def _rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not empty, and the lines where they end."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        yield from ((reader.line_num, row) for row in reader if row)
    except csv.Error as error:
        raise InputError(
            f"{path}, line {reader.line_num}: is no CSV: {error}; mend the line"
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
