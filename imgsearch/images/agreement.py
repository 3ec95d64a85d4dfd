"""Compare pictures tile by tile, to tell whether one shows all that another does.

A copy is laid over the part of the kept picture that it shows (see `overlay`), the tones of the
kept picture are fitted to those of the copy, and the rest is measured in tiles of 8 x 8 and of
16 x 16 pixels. The worst tile decides. See `docs/decisions/0010-duplicates.md` for the figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from imgsearch.images.compare import LUMINANCE
from imgsearch.images.crop import Region
from imgsearch.images.decode import Pixels
from imgsearch.images.fingerprint import oriented
from imgsearch.images.overlay import Sheet, aligned, fitted, grid_of, quantile, resampled

__all__ = ["CELL", "Agreement", "CloseUp", "Compared", "agreement", "compared", "is_page"]

LEAST_EDGE = 32  # Pixels of the longer edge; smaller pictures show too little to compare.
TILE = 8  # Pixels of the compared picture.
CELL = 4  # Pixels of the squares that are told to differ.
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
MEDIUM = 128.0  # Level of a medium grey.
LEGIBLE = 0.6  # Share of a page's size; more reduced text cannot be compared.

_Bits = npt.NDArray[np.bool_]
_Floats = npt.NDArray[np.float32]
#: What differs, the edge of the tiles, and which of them differ.
_Tiles: TypeAlias = tuple[str, int, _Bits]


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

    def turned(self, orientation: int) -> CloseUp:
        """Return the picture in an orientation; see `imgsearch.images.fingerprint.oriented`."""
        if not orientation:
            return self
        pixels = oriented(self.pixels.transpose(2, 0, 1), orientation).transpose(1, 2, 0)
        alpha = None if self.alpha is None else oriented(self.alpha, orientation)
        return CloseUp(
            np.ascontiguousarray(pixels), None if alpha is None else np.ascontiguousarray(alpha)
        )


@dataclass(frozen=True, slots=True)
class Agreement:
    """The result of comparing a copy with the picture that is kept.

    Attributes:
        box: The part of the kept picture that the copy shows: left, top, right, bottom, 0 to 1.
        reason: Description of how they disagree; empty if they agree.
        gain: Contrast of the copy as a multiple of that of the kept picture.
        middle: Levels by which the copy is lighter where the kept picture is of a medium grey.
        changes_colour: Whether a coloured picture has become grey.
    """

    box: Region
    reason: str
    gain: float = 1.0
    middle: float = 0.0
    changes_colour: bool = False

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
    found = _difference(keep.sheet.image, copy.sheet.image, place)
    if found and not _alpha_agrees(keep, copy, place):
        return Agreement(place, "differ in transparency")
    return found


def _difference(keep: Image.Image, copy: Image.Image, box: Region) -> Agreement:
    """Tell how two pictures differ, or that they agree."""
    size = grid_of(keep, copy, box)
    seen = np.asarray(resampled(copy, size), np.float32)
    expected = np.asarray(resampled(keep, size, box), np.float32)
    if size[0] < LEGIBLE * (box[2] - box[0]) * keep.width and is_page(keep):
        return Agreement(box, "are too different in size to compare text")
    found = compared(expected, seen)
    return Agreement(box, found.reason, found.gain, found.middle, found.changes_colour)


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """How a picture differs from what was expected; see `Agreement`.

    `differs` tells where: bool `[rows, columns]`, a value for each square of `CELL` pixels. It is
    None if the two differ as a whole.
    """

    reason: str
    gain: float = 1.0
    middle: float = 0.0
    changes_colour: bool = False
    differs: _Bits | None = None


def compared(expected: _Floats, seen: _Floats, inside: _Bits | None = None) -> Compared:
    """Tell how a picture differs from what was expected, tile by tile.

    Args:
        expected: What was expected, float32 `[h, w, 3]`.
        seen: The picture, in the same shape.
        inside: The pixels to compare, bool `[h, w]`; None for all.
    """
    is_grey = _is_grey(_only(seen, inside))
    was_grey = is_grey and _is_grey(_only(expected, inside))
    if is_grey:
        expected = np.repeat(_luminance(expected)[..., None], 3, axis=2)
    tones = fitted(_few(expected, inside), _few(seen, inside))
    if not GAINS[0] <= tones.gain <= GAINS[1]:
        return Compared("differ in contrast")
    expected = tones.applied(expected)
    if inside is not None:
        seen = np.where(inside[..., None], seen, expected)
    light, expected_light = _luminance(seen), _luminance(expected)
    error = light - expected_light
    sharper = _laplacian(expected_light)
    error = error - _share_of(sharper, error) * sharper
    if inside is not None:
        error = np.where(inside, error, 0)
    tiles = _tiles(error, seen, expected, is_grey=is_grey)
    kept = list(tiles) if inside is not None else []
    reason = next((f"differ in {what}" for what, _, differs in kept or tiles if differs.any()), "")
    middle = tones.gain * MEDIUM + tones.offset - MEDIUM
    cells = None if inside is None else _cells(kept, light.shape)
    return Compared(reason, tones.gain, middle, is_grey and not was_grey, cells)


def _tiles(error: _Floats, seen: _Floats, expected: _Floats, *, is_grey: bool) -> Iterator[_Tiles]:
    """Yield the tiles in which two pictures differ, the likeliest difference first."""
    light, expected_light = _luminance(seen), _luminance(expected)
    yield "a detail", TILE, _in_detail(error, light, expected_light)
    yield "tone", 2 * TILE, _in_tone(error, light)
    if not is_grey:
        yield from _in_colour(seen - light[..., None], expected - expected_light[..., None])


def _cells(maps: Iterable[_Tiles], shape: tuple[int, ...]) -> _Bits:
    """Return which squares of `CELL` pixels lie in a tile that differs."""
    rows, columns = (-(-length // CELL) for length in shape)
    found: _Bits = np.zeros((rows, columns), bool)
    for _, edge, tiles in maps:
        for row, column in np.argwhere(tiles).tolist():
            down, across = (
                min(at * edge // 2, max(0, length - edge)) // CELL
                for at, length in zip((row, column), shape, strict=True)
            )
            found[down : down + edge // CELL, across : across + edge // CELL] = True
    return found


def _in_detail(error: _Floats, seen: _Floats, expected: _Floats) -> _Bits:
    energy = _means(error * error, TILE)
    variance = np.maximum(_variances(seen, TILE), _variances(expected, TILE))
    textured = energy[variance > TEXTURE]
    usual = quantile(textured, 0.95) if textured.size > 20 else 0.0
    limit = min(max(USUAL * usual, LEAST_ERROR), MOST_ERROR)
    return np.asarray((energy > limit) & (energy > SHARE * variance))


def _in_tone(error: _Floats, seen: _Floats) -> _Bits:
    """Tell which tiles are lighter or darker than they should be, textured or not."""
    shifts = np.abs(_means(error, 2 * TILE))
    limits = SHIFT + SHIFT_SHARE * np.sqrt(_variances(seen, 2 * TILE))
    return np.asarray(shifts > limits)


def _in_colour(seen: _Floats, expected: _Floats) -> Iterator[_Tiles]:
    """Compare red and blue of pixels `[height, width, 3]` without their luminance."""
    for channel in (0, 2):
        error = 0.7 * (seen[..., channel] - expected[..., channel])
        for edge, limit in ((2 * TILE, COLOUR), (TILE, FINE_COLOUR)):
            yield "colour", edge, np.abs(_means(error, edge)) > limit


def is_page(image: Image.Image) -> bool:
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
    return not (_in_detail(error, seen, seen).any() or _in_tone(error, seen).any())


def _few(pixels: _Floats, inside: _Bits | None) -> _Floats:
    """Return a sample of the pixels, with all of their channels, `[n, 3]`."""
    rows: _Floats = pixels.reshape(-1, 3)
    if inside is None:
        return rows[:: len(rows) // TONE_PIXELS + 1]
    places = np.flatnonzero(inside)
    return np.asarray(rows[places[:: len(places) // TONE_PIXELS + 1]])


def _only(pixels: _Floats, inside: _Bits | None) -> _Floats:
    """Return a picture that is grey where it is not compared."""
    if inside is None:
        return pixels
    found: _Floats = np.where(inside[..., None], pixels, np.float32(MEDIUM))
    return found


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
