"""Compare pictures tile by tile, to tell whether one shows all that another does.

A copy is laid over the part of the kept picture that it shows (see `overlay`), the tones of the
kept picture are fitted to those of the copy, and the rest is measured in tiles of 8 x 8 and of
16 x 16 pixels. The worst tile decides. See `docs/decisions/0010-duplicates.md` for the figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from imgsearch.images.compare import LUMINANCE
from imgsearch.images.crop import Region
from imgsearch.images.decode import Pixels
from imgsearch.images.overlay import Sheet, aligned, fitted, grid_of, quantile, resampled

__all__ = ["Agreement", "CloseUp", "agreement"]

LEAST_EDGE = 32  # Pixels of the longer edge; smaller pictures show too little to compare.
TILE = 8  # Pixels of the compared picture.
LEAST_ERROR = 80.0  # Squared levels in a tile that a good encoder leaves near sharp edges.
MOST_ERROR = 650.0  # Squared levels that JPEG of quality 30 leaves in a reduced picture.
USUAL = 4.0  # Multiple of the error of the pair's other textured tiles.
SHARE = 0.1  # Share of a tile's own variance up to which errors are tolerated.
TEXTURE = 100.0  # Variance above which a tile has texture.
SHIFT, SHIFT_SHARE = 5.0, 0.12  # Levels that a tile's mean may be off; share of its deviation.
COLOUR, FINE_COLOUR = 8.0, 15.0  # Levels of chroma, in tiles of 16 and of 8 pixels.
GREY = 4.0  # Levels of chroma up to which a picture is grey.
GAINS = (0.5, 1.7)  # Accepted range of the contrast ratio of the two.
BLANK, MOSTLY = 1.0, 0.4  # Variance of a blank tile; share of them in a drawing or page.
TONE_PIXELS = 10_000  # Pixels to which tones are fitted.
LEGIBLE = 0.6  # Share of a page's size; more reduced text cannot be compared.

_Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)  # Without slots, as it caches its sheet.
class CloseUp:
    """A picture to compare: uint8 `[height, width, 3]`, upright, RGB, on white.

    `alpha` is uint8 `[height, width]`, or None if the picture is opaque.
    """

    pixels: Pixels
    alpha: Pixels | None

    @cached_property
    def sheet(self) -> Sheet:
        """The colours, for laying over those of other pictures."""
        return Sheet(self.pixels)


@dataclass(frozen=True, slots=True)
class Agreement:
    """The result of comparing a copy with the picture that is kept.

    Attributes:
        box: The part of the kept picture that the copy shows: left, top, right, bottom, 0 to 1.
        reason: Description of how they disagree; empty if they agree.
    """

    box: Region
    reason: str

    def __bool__(self) -> bool:
        return not self.reason


def agreement(keep: CloseUp, copy: CloseUp) -> Agreement:
    """Tell whether everything that a copy shows is visible in the kept picture, too.

    Encoding, size, brightness and contrast do not count, nor do the parts of the kept picture
    outside the copy. A grey copy of a coloured picture agrees with it, but not vice versa.
    """
    box = (0.0, 0.0, 1.0, 1.0)
    if max(copy.pixels.shape) < LEAST_EDGE or max(keep.pixels.shape) < LEAST_EDGE:
        same = keep.pixels.shape == copy.pixels.shape and np.array_equal(keep.pixels, copy.pixels)
        return Agreement(box, "" if same and _alpha_agrees(keep, copy, box) else "are too small")
    place = aligned(keep.sheet, copy.sheet)
    if place is None:
        return Agreement(box, "show different things")
    reason = _difference(keep.sheet.image, copy.sheet.image, place)
    if not reason and not _alpha_agrees(keep, copy, place):
        reason = "differ in transparency"
    return Agreement(place, reason)


def _difference(keep: Image.Image, copy: Image.Image, box: Region) -> str:
    """Return how two pictures differ; empty if they agree."""
    size = grid_of(keep, copy, box)
    seen = np.asarray(resampled(copy, size), np.float32)
    expected = np.asarray(resampled(keep, size, box), np.float32)
    if size[0] < LEGIBLE * (box[2] - box[0]) * keep.width and _is_page(keep):
        return "are too different in size to compare text"
    is_grey = _is_grey(seen)
    if is_grey:
        expected = np.repeat(_luminance(expected)[..., None], 3, axis=2)
    tones = fitted(_few(expected), _few(seen))
    if not GAINS[0] <= tones.gain <= GAINS[1]:
        return "differ in contrast"
    expected = tones.applied(expected)
    light, expected_light = _luminance(seen), _luminance(expected)
    error = light - expected_light
    sharper = _laplacian(expected_light)
    error = error - _share_of(sharper, error) * sharper
    if _differs_in_detail(error, light, expected_light):
        return "differ in a detail"
    if _differs_in_tone(error, light):
        return "differ in tone"
    if not is_grey and _differs_in_colour(
        seen - light[..., None], expected - expected_light[..., None]
    ):
        return "differ in colour"
    return ""


def _differs_in_detail(error: _Floats, seen: _Floats, expected: _Floats) -> bool:
    energy = _means(error * error, TILE)
    variance = np.maximum(_variances(seen, TILE), _variances(expected, TILE))
    textured = energy[variance > TEXTURE]
    usual = quantile(textured, 0.95) if textured.size > 20 else 0.0
    limit = min(max(USUAL * usual, LEAST_ERROR), MOST_ERROR)
    return bool(np.any((energy > limit) & (energy > SHARE * variance)))


def _differs_in_tone(error: _Floats, seen: _Floats) -> bool:
    """Tell whether a tile is lighter or darker than it should be, textured or not."""
    shifts = np.abs(_means(error, 2 * TILE))
    return bool(np.any(shifts > SHIFT + SHIFT_SHARE * np.sqrt(_variances(seen, 2 * TILE))))


def _differs_in_colour(seen: _Floats, expected: _Floats) -> bool:
    """Compare red and blue of pixels `[height, width, 3]` without their luminance."""
    for channel in (0, 2):
        error = 0.7 * (seen[..., channel] - expected[..., channel])
        for edge, limit in ((2 * TILE, COLOUR), (TILE, FINE_COLOUR)):
            if np.abs(_means(error, edge)).max() > limit:
                return True
    return False


def _is_page(image: Image.Image) -> bool:
    """Tell whether much of an image is blank, as on a page, a form or a screen."""
    variances = _variances(np.asarray(image.convert("L"), np.float32), 2 * TILE)
    return float((variances < BLANK).mean()) > MOSTLY


def _is_grey(pixels: _Floats) -> bool:
    return all(
        float(np.abs(_means(pixels[..., channel] - pixels[..., 1], TILE)).max()) <= GREY
        for channel in (0, 2)
    )


def _alpha_agrees(keep: CloseUp, copy: CloseUp, box: Region) -> bool:
    if copy.alpha is None:
        return True
    if keep.alpha is None:
        return False
    one, other = Image.fromarray(keep.alpha), Image.fromarray(copy.alpha)
    size = grid_of(one, other, box)
    seen = np.asarray(resampled(other, size), np.float32)
    error = seen - np.asarray(resampled(one, size, box), np.float32)
    return not (_differs_in_detail(error, seen, seen) or _differs_in_tone(error, seen))


def _few(pixels: _Floats) -> _Floats:
    """Return a sample of the pixels, with all of their channels, `[n, 3]`."""
    every = pixels.shape[0] * pixels.shape[1] // TONE_PIXELS + 1
    return pixels.reshape(-1, 3)[::every]


def _luminance(pixels: _Floats) -> _Floats:
    return pixels @ LUMINANCE


def _laplacian(values: _Floats) -> _Floats:
    found = np.zeros_like(values)
    found[1:-1, 1:-1] = (
        values[1:-1, :-2] + values[1:-1, 2:] + values[:-2, 1:-1] + values[2:, 1:-1]
        - 4 * values[1:-1, 1:-1]
    )  # fmt: skip
    return found


def _share_of(sharper: _Floats, error: _Floats) -> float:
    """Return the share of the error that comes from one picture being sharper overall."""
    weights = 1 / (1 + (error / (1.5 * quantile(np.abs(error), 0.5) + 1)) ** 2)
    weight = float((weights * sharper * sharper).sum())
    share = float((weights * sharper * error).sum()) / max(weight, 1e-3)
    return min(0.25, max(-0.25, share))


def _means(values: _Floats, edge: int) -> npt.NDArray[np.float64]:
    """Return the means of tiles that overlap by half; the last tile is aligned to the end."""
    height, width = values.shape
    rows = _sums(values, edge).astype(np.float64)  # Few terms: float32 is enough so far.
    total = _sums(rows.T, edge).T
    means: npt.NDArray[np.float64] = total / (min(edge, height) * min(edge, width))
    return means


def _sums(values: npt.NDArray[Any], edge: int) -> npt.NDArray[Any]:
    """Return the sums of overlapping strips of rows."""
    length, half = len(values), edge // 2
    last: npt.NDArray[Any] = values[max(0, length - edge) :].sum(0, keepdims=True)
    if length < edge:
        return last
    whole = length // half
    strips = values[: whole * half].reshape(whole, half, -1).sum(1)
    return np.concatenate([strips[:-1] + strips[1:], last])


def _variances(values: _Floats, edge: int) -> npt.NDArray[np.float64]:
    squares = _means(values * values, edge) - _means(values, edge) ** 2
    variances: npt.NDArray[np.float64] = np.maximum(squares, 0)
    return variances
