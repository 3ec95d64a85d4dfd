"""Read protocol buffers by a table of the accepted fields, within bounds.

A message is a sequence of numbered fields. Each holds a varint, four or eight bytes, or a length
followed by that many bytes, which may in turn be a message. A field that is missing from the table
is refused, and so is a repeated field where only one is allowed, as readers differ in which of the
two they use. The number of fields read bounds time and memory; long contents are not copied.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

__all__ = ["Field", "ForeignError", "MalformedError", "Message", "field", "passed_over", "read"]

FIELDS = 50_000  # Maximum fields of one file; MobileNetV2 has 3,547 and Inception v3 5,690.

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5  # Wire types.


class MalformedError(Exception):
    """The bytes are not the expected message, or the message is truncated."""


class ForeignError(Exception):
    """A file holds something that is not accepted, which the text names as a noun."""


_Kind: TypeAlias = "Literal['int', 'ints', 'floats', 'text', 'bytes', 'skip'] | Message"


class Message:
    """The fields that a kind of message may hold.

    Attributes:
        name: Name of the message for people.
        called: Names for people of some of the refused fields, by number.
        fields: Name and kind of each field, and whether it may be repeated, by its tag (number and
            wire type).
    """

    def __init__(self, name: str, *fields: Field, called: dict[int, str] | None = None) -> None:
        self.name = name
        self.called = called or {}
        self.fields: dict[int, tuple[str, _Kind, bool]] = {}
        for field in fields:
            for wire in field.wires:
                self.fields[field.number << 3 | wire] = field.name, field.kind, field.many


class Field(NamedTuple):
    """A field of a message, which may be repeated if it is `many`."""

    number: int
    name: str
    kind: _Kind
    many: bool = False

    @property
    def wires(self) -> tuple[int, ...]:
        """The wire types that the field may have."""
        match self.kind:
            case "int":
                return (_VARINT,)
            case "ints":  # Packed into one field, or one field per number.
                return _BYTES, _VARINT
            case "floats":
                return _BYTES, _FOUR
            case "skip":
                return _BYTES, _VARINT, _FOUR, _EIGHT
            case _:
                return (_BYTES,)


def passed_over(*numbers: int) -> list[Field]:
    """Return fields that affect neither what a model computes nor which files it reads."""
    return [Field(number, "", "skip", many=True) for number in numbers]


def read(message: Message, data: bytes) -> dict[str, Any]:
    """Return the fields of a message by name, as lists where they may be repeated.

    Floats are only counted; bytes are views of `data`.

    Raises:
        MalformedError: If the bytes are not such a message.
        ForeignError: If the message holds a field that is not in the table, or too many fields.
    """
    try:
        return _Reader(data).message(message, 0, len(data))
    except IndexError:
        raise MalformedError from None


def field(number: int, content: int | bytes) -> bytes:
    """Return a serialised field: a non-negative integer, or bytes that may be a message."""
    if isinstance(content, int):
        return _as_varint(number << 3 | _VARINT) + _as_varint(content)
    return _as_varint(number << 3 | _BYTES) + _as_varint(len(content)) + content


def _as_varint(number: int) -> bytes:
    digits = bytearray()
    while number >= 0x80:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*digits, number])


class _Reader:
    """A reader for the messages of one file, which counts their fields."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._left = FIELDS

    def message(self, message: Message, at: int, end: int) -> dict[str, Any]:
        """Return the fields of a message by name, as lists where they may be repeated."""
        found: dict[str, Any] = {}
        data, fields = self._data, message.fields
        while at < end:
            self._count()
            tag = data[at]
            at += 1
            if tag >= 0x80:
                tag, at = self._varint(at - 1)
            field = fields.get(tag)
            if field is None:
                raise self._refusal(message, tag)
            name, kind, many = field
            value, at = self._value(kind, tag & 7, at, end)
            if kind == "skip":
                continue
            if not many:
                if name in found:
                    raise ForeignError(f"a {message.name} with two fields for one value")
                found[name] = value
            elif kind == "floats":
                found[name] = found.get(name, 0) + value
            elif kind == "ints":
                found.setdefault(name, []).extend(value)
            else:
                found.setdefault(name, []).append(value)
        return found

    def _value(self, kind: _Kind, wire: int, at: int, end: int) -> tuple[Any, int]:
        """Return the content of a field, and the position after it."""
        data = self._data
        if wire == _VARINT:
            number = data[at]
            at += 1
            if number >= 0x80:
                number, at = self._varint(at - 1)
            if at > end:
                raise MalformedError
            return ([number] if kind == "ints" else number), at
        if wire == _BYTES:
            size = data[at]
            at += 1
            if size >= 0x80:
                size, at = self._varint(at - 1)
        else:
            size = 4 if wire == _FOUR else 8
        behind = at + size
        if size < 0 or behind > end:
            raise MalformedError
        match kind:
            case "text":
                return self._text(at, behind), behind
            case "ints":
                return self._ints(at, behind), behind
            case "floats":
                if size % 4:
                    raise MalformedError
                return size // 4, behind
            case Message():
                return self.message(kind, at, behind), behind
            case "bytes":
                return memoryview(data)[at:behind], behind
            case _:
                return None, behind

    def _ints(self, at: int, end: int) -> list[int]:
        found = []
        while at < end:
            self._count()
            number, at = self._varint(at)
            found.append(number)
        if at != end:
            raise MalformedError
        return found

    def _text(self, at: int, end: int) -> str:
        try:
            return self._data[at:end].decode()
        except UnicodeDecodeError:
            raise MalformedError from None

    def _varint(self, at: int) -> tuple[int, int]:
        """Return the number at a position, as a signed int64, and the position after it."""
        number = shift = 0
        while True:
            byte = self._data[at]
            at += 1
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 63:
                raise MalformedError
        number &= (1 << 64) - 1
        return (number - (1 << 64) if number >> 63 else number), at

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise ForeignError(f"more than {FIELDS:,} fields")

    def _refusal(self, message: Message, tag: int) -> Exception:
        number, wire = tag >> 3, tag & 7
        if number <= 0 or wire not in (_VARINT, _EIGHT, _BYTES, _FOUR):
            return MalformedError()
        return ForeignError(message.called.get(number, f"a {message.name} with a field {number}"))
