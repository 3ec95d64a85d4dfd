"""Parts of an image, and thumbnails."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from imgsearch.errors import ImageError, SettingError
from imgsearch.images.crop import Box, pixel_box
from imgsearch.images.decode import decode, pixels_of
from imgsearch.images.render import pixels_from, thumbnail
from tests.support.image_files import encode, photo, write

SIZE = 32


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def opened(jpeg: bytes) -> Image.Image:
    return Image.open(io.BytesIO(jpeg))


# Boxes


def test_a_box_is_in_pixels_unless_none_of_its_sides_is_more_than_one() -> None:
    assert Box(10, 20, 30, 60).part_of(100, 200) == (0.1, 0.1, 0.3, 0.3)
    assert Box(0.25, 0, 1, 0.5).part_of(100, 200) == (0.25, 0, 1, 0.5)


def test_what_juts_out_of_the_image_is_cut() -> None:
    assert Box(-10, 50, 500, 60).part_of(100, 100) == (0, 0.5, 1, 0.6)
    assert Box(-0.5, 0.5, 0.5, 1).part_of(100, 100) == (0, 0.5, 0.5, 1)


@pytest.mark.parametrize("sides", [(3, 0, 2, 1), (0, 5, 9, 5), (0, 0, float("nan"), 1)])
def test_a_box_has_to_hold_something(sides: tuple[float, float, float, float]) -> None:
    with pytest.raises(SettingError, match=r"^the crop "):
        Box(*sides)


@given(
    st.integers(1, 5000),
    st.floats(0, 1, exclude_max=True),
    st.floats(0, 1, exclude_min=True),
)
def test_the_pixels_of_a_part_are_some_and_inside(width: int, left: float, right: float) -> None:
    first, _, end, _ = pixel_box((left, 0, max(left, right), 1), width, 1)
    assert 0 <= first < end <= width


@given(st.integers(1, 5000), st.data())
def test_a_box_in_pixels_is_those_pixels(width: int, data: st.DataObject) -> None:
    left = data.draw(st.integers(0, width - 1))
    right = data.draw(st.integers(left + 1, width))
    part = Box(left, 0, max(right, 2), 2).part_of(width, 2)
    assert pixel_box(part, width, 2) == (left, 0, min(max(right, 2), width), 2)


# The pixels of a part


@pytest.mark.parametrize("format_", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_part_is_that_of_the_upright_image(
    format_: str, orientation: int, tmp_path: Path
) -> None:
    path = write(tmp_path / "photo", photo(60, 40), format_, exif=turned(orientation))
    with Image.open(path) as image:
        image.load()
        upright = ImageOps.exif_transpose(image).convert("RGB")
    part = pixels_of(upright.crop((5, 7, 25, 33)), SIZE).astype(int)
    fractions = Box(5 / upright.width, 7 / upright.height, 25 / upright.width, 33 / upright.height)
    for box in (Box(5, 7, 25, 33), fractions):
        # Within 1: the pixels are resized before they are turned.
        np.testing.assert_allclose(pixels_from(path, SIZE, box), part, atol=1)


def test_without_a_crop_the_pixels_are_those_that_are_indexed(tmp_path: Path) -> None:
    data = encode(photo(700, 300), "JPEG", exif=turned(6))
    (tmp_path / "photo.jpg").write_bytes(data)
    indexed = decode(io.BytesIO(data), SIZE)
    np.testing.assert_array_equal(pixels_from(data, SIZE), indexed)
    np.testing.assert_array_equal(pixels_from(str(tmp_path / "photo.jpg"), SIZE), indexed)


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_part_of_a_jpeg_keeps_twice_the_size_of_the_network(
    orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[tuple[int, int]] = []
    load = Image.Image.crop

    def crop(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
        decoded.append((box[2] - box[0], box[3] - box[1]))
        return load(image, box)

    monkeypatch.setattr(Image.Image, "crop", crop)
    data = encode(photo(1600, 1600), "JPEG", exif=turned(orientation))
    pixels_from(data, SIZE, Box(0, 0, 200, 1000))
    ((width, height),) = decoded
    assert min(width, height) == 100  # half the scale: a quarter would leave 50
    assert max(width, height) == 500


def test_a_part_outside_of_the_image_is_refused_with_its_upright_size() -> None:
    data = encode(photo(60, 40), "JPEG", exif=turned(6))
    with pytest.raises(ImageError, match=r"image: the crop 50,0,70,9 .* has 40 x 60 pixels"):
        pixels_from(data, SIZE, Box(50, 0, 70, 9))


# Thumbnails


@pytest.mark.parametrize(
    ("size", "expected"),
    [((600, 300), (64, 32)), ((300, 600), (32, 64)), ((20, 10), (20, 10)), ((9000, 1), (64, 1))],
)
def test_a_thumbnail_keeps_the_shape_and_is_not_enlarged(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    image = opened(thumbnail(encode(photo(*size), "PNG"), 64))
    assert (image.format, image.size) == ("JPEG", expected)


def test_a_thumbnail_is_upright_and_has_no_metadata(tmp_path: Path) -> None:
    exif = turned(6)
    exif[0x010E] = "where I live"
    picture = photo(600, 300)
    path = write(tmp_path / "a.jpg", picture, "JPEG", exif=exif, comment=b"private")
    data = thumbnail(path, 64)
    assert opened(data).size == (32, 64)
    assert not {"exif", "comment", "icc_profile"} & opened(data).info.keys()
    assert b"where I live" not in data
    assert b"private" not in data
    upright = picture.transpose(Image.Transpose.ROTATE_270).resize((32, 64))
    difference = np.asarray(opened(data), np.int16) - np.asarray(upright, np.int16)
    assert np.abs(difference).mean() < 5


def test_a_thumbnail_may_show_a_part() -> None:
    image = opened(thumbnail(encode(photo(600, 300), "JPEG"), 64, Box(0.5, 0, 1, 1)))
    assert image.size == (64, 64)


def test_there_is_no_thumbnail_of_what_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"no/such\.jpg: cannot be read"):
        thumbnail("no/such.jpg", 64)
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="is not a regular file"):
        thumbnail(str(tmp_path / "pipe.jpg"), 64)
    with pytest.raises(ImageError, match="cannot be decoded"):
        thumbnail(encode(photo(60, 40), "PNG")[:200], 64)
