"""Lay a picture over the part of another that it shows, by finding the position and the tones.

The position is searched at 64 pixels (`imgsearch.images.compare`) and then refined by the
Gauss-Newton method, for the four edges, contrast and brightness at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from imgsearch.images.compare import EDGE, LUMINANCE, Overlay, flattened
from imgsearch.images.crop import Region
from imgsearch.images.decode import Pixels

__all__ = [
    "ALIKE_IN_DETAIL",
    "TRIALS",
    "Sheet",
    "Tones",
    "Trial",
    "aligned",
    "detail_likeness",
    "fitted",
    "fitting",
    "grid_of",
    "quantile",
    "resampled",
]

COARSE, FINER = (64, 6), ((160, 4), (400, 3))  # Pixels of the longer edge, and steps.
REDUCED = 320  # Minimum longer edge of a reduced picture, for all but the finest level.
STARTS = 3  # Starting positions.
FITS, MAY_FIT = 0.9, 0.6  # Explained share of variance: a match; a match except for details.
PROMISING, TRIED = 0.8, 3  # Share at the coarsest level, where details hardly count; steps.
LEAST_EDGE = 0.5  # Share of an edge that a part shows.
ROUGH, ROUGH_STEPS, ROUGHLY = 24, 4, 0.85  # Pixels of an edge, steps, and share of a first fit.
ALIKE_IN_DETAIL = 0.55  # Correlation of the details of pictures that were fitted so.
LEAST_DETAIL = 0.5  # Squared levels; with less, there is no detail to compare.
TRIALS = 64  # Pairs that are fitted at once, whose pixels fit into a core's cache.
LEAST_STEP = 0.02  # Pixels.
MOST_STEP = 0.03  # Share of an edge that it moves at once.
LEAST_GAIN, LEAST_OFFSET = 1e-4, 0.01  # Smallest changes of tones while fitting.
FEW, SOME = 3_000, 20_000  # Pixels to which tones and edges are fitted.
CUT_OFF = (2.0, 253.0)  # Levels beyond which tones were clipped.

_Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Tones:
    """The mapping from the light of one picture to that of another."""

    gain: float
    offset: float

    def applied(self, values: _Floats) -> _Floats:
        """Return the mapped values, 0 to 255."""
        found: _Floats = np.clip(self.gain * values + self.offset, 0, 255)
        return found


class Sheet:
    """A picture to lay over others, with cached forms of it that this requires."""

    def __init__(self, pixels: Pixels) -> None:
        """Wrap a picture, uint8 `[height, width, 3]`."""
        self._pixels = pixels

    @cached_property
    def image(self) -> Image.Image:
        """The picture itself."""
        return Image.fromarray(self._pixels)

    @cached_property
    def grey(self) -> Image.Image:
        """The luminance of the picture."""
        return self.image.convert("L")

    @cached_property
    def reduced(self) -> Image.Image:
        """The luminance, at a smaller scale if the picture is large."""
        return self.grey.reduce(max(1, max(self.grey.size) // REDUCED))

    @cached_property
    def overlay(self) -> Overlay:
        """The parts of the picture for the first comparison."""
        return Overlay(self._squashed())

    @cached_property
    def flattened(self) -> _Floats:
        """The whole picture in the form for comparing it with parts of others."""
        return flattened(self._squashed())

    def _squashed(self) -> Pixels:
        return np.asarray(self.image.resize((EDGE, EDGE), Image.Resampling.BILINEAR))


def aligned(keep: Sheet, copy: Sheet) -> Region | None:
    """Return the position of the copy in the kept picture; None if it fits nowhere."""
    places = keep.overlay.places(copy.flattened, STARTS)
    best, fits = places[0], 0.0
    for place in places:
        box, fit = _refined(keep.reduced, copy.reduced, place, *COARSE, PROMISING)
        if fit > fits:
            best, fits = box, fit
        if fit > FITS:
            break
    if fits < PROMISING:
        return None
    for longest, steps in FINER:
        if fits <= MAY_FIT or longest >= 2 * max(grid_of(keep.grey, copy.grey, best)):
            break
        small = 2 * longest <= REDUCED
        one, other = (keep.reduced, copy.reduced) if small else (keep.grey, copy.grey)
        best, fits = _refined(one, other, best, longest, steps)
    return best if fits > MAY_FIT else None


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """Two small pictures, uint8 `[EDGE, EDGE]`, and the part of `keep` that `copy` may show."""

    keep: npt.NDArray[np.uint8]
    copy: npt.NDArray[np.uint8]
    place: Region


def fitting(trials: Sequence[Trial], least_edge: float = LEAST_EDGE) -> list[Region | None]:
    """Return the part of `keep` that `copy` may show, for each of some pairs, or None.

    What `aligned` accepts starts from such a place. All pairs are compared at half their size,
    together, and tones are fitted by least squares, which explains at least as much as other fits.
    Other pictures of the same sort may explain most of the variance, which is in the large shapes;
    but their details differ.

    Args:
        trials: The pairs, each with the place to start from.
        least_edge: Share of its edges that the part shows at least.
    """
    found: list[Region | None] = []
    for start in range(0, len(trials), TRIALS):
        fits, boxes = _rough_fits(trials[start : start + TRIALS], least_edge)
        found += [
            (left, top, right, bottom) if is_fit else None
            for is_fit, (left, top, right, bottom) in zip(fits, boxes.tolist(), strict=True)
        ]
    return found


def _rough_fits(
    trials: Sequence[Trial], least_edge: float
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Tell which copies are explained by a part of the other picture, in their details as well.

    The second result is the parts, float64 `[n, 4]`.
    """
    count, fits = len(trials), np.zeros(len(trials), np.float32)
    keeps = np.stack([trial.keep for trial in trials]).astype(np.float32)
    copies = np.stack([trial.copy for trial in trials]).astype(np.float32)
    boxes = np.array([trial.place for trial in trials], np.float64)
    best = boxes
    whole = _triangles(np.array([[0.0, 1.0]]))
    picture = np.asarray(whole @ copies @ whole.transpose(0, 2, 1), np.float32)
    seen = picture.reshape(count, -1)
    seen = seen - seen.mean(axis=1, keepdims=True)
    contrast = (seen * seen).mean(axis=1)
    spread = np.maximum(contrast, 1.0)
    x = ((np.arange(ROUGH) + 0.5) / ROUGH).astype(np.float32)
    y = x[:, None]
    moves = np.empty((count, 6, ROUGH, ROUGH), np.float32)
    moves[:, 5] = 1
    for number in range(ROUGH_STEPS):
        part = _parts_of(keeps, boxes)
        part -= part.mean(axis=(1, 2), keepdims=True)
        flat = part.reshape(count, -1)
        variance = (flat * flat).mean(axis=1)
        gain = (flat * seen).mean(axis=1) / np.maximum(variance, 1e-3)
        error = seen - gain[:, None] * flat
        is_large = (boxes[:, 2:] - boxes[:, :2]).min(axis=1) >= least_edge
        fit = np.where(is_large, 1 - (error * error).mean(axis=1) / spread, 0)
        best = np.where((fit > fits)[:, None], boxes, best)
        fits = np.maximum(fits, fit)
        if number + 1 == ROUGH_STEPS:
            break
        sizes = (boxes[:, 2:] - boxes[:, :2]).astype(np.float32)
        slopes = gain[:, None, None] * np.array(np.gradient(part, axis=(2, 1)))
        slopes *= ROUGH / sizes.T[:, :, None, None]
        moves[:, 0], moves[:, 1] = slopes[0] * (1 - x), slopes[1] * (1 - y)
        moves[:, 2], moves[:, 3] = slopes[0] * x, slopes[1] * y
        moves[:, 4] = part
        rows = moves.reshape(count, 6, -1)
        matrices = (rows @ rows.transpose(0, 2, 1)).astype(np.float64)
        matrices[:, range(6), range(6)] = matrices[:, range(6), range(6)] * 1.0001 + 1e-3
        steps = np.linalg.solve(matrices, (rows @ error[..., None]).astype(np.float64))[:, :4, 0]
        boxes = np.clip(boxes + np.clip(steps, -MOST_STEP, MOST_STEP), 0, 1)
    found: npt.NDArray[np.bool_] = (fits >= ROUGHLY) & (contrast > 1)
    fit_well = np.flatnonzero(found)
    laid = _parts_of(keeps[fit_well], best[fit_well])
    found[fit_well] = detail_likeness(picture[fit_well], laid) >= ALIKE_IN_DETAIL
    return found, best


