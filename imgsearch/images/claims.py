"""Read the size that an image file claims from its headers, without decoding anything.

A header of 46 bytes can require gigabytes, and so can the parts of a small image: a tile of a TIFF
file, the PNG in an icon, the cells of a HEIC grid. The claim is read before any plug-in of Pillow
sees the file, as some plug-ins allocate memory as soon as they open it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

from imgsearch.images.jpeg import header_of

if TYPE_CHECKING:
    from imgsearch.images.ifds import Directory

__all__ = ["Claim", "claim_of", "decoding_bytes"]

_STARTING = 16 << 20  # Bytes that any image takes.

_MOST_META = 4 << 20  # Bytes of the metadata box of a HEIC or AVIF file.
_MOST_BOXES = 64
_MOST_ICONS = 256
_MOST_HEADER = 1 << 16  # Bytes of the header of a PPM file, with its comments.

Size: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Claim:
    """The claims of an image file about itself.

    Attributes:
        width: Width of the largest picture in the file, in pixels.
        height: Height of that picture, in pixels.
        depth: Bytes per pixel while decoding (measured on 36 million pixels).
        fixed: Bytes for decoding that do not depend on the scale.
        reduced: Whether it may be decoded at a half, a quarter or an eighth of its scale.
    """

    width: int
    height: int
    depth: int
    fixed: int = 0
    reduced: bool = False

    @property
    def pixels(self) -> int:
        """The number of pixels of the largest picture."""
        return self.width * self.height

    def bytes(self, edge: int | None = None) -> int:
        """Estimate the bytes needed to decode the file.

        Args:
            edge: Edge of the square for which it is decoded; None for all of its pixels.
        """
        scale = 1
        if self.reduced and edge:
            while scale < 8 and min(self.width, self.height) >= 4 * edge * scale:
                scale *= 2
        return self.depth * self.pixels // scale**2 + self.fixed + _STARTING


def claim_of(file: BinaryIO) -> Claim | None:
    """Return the claims of a file about itself; None if its header cannot be read.

    Args:
        file: Open file, read from its beginning and left at any position.
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
            ):  # Truncated: the decoder will report it.
                return None
    if head[4:8] == b"ftyp":
        return _isobmff(file)
    return None


def decoding_bytes(file: BinaryIO, edge: int | None = None) -> int:
    """Estimate from its header the bytes needed to decode an image file.

    Args:
        file: Open file, read from its beginning and left at any position; for a raw, its preview.
        edge: Edge of the square for which it is decoded; None for all of its pixels.
    """
    claim = claim_of(file)
    return claim.bytes(edge) if claim else _STARTING


def _jpeg(file: BinaryIO, _: bytes) -> Claim | None:
    header = header_of(file)
    if header is None:
        return None
    # If a JPEG has several scans, all coefficients are kept until the last one, at any scale.
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
    if header[:4] == b"\x0c\0\0\0":  # OS/2
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
    """Return the largest image of an icon by its own header, as the directory may be wrong."""
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
            sizes.append((width, height // 2))  # The mask counts as half of the height.
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    return Claim(width, height, 8)


def _ppm(file: BinaryIO, head: bytes) -> Claim | None:
    file.seek(0)
    words = b"".join(_without_comments(file.read(_MOST_HEADER))).split(maxsplit=4)
    if len(words[0]) != 2:
        return None
    width, height = int(words[1]), int(words[2])
    plain = head[1:2] in b"123"  # Numbers as text, which Pillow collects in a bytearray.
    return Claim(width, height, 16 if plain else 8)


def _without_comments(header: bytes) -> Iterator[bytes]:
    for line in header.replace(b"\r", b"\n").split(b"\n"):
        yield line.partition(b"#")[0] + b"\n"


def _tiff(file: BinaryIO, _: bytes) -> Claim | None:
    """Return the claim of the first page: of its picture, or of a tile if that is larger."""
    from imgsearch.images.ifds import directories

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
    """Return the claim of the largest item of a HEIC or AVIF file: a grid or a cell of one."""
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
    """Yield the size in each `ispe` property (ISO/IEC 23008-12)."""
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
