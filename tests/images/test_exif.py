"""How a picture was taken, and where."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, TiffImagePlugin

from imgsearch.errors import ImageError
from imgsearch.images.exif import Exif, exif_of
from tests.support.depth import examples

SHOT: dict[int, Any] = {
    ExifTags.Base.ExposureTime: TiffImagePlugin.IFDRational(1, 250),
    ExifTags.Base.FNumber: TiffImagePlugin.IFDRational(28, 10),
    ExifTags.Base.ISOSpeedRatings: 400,
    ExifTags.Base.FocalLength: TiffImagePlugin.IFDRational(50),
    ExifTags.Base.LensModel: "A lens\t50 mm",
}
PLACE: dict[int, Any] = {
    ExifTags.GPS.GPSLatitudeRef: "S",
    ExifTags.GPS.GPSLatitude: (33.0, 51.0, 24.12),
    ExifTags.GPS.GPSLongitudeRef: "E",
    ExifTags.GPS.GPSLongitude: (151.0, 12.0, 54.0),
}


def file_of(shot: dict[int, Any], place: dict[int, Any], kind: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Someone"
    exif.get_ifd(ExifTags.IFD.Exif).update(shot)
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(place)
    buffer = io.BytesIO()
    Image.new("RGB", (32, 24)).save(buffer, kind, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_file_tells_how_and_where_it_was_taken(kind: str) -> None:
    assert exif_of(file_of(SHOT, PLACE, kind)) == Exif(
        exposure=0.004,
        aperture=2.8,
        iso=400,
        focal_length=50.0,
        lens="A lens 50 mm",
        latitude=-33.856700,
        longitude=151.215,
    )


def test_what_a_file_does_not_tell_is_none() -> None:
    assert exif_of(file_of({}, {})) == Exif()
    assert exif_of(file_of({}, {ExifTags.GPS.GPSLatitude: (1.0, 2.0, 3.0)})) == Exif()
    beyond = {**PLACE, ExifTags.GPS.GPSLatitude: (91.0, 0.0, 0.0)}
    assert exif_of(file_of({}, beyond)) == Exif()
    nothing: dict[int, Any] = {ExifTags.Base.ExposureTime: TiffImagePlugin.IFDRational(0, 1)}
    assert exif_of(file_of(nothing, {})) == Exif()


@settings(derandomize=True, deadline=None, max_examples=examples(300))
@given(at=st.integers(0, 450), byte=st.integers(0, 255))
def test_whatever_a_file_claims_the_numbers_make_sense(at: int, byte: int) -> None:
    content = bytearray(file_of(SHOT, PLACE))
    content[content.index(b"Exif") + 6 + at] = byte
    try:
        found = exif_of(bytes(content))
    except ImageError:  # what was changed is beyond the EXIF data
        return
    for value in (found.exposure, found.aperture, found.focal_length):
        assert value is None or 0 < value < math.inf
    assert found.iso is None or found.iso > 0
    assert (found.latitude is None) == (found.longitude is None)
    assert abs(found.latitude or 0) <= 90
    assert abs(found.longitude or 0) <= 180
