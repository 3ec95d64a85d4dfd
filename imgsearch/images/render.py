"""Take from a picture that somebody shows, or part of it, what is needed: pixels or a thumbnail."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

from PIL import Image

from imgsearch.errors import ImageError, InputError
from imgsearch.images.crop import TURNED, WHOLE, Box, Part, stored_part
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

QUALITY = 80  # of a thumbnail: some 12 KB

_JPEG = ("JPEG", "MPO")  # of Pillow's formats, those that can be decoded at reduced scale


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small JPEG of an image that has `width` x `height` pixels when it is upright."""

    jpeg: bytes
    width: int
    height: int


def pixels_from(
    source: str | bytes, input_size: int, crop: Box | None = None, limits: Limits = LIMITS
) -> Pixels:
    """Return the pixels of an image file for a network: uint8 `[input_size, input_size, 3]`, RGB.

    Args:
        source: the path of the file, or its content.
        input_size: edge of the network's input.
        crop: the part of the image to be used; None for all of it.
        limits: Maximum pixels of the image.

    Raises:
        ImageError: it cannot be read, is no image, is too large, cannot be decoded, or has no such
            part.
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
        source: the path of the file, or its content.
        longest: the longer edge in pixels; a smaller image is not enlarged.
        crop: the part of the image to be shown; None for all of it.
        limits: Maximum pixels of the image.

    Raises:
        ImageError: as for `pixels_from`.
    """
    return render(source, longest, crop, limits).jpeg


def render(
    source: str | bytes, longest: int, crop: Box | None = None, limits: Limits = LIMITS
) -> Thumbnail:
    """Do as `thumbnail`, and tell the size of the image."""
    with open_image(source, limits) as image:
        part = part_of(image, crop, _name(source))
        whole = _upright_size(image)
        width, height = whole[0] * (part[2] - part[0]), whole[1] * (part[3] - part[1])
        scale = min(1.0, longest / max(width, height))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        _reduce(image, size, part)
        picture = picture_of(image, size, part)
    picture.info.clear()  # a comment would be saved with it
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
    """Return an image squashed to `edge` x `edge` pixels, and its size.

    Raises:
        ImageError: as for `pixels_from`.
    """
    with open_image(source, limits) as image:
        size = _upright_size(image)
        _reduce(image, (edge, edge), WHOLE)
        return Glance(pixels_of(image, edge), *size)


def size_of(source: str | bytes, limits: Limits = LIMITS) -> tuple[int, int]:
    """Return the upright width and height of an image, which takes decoding it unless it is a JPEG.

    Raises:
        ImageError: as for `pixels_from`.
    """
    with open_image(source, limits) as image:
        return _upright_size(image)


def part_of(image: Image.Image, crop: Box | None, name: str = "image") -> Part:
    """Return which part of an image a box is, all of it if there is none.

    Raises:
        ImageError: the box lies outside of the image.
    """
    if crop is None:
        return WHOLE
    try:
        return crop.part_of(*_upright_size(image))
    except InputError as error:
        raise ImageError(name, str(error)) from error


def _upright_size(image: Image.Image) -> tuple[int, int]:
    if image.format not in _JPEG:
        image.load()  # other plug-ins may turn the image while they load it
    turned = orientation_of(image) in TURNED
    return image.size[::-1] if turned else image.size


def _reduce(image: Image.Image, size: tuple[int, int], part: Part) -> None:
    """Have a JPEG decoded at reduced scale, so that the part keeps twice `size` where it has it."""
    if image.format not in _JPEG:
        return
    orientation = orientation_of(image)
    left, top, right, bottom = stored_part(part, orientation)
    width, height = size[::-1] if orientation in TURNED else size
    image.draft(
        None, (math.ceil(2 * width / (right - left)), math.ceil(2 * height / (bottom - top)))
    )


def _name(source: str | bytes) -> str:
    return source if isinstance(source, str) else "image"
