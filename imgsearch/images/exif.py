"""Read how a picture was taken from the EXIF data of its file (CIPA DC-008), and where."""

from __future__ import annotations

import math
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO

from PIL import ExifTags

from imgsearch.images.ifds import Directory, directory_of, first_directory
from imgsearch.images.limits import LIMITS, Limits
from imgsearch.images.opening import open_image

__all__ = ["Exif", "directory_in", "exif_of"]

_LONGEST = 100  # Characters of a text.
_DEGREES = 1, 60, 3600  # Parts of a degree in degrees, minutes and seconds.


@dataclass(frozen=True, slots=True)
class Exif:
    """How a picture was taken; None for what its file does not tell.

    Attributes:
        exposure: Exposure time in seconds.
        aperture: F-number.
        iso: Sensitivity by ISO 12232.
        focal_length: Focal length in millimetres.
        lens: Name of the lens.
        latitude: Degrees north of the equator, negative if south of it.
        longitude: Degrees east of Greenwich, negative if west of it.
    """

    exposure: float | None = None
    aperture: float | None = None
    iso: int | None = None
    focal_length: float | None = None
    lens: str | None = None
    latitude: float | None = None
    longitude: float | None = None


def exif_of(content: bytes, limits: Limits = LIMITS) -> Exif:
    """Return how a picture was taken by the content of its file, of which nothing is decoded.

    Raises:
        ImageError: If it is not the content of an image file.
    """
    with open_image(content, limits) as image:
        found = directory_in(BytesIO(content), content[:2], image.info.get("exif"))
    if found is None:
        return Exif()
    shot, place = found.below_at(ExifTags.IFD.Exif), found.below_at(ExifTags.IFD.GPSInfo)
    latitude = longitude = None
    if place is not None:
        latitude = _degrees(place, ExifTags.GPS.GPSLatitude, ExifTags.GPS.GPSLatitudeRef, 90)
        longitude = _degrees(place, ExifTags.GPS.GPSLongitude, ExifTags.GPS.GPSLongitudeRef, 180)
    if latitude is None or longitude is None:
        latitude = longitude = None
    if shot is None:
        return Exif(latitude=latitude, longitude=longitude)
    return Exif(
        exposure=_positive(shot, ExifTags.Base.ExposureTime),
        aperture=_positive(shot, ExifTags.Base.FNumber),
        iso=max(shot.integer(ExifTags.Base.ISOSpeedRatings), 0) or None,
        focal_length=_positive(shot, ExifTags.Base.FocalLength),
        lens=_plain(shot.text(ExifTags.Base.LensModel)) or None,
        latitude=latitude,
        longitude=longitude,
    )


def directory_in(file: BinaryIO, head: bytes, exif: object) -> Directory | None:
    """Return the directory of the tags of an image; None if it has none.

    Args:
        file: The file at any position.
        head: Its first bytes, at least two.
        exif: The EXIF data that Pillow has found in it, if any.
    """
    if head[:2] in (b"II", b"MM"):  # A TIFF file or a camera raw has the tags itself.
        return first_directory(file)
    return directory_of(exif) if isinstance(exif, bytes) and exif else None


def _positive(directory: Directory, tag: int) -> float | None:
    """Return a number of a tag, if it makes sense as a quantity."""
    value = next(iter(directory.fractions(tag)), math.nan)
    return value if 0 < value < math.inf else None


def _degrees(directory: Directory, tag: int, reference: int, most: float) -> float | None:
    parts = directory.fractions(tag)
    if len(parts) != len(_DEGREES) or not all(0 <= part < math.inf for part in parts):
        return None
    value = sum(part / share for part, share in zip(parts, _DEGREES, strict=True))
    if value > most:
        return None
    return round(-value if directory.text(reference)[:1] in ("S", "W") else value, 6)


def _plain(text: str) -> str:
    """Return a text in one line, without what is not printable."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_LONGEST]
