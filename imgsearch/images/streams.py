"""Prepare a file for its decoder, or refuse it, before it is opened.

A JPEG without its last bytes gets an end marker. A JPEG with endless scans, or a PPM file with
endless comments, is refused: it would keep a decoder busy for hours.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from imgsearch.errors import ImageError
from imgsearch.images.formats import open_as
from imgsearch.images.jpeg import JpegHeader, end_of, ends_refined, header_of, reduce

__all__ = ["prepared"]

#: Maximum scans of a JPEG; encoders write ten, the most thorough of them some sixty.
MOST_SCANS = 100

#: Maximum comments of a plain-text PPM file.
MOST_COMMENTS = 10_000

_JPEG = ("JPEG", "MPO")
_END = b"\xff\xd9"
_BLOCK = 1 << 20  # Bytes.
_MOST_BYTES = 256 << 20  # Maximum bytes of a file that is read into memory.

# Rows that may be missing at the end of a JPEG: an eighth of them, or those coded together.
_LACKING = 8
_CODED_TOGETHER = 16

_MOST_HEADER = 1 << 16  # Bytes of the header of a PPM file, with its comments.
_COMMENT = re.compile(rb"#[^\r\n]*")


def prepared(file: BinaryIO, formats: Sequence[str], path: str) -> BinaryIO:
    """Return a file from which an image of one of `formats` can be decoded, usually `file`.

    Raises:
        ImageError: If decoding would take too long, or if too much of the file is missing.
    """
    if formats[0] in _JPEG:
        return _jpeg(file, path)
    if formats[0] == "PPM":
        return _ppm(file, path)
    return file


def _jpeg(file: BinaryIO, path: str) -> BinaryIO:
    size = file.seek(0, 2)
    file.seek(max(0, size - len(_END)))
    complete = file.read() == _END
    header = header_of(file)
    if header is None or header.scanned is None:
        return file
    if header.in_scans and _scans(file, header.scanned) > MOST_SCANS:
        raise ImageError(path, f"cannot be decoded: it has more than {MOST_SCANS} scans")
    if complete or size > _MOST_BYTES:
        return file
    file.seek(0)
    data = file.read()
    if end_of(data) is not None:
        return file  # Other data follows the end.
    if header.progressive and not ends_refined(data):
        raise _truncated(path, "its last scans are missing")
    missing = _rows_missing(data, header)
    if missing * _LACKING > header.height and missing > _CODED_TOGETHER:
        share = round(100 * missing / header.height)
        raise _truncated(path, f"{share} % of its rows are missing")
    return io.BytesIO(data + _END)


def _truncated(path: str, missing: str) -> ImageError:
    return ImageError(path, f"cannot be decoded: image file is truncated: {missing}")


def _scans(file: BinaryIO, start: int) -> int:
    """Return the scans of a JPEG, counted to just above the limit; no other data looks alike."""
    file.seek(start)
    count, last = 0, b""
    while block := file.read(_BLOCK):
        count += (last + block).count(b"\xff\xda")
        if count > MOST_SCANS:
            break
        last = block[-1:]
    return count


def _rows_missing(data: bytes, header: JpegHeader) -> int:
    """Return the number of rows missing at the bottom of a JPEG without an end marker.

    A decoder makes these rows grey, as missing coefficients are zero. If scans refine one another,
    rows that the last scan leaves unchanged count as missing, too.
    """
    image = _decoded(data, header)
    rows = len(image)
    other = (np.abs(image.astype(np.int16) - 128) > 2).any(axis=1)
    missing = rows - 1 - int(np.flatnonzero(other)[-1]) if other.any() else rows
    if header.progressive:
        before = _decoded(data[: data.rfind(b"\xff\xda")], header)
        missing = max(missing, _trailing((image == before).all(axis=1)))
    return round(missing * header.height / rows)


def _decoded(data: bytes, header: JpegHeader) -> npt.NDArray[np.uint8]:
    """Return the samples of a JPEG without an end marker, row by row."""
    with open_as(_JPEG, io.BytesIO(data + _END)) as image:
        if not header.progressive:  # A reduced scale hides the last scan.
            reduce(image, (256, 256))
        samples = np.asarray(image)
    return samples.reshape(len(samples), -1)


def _trailing(rows: npt.NDArray[np.bool_]) -> int:
    """Return the number of consecutive true rows at the end."""
    false = np.flatnonzero(~rows)
    return len(rows) - 1 - int(false[-1]) if len(false) else len(rows)


def _ppm(file: BinaryIO, path: str) -> BinaryIO:
    """Remove the comments of a plain-text PPM file; each costs Pillow a copy of the rest."""
    file.seek(0)
    head = file.read(_MOST_HEADER)
    if len(_COMMENT.sub(b"", head).split(maxsplit=3)) < 3 and len(head) == _MOST_HEADER:
        raise ImageError(path, "cannot be decoded: its header is malformed")
    if head[:2] not in (b"P1", b"P2", b"P3") or file.seek(0, 2) > _MOST_BYTES:
        return file
    file.seek(0)
    data = file.read()
    count = data.count(b"#")
    if count > MOST_COMMENTS:
        raise ImageError(path, f"cannot be decoded: it has more than {MOST_COMMENTS:,} comments")
    return io.BytesIO(_COMMENT.sub(b"", data)) if count else file
