"""Lay a picture over the part of another that it shows: where that is, and in what tones.

The place is looked for at 64 pixels (`imgsearch.images.compare`) and then made finer by
Gauss and Newton's method: the four edges, contrast and brightness at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from imgsearch.images.compare import EDGE, Overlay, flattened

__all__ = ["Box", "Tones", "aligned", "fitted", "grid_of", "resampled"]

LEVELS = ((64, 6), (160, 4), (400, 3))  # pixels of the longer edge, and steps
STARTS = 3  # places to begin at
FITS, MAY_FIT = 0.9, 0.6  # share of the copy's variance: it is there; it may be, but for details
LEAST_STEP = 0.02  # pixels
SAMPLE, FEW = 20_000, 3_000  # pixels from which tones are fitted, at the end and before
CUT_OFF = (2.0, 253.0)  # levels beyond which tones were clipped

Box: TypeAlias = tuple[float, float, float, float]  # left, top, right, bottom, 0 to 1
_Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Tones:
    """How light in one picture became light in another."""

    gain: float
    offset: float

    def applied(self, values: _Floats) -> _Floats:
        """Return what becomes of values, 0 to 255."""
        found: _Floats = np.clip(self.gain * values + self.offset, 0, 255)
        return found


def aligned(keep: Image.Image, copy: Image.Image) -> Box | None:
    """Return where in the kept picture the copy lies; None if it fits nowhere."""
    squashed = [
        np.asarray(image.resize((EDGE, EDGE), Image.Resampling.BILINEAR)) for image in (keep, copy)
    ]
    places = Overlay(squashed[0]).places(flattened(squashed[1]), STARTS)
    grey = keep.convert("L"), copy.convert("L")
    best, fits = places[0], 0.0
    for place in places:
        box, fit = _refined(*grey, place, LEVELS[:1])
        if fit > fits:
            best, fits = box, fit
        if fit > FITS:
            break
    if fits > MAY_FIT:
        best, fits = _refined(*grey, best, LEVELS[1:])
    return best if fits > MAY_FIT else None


def grid_of(keep: Image.Image, copy: Image.Image, box: Box) -> tuple[int, int]:
    """Return the size at which two pictures are compared: that of the copy, or what both have."""
    across = (box[2] - box[0]) * keep.width / copy.width
    down = (box[3] - box[1]) * keep.height / copy.height
    scale = min(1.0, across, down)
    return max(8, round(copy.width * scale)), max(8, round(copy.height * scale))


def resampled(image: Image.Image, size: tuple[int, int], box: Box | None = None) -> Image.Image:
    """Return part of an image at a size, by one filter whether it becomes smaller or larger."""
    if box is None:
        same = image.size == size
        return image if same else image.resize(size, Image.Resampling.BILINEAR)
    left, top, right, bottom = box
    width, height = image.size
    place = left * width, top * height, min(right * width, width), min(bottom * height, height)
    return image.resize(size, Image.Resampling.BILINEAR, box=place)


def fitted(expected: _Floats, seen: _Floats, sample: int = SAMPLE) -> Tones:
    """Return the contrast and brightness that most pixels have in common.

    What was clipped in the picture that is seen tells only that it would have been beyond.
    """
    every = expected.size // sample + 1
    before, after = expected.ravel()[::every], seen.ravel()[::every]
    low, high = CUT_OFF
    in_range = (after > low) & (after < high)
    if np.count_nonzero(in_range) < 50:
        in_range = np.ones_like(in_range)
    weights = in_range.astype(np.float32)
    gain, offset = 1.0, 0.0
    for _ in range(6):
        total = float(weights.sum())
        centre = float(weights @ before) / total
        mean = float(weights @ after) / total
        spread = float(weights @ (before - centre) ** 2)
        product = float(weights @ ((before - centre) * (after - mean)))
        gain = product / spread if spread > 4 * total else 1.0  # of one tone nothing is learnt
        offset = mean - gain * centre
        found = gain * before + offset
        usable = in_range | ((found > low) & (found < high))
        errors = np.abs(after - found)
        usual = 1.5 * float(np.median(errors[usable])) + 1
        weights = np.where(usable, 1 / (1 + (errors / usual) ** 2), 0).astype(np.float32)
    return Tones(gain, offset)


def _refined(
    keep: Image.Image, copy: Image.Image, place: Box, levels: Sequence[tuple[int, int]]
) -> tuple[Box, float]:
    """Return a place after its edges were moved to where the copy fits best, and how well it does.

    That is the share of the copy's variance that the kept picture explains.
    """
    box, fit = np.array(place), 0.0
    for longest, steps in levels:
        if longest > levels[0][0] and longest >= 2 * max(grid_of(keep, copy, place)):
            break
        scale = min(1.0, longest / max(copy.size))
        size = max(8, round(copy.width * scale)), max(8, round(copy.height * scale))
        seen = np.asarray(resampled(copy, size), np.float32)
        for _ in range(steps):
            step, fit = _step(keep, seen, box)
            box = np.clip(box + np.clip(step, -0.03, 0.03), 0, 1)
            if min(box[2] - box[0], box[3] - box[1]) < 0.5:
                return place, 0.0
            if np.abs(step).max() * max(size) < LEAST_STEP:
                break
        if fit < MAY_FIT:
            break
    left, top, right, bottom = box.tolist()
    return (left, top, right, bottom), fit


def _step(keep: Image.Image, seen: _Floats, box: npt.NDArray[np.float64]) -> tuple[_Floats, float]:
    """Return by how much each edge of the box should move, and how well the copy fits before."""
    height, width = seen.shape
    left, top, right, bottom = box.tolist()
    part = np.asarray(resampled(keep, (width, height), (left, top, right, bottom)), np.float32)
    found = fitted(part, seen, FEW)
    tones = found if 0.4 < found.gain < 2.5 else Tones(1.0, 0.0)  # while it is off, it says little
    error = seen - tones.applied(part)
    down, across = np.gradient(tones.gain * part)
    across *= width / (right - left)
    down *= height / (bottom - top)
    x = ((np.arange(width) + 0.5) / width).astype(np.float32)[None]
    y = ((np.arange(height) + 0.5) / height).astype(np.float32)[:, None]
    # Most of a page is blank and fits anywhere: only what is far off is left out.
    usual = 2 * float(np.quantile(np.abs(error), 0.95)) + 5
    weights = 1 / (1 + (error / usual) ** 2)
    weights[(seen <= CUT_OFF[0]) | (seen >= CUT_OFF[1])] *= 0.3
    moves = np.stack(
        [across * (1 - x), down * (1 - y), across * x, down * y, part - part.mean(), 1 + 0 * part]
    ).reshape(6, -1)
    weighted = moves * weights.ravel()
    matrix = weighted @ moves.T
    matrix[np.diag_indices(6)] *= 1.0001
    matrix[np.diag_indices(6)] += 1e-3
    step: _Floats = np.linalg.solve(matrix, weighted @ error.ravel())[:4]
    fit = 1 - float(error.var()) / max(float(seen.var()), 1.0)
    return step, fit
