"""Boxes of an image: the part that a box covers, and its position in the stored pixels."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias, cast

from imgsearch.errors import InputError, SettingError

__all__ = ["TURNED", "WHOLE", "Box", "Region", "pixel_box", "stored_part"]

#: Left, top, right and bottom as fractions of width and height, 0 to 1.
Region: TypeAlias = tuple[float, float, float, float]

WHOLE: Region = (0.0, 0.0, 1.0, 1.0)

# EXIF 2.32, table "Orientation": the steps that turn the upright picture into the stored one.
TURNED = {5, 6, 7, 8}  # First, width and height are swapped,
_MIRRORED = {2, 3, 7, 8}  # then left and right,
_UPSIDE_DOWN = {3, 4, 6, 7}  # then top and bottom.


@dataclass(frozen=True, slots=True)
class Box:
    """A box of an image as people see it, upright by its EXIF orientation.

    Its sides are pixels from the upper left corner or, if none exceeds 1, fractions of width and
    height.
    """

    left: float
    top: float
    right: float
    bottom: float

    @classmethod
    def of(cls, sides: object) -> Box:
        """Return the box with these four sides, or raise `SettingError`."""
        try:
            left, top, right, bottom = map(float, cast("Iterable[float]", sides))
        except (TypeError, ValueError, OverflowError):
            raise SettingError(
                f"the crop {' '.join(repr(sides).split())[:60]} is not a box; give left, top, "
                "right and bottom"
            ) from None
        return cls(left, top, right, bottom)

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.left, self.top, self.right, self.bottom))):
            raise SettingError(f"the crop {self} is not a box; give left, top, right and bottom")
        if self.left >= self.right or self.top >= self.bottom:
            raise SettingError(
                f"the crop {self} is empty: left must be less than right, and top than bottom"
            )

    def __str__(self) -> str:
        return ",".join(f"{side:.10g}" for side in (self.left, self.top, self.right, self.bottom))

    def part_of(self, width: int, height: int) -> Region:
        """Return the part of an image of `width` x `height` pixels that lies within the box.

        Raises:
            InputError: If the box lies completely outside the image.
        """
        left, top, right, bottom = self.left, self.top, self.right, self.bottom
        if max(left, top, right, bottom) > 1:
            left, top, right, bottom = left / width, top / height, right / width, bottom / height
        if left >= 1 or top >= 1 or right <= 0 or bottom <= 0:
            raise InputError(
                f"the crop {self} lies outside of the image, which has {width} x {height} pixels"
            )
        return max(left, 0.0), max(top, 0.0), min(right, 1.0), min(bottom, 1.0)


def stored_part(part: Region, orientation: int) -> Region:
    """Return the position of a part of the upright picture in the stored pixels.

    Args:
        part: Part of the upright picture.
        orientation: EXIF orientation of the stored picture.
    """
    left, top, right, bottom = part
    if orientation in TURNED:
        left, top, right, bottom = top, left, bottom, right
    if orientation in _MIRRORED:
        left, right = 1 - right, 1 - left
    if orientation in _UPSIDE_DOWN:
        top, bottom = 1 - bottom, 1 - top
    return left, top, right, bottom


def pixel_box(part: Region, width: int, height: int) -> tuple[int, int, int, int]:
    """Return the box of pixels, at least one, that a part of `width` x `height` touches."""
    left, right = _touched(part[0] * width, part[2] * width, width)
    top, bottom = _touched(part[1] * height, part[3] * height, height)
    return left, top, right, bottom


def _touched(start: float, end: float, length: int) -> tuple[int, int]:
    slack = 1e-6  # In pixels: the error of turning pixels into fractions and back.
    first = min(math.floor(start + slack), length - 1)
    return first, max(math.ceil(end - slack), first + 1)
