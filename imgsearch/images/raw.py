"""Recognise camera raws and find the preview that the camera stored in them.

Raws are not developed: the largest embedded preview stands for a raw (docs/decisions/0012).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from imgsearch.images.formats import signed_raw
from imgsearch.images.ifds import Directory, directories
from imgsearch.images.jpeg import end_of, header_of

__all__ = ["EXTENSIONS", "Preview", "is_raw", "previews"]

#: Extensions of raws that look like plain TIFF files; some are recognisable only by their names.
EXTENSIONS = (
    *(".3fr", ".arw", ".cr2", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".k25", ".kdc", ".mef"),
    *(".mos", ".nef", ".nrw", ".orf", ".pef", ".rw2", ".rwl", ".sr2", ".srf", ".srw"),
)

# Smaller previews are thumbnails for file managers (160 x 120).
LEAST = 240  # Pixels of the longer edge.

_MOST_BYTES = 64 << 20  # Maximum bytes of a preview; a JPEG of 100 million pixels takes less.
_MOST_FOUND = 256  # Maximum beginnings of a JPEG in one file.
_BLOCK = 1 << 20  # Bytes read at a time to find them.

# Tags of TIFF, TIFF/EP, DNG and Panasonic.
_NEW_SUBFILE_TYPE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_STRIPS, _ORIENTATION, _SAMPLES, _STRIP_BYTES, _PLANAR = 273, 274, 277, 279, 284
_JPEG, _JPEG_BYTES, _DNG_VERSION, _PANASONIC_JPEG = 513, 514, 50706, 46

_SENSOR = {32803, 34892}  # Photometric interpretations CFA and LinearRaw.


@dataclass(frozen=True, slots=True)
class Preview:
    """A picture that a camera stored in a raw, as an image file of its own (JPEG or PPM).

    `orientation` is the EXIF value for turning it upright, or None if only the preview itself can
    tell.
    """

    data: bytes
    width: int
    height: int
    orientation: int | None


@dataclass(frozen=True, slots=True)
class _Found:
    """The size and position of a preview; `strips` is empty for a JPEG."""

    width: int
    height: int
    offset: int
    length: int
    strips: tuple[tuple[int, int], ...] = ()


def is_raw(file: BinaryIO, path: str) -> bool:
    """Tell whether a file is a camera raw, by its content and, for a TIFF file, also its name.

    A TIFF file that merely contains smaller versions of its picture is not a raw.

    Args:
        file: Open file, read from its beginning and left at any position.
        path: Path of the file, of which only the extension matters.
    """
    file.seek(0)
    prefix = file.read(16)
    if signed_raw(prefix):
        return True
    if prefix[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return False
    if prefix[8:10] == b"CR" or prefix[8:12] in (b"IIII", b"MMMM"):  # CR2, IIQ
        return True
    if path.lower().endswith(EXTENSIONS):
        return True
    chain = directories(file)
    if any(each.integer(_PHOTOMETRIC) in _SENSOR for each in _all(chain)):
        return True
    return bool(chain) and (_DNG_VERSION in chain[0] or _stands_for_another(chain[0]))


def previews(file: BinaryIO) -> Iterator[Preview]:
    """Yield the previews in a raw whose longer edge is at least `LEAST`, the largest first.

    Their headers are those of images; the caller must check whether they can be decoded.

    Args:
        file: Open file at any position, and left at any position.
    """
    file.seek(0)
    head = file.read(1 << 16)
    chain = directories(file, _tiff_in(head))
    found = list(
        _useful(each for directory in _all(chain) for each in _in_directory(file, directory))
    )
    if head.startswith(b"FUJIFILMCCD-RAW"):
        offset, length = int.from_bytes(head[84:88], "big"), int.from_bytes(head[88:92], "big")
        found += _useful(_jpeg(file, offset, length))
    if not found:  # In a maker's note, or in another kind of container.
        found = list(_useful(each for offset in _beginnings(file) for each in _jpeg(file, offset)))
    orientation = chain[0].integer(_ORIENTATION) if chain else 0
    upright = orientation if 1 <= orientation <= 8 else None
    for each in sorted(found, key=lambda each: -each.width * each.height):
        data = _content(file, each)
        if data:
            yield Preview(data, each.width, each.height, upright)


def _stands_for_another(first: Directory) -> bool:
    """Tell whether a directory is a thumbnail of one of its subdirectories (NEF, ARW)."""
    if not first.integer(_NEW_SUBFILE_TYPE) & 1:
        return False
    return any(not each.integer(_NEW_SUBFILE_TYPE) & 1 for each in first.below)


def _all(chain: list[Directory] | tuple[Directory, ...]) -> Iterator[Directory]:
    for each in chain:
        yield each
        yield from _all(each.below)


def _tiff_in(head: bytes) -> int:
    """Return the position of the TIFF header: in a box of a CR3, or in a block of an MRW."""
    for magic, block, skipped in ((b"\0MRM", b"\0TTW", 8), (b"ftypcrx ", b"CMT1", 4)):
        if magic in head[:16]:
            return max(head.find(block), 0) + skipped
    return 0


def _in_directory(file: BinaryIO, directory: Directory) -> Iterator[_Found]:
    """Yield the possible previews in one directory."""
    base = directory.base
    if (offset := directory.integer(_JPEG)) and (length := directory.integer(_JPEG_BYTES)):
        yield from _jpeg(file, base + offset, length)
    if block := directory.block(_PANASONIC_JPEG):
        yield from _jpeg(file, *block)
    offsets, lengths = directory.integers(_STRIPS), directory.integers(_STRIP_BYTES)
    strips = tuple(
        (base + offset, length) for offset, length in zip(offsets, lengths, strict=False)
    )
    if len(strips) == 1:
        yield from _jpeg(file, *strips[0])
    plain = directory.integer(_COMPRESSION, 1) == 1 and directory.integer(_PHOTOMETRIC) == 2
    samples = directory.integer(_SAMPLES), directory.integer(_PLANAR, 1)
    if plain and samples == (3, 1) and set(directory.integers(_BITS)) == {8}:
        width, height = directory.integer(_WIDTH), directory.integer(_HEIGHT)
        length = 3 * width * height
        if strips and length == sum(length for _, length in strips):
            yield _Found(width, height, strips[0][0], length, strips)


def _jpeg(file: BinaryIO, offset: int, length: int = _MOST_BYTES) -> Iterator[_Found]:
    """Yield the JPEG at an offset, if there is one and it does not hold a sensor's values."""
    if 0 < offset < 1 << 62 and (header := header_of(file, offset)) and header.usual:
        yield _Found(header.width, header.height, offset, length)


