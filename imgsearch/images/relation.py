"""Tell how two pictures are related of which neither is a plain copy of the other.

One may be a small part of the other, or turned by any angle, framed, captioned, or edited in a
region. It is laid over the other (`imgsearch.images.placement`), and what both show is compared
tile by tile, as for plain copies (`imgsearch.images.agreement`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from imgsearch.images.agreement import CELL, LEGIBLE, compared, is_page
from imgsearch.images.compare import LUMINANCE
from imgsearch.images.placement import Placed, inverted, placed

if TYPE_CHECKING:
    from imgsearch.images.agreement import CloseUp
    from imgsearch.images.crop import Region
    from imgsearch.images.keypoints import AffineMap

__all__ = [
    "CAPTIONED",
    "CROPPED",
    "EDITED",
    "FEATURES",
    "FEATURES_EDGE",
    "FRAMED",
    "OWN",
    "TURNED",
    "Relation",
    "is_part",
    "may_be_related",
    "mirrored_related",
    "related",
    "reversed_relation",
]

FEATURES, FEATURES_EDGE = 500, 480  # Maximum features of a picture; its longer edge in pixels.

CROPPED, TURNED, FRAMED, CAPTIONED, EDITED = "cropped", "turned", "framed", "captioned", "edited"
MIRRORED = "mirrored"

#: What a picture of each kind has of its own.
OWN = {
    CROPPED: "other borders",
    TURNED: "another angle",
    FRAMED: "a frame",
    CAPTIONED: "a caption",
    EDITED: "a changed region",
    MIRRORED: "another orientation",
}

FLIPPED = 1  # The orientation of a picture whose columns are reversed.
UNCLEAR = "unclear"
LEAST_PART = 0.15  # Share of the whole picture that a part shows.
ALL = 0.92  # Share of a picture from which all of it is seen, except its border.
MOST = 0.5  # Share of a picture that is seen if it is turned and the corners are not of one colour.
RIM = 2  # Pixels.
FEW = 64  # Pixels of which one is looked at first.
UPRIGHT = 1.5  # Degrees by which a picture is off that was not turned.
ROUGHLY_UPRIGHT = 3.0  # Degrees; more by less exact placements.
EDGE_ON = 0.03  # Share of an edge that a border takes at least.
ROUGHLY_IN = 0.12  # Share of an edge that may stick out, by less exact placements.
FLAT, ONE_COLOUR = 12.0, 0.9  # Levels; share of pixels of one colour.
PURE = 0.997  # Share of pixels of one colour in a bar without a caption.
STEP, LEAST_STEP = 3.0, 4.0  # Ratio and levels of a step between a picture and its frame.
AROUND = 12  # Pixels on both sides of a border where a step is looked for.
MOST_EDITED = 0.35  # Share of the picture that differs if it was edited.
DRAWN = 0.7  # Share of pixels that equal the next one in a drawing; in 85 photos, up to 0.55.
LEAST_SHARED = 0.5  # Share of either picture that an edited one has in common with the other.
LEAST_TURN, LEAST_STRETCH = 0.0003, 0.004  # Of two versions of one shot: 1 for 45 degrees.
QUIET = (0.3, 80.0)  # Variance of tiles of hardly any texture, which have noise.
NOISE = 0.35  # Correlation of the noise of two versions of one shot.
LEAST_QUIET = 1_500  # Pixels.
RING = 0.2  # Share of the shorter edge that a frame takes at most that lies over a picture.

_Bits = npt.NDArray[np.bool_]
_Floats = npt.NDArray[np.float32]
_Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Relation:
    """How one picture, the copy, was made from another.

    Attributes:
        kind: "cropped", "turned", "framed", "captioned", "edited" or "mirrored".
        share: The share of the other picture that it shows, 0 to 1.
        angle: The angle by which it is turned clockwise, in degrees.
        region: The part of the copy that differs, if it is edited, or that the other picture does
            not show, if it is captioned: left, top, right and bottom, 0 to 1.
        swapped: Whether it is the first of the two pictures that is the copy.
        certain: Whether the pixels tell which of the two is the copy.
    """

    kind: str
    share: float = 1.0
    angle: float = 0.0
    region: Region | None = None
    swapped: bool = False
    certain: bool = True


def may_be_related(start: AffineMap, one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Tell whether one of two pictures may show nearly all of the other, unless it is turned.

    Parts of one photo that only overlap are neither copies nor crops of each other. Their pixels
    would agree, and take long to compare.

    Args:
        start: Where the second lies in the first, roughly.
        one: Width and height of the first.
        other: Width and height of the second, in any unit.
    """
    if np.linalg.det(start[:, :2]) <= 0:
        return False
    angle = _angle(np.diag(one) @ start[:, :2] @ np.diag((1 / other[0], 1 / other[1])))
    if abs((angle + 45) % 90 - 45) > ROUGHLY_UPRIGHT:
        return True
    boxes = _box(start), _box(inverted(start))
    return any(max(_borders(box)) <= ROUGHLY_IN for box in boxes)


