"""Measure how alike two small pictures are when a part of one is laid over the other.

This is quick, and finds the pairs that are worth a close look (`imgsearch.images.agreement`):
different invoices on the same form are as alike here as copies are.
"""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np
import numpy.typing as npt

from imgsearch.images.decode import Pixels

__all__ = ["ALIKE", "EDGE", "LUMINANCE", "Overlay", "flattened"]

EDGE = 64  # Pixels of the edge of a picture squashed to a square.
ALIKE = 0.8  # Correlation from which two pictures are worth a close look.
_SMALL = 32  # Edge in pixels of the compared parts.
_NEAR = 0.6  # Correlation from which a finer overlay is worth a try.
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
_STEP = 1.0  # Pixels by which a finer overlay moves each edge.

_Floats = npt.NDArray[np.float32]
_Window = tuple[float, float]  # Start and end.


def _sampler(window: _Window) -> _Floats:
    """Return the weights `[_SMALL, EDGE]` that average the pixels of a window (box filter)."""
    edges = np.linspace(*window, _SMALL + 1)[:, None]
    pixels = np.arange(EDGE)
    weights = np.clip(edges[1:], pixels, pixels + 1) - np.clip(edges[:-1], pixels, pixels + 1)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


def _windows() -> list[_Window]:
    """Return windows of 100, 95, 90 and 86 % of an edge, at evenly spaced positions."""
    whole = [(0.0, float(EDGE))]
    for size, places in ((61, 3), (58, 4), (55, 4)):
        starts = np.linspace(0, EDGE - size, places)
        whole += [(start, start + size) for start in starts.tolist()]
    return whole


_WINDOWS = _windows()
_SIZES = np.array([end - start for start, end in _WINDOWS])
_SAMPLERS = np.stack([_sampler(window) for window in _WINDOWS])
# A crop takes about as much of the height as of the width.
_DOWN, _ACROSS = np.nonzero(np.abs(_SIZES[:, None] - _SIZES) <= 3)


def flattened(pixels: Pixels) -> _Floats:
    """Return a whole picture for comparison: uint8 `[EDGE, EDGE, 3]` to float32 `[32 * 32]`.

    The result is its luminance, centred and normalised to length 1: brightness, contrast and colour
    do not count.
    """
    vector: _Floats = _sampled(pixels, _SAMPLERS[:1], _SAMPLERS[:1])[0, 0]
    return vector


class Overlay:
    """A picture whose parts can be laid over whole other pictures."""

    def __init__(self, pixels: Pixels) -> None:
        """Prepare a picture, uint8 `[EDGE, EDGE, 3]`."""
        self._pixels = pixels
        self._parts = _sampled(pixels, _SAMPLERS, _SAMPLERS)[_DOWN, _ACROSS]

    def likeness(self, others: _Floats) -> _Floats:
        """Return the highest correlation of any part with each other picture, -1 to 1, `[n]`.

        Args:
            others: Pictures as returned by `flattened`, float32 `[n, 32 * 32]`.
        """
        found: _Floats = self._parts @ others.T
        best = found.argmax(axis=0)
        coarse: _Floats = found.max(axis=0)
        unsettled = (coarse >= _NEAR) & (coarse < ALIKE)
        for part in np.unique(best[unsettled]).tolist():
            numbers = np.flatnonzero(unsettled & (best == part))
            down, across = _WINDOWS[_DOWN[part]], _WINDOWS[_ACROSS[part]]
            finer = _sampled(self._pixels, _around(down), _around(across)).reshape(-1, _SMALL**2)
            found = (finer @ others[numbers].T).max(axis=0)
            coarse[numbers] = np.maximum(coarse[numbers], found)
        return coarse

    def places(self, other: _Floats, count: int) -> list[tuple[float, float, float, float]]:
        """Return the parts that are most similar to another picture, the best first.

        Each part is given as left, top, right and bottom, from 0 to 1.
        """
        order = np.argsort(-(self._parts @ other))[:count].tolist()
        return [
            (_WINDOWS[_ACROSS[number]][0] / EDGE, _WINDOWS[_DOWN[number]][0] / EDGE,
             _WINDOWS[_ACROSS[number]][1] / EDGE, _WINDOWS[_DOWN[number]][1] / EDGE)
            for number in order
        ]  # fmt: skip


@cache
def _around(window: _Window) -> _Floats:
    """Return the samplers of the windows around one, `[9, _SMALL, EDGE]`."""
    moves = (-_STEP, 0.0, _STEP)
    start, end = window
    return np.stack(
        [
            _sampler((max(0.0, start + before), min(float(EDGE), end + after)))
            for before, after in product(moves, moves)
        ]
    )


def _sampled(pixels: Pixels, down: _Floats, across: _Floats) -> _Floats:
    """Return a picture as sampled, in the form of `flattened`: `[down, across, 32 * 32]`."""
    luminance = pixels @ LUMINANCE
    rows = down.reshape(-1, EDGE) @ luminance
    cells = (rows @ across.reshape(-1, EDGE).T).reshape(len(down), _SMALL, len(across), _SMALL)
    vectors = cells.transpose(0, 2, 1, 3).reshape(len(down), len(across), -1)
    vectors = vectors - vectors.mean(axis=2, keepdims=True)
    lengths = np.linalg.norm(vectors, axis=2, keepdims=True)
    shaped: _Floats = vectors / np.maximum(lengths, 1e-3)
    return shaped
