"""Fingerprints: small pictures of images, by which copies are found without decoding the files.

A worker makes the fingerprint of a file from the pixels that it decodes for the network. The hash
is perceptual: it holds the signs of the 63 lowest frequencies of a cosine transform, without DC. A
mirror image changes the signs of the odd frequencies, and a transposed image transposes them, so
the hashes of all eight orientations follow from one.
"""

from __future__ import annotations

import calendar
import struct
import time
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

__all__ = [
    "COLOUR_EDGE",
    "EDGE",
    "FINGERPRINT",
    "LEAST_EDGE",
    "MIRRORED",
    "ORIENTATIONS",
    "Fingerprint",
    "Stated",
    "fingerprint_of",
    "inverse",
    "orientation_map",
    "oriented",
    "oriented_hashes",
    "stated",
]

EDGE = 48  # Pixels of the edge of a picture squashed to a square.
COLOUR_EDGE = 12  # Pixels of the edge of the colours, a quarter of that of the luminance.
LEAST_EDGE = 2 * EDGE  # Pixels of the edge of a square that a fingerprint is made of.
ORIENTATIONS = 8  # 1: columns reversed; 2: rows reversed; 4: transposed after that; and sums.
MIRRORED = (1, 2, 4, 7)  # The orientations in which text reads backwards.

#: A fingerprint: the hash, width and height of the upright image, whether there is more than one
#: frame, bits per sample, whether there is transparency; blue and red chroma (Cb, Cr of JFIF) and
#: luminance of the picture squashed to a square, on white.
FINGERPRINT = np.dtype(
    [
        *(("hash", "<u8"), ("width", "<u4"), ("height", "<u4")),
        *(("several", "u1"), ("bits", "u1"), ("clear", "u1")),
        ("colour", "u1", (2, COLOUR_EDGE, COLOUR_EDGE)),
        ("luminance", "u1", (EDGE, EDGE)),
    ]
)

_NUMBERS = struct.Struct("<IIBBB")
_HEAD = 4_096  # Bytes of a file, in which its headers state the depth of tones.
_LOW = 8  # Frequencies in each direction.
_BASIS = np.cos(np.pi / EDGE * np.arange(_LOW)[:, None] * (np.arange(EDGE)[None] + 0.5)).astype(
    np.float32
)
_LONGEST = 100  # Characters of the name of a camera.
_TAKEN = ExifTags.Base.DateTimeOriginal, ExifTags.Base.DateTimeDigitized

_Bits = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Stated:
    """What an image file states about itself, apart from its pixels.

    Attributes:
        width: Width of the upright image in pixels.
        height: Height of the upright image in pixels.
        several: Whether it has more than one frame or page.
        bits: Bits per sample.
        clear: Whether it may have transparent pixels.
        taken: Capture time by the camera's clock, in seconds since 1970 as if that were UTC; None
            if it is not stated.
        camera: Make and model of the camera; None if they are not stated.
    """

    width: int
    height: int
    several: bool = False
    bits: int = 8
    clear: bool = False
    taken: int | None = None
    camera: str | None = None


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The fingerprint of a file: `row` holds one item of `FINGERPRINT`, as bytes.

    `taken` and `camera` are those of `Stated`.
    """

    row: bytes
    taken: int | None = None
    camera: str | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the upright image in pixels."""
        found = np.frombuffer(self.row, FINGERPRINT)[0]
        return int(found["width"]), int(found["height"])