def _angle(linear: _Doubles) -> float:
    """Return by how many degrees a map of pixels turns them counterclockwise."""
    return -math.degrees(math.atan2(linear[1, 0] - linear[0, 1], linear[0, 0] + linear[1, 1]))


def related(one: CloseUp, other: CloseUp, start: AffineMap) -> Relation | None:
    """Return how the second of two pictures was made from the first, or the other way round.

    Args:
        one: A picture.
        other: Another picture.
        start: Where the second lies in the first, roughly.
    """
    found = placed(one.pixels, other.pixels, start)
    relation = None if found is None else _relation(one, other, found)
    if found is None or relation is not None or abs(_off_upright(found)) <= UPRIGHT:
        return relation
    # The one that was turned has lost details. Warped once more, it may differ in a tile.
    back = placed(other.pixels, one.pixels, inverted(found.matrix))
    relation = None if back is None else _relation(other, one, back)
    return None if relation is None else reversed_relation(relation)


def mirrored_related(one: CloseUp, other: CloseUp, start: AffineMap) -> Relation | None:
    """Return how the second of two pictures is related to the first, seen in a mirror.

    Args:
        one: A picture.
        other: Another picture.
        start: Where the mirror image of the second lies in the first, roughly.
    """
    found = related(one, other.turned(FLIPPED), start)
    if found is None or found.kind == EDITED:
        return None
    return Relation(MIRRORED, found.share, swapped=found.swapped, certain=False)


def _off_upright(found: Placed) -> float:
    """Return by how many degrees a picture is off the next quarter turn."""
    return (found.angle + 45) % 90 - 45


def _relation(one: CloseUp, other: CloseUp, found: Placed) -> Relation | None:
    """Return the relation of two pictures, of which the second is laid over the first."""
    if _is_illegible(one, other, found):
        return None
    seen, expected = found.seen, found.expected
    if _is_grey(expected, found.inside):
        seen = np.repeat((seen @ LUMINANCE)[..., None], 3, axis=2)
    off = _off_upright(found)
    inside = found.inside
    if abs(off) > UPRIGHT:  # The border of a turned picture is mixed with what was put around it.
        inside = np.zeros_like(inside)
        inside[RIM:-RIM, RIM:-RIM] = found.inside[RIM:-RIM, RIM:-RIM]
    result = compared(expected, seen, inside)
    if result.differs is None:
        return None
    area = abs(float(np.linalg.det(found.matrix[:, :2])))
    covered = float(found.inside.mean())  # Without a border, which is not compared.
    shares = min(1.0, covered * area), covered
    if min(shares) < LEAST_PART * 0.5:
        return None
    if result.reason:
        return _edited(one, found, result.differs, shares)
    if abs(off) > UPRIGHT:
        return _turned(one, other, found, shares)
    quarter = round(found.angle / 90) % 4 * 90.0
    return _part(one, other, found, shares, quarter)


