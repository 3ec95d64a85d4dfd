"""What an image file says of its size, read from its headers alone: nothing is decoded for it.

A header of 46 bytes can ask for gigabytes, and so can what lies inside of a small image: a tile of
a TIFF file, the PNG in an icon, the cells of a HEIC grid. What is claimed here is known before any
plug-in of Pillow's sees the file, for some allocate as soon as they open it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, TypeAlias

from imgsearch.images.ifds import Directory, directories
from imgsearch.images.jpeg import header_of

__all__ = ["Claim", "claim_of", "decoding_bytes"]

_STARTING = 16 << 20  # bytes that any image takes

_MOST_META = 4 << 20  # bytes of the metadata box of a HEIC or AVIF file
_MOST_BOXES = 64
_MOST_ICONS = 256
_MOST_HEADER = 1 << 16  # bytes of the header of a PPM file, with its comments

Size: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Claim:
    """What an image file says of itself.

    Attributes:
        width: of the largest picture in it, in pixels.
        height: of that picture.
        depth: bytes that a pixel takes while it is decoded (measured on 36 million pixels).
        fixed: bytes that it takes besides.
        reduced: whether it may be decoded at a half, a quarter or an eighth of its scale.
    """

    width: int
    height: int
    depth: int
    fixed: int = 0
    reduced: bool = False

    @property
    def pixels(self) -> int:
        """How many pixels that picture has."""
        return self.width * self.height

    def bytes(self, edge: int | None = None) -> int:
        """Return how many bytes decoding it takes, about.

        Args:
            edge: of the square that it is decoded for; None for all of its pixels.
        """
        scale = 1
        if self.reduced and edge:
            while scale < 8 and min(self.width, self.height) >= 4 * edge * scale:
                scale *= 2
        return self.depth * self.pixels // scale**2 + self.fixed + _STARTING


def claim_of(file: BinaryIO) -> Claim | None:
    """Return what a file says of itself; None if its header cannot be read.

    Args:
        file: is read from its beginning, and left anywhere.
    """
    file.seek(0)
    head = file.read(32)
    for signature, read in _READERS:
        if head.startswith(signature):
            try:
                return read(file, head)
            except (
                struct.error,
                IndexError,
                ValueError,
            ):  # cut short: it is for the decoder to say so
                return None
    if head[4:8] == b"ftyp":
        return _isobmff(file)
    return None


def decoding_bytes(file: BinaryIO, edge: int | None = None) -> int:
    """Return how many bytes decoding an image file takes, about, by its header.

    Args:
        file: is read from its beginning, and left anywhere; of a raw, that of its preview.
        edge: of the square that it is decoded for; None for all of its pixels.
    """
    claim = claim_of(file)
    return claim.bytes(edge) if claim else _STARTING


def _jpeg(file: BinaryIO, _: bytes) -> Claim | None:
    header = header_of(file)
    if header is None:
        return None
    # The coefficients of a JPEG in scans are kept until the last one, at any scale.
    pixels = header.width * header.height
    fixed = 2 * header.components * pixels if header.in_scans else 0
    return Claim(header.width, header.height, 4, fixed, reduced=True)


def _png(_: BinaryIO, head: bytes) -> Claim:
    width, height, bits = struct.unpack_from(">IIB", head, 16)
    return Claim(width, height, 24 if bits == 16 else 8)


def _gif(_: BinaryIO, head: bytes) -> Claim:
    width, height = struct.unpack_from("<HH", head, 6)
    return Claim(width, height, 9)


def _bmp(file: BinaryIO, _: bytes) -> Claim:
    return Claim(*_dib_size(file, 14), 8)


def _dib_size(file: BinaryIO, offset: int) -> Size:
    file.seek(offset)
    header = file.read(16)
    if header[:4] == b"\x0c\0\0\0":  # of OS/2
        return struct.unpack_from("<HH", header, 4)
    width, height = struct.unpack_from("<ii", header, 4)
    return abs(width), abs(height)


def _webp(file: BinaryIO, head: bytes) -> Claim | None:
    size = file.seek(0, 2)
    kind, rest = head[12:16], head[20:]
    if kind == b"VP8X":
        width, height = (int.from_bytes(rest[at : at + 3], "little") + 1 for at in (4, 7))
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", rest, 1)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = (each & 0x3FFF for each in struct.unpack_from("<HH", rest, 6))
    else:
        return None
    return Claim(width, height, 17, size)


def _ico(file: BinaryIO, head: bytes) -> Claim:
    """Return the largest image of an icon by its own header; the directory may say anything."""
    count = min(struct.unpack_from("<H", head, 4)[0], _MOST_ICONS)
    file.seek(6)
    table = file.read(16 * count)
    sizes = []
    for at in range(0, len(table) - 15, 16):
        (offset,) = struct.unpack_from("<I", table, at + 12)
        file.seek(offset)
        inner = file.read(24)
        if inner.startswith(b"\x89PNG"):
            sizes.append(struct.unpack_from(">II", inner, 16))
        elif len(inner) >= 12:
            width, height = _dib_size(file, offset)
            sizes.append((width, height // 2))  # its mask counts as half of the height
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    return Claim(width, height, 8)


def _ppm(file: BinaryIO, head: bytes) -> Claim | None:
    file.seek(0)
    words = b"".join(_without_comments(file.read(_MOST_HEADER))).split(maxsplit=4)
    if len(words[0]) != 2:
        return None
    width, height = int(words[1]), int(words[2])
    plain = head[1:2] in b"123"  # numbers as text, which Pillow gathers in a bytearray
    return Claim(width, height, 16 if plain else 8)


def _without_comments(header: bytes) -> Iterator[bytes]:
    for line in header.replace(b"\r", b"\n").split(b"\n"):
        yield line.partition(b"#")[0] + b"\n"


def _tiff(file: BinaryIO, _: bytes) -> Claim | None:
    """Return what the first page needs: of its picture, or of a tile of it if that is larger."""
    chain = directories(file)
    return _page(chain[0]) if chain else None


def _page(page: Directory) -> Claim:
    size = page.integer(256), page.integer(257)
    tile = page.integer(322), page.integer(323)
    bits = page.integers(258) or (1,)
    samples = max(page.integer(277, 1), len(bits))
    stored = -(-max(bits) * samples // 8)
    largest = max(size, tile, key=lambda each: each[0] * each[1])
    return Claim(*largest, 8 + (3 if max(bits) > 8 else 1) * stored)


def _isobmff(file: BinaryIO) -> Claim | None:
    """Return the largest item of a HEIC or AVIF file: a cell of a grid, or the grid itself."""
    length = file.seek(0, 2)
    offset = 0
    for _ in range(_MOST_BOXES):
        file.seek(offset)
        head = file.read(16)
        if len(head) < 8:
            return None
        (size,) = struct.unpack_from(">I", head)
        if size == 1 and len(head) == 16:
            (size,) = struct.unpack_from(">Q", head, 8)
        elif size == 0:
            size = length - offset
        if size < 8:
            return None
        if head[4:8] == b"meta":
            file.seek(offset)
            sizes = list(_extents(file.read(min(size, _MOST_META))))
            if not sizes:
                return None
            return Claim(*max(sizes, key=lambda each: each[0] * each[1]), 12, length)
        offset += size
        if offset >= length:
            return None
    return None


def _extents(meta: bytes) -> Iterator[Size]:
    """Yield the size in each property of that kind (`ispe`, ISO/IEC 23008-12)."""
    at = meta.find(b"ispe")
    while at >= 0 and at + 16 <= len(meta):
        yield struct.unpack_from(">II", meta, at + 8)
        at = meta.find(b"ispe", at + 4)


_READERS = (
    (b"\xff\xd8", _jpeg),
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"GIF8", _gif),
    (b"RIFF", _webp),
    ((b"II*\0", b"MM\0*", b"MM*\0", b"II\0*", b"II+\0", b"MM\0+"), _tiff),
    (b"\0\0\1\0", _ico),
    (b"BM", _bmp),
    (b"P", _ppm),
)