def fingerprint_of(picture: Image.Image, facts: Stated) -> Fingerprint:
    """Return the fingerprint of an image.

    Args:
        picture: The image squashed to a square, RGB, with an edge of at least `LEAST_EDGE`.
        facts: What its file states.
    """
    reduced = picture.reduce(picture.width // EDGE).convert("YCbCr")
    light, *colours = reduced.resize((EDGE, EDGE), Image.Resampling.BILINEAR).split()
    small = (COLOUR_EDGE, COLOUR_EDGE)
    signs = (_BASIS @ np.asarray(light, np.float32) @ _BASIS.T) > 0
    signs[0, 0] = False
    numbers = facts.width, facts.height, facts.several, facts.bits, facts.clear
    fields = [np.packbits(signs).tobytes(), _NUMBERS.pack(*numbers)]
    fields += [colour.resize(small, Image.Resampling.BOX).tobytes() for colour in colours]
    return Fingerprint(b"".join([*fields, light.tobytes()]), facts.taken, facts.camera)


def oriented(picture: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Return pictures, `[..., edge, edge]`, in one of the `ORIENTATIONS`."""
    if orientation & 1:
        picture = picture[..., ::-1]
    if orientation & 2:
        picture = picture[..., ::-1, :]
    return np.swapaxes(picture, -1, -2) if orientation & 4 else picture


def orientation_map(orientation: int) -> npt.NDArray[np.float64]:
    """Return the map from places in a picture to those in an orientation, 0 to 1: `[2, 3]`."""
    across, down = np.eye(2, 3)
    if orientation & 1:
        across = np.array([-1.0, 0, 1])
    if orientation & 2:
        down = np.array([0, -1.0, 1])
    return np.stack([down, across] if orientation & 4 else [across, down])


def inverse(orientation: int) -> int:
    """Return the orientation that undoes another one."""
    return {5: 6, 6: 5}.get(orientation, orientation)


def oriented_hashes(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return the hashes of images in all orientations: uint64 `[n]` to `[ORIENTATIONS, n]`."""
    octets = np.ascontiguousarray(hashes, "<u8").view(np.uint8)
    signs = np.unpackbits(octets).reshape(-1, _LOW, _LOW).astype(bool)
    odd = np.arange(_LOW) % 2 == 1
    found = []
    for orientation in range(ORIENTATIONS):
        turned: _Bits = signs ^ odd if orientation & 1 else signs
        turned = turned ^ odd[:, None] if orientation & 2 else turned
        turned = turned.transpose(0, 2, 1) if orientation & 4 else turned
        octets = np.packbits(turned.reshape(-1, _LOW * _LOW), axis=1)
        found.append(np.ascontiguousarray(octets).view("<u8")[:, 0])
    return np.stack(found).astype(np.uint64)


def stated(image: Image.Image, size: tuple[int, int], file: BinaryIO) -> Stated:
    """Return what an open image file states; nothing is decoded for it.

    Args:
        image: The image as opened by `imgsearch.images.opening.opened`.
        size: Width and height of the upright image in pixels.
        file: The file, whose position is kept.
    """
    position = file.tell()
    try:
        file.seek(0)
        head = file.read(_HEAD)
        taken, camera = _shot(file, head, image.info.get("exif"))
    finally:
        file.seek(position)
    return Stated(
        *size,
        several=bool(getattr(image, "is_animated", False)),
        bits=_bits(image, head),
        clear=image.has_transparency_data,
        taken=taken,
        camera=camera,
    )


def _bits(image: Image.Image, head: bytes) -> int:
    if image.format == "PPM":  # Its header may be longer.
        return 16 if image.mode.startswith("I") else 8
    from imgsearch.images.holdings import bits_of

    try:
        return min(255, bits_of(image, head))
    except Exception:  # Tags that make no sense say nothing about the picture.
        return 8


def _shot(file: BinaryIO, head: bytes, exif: object) -> tuple[int | None, str | None]:
    """Return when and by which camera a picture was taken."""
    from imgsearch.images.exif import directory_in

    found = directory_in(file, head, exif)
    if found is None:
        return None, None
    details = found.below_at(ExifTags.IFD.Exif)
    times = (_seconds(details.text(tag)) for tag in _TAKEN) if details else ()
    taken = next((each for each in times if each is not None), None)
    return taken, _camera(found.text(ExifTags.Base.Make), found.text(ExifTags.Base.Model))


def _seconds(value: str) -> int | None:
    """Return a time of EXIF in seconds since 1970; None if it is not one."""
    try:
        return calendar.timegm(time.strptime(value.strip()[:19], "%Y:%m:%d %H:%M:%S"))
    except (ValueError, OverflowError):
        return None


def _camera(make: str, model: str) -> str | None:
    """Return the name of a camera: its make, unless that is part of the model, and its model."""
    one, other = (
        " ".join("".join(c if c.isprintable() else " " for c in value).split())
        for value in (make, model)
    )
    if one and other.casefold().startswith(one.split()[0].casefold()):
        one = ""
    return f"{one} {other}".strip()[:_LONGEST] or None
