"""TIFF files put together tag by tag: what no encoder of Pillow's writes."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

#: Type and values; text and other bytes as `bytes`.
Tag: TypeAlias = tuple[int, Sequence[int] | bytes]

BYTE, ASCII, SHORT, LONG, UNDEFINED = 1, 2, 3, 4, 7

_LETTERS = {BYTE: "B", SHORT: "H", LONG: "I", 16: "Q"}


@dataclass(frozen=True, slots=True)
class Page:
    """A directory: its tags, the strips (or tiles) that it points to, and the pages below it."""

    tags: dict[int, Tag]
    strips: Sequence[bytes] = ()
    below: Sequence[Page] = ()
    where: tuple[int, int] = (273, 279)  # the tags of their offsets and lengths
    outside: dict[int, bytes] = field(
        default_factory=dict
    )  # by tag: offset, then length in tag + 1


def tiff(*pages: Page, order: str = "<", magic: int = 42, marked: bytes = b"") -> bytes:
    """Return a TIFF file of some pages; BigTIFF if `magic` is 43; `marked` follows the header."""
    big = magic == 43
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "H", magic)
    head += struct.pack(order + "HHQ", 8, 0, 0) if big else bytes(4)
    out = bytearray(head + marked)
    offset, count, number = ("Q", "Q", 16) if big else ("I", "H", LONG)

    def put(page: Page) -> int:
        below = [put(each) for each in page.below]
        tags = dict(page.tags)
        if page.strips:
            places = []
            for strip in page.strips:
                places.append(len(out))
                out.extend(strip + bytes(len(strip) % 2))
            tags[page.where[0]] = number, places
            tags[page.where[1]] = number, [len(strip) for strip in page.strips]
        for tag, data in page.outside.items():
            tags[tag], tags[tag + 1] = (number, [len(out)]), (number, [len(data)])
            out.extend(data + bytes(len(data) % 2))
        if below:
            tags[330] = number, below
        room, entries = struct.calcsize(offset), b""
        for tag, (type_, values) in sorted(tags.items()):
            letters = _LETTERS.get(type_)
            data = (
                bytes(values)
                if letters is None
                else struct.pack(f"{order}{len(values)}{letters}", *values)
            )
            entries += struct.pack(order + "HH" + offset, tag, type_, len(values))
            if len(data) > room:
                entries += struct.pack(order + offset, len(out))
                out.extend(data + bytes(len(data) % 2))
            else:
                entries += data.ljust(room, b"\0")
        start = len(out)
        out.extend(struct.pack(order + count, len(tags)) + entries + bytes(room))
        return start

    link = 8 if big else 4
    for page in pages:
        start = put(page)
        struct.pack_into(order + offset, out, link, start)
        link = len(out) - struct.calcsize(offset)
    return bytes(out)


def grey(values: npt.NDArray[np.generic], **tags: Tag) -> Page:
    """Return a page of one sample a pixel, in one strip, black is zero; `tags` as `t262=…`."""
    height, width = values.shape
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    known: dict[int, Tag] = {
        256: (LONG, [width]),
        257: (LONG, [height]),
        258: (SHORT, [8 * values.dtype.itemsize]),
        259: (SHORT, [1]),
        262: (SHORT, [1]),
        277: (SHORT, [1]),
        278: (LONG, [height]),
        339: (SHORT, [kind]),
    }
    known.update({int(name[1:]): tag for name, tag in tags.items()})
    return Page(known, [values.tobytes()])


def colour(values: npt.NDArray[np.generic], **tags: Tag) -> Page:
    """Return a page of several samples a pixel (`[height, width, samples]`), RGB by default."""
    samples = values.shape[2]
    depth = 8 * values.dtype.itemsize
    shape: dict[str, Tag] = {
        "t258": (SHORT, [depth] * samples),
        "t262": (SHORT, [2]),
        "t277": (SHORT, [samples]),
    }
    page = grey(values[:, :, 0], **{**shape, **tags})
    return Page(page.tags, [values.tobytes()])