def detail_likeness(
    ones: _Floats, others: _Floats, inside: npt.NDArray[np.bool_] | None = None
) -> _Floats:
    """Return the correlation of the details of small pictures that lie over one another: `[n]`.

    It is 1 where one of them has no details.

    Args:
        ones: Pictures, float32 `[n, h, w]`.
        others: Those that they are compared with, in the same shape.
        inside: The pixels to compare, bool `[h - 2, w - 2]`, without the borders; None for all.
    """
    height, width = ones.shape[1:]
    shown = np.ones((height - 2, width - 2), bool) if inside is None else inside
    one, other = (_details(each)[:, shown] for each in (ones, others))
    energy = (one * one).mean(axis=1), (other * other).mean(axis=1)
    alike = (one * other).mean(axis=1) / np.sqrt(np.maximum(energy[0] * energy[1], 1e-6))
    return np.where(np.minimum(*energy) < LEAST_DETAIL, np.float32(1), alike)


def _details(pictures: _Floats) -> _Floats:
    """Return what a blur of 3 x 3 pixels takes from pictures, `[n, h - 2, w - 2]`."""
    down = pictures[:, :-2] + pictures[:, 1:-1] + pictures[:, 2:]
    blurred = down[..., :-2] + down[..., 1:-1] + down[..., 2:]
    found: _Floats = pictures[:, 1:-1, 1:-1] - blurred / 9
    return found