def _useful(found: Iterator[_Found]) -> Iterator[_Found]:
    for each in found:
        if max(each.width, each.height) >= LEAST and 0 < each.length <= _MOST_BYTES:
            yield each


def _beginnings(file: BinaryIO) -> Iterator[int]:
    """Yield the positions in a file at which a JPEG may begin."""
    start, count, kept = 0, 0, b""
    while True:
        file.seek(start + len(kept))
        block = file.read(_BLOCK)
        data = kept + block
        at = data.find(b"\xff\xd8\xff")
        while at >= 0:
            yield start + at
            count += 1
            if count == _MOST_FOUND:
                return
            at = data.find(b"\xff\xd8\xff", at + 3)
        if not block:
            return
        kept = data[-2:]
        start += len(data) - len(kept)


def _content(file: BinaryIO, found: _Found) -> bytes:
    """Return a preview as an image file; empty if it is incomplete."""
    if found.strips:
        pieces = []
        for offset, length in found.strips:
            file.seek(offset)
            pieces.append(file.read(length))
        pixels = b"".join(pieces)
        header = b"P6\n%d %d\n255\n" % (found.width, found.height)
        return header + pixels if len(pixels) == found.length else b""
    file.seek(found.offset)
    data = file.read(found.length)
    return data[: end_of(data)]
