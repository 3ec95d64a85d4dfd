"""Turn an image file, or part of it, into pixels for a network or into a thumbnail."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from imgsearch.errors import ImageError, InputError
from imgsearch.images.crop import TURNED, WHOLE, Box, Region, stored_part
from imgsearch.images.decode import Pixels, open_image, orientation_of, picture_of, pixels_of
from imgsearch.images.jpeg import reduce
from imgsearch.images.limits import LIMITS, Limits

__all__ = [
    "Glance",
    "Thumbnail",
    "glance",
    "grey",
    "grey_of",
    "part_of",
    "pixels_from",
    "render",
    "size_of",
    "thumbnail",
    "upright_size",
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
        whole = upright_size(image)
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
        size = upright_size(image)
        _reduce(image, (edge, edge), WHOLE)
        return Glance(pixels_of(image, edge), *size)


def grey(
    source: str | bytes,
    longest: int,
    crop: Box | None = None,
    limits: Limits = LIMITS,
    *,
    most_scale: float = 1.0,
) -> Pixels:
    """Return an upright image in grey, uint8 `[height, width]`, for finding local features.

    Args:
        source: Path of the file, or its content.
        longest: Longer edge in pixels.
        crop: Part of the image to return; None for all of it.
        limits: Maximum pixels of the image.
        most_scale: Scale to which a smaller image is enlarged at most.

    Raises:
        ImageError: As for `pixels_from`.
    """
    with open_image(source, limits) as image:
        return grey_of(image, longest, part_of(image, crop, _name(source)), most_scale=most_scale)


def grey_of(
    image: Image.Image, longest: int, part: Region = WHOLE, *, most_scale: float = 1.0
) -> Pixels:
    """Return an opened image in grey as `grey` does."""
    whole = upright_size(image)
    width, height = whole[0] * (part[2] - part[0]), whole[1] * (part[3] - part[1])
    scale = min(most_scale, longest / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    _reduce(image, size, part, margin=1)  # local features need no finer filtering
    return np.asarray(picture_of(image, size, part).convert("L"), np.uint8)


def size_of(source: str | bytes, limits: Limits = LIMITS) -> tuple[int, int]:
    """Return the upright width and height of an image, decoding it unless it is a JPEG.

    Raises:
        ImageError: As for `pixels_from`.
    """
    with open_image(source, limits) as image:
        return upright_size(image)


def part_of(image: Image.Image, crop: Box | None, name: str = "image") -> Region:
    """Return the part of an image that a box covers; all of it if there is no box.

    Raises:
        ImageError: If the box lies outside the image.
    """
    if crop is None:
        return WHOLE
    try:
        return crop.part_of(*upright_size(image))
    except InputError as error:
        raise ImageError(name, str(error)) from error


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return the upright width and height of an opened image, decoding it unless it is a JPEG."""
    if image.format not in _JPEG:
        image.load()  # Other plug-ins may turn the image while loading it.
    turned = orientation_of(image) in TURNED
    return image.size[::-1] if turned else image.size


def _reduce(image: Image.Image, size: tuple[int, int], part: Region, *, margin: float = 2) -> None:
    """Have a JPEG decoded at a reduced scale, if possible, but still `margin` times `size`."""
    if image.format not in _JPEG:
        return
    orientation = orientation_of(image)
    left, top, right, bottom = part if part == WHOLE else stored_part(part, orientation)
    width, height = size[::-1] if orientation in TURNED else size
    across, down = margin * width / (right - left), margin * height / (bottom - top)
    reduce(image, (math.ceil(across), math.ceil(down)))


def _name(source: str | bytes) -> str:
    return source if isinstance(source, str) else "image"
