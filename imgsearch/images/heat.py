"""Mark parts of a picture with a heat map."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from imgsearch.images.crop import Region
from imgsearch.images.render import QUALITY

__all__ = ["marked", "outlined", "side_by_side"]

# Red, green and blue at even steps, as `inferno` of matplotlib has them: from nothing to most.
_RAMP = np.array(
    [(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], np.float32
)
_MOST = 0.7  # Opacity of the colour of the strongest cell.
_GREY = 0.6  # Share of grey in the picture, so that the colours stand out.
_GAP = 16  # Pixels between two pictures.


def marked(
    picture: Image.Image,
    heat: npt.NDArray[np.float32],
    outline: Sequence[tuple[float, float]] = (),
) -> Image.Image:
    """Return a picture with a heat map laid over it.

    Args:
        picture: The picture, RGB.
        heat: A value for each cell of a grid that covers the picture, float32 `[rows, columns]`.
            The strongest cell gets the strongest colour; negative ones count as 0.
        outline: Corners of a part to draw a line around, as fractions of width and height.
    """
    positive = np.maximum(np.nan_to_num(heat), 0)
    scaled = Image.fromarray(np.asarray(positive / max(float(positive.max()), 1e-12), np.float32))
    smooth = scaled.resize(picture.size, Image.Resampling.BICUBIC)
    strength = np.clip(np.asarray(smooth, np.float32), 0, 1)[..., None]
    pixels = np.asarray(picture, np.float32)
    grey = pixels.mean(axis=2, keepdims=True)
    pixels = pixels * (1 - _GREY) + grey * _GREY
    steps = np.linspace(0, 1, len(_RAMP))
    colours = np.stack([np.interp(strength[..., 0], steps, _RAMP[:, c]) for c in range(3)], axis=2)
    mixed = pixels + _MOST * strength * (colours - pixels)
    found = Image.fromarray(np.asarray(np.clip(np.rint(mixed), 0, 255), np.uint8))
    if outline:
        _draw(found, outline)
    return found


def outlined(jpeg: bytes, part: Region) -> bytes:
    """Return a JPEG with a line around a part of it."""
    left, top, right, bottom = part
    with Image.open(io.BytesIO(jpeg)) as opened:
        picture = opened.convert("RGB")
    _draw(picture, ((left, top), (right, top), (right, bottom), (left, bottom)))
    found = io.BytesIO()
    picture.save(found, "JPEG", quality=QUALITY)
    return found.getvalue()


def _draw(picture: Image.Image, outline: Sequence[tuple[float, float]]) -> None:
    """Draw a line around a part of a picture."""
    corners = [(x * (picture.width - 1), y * (picture.height - 1)) for x, y in outline]
    draw = ImageDraw.Draw(picture)
    for width, colour in ((6, "black"), (3, "white")):
        draw.line([*corners, corners[0], corners[1]], colour, width, joint="curve")


def side_by_side(pictures: Sequence[Image.Image]) -> Image.Image:
    """Return one picture that shows several side by side on white."""
    height = max(picture.height for picture in pictures)
    ends = np.cumsum([0, *(picture.width + _GAP for picture in pictures)]).tolist()
    sheet = Image.new("RGB", (ends[-1] - _GAP, height), "white")
    for (start, _), picture in zip(pairwise(ends), pictures, strict=True):
        sheet.paste(picture, (start, (height - picture.height) // 2))
    return sheet
