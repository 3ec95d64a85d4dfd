"""Measure how alike two small pictures are when a part of one is laid over the other.

This is quick, and finds the pairs that are worth a close look (`imgsearch.images.agreement`):
different invoices on the same form are as alike here as copies are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from imgsearch.images.crop import Region
from imgsearch.images.decode import Pixels
from imgsearch.images.fingerprint import EDGE, ORIENTATIONS, inverse, oriented

__all__ = [
    "ALIKE",
    "EDGE",
    "LUMINANCE",
    "NEAR",
    "Orientations",
    "Overlay",
    "all_flattened",
    "flattened",
    "oriented_likeness",
    "sampler",
]

ALIKE = 0.8  # Correlation from which two pictures are worth a close look.
_SMALL = 32  # Edge in pixels of the compared parts.
NEAR = 0.6  # Correlation from which a finer overlay is worth a try.
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
_STEP = EDGE / 64  # Pixels by which a finer overlay moves each edge.

_AT_ONCE = 8  # Parts multiplied together: see `_sampled`.
_LEAST_WHOLE = 0.3  # Correlation of whole pictures from which parts are worth comparing.
_LEAST_TURNED = 0.45  # The same in any other orientation than the stored one.
_PREFERRED = 0.02  # Correlation by which another orientation has to be better than the stored one.
_CLEARLY, _SHARE = 0.003, 0.5  # The same if it also gains this share of what is missing to 1.

_Floats = npt.NDArray[np.float32]
_Window = tuple[float, float]  # Start and end.


def sampler(window: _Window, count: int = _SMALL) -> _Floats:
    """Return the weights `[count, EDGE]` that average the pixels of a window (box filter)."""
    edges = np.linspace(*window, count + 1)[:, None]
    pixels = np.arange(EDGE)
    weights = np.clip(edges[1:], pixels, pixels + 1) - np.clip(edges[:-1], pixels, pixels + 1)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


def _windows() -> list[_Window]:
    """Return windows of 100, 95, 90 and 86 % of an edge, at evenly spaced positions."""
    whole = [(0.0, float(EDGE))]
    for share, places in ((0.95, 3), (0.905, 4), (0.86, 4)):
        size = share * EDGE
        starts = np.linspace(0, EDGE - size, places)
        whole += [(start, start + size) for start in starts.tolist()]
    return whole


_WINDOWS = _windows()
_SIZES = np.array([end - start for start, end in _WINDOWS])
_SAMPLERS = np.stack([sampler(window) for window in _WINDOWS])
# A crop takes about as much of the height as of the width.
_DOWN, _ACROSS = np.nonzero(np.abs(_SIZES[:, None] - _SIZES) <= 0.05 * EDGE)


def flattened(pixels: Pixels) -> _Floats:
    """Return a whole picture for comparison: float32 `[32 * 32]`.

    The picture is uint8 `[EDGE, EDGE, 3]`, or its luminance, `[EDGE, EDGE]`. The result is its
    luminance, centred and normalised to length 1: brightness, contrast and colour do not count.
    """
    vector: _Floats = _sampled(pixels, _SAMPLERS[:1], _SAMPLERS[:1])[0]
    return vector


def all_flattened(lights: npt.NDArray[np.uint8]) -> _Floats:
    """Return many pictures as from `flattened`: luminance, uint8 `[n, EDGE, EDGE]`."""
    cells: _Floats = _SAMPLERS[0] @ lights.astype(np.float32) @ _SAMPLERS[0].T
    return _normalised(cells.reshape(len(lights), -1))


def _reoriented(flat: _Floats, orientation: int) -> _Floats:
    """Return pictures as from `flattened`, `[n, 32 * 32]`, in an orientation; see `oriented`."""
    turned = oriented(flat.reshape(-1, _SMALL, _SMALL), orientation)
    return np.ascontiguousarray(turned.reshape(len(flat), -1))


class Overlay:
    """A picture whose parts can be laid over whole other pictures."""

    def __init__(self, pixels: Pixels) -> None:
        """Prepare a picture, uint8 `[EDGE, EDGE, 3]`, or its luminance, `[EDGE, EDGE]`."""
        self._pixels = pixels
        self._parts = _sampled(pixels, _SAMPLERS[_DOWN], _SAMPLERS[_ACROSS])

    def likeness(self, others: _Floats) -> _Floats:
        """Return the highest correlation of any part with each other picture, -1 to 1, `[n]`.

        Args:
            others: Pictures as returned by `flattened`, float32 `[n, 32 * 32]`.
        """
        found = self._products(others)
        best = found.argmax(axis=0)
        coarse: _Floats = found.max(axis=0)
        unsettled = (coarse >= NEAR) & (coarse < ALIKE)
        for part in np.unique(best[unsettled]).tolist():
            numbers = np.flatnonzero(unsettled & (best == part))
            down, across = _WINDOWS[_DOWN[part]], _WINDOWS[_ACROSS[part]]
            moved_down, moved_across = _around(down), _around(across)
            every = len(moved_down)
            finer = _sampled(
                self._pixels,
                np.repeat(moved_down, every, axis=0),
                np.tile(moved_across, (every, 1, 1)),
            )
            found = (finer @ others[numbers].T).max(axis=0)
            coarse[numbers] = np.maximum(coarse[numbers], found)
        return coarse

    def coarse(self, others: _Floats) -> tuple[npt.NDArray[np.int64], _Floats]:
        """Return the number of the part most similar to each other picture, and its correlation.

        This is quicker than `likeness`, which looks for a better part around that one.
        """
        found = self._products(others)
        return found.argmax(axis=0), found.max(axis=0)

    def _products(self, others: _Floats) -> _Floats:
        """Return the correlation of each part with each other picture."""
        rows = [
            self._parts[at : at + _AT_ONCE] @ others.T
            for at in range(0, len(self._parts), _AT_ONCE)
        ]
        return np.concatenate(rows)

    def places(self, other: _Floats, count: int) -> list[tuple[float, float, float, float]]:
        """Return the parts that are most similar to another picture, the best first.

        Each part is given as left, top, right and bottom, from 0 to 1.
        """
        order = np.argsort(-(self._parts @ other))[:count].tolist()
        return [_place(number) for number in order]


@dataclass(frozen=True, slots=True, eq=False)
class Orientations:
    """How pictures suit one best.

    Attributes:
        ways: Their orientations, int64 `[n]`.
        likeness: How alike they are then, float32 `[n]`. If it is from `NEAR` to `ALIKE`, a finer
            overlay may be more alike.
        parts: Numbers of the parts of the one picture that they resemble, int64 `[n]`.
    """

    ways: npt.NDArray[np.int64]
    likeness: _Floats
    parts: npt.NDArray[np.int64]

    def place(self, number: int) -> Region:
        """Return the part of the one picture that another resembles."""
        return _place(int(self.parts[number]))


def oriented_likeness(light: npt.NDArray[np.uint8], own: _Floats, others: _Floats) -> Orientations:
    """Return the orientations in which other pictures suit one best, and how alike they are then.

    Args:
        light: Luminance of a picture, uint8 `[EDGE, EDGE]`.
        own: The same picture as from `all_flattened`, float32 `[32 * 32]`.
        others: The other pictures as from `all_flattened`, float32 `[n, 32 * 32]`.
    """
    turned = np.concatenate([_reoriented(own[None], inverse(way)) for way in range(ORIENTATIONS)])
    wholes = turned @ others.T
    found = Orientations(
        np.zeros(len(others), np.int64), wholes[0].copy(), np.zeros(len(others), np.int64)
    )
    best = wholes.argmax(axis=0)
    promising = (best > 0) & (wholes.max(axis=0) >= _LEAST_TURNED)
    unsettled = found.likeness >= _LEAST_WHOLE
    if not (unsettled.any() or promising.any()):
        return found
    overlay = Overlay(light)
    if unsettled.any():
        found.parts[unsettled], found.likeness[unsettled] = overlay.coarse(others[unsettled])
    for way in np.unique(best[promising]).tolist():
        some = np.flatnonzero(promising & (best == way))
        parts, likeness = overlay.coarse(_reoriented(others[some], way))
        gain, missing = likeness - found.likeness[some], 1 - found.likeness[some]
        # Many pages and objects nearly look like their mirror images.
        better = (gain > _PREFERRED) | ((gain > _CLEARLY) & (gain > _SHARE * missing))
        found.ways[some[better]] = way
        found.likeness[some[better]] = likeness[better]
        found.parts[some[better]] = parts[better]
    return found


def _place(part: int) -> Region:
    (left, right), (top, bottom) = _WINDOWS[_ACROSS[part]], _WINDOWS[_DOWN[part]]
    return left / EDGE, top / EDGE, right / EDGE, bottom / EDGE


@cache
def _around(window: _Window) -> _Floats:
    """Return the samplers of the windows around one, `[9, _SMALL, EDGE]`."""
    moves = (-_STEP, 0.0, _STEP)
    start, end = window
    return np.stack(
        [
            sampler((max(0.0, start + before), min(float(EDGE), end + after)))
            for before, after in product(moves, moves)
        ]
    )


def _sampled(pixels: Pixels, down: _Floats, across: _Floats) -> _Floats:
    """Return parts of a picture in the form of `flattened`: `[n, 32 * 32]`.

    Args:
        pixels: The picture, uint8 `[EDGE, EDGE, 3]`, or its luminance, `[EDGE, EDGE]`.
        down: Samplers of the rows of each part, `[n, 32, EDGE]`.
        across: Samplers of its columns, of the same shape.
    """
    luminance = pixels @ LUMINANCE if pixels.ndim == 3 else pixels.astype(np.float32)
    # Products of small matrices: for large ones, BLAS would start threads that wait for each other.
    cells = (down @ luminance) @ across.transpose(0, 2, 1)
    return _normalised(cells.reshape(len(down), -1))


def _normalised(vectors: npt.NDArray[Any]) -> _Floats:
    vectors = vectors - vectors.mean(axis=-1, keepdims=True)
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    shaped: _Floats = vectors / np.maximum(lengths, 1e-3)
    return shaped
