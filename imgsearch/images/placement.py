"""Find out how one picture is placed in another, by any shift, scale and angle.

Small pictures or local features (`imgsearch.images.keypoints`) give a first placement, which is
refined by the Gauss-Newton method on the pixels: for the six numbers of an affine map, contrast and
brightness.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from imgsearch.images.fingerprint import orientation_map, oriented
from imgsearch.images.keypoints import cv2_of
from imgsearch.images.overlay import Trial, detail_likeness, fitted, fitting, quantile
from imgsearch.images.resemblance import LEAST_EDGE, Small, Table, resemblances

if TYPE_CHECKING:
    from imgsearch.images.crop import Region
    from imgsearch.images.decode import Pixels
    from imgsearch.images.keypoints import AffineMap

__all__ = ["SAME", "Placed", "inverted", "map_of", "oriented_place", "placed", "roughly_placed"]

LEVELS = ((160, 6), (400, 4), (1_024, 3))  # Pixels of the longer edge, and steps.
FEW, FEW_TONES = 20_000, 5_000  # Pixels to which the placement and tones are fitted.
LEAST_SHARE = 0.04  # Share of either picture that the other has to cover.
LEAST_STEP = 0.02  # Pixels.
MOST_STEP = 8.0  # Pixels; with more, the placement is lost.
MOST_UNEVEN = 1.25  # Ratio of the scales along the two edges.
BORDER = 1.5  # Pixels of the kept picture at its border that are not compared.
FITS = 0.5  # Explained share of variance; with less, different things are seen.
ALIKE = 0.4  # Correlation of details; with less, different things are seen.
SAME = 0.7  # That of small photographs which show the same.
SMALL_STEPS = 4  # For small pictures.

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


def placed(other: Pixels, picture: Pixels, start: AffineMap) -> Placed | None:
    """Return a picture laid over another one, or None if it does not fit there.

    Args:
        other: The other picture, uint8 `[h, w, 3]`.
        picture: The picture, of the same form.
        start: Where the picture is, roughly.
    """
    sizes = picture.shape[1::-1], other.shape[1::-1]
    linear = _in_pixels(start, *sizes)[:, :2]
    most, least = np.linalg.svd(linear, compute_uv=False).tolist()
    if most > MOST_UNEVEN * least or np.linalg.det(linear) <= 0:
        return None
    matrix, scale = start, _scale_of(start, *sizes)
    one, two = Image.fromarray(picture), Image.fromarray(other)
    longest = max(picture.shape[:2])
    greys = one.convert("L"), two.convert("L")
    for edge, steps in LEVELS:
        own = min(1.0, edge / longest, scale)
        small = _scaled(greys[0], own), _scaled(greys[1], own / scale)
        found = _refined(*small, matrix, steps)
        if found is None or found[1] < ALIKE:
            return None
        is_finest = own in (1.0, scale)
        matrix, scale = found[0], _scale_of(found[0], *sizes)
        if is_finest:
            break
    own = min(1.0, scale)
    seen = np.asarray(_scaled(one, own), np.float32)
    reduced = np.asarray(_scaled(two, own / scale), np.float32)
    expected, inside = _warped(reduced, matrix, seen.shape[1::-1])
    return Placed(seen, expected, inside, matrix, (other.shape[1], other.shape[0]))


def _scale_of(matrix: AffineMap, picture: tuple[int, ...], other: tuple[int, ...]) -> float:
    """Return the pixels of the other picture for one of a picture, by their sizes."""
    return math.sqrt(abs(float(np.linalg.det(_in_pixels(matrix, picture, other)[:, :2]))))


def roughly_placed(
    other: Pixels, picture: Pixels, start: AffineMap
) -> tuple[AffineMap, float] | None:
    """Return how one small picture lies in another, or None if it does not fit there.

    Args:
        other: Luminance of the other picture, uint8 `[h, w]`.
        picture: That of the picture, in the same shape.
        start: Where the picture is, roughly.

    Returns:
        The map, and the correlation of the details that both show there; 1 if there are none.
    """
    scale = _scale_of(start, picture.shape, other.shape)
    own = min(1.0, scale)
    one = _scaled(Image.fromarray(picture), own)
    two = _scaled(Image.fromarray(other), own / max(scale, 1e-3))
    return _refined(one, two, start, SMALL_STEPS)


def oriented_place(
    other: Small, picture: Small, orientation: int, *, mirrored: bool = False
) -> AffineMap | None:
    """Return how a picture, in an orientation, lies in another one, or that one in it.

    Args:
        other: The other picture.
        picture: The picture.
        orientation: The orientation in which the picture looks like the other one.
        mirrored: Whether the map is that from places in the mirror image of the picture.

    Returns:
        The map from places in the picture as it is; None if they differ in their details.
    """
    turned = Small(oriented(picture.light, orientation), picture.width, picture.height)
    inner, outer = _part_of(other, turned), _part_of(turned, other)
    starts = [] if inner is None else [inner]
    if outer is not None:
        starts.append((inverted(outer[0]), outer[1]))
    found, alike = max(starts, key=lambda start: start[1], default=(None, 0.0))
    if found is None or alike < SAME:
        return None
    return _after(found, orientation_map(orientation ^ mirrored))


def _part_of(other: Small, picture: Small) -> tuple[AffineMap, float] | None:
    """Return how a picture may be a part of another one: see `roughly_placed`."""
    table = Table.empty(1)
    table.put(0, picture)
    places = resemblances(other, table, np.zeros(1, np.int64)).places
    trials = [Trial(other.light, picture.light, place) for place in places.values()]
    found = next(iter(fitting(trials, LEAST_EDGE)), None)
    return None if found is None else roughly_placed(other.light, picture.light, map_of(found))


def map_of(place: Region) -> AffineMap:
    """Return the map from places in a part of a picture to those in the picture."""
    left, top, right, bottom = place
    return np.array([(right - left, 0, left), (0, bottom - top, top)])


def inverted(matrix: AffineMap) -> AffineMap:
    """Return the map from the other picture to this one."""
    whole = np.linalg.inv(np.vstack([matrix, (0, 0, 1)]))
    return np.asarray(whole[:2])


def _after(matrix: AffineMap, first: AffineMap) -> AffineMap:
    """Return the map that applies `first`, then `matrix`."""
    return np.asarray(matrix @ np.vstack([first, (0, 0, 1)]))


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
) -> tuple[_Doubles, float] | None:
    """Move a placement until the picture fits best, and tell how alike the details are then.

    None if it does not fit.
    """
    seen, there = np.asarray(picture, np.float32), np.asarray(other, np.float32)
    height, width = seen.shape
    part, inside, fit = seen, np.ones(seen.shape, bool), 0.0
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
    if fit <= FITS:
        return None
    return matrix, float(detail_likeness(seen[None], part[None], inside[1:-1, 1:-1])[0])


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
