"""Find out how one picture is placed in another, by any shift, scale and angle.

Local features (`imgsearch.images.keypoints`) give a first placement, which is refined by the
Gauss-Newton method on the pixels: for the six numbers of an affine map, contrast and brightness.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from imgsearch.images.keypoints import cv2_of
from imgsearch.images.overlay import fitted, quantile

if TYPE_CHECKING:
    from imgsearch.images.decode import Pixels
    from imgsearch.images.keypoints import Affinity

__all__ = ["Placed", "placed"]

LEVELS = ((160, 4), (400, 4), (1_024, 3))  # Pixels of the longer edge, and steps.
FEW, FEW_TONES = 20_000, 5_000  # Pixels to which the placement and tones are fitted.
LEAST_SHARE = 0.04  # Share of either picture that the other has to cover.
LEAST_STEP = 0.02  # Pixels.
MOST_STEP = 8.0  # Pixels; with more, the placement is lost.
MOST_UNEVEN = 1.25  # Ratio of the scales along the two edges.
BORDER = 1.5  # Pixels of the kept picture at its border that are not compared.
FITS = 0.5  # Explained share of variance; with less, different things are seen.

_Floats = npt.NDArray[np.float32]
_Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """A picture, laid over another, both at the same scale.

    Attributes:
        seen: The picture, float32 `[h, w, 3]`.
        expected: The other, warped to lie over it, in the same shape.
        inside: Where the other has pixels, bool `[h, w]`.
        matrix: The map from fractions of the width and height of the picture to those of the other,
            float64 `[2, 3]`.
        size: Width and height of the other in pixels, at its own scale.
    """

    seen: _Floats
    expected: _Floats
    inside: npt.NDArray[np.bool_]
    matrix: _Doubles
    size: tuple[int, int]

    @property
    def pixel_map(self) -> _Doubles:
        """The map from pixels of the picture to those of the other, float64 `[2, 3]`."""
        return _in_pixels(self.matrix, self.inside.shape[::-1], self.size)

    @property
    def angle(self) -> float:
        """The angle in degrees by which the picture is turned clockwise, -180 to 180."""
        pixels = self.pixel_map
        return -math.degrees(math.atan2(pixels[1, 0] - pixels[0, 1], pixels[0, 0] + pixels[1, 1]))


def placed(other: Pixels, picture: Pixels, start: Affinity) -> Placed | None:
    """Return a picture laid over another one, or None if it does not fit there.

    Args:
        other: The other picture, uint8 `[h, w, 3]`.
        picture: The picture, of the same form.
        start: Where the picture is, roughly.
    """
    matrix = np.array(start.matrix, np.float64)
    sizes = picture.shape[1::-1], other.shape[1::-1]
    linear = _in_pixels(matrix, *sizes)[:, :2]
    most, least = np.linalg.svd(linear, compute_uv=False).tolist()
    if most > MOST_UNEVEN * least or np.linalg.det(linear) <= 0:
        return None
    scale = math.sqrt(most * least)  # Pixels of the other for one of the picture.
    one, two = Image.fromarray(picture), Image.fromarray(other)
    longest = max(picture.shape[:2])
    greys = one.convert("L"), two.convert("L")
    for edge, steps in LEVELS:
        own = min(1.0, edge / longest, scale)
        found = _refined(_scaled(greys[0], own), _scaled(greys[1], own / scale), matrix, steps)
        if found is None:
            return None
        matrix = found
        if own in (1.0, scale):
            break
    own = min(1.0, scale)
    seen = np.asarray(_scaled(one, own), np.float32)
    reduced = np.asarray(_scaled(two, own / scale), np.float32)
    expected, inside = _warped(reduced, matrix, seen.shape[1::-1])
    return Placed(seen, expected, inside, matrix, (other.shape[1], other.shape[0]))


def _scaled(image: Image.Image, scale: float) -> Image.Image:
    size = max(8, round(image.width * scale)), max(8, round(image.height * scale))
    return image if size == image.size else image.resize(size, Image.Resampling.BILINEAR)


def _in_pixels(matrix: _Doubles, picture: tuple[int, ...], other: tuple[int, ...]) -> _Doubles:
    """Return a map of fractions as one of pixels, whose centres have whole coordinates."""
    (width, height), (others_width, others_height) = picture, other
    to = np.diag((others_width, others_height)).astype(np.float64)
    linear = to @ matrix[:, :2] @ np.diag((1 / width, 1 / height))
    shift = to @ matrix[:, 2] + linear @ (0.5, 0.5) - 0.5
    return np.asarray(np.c_[linear, shift])


def _warped(
    other: _Floats, matrix: _Doubles, size: tuple[int, ...]
) -> tuple[_Floats, npt.NDArray[np.bool_]]:
    """Return a picture as it lies over another of a size, and where it has pixels."""
    cv2 = cv2_of()
    height, width = other.shape[:2]
    pixels = _in_pixels(matrix, size, (width, height))
    warped = cv2.warpAffine(
        other,
        pixels,
        size,
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    x, y = np.arange(size[0]), np.arange(size[1])[:, None]
    across = pixels[0, 0] * x + pixels[0, 1] * y + pixels[0, 2]
    down = pixels[1, 0] * x + pixels[1, 1] * y + pixels[1, 2]
    inside = (across >= BORDER - 0.5) & (across <= width - 0.5 - BORDER)
    inside &= (down >= BORDER - 0.5) & (down <= height - 0.5 - BORDER)
    return np.clip(warped, 0, 255), inside


def _refined(
    picture: Image.Image, other: Image.Image, matrix: _Doubles, steps: int
) -> _Doubles | None:
    """Move a placement until the picture fits best; None if it does not fit."""
    seen, there = np.asarray(picture, np.float32), np.asarray(other, np.float32)
    height, width = seen.shape
    fit = 0.0
    for _ in range(steps):
        part, inside = _warped(there, matrix, (width, height))
        if inside.mean() < LEAST_SHARE or inside.sum() < LEAST_SHARE * there.size:
            return None
        step, fit = _step(seen, part, inside)
        if np.abs(step).max() > MOST_STEP:
            return None
        change = np.eye(3)
        change[:2] += step / np.array([[width], [height]])
        matrix = matrix @ change
        if np.abs(step).max() < LEAST_STEP:
            break
    return matrix if fit > FITS else None


def _step(
    seen: _Floats, part: _Floats, inside: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[Any], float]:
    """Return the map by which to move the other picture in pixels, `[2, 3]`, and the fit so far."""
    places = np.flatnonzero(inside)
    places = places[:: (len(places) // FEW) | 1]  # odd, so that no columns are left out
    rows, columns = places // seen.shape[1], places % seen.shape[1]
    value, before = seen.ravel()[places], part.ravel()[places]
    every = len(places) // FEW_TONES + 1
    tones = fitted(before[::every], value[::every])
    gain, offset = (tones.gain, tones.offset) if 0.3 < tones.gain < 3 else (1.0, 0.0)
    error = value - np.clip(gain * before + offset, 0, 255)
    slopes: list[_Floats] = list(np.gradient(part))
    down, across = (gain * slope.ravel()[places] for slope in slopes)
    x = ((columns + 0.5) / seen.shape[1]).astype(np.float32)
    y = ((rows + 0.5) / seen.shape[0]).astype(np.float32)
    usual = 2 * quantile(np.abs(error), 0.8) + 5
    weights = 1 / (1 + (error / usual) ** 2)
    moves = np.stack(
        [across * x, across * y, across, down * x, down * y, down, before - before.mean(),
         np.ones_like(before)]
    )  # fmt: skip
    weighted = moves * weights
    matrix = (weighted @ moves.T).astype(np.float64)
    matrix[np.diag_indices(8)] *= 1.0001
    matrix[np.diag_indices(8)] += 1e-3
    solution = np.linalg.solve(matrix, (weighted @ error).astype(np.float64))
    step: npt.NDArray[Any] = solution[:6].reshape(2, 3)
    mean = float((weights * value).sum() / weights.sum())
    spread = float((weights * (value - mean) ** 2).sum())
    return step, 1 - float((weights * error * error).sum()) / max(spread, 1.0)