def _is_illegible(one: CloseUp, other: CloseUp, found: Placed) -> bool:
    """Tell whether a page is compared at a size at which its text cannot be read."""
    across = np.linalg.norm(found.matrix[:, 0] * (one.pixels.shape[1], one.pixels.shape[0]))
    scale = found.seen.shape[1] / float(across)
    own = found.seen.shape[1] / other.pixels.shape[1]
    return min(scale, own) < LEGIBLE and is_page(one.sheet.image)


def _is_grey(pixels: _Floats, inside: _Bits) -> bool:
    def is_grey(some: _Floats) -> bool:
        return bool(np.abs(some - some[:, 1:2]).max(initial=0) <= 10)

    places = np.flatnonzero(inside)
    rows = pixels.reshape(-1, 3)
    return is_grey(rows[places[::FEW]]) and is_grey(rows[places])


def _part(
    one: CloseUp, other: CloseUp, found: Placed, shares: tuple[float, float], quarter: float
) -> Relation | None:
    """Return the relation of two upright pictures, of which one shows all of the other."""
    box, back = _box(found.matrix), _box(inverted(found.matrix))
    borders = _borders(box), _borders(back)
    if all(each <= EDGE_ON for each in borders[0]):  # All of the second is in the first.
        larger, inner, swapped, share = one, box, False, shares[0]
    elif all(each <= EDGE_ON for each in borders[1]):
        larger, inner, swapped, share = other, back, True, shares[1]
    else:
        return None
    if all(each <= EDGE_ON for each in _outer(inner)):
        return Relation(TURNED, angle=quarter, certain=False) if quarter else None
    around = _around(larger, inner)
    if around in (None, UNCLEAR):
        if share < LEAST_PART:
            return None
        kind = TURNED if quarter else CROPPED
        return Relation(kind, share, quarter, None, swapped, certain=around is None)
    # The larger one has something around the smaller one, which is the original.
    return Relation(around, 1.0, quarter, _beside(inner), not swapped)


def _turned(
    one: CloseUp, other: CloseUp, found: Placed, shares: tuple[float, float]
) -> Relation | None:
    """Return the relation of two pictures of which one is turned by any angle."""
    angle = round(found.angle, 1)
    flat = (
        _is_flat(one, _outside(one, inverted(found.matrix))),
        _is_flat(other, _outside(other, found.matrix)),
    )
    more = shares[0] - shares[1]  # Less is seen of what has corners beside the other.
    swapped = flat[0] if flat[0] != flat[1] else more < 0
    certain = flat[0] != flat[1] or (all(flat) and abs(more) > EDGE_ON)
    if not any(flat) and max(shares) >= ALL:
        swapped = more > 0  # All of the one that was cropped after it was turned is in the other.
    if not any(flat) and max(shares) < ALL and min(shares) < MOST:
        return None
    share = shares[1 if swapped else 0]
    if share < LEAST_PART:
        return None
    return Relation(TURNED, share, -angle if swapped else angle, None, swapped, certain)


def _edited(
    one: CloseUp, found: Placed, differs: _Bits, shares: tuple[float, float]
) -> Relation | None:
    """Return the relation of two pictures that agree except in a region."""
    if min(shares) < LEAST_SHARED or is_page(one.sheet.image) or _is_drawn(one):
        return None
    part = float(differs.mean()) / max(shares[1], 1e-3)
    rows, columns = np.nonzero(differs)
    height, width = found.seen.shape[:2]
    box = (
        columns.min() * CELL / width,
        rows.min() * CELL / height,
        min(1.0, (columns.max() + 1) * CELL / width),
        min(1.0, (rows.max() + 1) * CELL / height),
    )
    left, top, right, bottom = map(float, box)
    is_ring = _is_ring(differs)
    if part > MOST_EDITED or not (is_ring or (right - left) * (bottom - top) <= MOST_EDITED):
        return None
    if not (_is_straight(found) and _is_same_shot(found, differs)):
        return None
    kind = FRAMED if is_ring else EDITED
    return Relation(
        kind, shares[0], round(found.angle, 1), (left, top, right, bottom), certain=False
    )


