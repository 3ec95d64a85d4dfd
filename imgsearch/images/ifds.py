"""Walk the directories of a TIFF file (IFDs) without decoding anything, within strict bounds.

See TIFF 6.0, section 2, and BigTIFF. Camera raws are based on TIFF, some with magic numbers of
their own.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple, TypeAlias

__all__ = ["Directory", "directories", "directory_of", "first_directory"]

# Bounds for hostile files; those of cameras have some ten directories of up to a hundred tags.
_MOST_DIRECTORIES = 64
_MOST_TAGS = 1024
_MOST_VALUES = 4096
_DEEPEST = 3
_LONGEST = 256  # Bytes of a text.

_SUB_IFDS = 330
_ASCII = 2  # Type of text.

# Format characters of struct for the types of integers.
_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_FRACTIONS = {5: "I", 10: "i"}  # The same for both parts of a fraction.
_BYTES = {  # Per value.
    **{type_: struct.calcsize("<" + letter) for type_, letter in _INTEGERS.items()},
    2: 1,
    5: 8,
    7: 1,
    10: 8,
    11: 4,
    12: 8,
}


class _Entry(NamedTuple):
    """A tag's type, the number of its values, and their position in the file."""

    type: int
    values: int
    position: int


_Layout: TypeAlias = tuple[str, bool, int]  # Byte order, whether BigTIFF, base of offsets.


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory of a TIFF file, with its subdirectories (`SubIFDs`)."""

    _file: BinaryIO
    _layout: _Layout
    _entries: dict[int, _Entry]
    below: tuple[Directory, ...] = ()

    def __contains__(self, tag: int) -> bool:
        return tag in self._entries

    def integers(self, tag: int) -> tuple[int, ...]:
        """Return the values of a tag; none if it is missing or does not hold integers."""
        return _integers(self._file, self._layout, self._entries.get(tag))

    def integer(self, tag: int, default: int = 0) -> int:
        """Return the first value of a tag, or `default`."""
        values = self.integers(tag)
        return values[0] if values else default

    def fractions(self, tag: int) -> tuple[float, ...]:
        """Return the values of a tag that holds fractions; none otherwise, NaN for what is none."""
        entry = self._entries.get(tag)
        if entry is None or entry.type not in _FRACTIONS:
            return ()
        form = f"{self._layout[0]}{2 * min(entry.values, _MOST_VALUES)}{_FRACTIONS[entry.type]}"
        data = _read(self._file, entry.position, struct.calcsize(form))
        if len(data) < struct.calcsize(form):
            return ()
        parts = struct.unpack(form, data)
        pairs = zip(parts[::2], parts[1::2], strict=True)
        return tuple(above / below if below else math.nan for above, below in pairs)

    def text(self, tag: int) -> str:
        """Return a tag's text, cut off after some length; empty if it is missing or has none."""
        entry = self._entries.get(tag)
        if entry is None or entry.type != _ASCII:
            return ""
        data = _read(self._file, entry.position, min(entry.values, _LONGEST))
        return data.partition(b"\0")[0].decode("utf-8", "replace")

    def below_at(self, tag: int) -> Directory | None:
        """Return the directory to whose position a tag points, without its subdirectories."""
        chain = _chain(self._file, self._layout, self.integer(tag), set(), _DEEPEST)
        return next(chain, None)

    def block(self, tag: int) -> tuple[int, int] | None:
        """Return the offset in the file and the length of the bytes of a tag."""
        entry = self._entries.get(tag)
        return (entry.position, entry.values) if entry and entry.type in (1, 2, 7) else None

    def position(self, tag: int) -> int | None:
        """Return the position in the file of the first value of a tag."""
        entry = self._entries.get(tag)
        return entry.position if entry else None

    @property
    def base(self) -> int:
        """The position in the file to which the offsets in its tags are relative."""
        return self._layout[2]


def directories(file: BinaryIO, base: int = 0) -> list[Directory]:
    """Return the directories of the main chain of a TIFF file, without malformed ones.

    Args:
        file: Open file at any position.
        base: Position of the TIFF header in the file.
    """
    return list(_main_chain(file, base))


def first_directory(file: BinaryIO, base: int = 0) -> Directory | None:
    """Return the first of the `directories`, or None if there is none."""
    return next(_main_chain(file, base), None)


def directory_of(exif: bytes) -> Directory | None:
    """Return the first directory of EXIF data as Pillow passes it on; None if there is none.

    Pillow itself parses all of the data, which takes several times as long.
    """
    return first_directory(io.BytesIO(exif.removeprefix(b"Exif\0\0")))


def _main_chain(file: BinaryIO, base: int) -> Iterator[Directory]:
    header = _read(file, base, 16)
    order = {b"II": "<", b"MM": ">"}.get(header[:2])
    if order is None or len(header) < 8:
        return
    big = struct.unpack(order + "H", header[2:4])[0] == 43
    if big and len(header) < 16:
        return
    (first,) = (
        struct.unpack(order + "Q", header[8:]) if big else struct.unpack(order + "I", header[4:8])
    )
    yield from _chain(file, (order, big, base), first, set(), 0)


def _chain(
    file: BinaryIO, layout: _Layout, offset: int, seen: set[int], depth: int
) -> Iterator[Directory]:
    order, big, base = layout
    words = ("Q", "HHQ", 20, "Q") if big else ("H", "HHI", 12, "I")
    while offset and offset not in seen and len(seen) < _MOST_DIRECTORIES:
        seen.add(offset)
        size = struct.calcsize(order + words[0])
        counted = _read(file, base + offset, size)
        if len(counted) < size:
            return
        count = min(struct.unpack(order + words[0], counted)[0], _MOST_TAGS)
        start, length = base + offset + size, words[2]
        table = _read(file, start, count * length)
        entries: dict[int, _Entry] = {}
        row, pointer = struct.Struct(order + words[1]), struct.Struct(order + words[3])
        room = length - row.size
        for at in range(0, len(table) - length + 1, length):
            tag, type_, values = row.unpack_from(table, at)
            position = start + at + row.size
            if _BYTES.get(type_, 1) * values > room:
                position = base + pointer.unpack_from(table, at + row.size)[0]
            entries.setdefault(tag, _Entry(type_, values, position))
        below: list[Directory] = []
        if depth < _DEEPEST:
            for there in _integers(file, layout, entries.get(_SUB_IFDS)):
                below += _chain(file, layout, there, seen, depth + 1)
        yield Directory(file, layout, entries, tuple(below))
        following = _read(file, start + count * length, struct.calcsize(order + words[3]))
        if len(following) < struct.calcsize(order + words[3]):
            return
        (offset,) = struct.unpack(order + words[3], following)


def _integers(file: BinaryIO, layout: _Layout, entry: _Entry | None) -> tuple[int, ...]:
    if entry is None or entry.type not in _INTEGERS:
        return ()
    form = f"{layout[0]}{min(entry.values, _MOST_VALUES)}{_INTEGERS[entry.type]}"
    data = _read(file, entry.position, struct.calcsize(form))
    return struct.unpack(form, data) if len(data) == struct.calcsize(form) else ()


def _read(file: BinaryIO, offset: int, size: int) -> bytes:
    if offset >= 1 << 62:  # Beyond the end of any possible file: seek would raise.
        return b""
    file.seek(offset)
    return file.read(size)
