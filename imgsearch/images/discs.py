"""Lay discs of small pictures over one another at another angle.

Rings of many pictures are alike (`imgsearch.images.resemblance`). Here, the pixels of a disc are
fitted to those of the other picture by the Gauss-Newton method, for the six numbers of an affine
map, contrast and brightness, with many pairs at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from imgsearch.images.fingerprint import EDGE
from imgsearch.images.overlay import ALIKE_IN_DETAIL, detail_likeness
from imgsearch.images.resemblance import Small, Turn

__all__ = ["Turned", "turned_fitting"]

SIDE, STEPS, AT_ONCE = 24, 4, 64  # Pixels of the diameter, steps, and pairs fitted at once.
FITS = 0.8  # Share of the variance that the other picture explains at least.
MOST_STEP = 0.08  # Share of the radius by which the disc moves at once.
MOST_STRETCH = 1.15  # Ratio of the scales in the directions of most and of least scale.
MOST_SHIFT = 0.12  # Share of the radius that the centre may be off.

_Bits = npt.NDArray[np.bool_]
_Doubles = npt.NDArray[np.float64]
_Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Turned:
    """Two pictures, and how the disc around the centre of `copy` may lie in `keep`."""

    keep: Small
    copy: Small
    turn: Turn


def turned_fitting(trials: Sequence[Turned]) -> list[_Doubles | None]:
    """Return how the disc of one picture lies in the other, for each pair; None if it does not.

    It is given by the map from fractions of the width and height of `copy` to those of `keep`,
    float64 `[2, 3]`.
    """
    found: list[_Doubles | None] = []
    for start in range(0, len(trials), AT_ONCE):
        fits, maps = _fits(trials[start : start + AT_ONCE])
        found += [each if is_fit else None for is_fit, each in zip(fits, maps, strict=True)]
    return found


def _fits(trials: Sequence[Turned]) -> tuple[_Bits, _Doubles]:
    """Tell which discs fit, and return the maps of fractions, `[n, 2, 3]`."""
    x, y, inside, inner = _disc()
    count = len(trials)
    keeps = np.stack([trial.keep.light for trial in trials]).astype(np.float32)
    copies = np.stack([trial.copy.light for trial in trials]).astype(np.float32)
    reach = np.stack([trial.keep.reach for trial in trials])
    own = np.stack([trial.copy.reach for trial in trials])
    picture = _sampled(copies, own[:, :1] * x, own[:, 1:] * y)
    seen = _centred(picture, inside)
    spread = np.maximum((seen * seen).mean(axis=1), 1.0)
    maps = np.stack([trial.turn.matrix for trial in trials])
    best, fits, parts = maps, np.zeros(count), picture
    for number in range(STEPS):
        across, down = (maps[:, row] @ np.stack([x, y, np.ones_like(x)]) for row in (0, 1))
        part = _sampled(keeps, reach[:, :1] * across, reach[:, 1:] * down)
        flat = _centred(part, inside)
        gain = (flat * seen).mean(axis=1) / np.maximum((flat * flat).mean(axis=1), 1e-3)
        error = seen - gain[:, None] * flat
        fit = 1 - (error * error).mean(axis=1) / spread
        better = (fit > fits)[:, None]
        fits = np.maximum(fits, fit)
        parts, best = np.where(better, part, parts), np.where(better[..., None], maps, best)
        if number + 1 == STEPS:
            break
        slopes = np.gradient(part.reshape(count, SIDE, SIDE), 2 / SIDE, axis=(2, 1))
        over, under = (gain[:, None] * each.reshape(count, -1) * inside for each in slopes)
        moves = [over * x, over * y, over, under * x, under * y, under]
        rows = np.stack([*moves, flat, np.broadcast_to(inside, flat.shape)], axis=1)
        rows = rows.astype(np.float32)
        matrices = (rows @ rows.transpose(0, 2, 1)).astype(np.float64)
        matrices[:, range(8), range(8)] = matrices[:, range(8), range(8)] * 1.0001 + 1e-3
        steps = np.linalg.solve(matrices, (rows @ error[..., None]).astype(np.float64))[:, :6, 0]
        change = np.clip(steps, -MOST_STEP, MOST_STEP).reshape(count, 2, 3)
        maps = maps + maps[:, :, :2] @ change
    sides = (count, SIDE, SIDE)
    alike = detail_likeness(picture.reshape(sides), parts.reshape(sides), inner) >= ALIKE_IN_DETAIL
    there = np.asarray((fits >= FITS) & alike & _is_plausible(best))
    # From fractions to places in the disc, through the map, and back to fractions.
    linear = best[:, :, :2] * reach[:, :, None] / own[:, None, :]
    shift = 0.5 + best[:, :, 2] * reach / EDGE - linear.sum(axis=2) / 2
    return there, np.concatenate([linear, shift[..., None]], axis=2)


def _is_plausible(maps: _Doubles) -> _Bits:
    """Tell which maps turn and scale a disc, and neither stretch nor move it much."""
    scales = np.linalg.svd(maps[:, :, :2], compute_uv=False)
    is_even = scales[:, 0] <= MOST_STRETCH * scales[:, 1]
    return np.asarray(is_even & (np.abs(maps[:, :, 2]).max(axis=1) <= MOST_SHIFT))


def _sampled(pictures: _Floats, x: _Doubles, y: _Doubles) -> _Floats:
    """Return pixels `[n, m]` of pictures `[n, EDGE, EDGE]`, by their distances from the centre."""
    x, y = (np.clip(each + EDGE / 2 - 0.5, 0, EDGE - 1.001) for each in (x, y))
    left, top = x.astype(np.int64), y.astype(np.int64)
    right, below = (x - left).astype(np.float32), (y - top).astype(np.float32)
    values = pictures.reshape(-1)
    at = top * EDGE + left + EDGE * EDGE * np.arange(len(pictures))[:, None]
    first = values[at] * (1 - right) + values[at + 1] * right
    second = values[at + EDGE] * (1 - right) + values[at + EDGE + 1] * right
    found: _Floats = first * (1 - below) + second * below
    return found


def _centred(values: _Floats, inside: _Floats) -> _Floats:
    """Return pixels `[n, m]` without their mean; those outside of the disc are 0."""
    means = (values @ inside / inside.sum())[:, None]
    found: _Floats = (values - means) * inside
    return found


@cache
def _disc() -> tuple[_Doubles, _Doubles, _Floats, _Bits]:
    """Return where pixels are in a square around a disc of radius 1, and which lie inside.

    The last is bool `[SIDE - 2, SIDE - 2]`: those whose eight neighbours lie inside, too.
    """
    places = (np.arange(SIDE) + 0.5) / SIDE * 2 - 1
    x, y = np.meshgrid(places, places)
    inside = x * x + y * y <= 1
    inner = np.all(
        [
            inside[down : SIDE - 2 + down, across : SIDE - 2 + across]
            for down in range(3)
            for across in range(3)
        ],
        axis=0,
    )
    return x.ravel(), y.ravel(), inside.ravel().astype(np.float32), inner
