"""Tell by small pictures whether one image may be a part of another, or turned by any angle.

This is quick and lets some pairs pass that are unrelated. What passes is worth a look at the local
features of the files (`imgsearch.images.keypoints`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import numpy.typing as npt

from imgsearch.images.compare import sampler
from imgsearch.images.crop import Region
from imgsearch.images.fingerprint import EDGE

__all__ = [
    "LEAST_EDGE",
    "TURNLESS",
    "Resemblances",
    "Small",
    "Table",
    "Turn",
    "resemblances",
    "turnless",
]

SCALES = (0.92, 0.84, 0.76, 0.68, 0.6, 0.53, 0.47)  # Shares of an edge that a part shows.
OVERLAP = 0.13  # Share of a part by which the next one is moved.
STRETCH = 1.4  # Ratio of the shares of both edges.
LEAST_AREA = 0.22  # Share of the area that a part shows.
LEAST_EDGE = 0.4  # Share of an edge that a part shows once it is laid over the picture.
AT_ONCE = 64  # Parts multiplied together: see `Small.parts`.
PLAIN = 0.45  # Share of such pixels: in 273 pages, mostly more; in 2,300 photographs, mostly less.
PART = 8  # Pixels of the edge of a compared part.
PARTS_ALIKE = 0.86  # Correlation from which a part may be the other picture.
ANGLES, RINGS = 48, 10  # Samples of a disc.
RADII = (1.0, 0.92, 0.85, 0.78, 0.72, 0.66, 0.61, 0.56)  # Shares of half the shorter edge.
FREQUENCIES = 3  # Of each ring, whose magnitudes are compared.
TURNLESS = RINGS * (FREQUENCIES + 1)
TURNED_ALIKE = 0.84  # Correlation from which discs may show the same.

_Floats = npt.NDArray[np.float32]
_Complex = npt.NDArray[np.complex64]


@dataclass(frozen=True, eq=False)  # Without slots, as it caches its forms.
class Small:
    """A small picture: luminance, uint8 `[EDGE, EDGE]`, and the size of the image in pixels."""

    light: npt.NDArray[np.uint8]
    width: int
    height: int

    @cached_property
    def whole(self) -> _Floats:
        """All of the picture, float32 `[PART * PART]`, centred and of length 1."""
        first = _samplers()[0][0]
        found: _Floats = _normalised((first @ self.light.astype(np.float32) @ first.T).ravel())
        return found

    @property
    def parts(self) -> _Floats:
        """Parts of the picture in the same form, `[n, PART * PART]`."""
        samplers, down, across = _samplers()
        # Products of small matrices: for large ones, BLAS would start threads.
        rows = samplers @ self.light.astype(np.float32)
        cells = (rows @ samplers.reshape(-1, EDGE).T).reshape(len(rows), PART, len(rows), PART)
        return _normalised(cells[down, :, across, :].reshape(len(down), -1))

    @property
    def is_plain(self) -> bool:
        """Whether many pixels equal the next one, as on pages, whose details are too small."""
        steps = np.abs(np.diff(self.light.astype(np.int16), axis=1))
        return float((steps <= 1).mean()) > PLAIN

    @property
    def reach(self) -> npt.NDArray[np.float64]:
        """Pixels across and down that the largest disc around the centre reaches, `[2]`."""
        ratio = max(self.width, 1) / max(self.height, 1)
        return EDGE / 2 * np.array([min(1.0, 1 / ratio), min(1.0, ratio)])

    @cached_property
    def discs(self) -> _Complex:
        """The spectra of discs around the centre along their angle, `[radii, rings, n]`."""
        return self._spectra(len(RADII))

    @property
    def disc(self) -> _Complex:
        """The spectra of the largest of these discs, `[rings, n]`."""
        found: _Complex = self._spectra(1)[0]
        return found

    def _spectra(self, radii: int) -> _Complex:
        """Return the spectra of the largest discs, `[radii, rings, n]`."""
        aspect = math.log2(max(self.width, 1) / max(self.height, 1))
        places, weights, rings = _polar(round(24 * aspect))
        there = slice(radii * RINGS * ANGLES)
        values = (self.light.ravel()[places[:, there]] * weights[:, there]).sum(axis=0)
        values = values.reshape(radii, RINGS, ANGLES)
        values -= (values * rings**2).sum(axis=(1, 2), keepdims=True) / (ANGLES * (rings**2).sum())
        values *= rings
        lengths = np.sqrt((values * values).sum(axis=(1, 2), keepdims=True))
        return np.fft.rfft(values / np.maximum(lengths, 1e-3), axis=2).astype(np.complex64)


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Many small pictures, in the forms in which they are compared with one.

    Attributes:
        wholes: All of each picture, as `Small.whole`: float32 `[n, PART * PART]`.
        discs: The largest disc of each, as of `Small.discs`: complex64
            `[n, RINGS, frequencies]`.
    """

    wholes: _Floats
    discs: _Complex

    @classmethod
    def empty(cls, count: int) -> Table:
        """Return a table to be filled by `put`."""
        return cls(
            np.empty((count, PART * PART), np.float32),
            np.empty((count, RINGS, ANGLES // 2 + 1), np.complex64),
        )

    def put(self, row: int, picture: Small) -> None:
        """Enter a picture."""
        self.wholes[row], self.discs[row] = picture.whole, picture.disc


@dataclass(frozen=True, slots=True)
class Turn:
    """Where the largest disc of a picture may lie in another.

    Attributes:
        angle: The angle by which it is turned there, in radians.
        scale: Its radius, as a share of that of the largest disc there.
    """

    angle: float
    scale: float

    @property
    def matrix(self) -> npt.NDArray[np.float64]:
        """The affine map from places in the disc to those in the other, `[2, 3]`."""
        across, down = self.scale * math.cos(self.angle), self.scale * math.sin(self.angle)
        return np.array([(across, -down, 0), (down, across, 0)])


@dataclass(frozen=True, slots=True, eq=False)
class Resemblances:
    """How some pictures may be related to one, by their numbers.

    Attributes:
        turns: Where their discs may lie in it, at another angle.
        places: The parts of it that they may show.
    """

    turns: dict[int, Turn]
    places: dict[int, Region]


def turnless(discs: _Complex) -> _Floats:
    """Return what does not change if a disc is turned or mirrored, float32 `[..., TURNLESS]`.

    It is of length 1: the mean of each ring, and the magnitudes of its lowest frequencies.

    Args:
        discs: Spectra of discs, as of `Small`, complex64 `[..., RINGS, frequencies]`.
    """
    magnitudes = np.abs(discs[..., 1 : FREQUENCIES + 1]).reshape(*discs.shape[:-2], -1)
    found = np.concatenate([discs[..., 0].real / np.float32(math.sqrt(2)), magnitudes], axis=-1)
    lengths = np.linalg.norm(found, axis=-1, keepdims=True)
    return np.asarray(found / np.maximum(lengths, 1e-3), np.float32)


def resemblances(one: Small, table: Table, rows: npt.NDArray[np.int64]) -> Resemblances:
    """Tell which of some pictures may be a part of one, or of a disc in it at another angle.

    Whether they are one has to be tried (`imgsearch.images.overlay.fitting`, and
    `imgsearch.images.discs.turned_fitting`). Pictures of which one is a part are not found: ask the
    other way round, too.

    Args:
        one: The picture.
        table: All pictures.
        rows: Those that are compared with it, `[n]`.
    """
    parts, wholes = one.parts, table.wholes[rows].T
    found = np.concatenate(
        [parts[at : at + AT_ONCE] @ wholes for at in range(0, len(parts), AT_ONCE)]
    )
    numbers = found.argmax(axis=0)
    alike = np.flatnonzero(found.max(axis=0) >= PARTS_ALIKE).tolist()
    spectra = (one.discs[None] * np.conj(table.discs[rows])[:, None]).sum(axis=2)
    discs = np.fft.irfft(spectra, ANGLES, axis=2).reshape(len(rows), -1)
    turned = np.flatnonzero(discs.max(axis=1) >= TURNED_ALIKE).tolist()
    best = discs.argmax(axis=1).tolist()
    return Resemblances(
        {number: _turn(best[number]) for number in turned},
        {number: _place(int(numbers[number])) for number in alike},
    )


def _turn(number: int) -> Turn:
    """Return where a disc is, by the number of its radius and angle."""
    radius, angle = divmod(number, ANGLES)
    return Turn(2 * math.pi / ANGLES * angle, RADII[radius])


def _place(number: int) -> Region:
    """Return where a part is."""
    _, down, across = _samplers()
    windows = np.array(_windows()) / EDGE
    (left, right), (top, bottom) = windows[across[number]].tolist(), windows[down[number]].tolist()
    return left, top, right, bottom


@cache
def _windows() -> list[tuple[float, float]]:
    """Return the windows of an edge from which parts are made."""
    windows = [(0.0, float(EDGE))]
    for share in SCALES:
        size = share * EDGE
        places = int(np.ceil((1 - share) / (OVERLAP * share))) + 1
        windows += [(start, start + size) for start in np.linspace(0, EDGE - size, places).tolist()]
    return windows


@cache
def _samplers() -> tuple[_Floats, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return samplers of these windows, and which of them make parts, down and across."""
    windows = _windows()
    sizes = np.array([end - start for start, end in windows]) / EDGE
    ratios = sizes[:, None] / sizes
    fit = (ratios < STRETCH) & (ratios > 1 / STRETCH) & (sizes[:, None] * sizes >= LEAST_AREA)
    down, across = np.nonzero(fit)
    return np.stack([sampler(window, PART) for window in windows]), down, across


@cache
def _polar(aspect: int) -> tuple[npt.NDArray[np.int64], _Floats, _Floats]:
    """Return the pixels that each sample of the discs takes, their weights, and those of rings.

    Args:
        aspect: 24 times the binary logarithm of the width divided by the height.
    """
    ratio = 2.0 ** (aspect / 24)
    angles = 2 * np.pi / ANGLES * np.arange(ANGLES)
    rings = (np.arange(RINGS) + 0.7) / RINGS
    reach = EDGE / 2 * np.array(RADII)[:, None, None] * rings[:, None]
    x = EDGE / 2 - 0.5 + reach / max(1.0, ratio) * np.cos(angles)
    y = EDGE / 2 - 0.5 + reach * min(1.0, ratio) * np.sin(angles)
    left, top = (np.clip(np.floor(at), 0, EDGE - 2).astype(np.int64) for at in (x, y))
    across, down = np.clip(x - left, 0, 1), np.clip(y - top, 0, 1)
    places = np.stack([(top + i) * EDGE + left + j for i in (0, 1) for j in (0, 1)])
    weights = np.stack(
        [(1 - down) * (1 - across), (1 - down) * across, down * (1 - across), down * across]
    )
    shares = np.sqrt(rings / rings.sum())[:, None].astype(np.float32)
    return places.reshape(4, -1), weights.reshape(4, -1).astype(np.float32), shares


def _normalised(vectors: _Floats) -> _Floats:
    vectors = vectors - vectors.mean(axis=-1, keepdims=True)
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    found: _Floats = vectors / np.maximum(lengths, 1e-3)
    return found