def _parts_of(pictures: _Floats, boxes: npt.NDArray[np.float64]) -> _Floats:
    """Return a part of each picture, `[n, EDGE, EDGE]`, at `ROUGH` pixels of an edge."""
    across, down = _triangles(boxes[:, ::2]), _triangles(boxes[:, 1::2])
    return np.asarray(down @ pictures @ across.transpose(0, 2, 1), np.float32)


def _triangles(windows: npt.NDArray[np.float64]) -> _Floats:
    """Return the weights `[n, ROUGH, EDGE]` that reduce windows `[n, 2]` of an edge, 0 to 1."""
    starts, sizes = EDGE * windows[:, :1], EDGE * (windows[:, 1:] - windows[:, :1])
    centres = starts + sizes * ((np.arange(ROUGH) + 0.5) / ROUGH)
    reach = np.maximum(sizes / ROUGH, 1.0)[..., None]
    pixels = np.arange(EDGE) + 0.5
    weights = np.maximum(1 - np.abs(pixels - centres[..., None]) / reach, 0)
    return np.asarray(weights / np.maximum(weights.sum(axis=2, keepdims=True), 1e-6), np.float32)


def grid_of(keep: Image.Image, copy: Image.Image, box: Region) -> tuple[int, int]:
    """Return the size for comparing two pictures: that of the copy, or one that both have."""
    across = (box[2] - box[0]) * keep.width / copy.width
    down = (box[3] - box[1]) * keep.height / copy.height
    scale = min(1.0, across, down)
    return max(8, round(copy.width * scale)), max(8, round(copy.height * scale))


def resampled(image: Image.Image, size: tuple[int, int], box: Region | None = None) -> Image.Image:
    """Return part of an image at a size, with the same filter for reducing and enlarging."""
    if box is None:
        same = image.size == size
        return image if same else image.resize(size, Image.Resampling.BILINEAR)
    left, top, right, bottom = box
    width, height = image.size
    place = left * width, top * height, min(right * width, width), min(bottom * height, height)
    return image.resize(size, Image.Resampling.BILINEAR, box=place)


def fitted(expected: _Floats, seen: _Floats) -> Tones:
    """Return the contrast and brightness that most pixels have in common.

    A clipped value in the seen picture only shows that the true value lies beyond the limit.

    Args:
        expected: Values of the expected picture, `[n]` of light, or `[n, 3]` of colour.
        seen: Values of the seen picture, in the same shape.
    """
    before, most = _light(expected)
    after, most_seen = _light(seen)
    low, high = CUT_OFF
    in_range = (after > low) & (most_seen < high)
    if np.count_nonzero(in_range) < 50:
        in_range = np.ones_like(in_range)
    weights = in_range.astype(np.float32)
    gain, offset = 1.0, 0.0
    for _ in range(6):
        total = float(weights.sum())
        centre = float(weights @ before) / total
        mean = float(weights @ after) / total
        off_centre = before - centre
        weighted = weights * off_centre
        spread, product = float(weighted @ off_centre), float(weighted @ (after - mean))
        last = gain, offset
        gain = product / spread if spread > 4 * total else 1.0  # A single tone tells nothing.
        offset = mean - gain * centre
        if abs(gain - last[0]) < LEAST_GAIN and abs(offset - last[1]) < LEAST_OFFSET:
            break
        found = gain * before + offset
        usable = in_range | ((found > low) & (gain * most + offset < high))
        errors = np.abs(after - found)
        usual = 1.5 * quantile(errors[usable], 0.5) + 1
        weights = (usable / (1 + (errors / usual) ** 2)).astype(np.float32)
    return Tones(gain, offset)


