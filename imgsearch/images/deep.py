"""Read what Pillow omits from files with more than 8 bits per sample and unusual TIFF files.

Pillow keeps only the higher 8 of the 16 bits of a colour, ignores the lower halves of the values in
a colour map, and supports black-is-zero in more byte orders than white-is-zero.
"""

from __future__ import annotations

import io
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImagePalette, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from imgsearch.images.formats import DEEP, SIGNIFICANT_BITS, open_as

__all__ = ["kind_of_tiff", "open_deep"]

_PHOTOMETRIC, _COLOUR_MAP = 262, 320

# Pillow's names for two bytes per colour, without the byte order.
_WIDE = {"RGB;16", "RGBX;16", "RGBA;16", "CMYK;16"}
_ROWS = 256  # Rows processed at once.
_MOST_CHUNKS = 64  # Maximum chunks of a PNG before its pixels.

# If all high bytes are below this, two of the 16 bits are unused, and the low bytes matter.
_LOW = 64


def open_deep(formats: Sequence[str], file: BinaryIO) -> ImageFile:
    """Open a file as `formats.open_as` does, but ensure that no sample is misread.

    Raises:
        UnidentifiedImageError: If the file has none of the formats; but plug-ins may raise any
            exception.
    """
    try:
        image = open_as(formats, file)
    except UnidentifiedImageError:
        if "TIFF" not in formats or (patched := _black_is_zero(file)) is None:
            raise
        image = open_as(formats, patched)
        _tags(image)[_PHOTOMETRIC] = 0
        file = patched
    if image.format == "PNG" and any(";16" in str(tile.args) for tile in image.tile):
        bits = _significant_bits(file)
        if bits is not None:
            image.info[SIGNIFICANT_BITS] = bits
    if image.format == "TIFF" and image.mode in ("P", "PA"):
        _repair_colour_map(image)
    if image.mode not in DEEP and (swapped := _lower_halves(image)) is not None:
        _deepen(image, lambda: open_as([str(image.format)], file), swapped)
    return image


def _tags(image: ImageFile) -> Any:
    return image.tag_v2  # type: ignore[attr-defined]  # a TIFF file has it


def kind_of_tiff(file: BinaryIO) -> str | None:
    """Describe the content of a TIFF file in words; return None for other files."""
    from imgsearch.images.ifds import directories

    chain = directories(file)
    if not chain or not (chain[0].integer(256) and chain[0].integer(257)):
        return None
    page = chain[0]
    bits = page.integers(258) or (1,)
    samples = page.integer(277, len(bits))
    kind = {2: "signed ", 3: "floating-point ", 5: "complex ", 6: "complex "}.get(
        page.integer(339, 1), ""
    )
    return (
        f"{samples} {kind}sample{'s'[: samples != 1]} of {max(bits)} bits a pixel, "
        f"photometric interpretation {page.integer(_PHOTOMETRIC)}, "
        f"compression {page.integer(259, 1)}"
    )


def _black_is_zero(file: BinaryIO) -> BinaryIO | None:
    """Return a white-is-zero TIFF file as a black-is-zero one; None for any other file."""
    from imgsearch.images.ifds import directories

    chain = directories(file)
    place = chain[0].position(_PHOTOMETRIC) if chain else None
    if place is None or chain[0].integer(_PHOTOMETRIC, 1) != 0:
        return None
    file.seek(0)
    data = bytearray(file.read())
    order = "<" if data.startswith(b"II") else ">"
    struct.pack_into(order + "H", data, place, 1)
    return io.BytesIO(data)


def _significant_bits(file: BinaryIO) -> int | None:
    """Return the bits per sample that a PNG uses (sBIT), the maximum over all channels."""
    offset = 8
    for _ in range(_MOST_CHUNKS):
        file.seek(offset)
        head = file.read(8)
        if len(head) < 8 or head[4:] == b"IDAT":
            return None
        length = int.from_bytes(head[:4], "big")
        if head[4:] == b"sBIT":
            bits = max(file.read(min(length, 4)), default=0)
            return bits if 0 < bits <= 16 else None
        offset += 12 + length
    return None


def _repair_colour_map(image: ImageFile) -> None:
    """Read the values of a colour map as 8 bits if none needs more, as libtiff does."""
    values = _tags(image).get(_COLOUR_MAP)
    if isinstance(values, tuple) and values and max(values) < 256:
        image.palette = ImagePalette.raw("RGB;L", bytes(values))


def _lower_halves(image: ImageFile) -> list[str] | None:
    """Return the modes that read the low bytes of a 16-bit image; None for other images."""
    found = []
    for tile in image.tile:
        mode = tile.args if isinstance(tile.args, str) else next(iter(tile.args or ()), None)
        if not isinstance(mode, str) or mode[:-1] not in _WIDE:
            return None
        order = mode[-1].replace("N", "L" if sys.byteorder == "little" else "B")
        other = {"L": "B", "B": "L"}.get(order)
        if other is None:
            return None
        found.append(mode[:-1] + other)
    return found or None


def _deepen(image: ImageFile, again: Callable[[], ImageFile], modes: list[str]) -> None:
    """Compute an image's tones from all 16 bits of its colours if the higher 8 hold too little."""
    from imgsearch.images.tones import samples_of, table_of

    image.load()
    bands = len(image.getbands()) - image.mode.endswith(("A", "a"))
    higher = np.asarray(image)[:, :, :bands]
    if higher.max() >= _LOW:
        return
    with again() as other:
        other.tile = [
            tile._replace(args=(mode, *tile.args[1:]) if isinstance(tile.args, tuple) else mode)
            for tile, mode in zip(other.tile, modes, strict=True)
        ]
        lower = np.asarray(other)[:, :, :bands]

    def blocks() -> Iterator[npt.NDArray[np.uint16]]:
        for top in range(0, len(higher), _ROWS):
            rows = np.s_[top : top + _ROWS]
            yield higher[rows].astype(np.uint16) << 8 | lower[rows]

    table = table_of(blocks(), samples_of(image))
    tones = np.concatenate([table[block] for block in blocks()])
    for band in range(bands):
        channel = Image.fromarray(np.ascontiguousarray(tones[:, :, band]))
        image.im.putband(channel.im, band)
