"""Turn an image file, or part of it, into pixels for a network or into a thumbnail."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

from PIL import Image

from imgsearch.errors import ImageError, InputError
from imgsearch.images.crop import TURNED, WHOLE, Box, Region, stored_part
from imgsearch.images.decode import Pixels, open_image, orientation_of, picture_of, pixels_of
from imgsearch.images.limits import LIMITS, Limits

__all__ = [
    "Glance",
    "Thumbnail",
    "glance",
    "part_of",
    "pixels_from",
    "render",
    "size_of",
    "thumbnail",
]

QUALITY = 80  # Quality of a thumbnail, which has some 12 KB.

_JPEG = ("JPEG", "MPO")  # Pillow's formats that can be decoded at reduced scale.


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small JPEG of an image that has `width` x `height` pixels when upright."""

    jpeg: bytes
    width: int
    height: int


def pixels_from(
    source: str | bytes, input_size: int, crop: Box | None = None, limits: Limits = LIMITS
) -> Pixels:
    """Return an image file as a network's input: uint8 `[input_size, input_size, 3]`, RGB.

    Args:
        source: Path of the file, or its content.
        input_size: Edge of the network's input.
        crop: Part of the image to use; None for all of it.
        limits: Maximum pixels of the image.

    Raises:
        ImageError: If the file cannot be read, is not an image, is too large, cannot be decoded,
            or has no such part.
    """
    with open_image(source, limits) as image:
        part = part_of(image, crop, _name(source))
        _reduce(image, (input_size, input_size), part)
        return pixels_of(image, input_size, part)


def thumbnail(
    source: str | bytes, longest: int, crop: Box | None = None, limits: Limits = LIMITS
) -> bytes:
    """Return a small upright JPEG of an image file, without its metadata.

    Args:
        source: Path of the file, or its content.
        longest: Longer edge of the thumbnail in pixels; a smaller image is not enlarged.
        crop: Part of the image to show; None for all of it.
        limits: Maximum pixels of the image.

    Raises:
        ImageError: As for `pixels_from`.
    """
    return render(source, longest, crop, limits).jpeg


def render(
    source: str | bytes, longest: int, crop: Box | None = None, limits: Limits = LIMITS
) -> Thumbnail:
    """Return a thumbnail as `thumbnail` does, with the size of the image."""
    with open_image(source, limits) as image:
        part = part_of(image, crop, _name(source))
        whole = _upright_size(image)
        width, height = whole[0] * (part[2] - part[0]), whole[1] * (part[3] - part[1])
        scale = min(1.0, longest / max(width, height))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        _reduce(image, size, part)
        picture = picture_of(image, size, part)
    picture.info.clear()  # A comment would be saved with it.
    jpeg = io.BytesIO()
    picture.save(jpeg, "JPEG", quality=QUALITY)
    return Thumbnail(jpeg.getvalue(), *whole)


@dataclass(frozen=True, slots=True, eq=False)
class Glance:
    """An image squashed to a square, uint8 `[edge, edge, 3]`, and its upright size in pixels."""

    pixels: Pixels
    width: int
    height: int


def glance(source: str | bytes, edge: int, limits: Limits = LIMITS) -> Glance:
    """Return an image squashed to `edge` x `edge` pixels, with its size.

    Raises:
        ImageError: As for `pixels_from`.
    """
    with open_image(source, limits) as image:
        size = _upright_size(image)
        _reduce(image, (edge, edge), WHOLE)
        return Glance(pixels_of(image, edge), *size)


def size_of(source: str | bytes, limits: Limits = LIMITS) -> tuple[int, int]:
    """Return the upright width and height of an image, decoding it unless it is a JPEG.

    Raises:
        ImageError: As for `pixels_from`.
    """
    with open_image(source, limits) as image:
        return _upright_size(image)


def part_of(image: Image.Image, crop: Box | None, name: str = "image") -> Region:
    """Return the part of an image that a box covers; all of it if there is no box.

    Raises:
        ImageError: If the box lies outside the image.
    """
    if crop is None:
        return WHOLE
    try:
        return crop.part_of(*_upright_size(image))
    except InputError as error:
        raise ImageError(name, str(error)) from error


def _upright_size(image: Image.Image) -> tuple[int, int]:
    if image.format not in _JPEG:
        image.load()  # Other plug-ins may turn the image while loading it.
    turned = orientation_of(image) in TURNED
    return image.size[::-1] if turned else image.size


def _reduce(image: Image.Image, size: tuple[int, int], part: Region) -> None:
    """Have a JPEG decoded at a reduced scale at which the part keeps twice `size` if possible."""
    if image.format not in _JPEG:
        return
    orientation = orientation_of(image)
    left, top, right, bottom = part if part == WHOLE else stored_part(part, orientation)
    width, height = size[::-1] if orientation in TURNED else size
    image.draft(
        None, (math.ceil(2 * width / (right - left)), math.ceil(2 * height / (bottom - top)))
    )


def _name(source: str | bytes) -> str:
    return source if isinstance(source, str) else "image"