def _light(values: _Floats) -> tuple[_Floats, _Floats]:
    """Return the luminance of pixels, and their highest channel, which is clipped first."""
    if values.ndim == 1:
        return values, values
    return values @ LUMINANCE, values.max(axis=1)


def quantile(values: npt.NDArray[Any], share: float) -> float:
    """Return a quantile of values as an order statistic, without interpolation."""
    at = int(share * (values.size - 1))
    return float(np.partition(values, at, axis=None)[at])


def _refined(
    keep: Image.Image,
    copy: Image.Image,
    place: Region,
    longest: int,
    steps: int,
    least: float = 0.0,
    least_edge: float = LEAST_EDGE,
) -> tuple[Region, float]:
    """Move the edges of a place until the copy fits best; return the place and the fit.

    The fit is the share of the copy's variance that the kept picture explains. The search stops
    early if the fit is less than `least` after a few steps.
    """
    box, fit = np.array(place), 0.0
    scale = min(1.0, longest / max(copy.size))
    size = max(8, round(copy.width * scale)), max(8, round(copy.height * scale))
    seen = np.asarray(resampled(copy, size), np.float32)
    for number in range(steps):
        step, fit = _step(keep, seen, box)
        box = np.clip(box + np.clip(step, -MOST_STEP, MOST_STEP), 0, 1)
        if min(box[2] - box[0], box[3] - box[1]) < least_edge:
            return place, 0.0
        if np.abs(step).max() * max(size) < LEAST_STEP or (number + 1 >= TRIED and fit < least):
            break
    left, top, right, bottom = box.tolist()
    return (left, top, right, bottom), fit


def _step(keep: Image.Image, seen: _Floats, box: npt.NDArray[np.float64]) -> tuple[_Floats, float]:
    """Return the distance to move each edge of the box, and the fit of the copy before that."""
    height, width = seen.shape
    left, top, right, bottom = box.tolist()
    part = np.asarray(resampled(keep, (width, height), (left, top, right, bottom)), np.float32)
    every = seen.size // FEW + 1
    found = fitted(part.ravel()[::every], seen.ravel()[::every])
    tones = found if 0.4 < found.gain < 2.5 else Tones(1.0, 0.0)  # An implausible fit says little.
    error = seen - tones.applied(part)
    some = np.arange(0, seen.size, (seen.size // SOME) | 1)  # odd, so that no columns are left out
    down, across = (slope.ravel()[some] for slope in np.gradient(tones.gain * part))
    across *= width / (right - left)
    down *= height / (bottom - top)
    x = ((some % width + 0.5) / width).astype(np.float32)
    y = ((some // width + 0.5) / height).astype(np.float32)
    errors, values, before = (each.ravel()[some] for each in (error, seen, part))
    # Most of a page is blank and fits anywhere, so only large errors are left out.
    usual = 2 * quantile(np.abs(errors), 0.95) + 5
    weights = 1 / (1 + (errors / usual) ** 2)
    weights[(values <= CUT_OFF[0]) | (values >= CUT_OFF[1])] *= 0.3
    edges = across * (1 - x), down * (1 - y), across * x, down * y
    moves = np.stack([*edges, before - before.mean(), np.ones_like(before)])
    weighted = moves * weights
    matrix = weighted @ moves.T
    matrix[np.diag_indices(6)] *= 1.0001
    matrix[np.diag_indices(6)] += 1e-3
    step: _Floats = np.linalg.solve(matrix, weighted @ errors)[:4]
    fit = 1 - float(error.var()) / max(float(seen.var()), 1.0)
    return step, fit
