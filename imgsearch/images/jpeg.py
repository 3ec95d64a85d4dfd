"""Examine the segments of a JPEG (ISO/IEC 10918-1, annex B) without decoding it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO

from PIL import Image, ImageFile

__all__ = ["JpegHeader", "end_of", "ends_refined", "header_of", "reduce"]

_MOST_SEGMENTS = 1000  # Before the frame header; an ICC profile takes up to 255.

# Bytes that hold the headers of nearly every JPEG, of one with a thumbnail, and of one with a
# profile for print and much else.
_ENOUGH = (1 << 13, 1 << 17, 32 << 20)
_MOST_MARKERS = 10_000  # Maximum markers of a file; a scan has a few.

# Stuffed bytes, restarts and fill bytes are not markers.
_MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")

_SOS, _EOI = 0xDA, 0xD9
_ALONE = {0x01, *range(0xD0, 0xD9)}  # Markers without a length.
_FRAMES = {each for each in range(0xC0, 0xD0) if each not in (0xC4, 0xC8, 0xCC)}
#: Baseline, extended and progressive with Huffman codes, which all decoders support.
_USUAL_FRAMES = {0xC0, 0xC1, 0xC2}


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """The content of the frame header of a JPEG.

    Attributes:
        width: Stored width in pixels.
        height: Stored height in pixels; 0 if a later segment states it.
        components: Number of components: 1 for grey, 3 for colour, 4 for CMYK.
        progressive: Whether the picture is refined scan by scan.
        usual: Whether it is baseline, extended or progressive with 8 bits, unlike the lossless
            JPEGs in which cameras store their sensor's values.
        scanned: Position of the first scan; None if it was not found.
        in_scans: Whether all scans must be read before the first row is known.
    """

    width: int
    height: int
    components: int
    progressive: bool
    usual: bool
    scanned: int | None = None
    in_scans: bool = False


def header_of(file: IO[bytes], start: int = 0) -> JpegHeader | None:
    """Return the header of the JPEG that begins at `start` of a file; None if there is none."""
    file.seek(start)
    head, header = b"", None
    for enough in _ENOUGH:
        head += file.read(enough - len(head))
        header = _header_in(head)
        if (header and header.scanned is not None) or len(head) < enough:
            break
    if start and header and header.scanned is not None:
        return replace(header, scanned=start + header.scanned)
    return header


def _header_in(data: bytes) -> JpegHeader | None:
    """Return the header found in the possibly incomplete beginning of a JPEG."""
    if data[:2] != b"\xff\xd8":
        return None
    found, at = None, 2
    for _ in range(_MOST_SEGMENTS):
        while data[at : at + 2] == b"\xff\xff":  # A fill byte.
            at += 1
        if len(data) < at + 4 or data[at] != 0xFF:
            return found
        marker = data[at + 1]
        if marker in _ALONE:
            at += 2
            continue
        size = data[at + 2] << 8 | data[at + 3]
        if marker == _EOI or size < 2:
            return found
        if marker == _SOS:
            if found is None or len(data) < at + 5:
                return found
            in_scans = found.progressive or data[at + 4] < found.components
            return replace(found, scanned=at, in_scans=in_scans)
        if marker in _FRAMES:
            if len(data) < at + 10:
                return None
            height, width = data[at + 5] << 8 | data[at + 6], data[at + 7] << 8 | data[at + 8]
            usual = marker in _USUAL_FRAMES and data[at + 4] == 8
            progressive = marker in (0xC2, 0xC6, 0xCA)
            found = JpegHeader(width, height, data[at + 9], progressive, usual)
        at += 2 + size
    return found


def reduce(image: Image.Image, size: tuple[int, int]) -> None:
    """Have a JPEG decoded at the smallest scale (1/2, 1/4, 1/8) that is at least `size`.

    Other images keep their size, and so do unusual JPEGs: a lossless one has no smaller scale, and
    libjpeg-turbo before 3.2 writes beyond its buffers when asked for one.

    Args:
        image: Image that was opened but not loaded yet.
        size: Width and height that are needed.
    """
    if isinstance(image, ImageFile.ImageFile) and image.format in ("JPEG", "MPO") and image.fp:
        header = header_of(image.fp, image.tile[0].offset)
        if header is not None and header.usual:
            image.draft(None, size)


def end_of(data: bytes) -> int | None:
    """Return the end, after its EOI, of the JPEG at the start of `data`; None without EOI."""
    for marker, at in _segments(data):
        if marker == _EOI:
            return at + 2
    return None


def ends_refined(data: bytes) -> bool:
    """Tell whether a progressive JPEG has begun its last scans, those of the lowest bits.

    Each component has one such scan for its first coefficient, and some for the other 63.
    """
    wanted: set[tuple[int, int]] = set()
    for marker, at in _segments(data):
        body = data[at + 4 : at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")]
        if marker in _FRAMES and len(body) >= 6:
            components = body[6 : 6 + 3 * body[5] : 3]
            wanted = {(each, index) for each in components for index in range(64)}
        elif marker == _SOS and len(body) >= 4:
            first, last, bits = body[-3:]
            if bits & 15 == 0:
                components = body[1 : 1 + 2 * body[0] : 2]
                wanted -= {(each, at) for each in components for at in range(first, last + 1)}
    return not wanted


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield each marker with its position; entropy-coded data has no markers except restarts."""
    found = _MARKER.search(data, 2)
    for _ in range(_MOST_MARKERS):
        if found is None:
            return
        at = found.start()
        yield data[at + 1], at
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        found = _MARKER.search(data, at + 2 + size)