def _is_drawn(picture: CloseUp) -> bool:
    """Tell whether a picture is a drawing, a table or a screenshot: others on one form differ."""
    steps = np.diff(picture.pixels.astype(np.int16), axis=1)
    return float((steps == 0).all(axis=2).mean()) > DRAWN


def _is_straight(found: Placed) -> bool:
    """Tell whether a picture is not turned, sheared or stretched at all, as the next shot is."""
    unit = found.pixel_map[:, :2]
    turned = max(abs(unit[0, 1]), abs(unit[1, 0])) / abs(unit[0, 0])
    return bool(turned <= LEAST_TURN and abs(unit[0, 0] / unit[1, 1] - 1) <= LEAST_STRETCH)


def _is_ring(differs: _Bits) -> bool:
    """Tell whether two pictures differ only along all four edges."""
    edge = max(1, round(RING * min(differs.shape)))
    inner = differs[edge:-edge, edge:-edge]
    sides = differs[:2], differs[-2:], differs[:, :2], differs[:, -2:]
    return not inner.any() and all(bool(side.mean() > 0.5) for side in sides)


def _is_same_shot(found: Placed, differs: _Bits) -> bool:
    """Tell whether two pictures have the same noise where hardly anything is seen."""
    light, expected = found.seen @ LUMINANCE, found.expected @ LUMINANCE
    left = ~np.repeat(np.repeat(differs, CELL, 0), CELL, 1)[: light.shape[0], : light.shape[1]]
    left &= found.inside
    size = 2 * CELL
    rows, columns = light.shape[0] // size, light.shape[1] // size

    def tiles(values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        cut = values[: rows * size, : columns * size].reshape(rows, size, columns, size)
        return cut.transpose(0, 2, 1, 3).reshape(rows * columns, size * size)

    usable = np.asarray(tiles(left)).all(axis=1)
    details = [np.asarray(tiles(_detail(each)), np.float32) for each in (light, expected)]
    for values in (light, expected):
        variance = np.asarray(tiles(values), np.float32).var(axis=1)
        usable &= (variance > QUIET[0]) & (variance < QUIET[1])
    one, other = (values[usable].ravel() for values in details)
    if one.size < LEAST_QUIET:
        return False
    lengths = float(np.sqrt((one @ one) * (other @ other)))
    return float(one @ other) > NOISE * lengths > 0


def _detail(values: _Floats) -> _Floats:
    """Return a picture without what a blur of 3 x 3 pixels leaves."""
    padded = np.pad(values, 1, mode="edge")
    height, width = values.shape
    blurred = sum(
        padded[down : down + height, across : across + width]
        for down in range(3)
        for across in range(3)
    )
    return np.asarray(values - blurred / 9, np.float32)


def _box(matrix: _Doubles) -> Region:
    """Return the part of another picture that one covers, by the map to that one."""
    unit = np.array([(0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1)], np.float64)
    corners = unit @ matrix.T
    left, top = corners.min(axis=0).tolist()
    right, bottom = corners.max(axis=0).tolist()
    return left, top, right, bottom


def _borders(box: Region) -> tuple[float, ...]:
    """Return how far a picture, as fractions of another, sticks out of it on each side.

    It is given as a share of the edge of the picture itself.
    """
    left, top, right, bottom = box
    across, down = right - left, bottom - top
    return -left / across, -top / down, (right - 1) / across, (bottom - 1) / down


def _outer(box: Region) -> tuple[float, ...]:
    """Return how far a picture is from the edges of another in which it lies."""
    left, top, right, bottom = box
    return left, top, 1 - right, 1 - bottom


def is_part(larger: CloseUp, inner: Region) -> bool:
    """Tell whether a part of a picture was cropped out of it, not framed or captioned by it."""
    if all(each <= EDGE_ON for each in _outer(inner)):
        return True
    return _around(larger, inner) is None


def _around(larger: CloseUp, inner: Region) -> str | None:
    """Return what a picture was put into: "framed" or "captioned"; None if it was cropped out.

    It is `UNCLEAR` if there are steps, but not on all sides, or if what is around it is of one
    colour and goes on inside.

    Where a picture goes on, its lines do, too: there is no step along the border of a part.
    """
    light = larger.pixels @ LUMINANCE
    height, width = light.shape
    left, top, right, bottom = (
        min(max(round(at * edge), 0), edge)
        for at, edge in zip(inner, (width, height, width, height), strict=True)
    )
    outside = np.ones((height, width), bool)
    outside[top:bottom, left:right] = False
    strips = (
        light[top:bottom, :left][:, ::-1], light[top:bottom, left:right],
        light[:top, left:right][::-1].T, light[top:bottom, left:right].T,
        light[top:bottom, right:], light[top:bottom, left:right][:, ::-1],
        light[bottom:, left:right].T, light[top:bottom, left:right][::-1].T,
    )  # fmt: skip
    pairs = list(zip(strips[::2], strips[1::2], strict=True))
    there = [_outer(inner)[side] > EDGE_ON / 2 for side in range(4)]
    steps = [_has_step(*pair) for pair, is_there in zip(pairs, there, strict=True) if is_there]
    if not any(steps):
        return UNCLEAR if _is_flat(larger, outside) else None
    if not all(steps):
        return UNCLEAR
    across, up_or_down = there[0] or there[2], there[1] or there[3]
    plain = _is_flat(larger, outside, PURE)
    return CAPTIONED if up_or_down and not across and not plain else FRAMED


def _has_step(outer: _Floats, inner: _Floats) -> bool:
    """Tell whether there is a step between the columns of two strips side by side."""
    near = outer[:, :AROUND], inner[:, :AROUND]
    if min(each.shape[1] for each in near) < 2:
        return False  # Too little to tell, or to lose.
    columns = np.concatenate([near[0][:, ::-1], near[1]], axis=1)
    changes = np.abs(np.diff(columns, axis=1)).mean(axis=0)
    at = near[0].shape[1] - 1
    border = float(changes[max(0, at - 2) : at + 3].max())
    rest = np.delete(changes, range(max(0, at - 2), min(len(changes), at + 3)))
    return border > STEP * float(np.median(rest)) + LEAST_STEP


def _outside(picture: CloseUp, matrix: _Doubles) -> _Bits:
    """Return which pixels of a picture lie outside of another, by the map to that one."""
    height, width = picture.pixels.shape[:2]
    x, y = (np.arange(width) + 0.5) / width, (np.arange(height)[:, None] + 0.5) / height
    across = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2]
    down = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2]
    return np.asarray(
        np.minimum(np.minimum(across, 1 - across), np.minimum(down, 1 - down)) < -0.01
    )


def _is_flat(picture: CloseUp, outside: _Bits, share: float = ONE_COLOUR) -> bool:
    """Tell whether most of some pixels are of one colour."""
    some = picture.pixels[outside].astype(np.float32)
    if not len(some):
        return False
    usual = np.median(some, axis=0)
    return bool((np.abs(some - usual).max(axis=1) <= FLAT).mean() >= share)


def _beside(inner: Region) -> Region | None:
    """Return the part beside a picture that lies at the edge of another."""
    left, top, right, bottom = inner
    sides = (
        *((0.0, 0.0, 1.0, top), (0.0, bottom, 1.0, 1.0)),
        *((0.0, 0.0, left, 1.0), (right, 0.0, 1.0, 1.0)),
    )
    there = [side for side in sides if min(side[2] - side[0], side[3] - side[1]) > EDGE_ON / 2]
    return there[0] if len(there) == 1 else None


def reversed_relation(found: Relation) -> Relation:
    """Return the same relation, seen from the other picture."""
    return replace(found, swapped=not found.swapped)
