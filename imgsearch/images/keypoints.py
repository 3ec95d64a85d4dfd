"""Find local features of a picture, and match those of two pictures geometrically.

The features are RootSIFT (D. G. Lowe, "Distinctive image features from scale-invariant keypoints",
2004; R. Arandjelović and A. Zisserman, "Three things everyone should know to improve object
retrieval", 2012). Two pictures match if enough of their features lie where one plane, seen from
two sides, would have them, and this homography is one that a camera can see (J. Philbin et al.,
"Object retrieval with large vocabularies and fast spatial matching", 2007). A few features are
enough if the pixels agree, too, once one picture is laid over the other.

OpenCV is imported with the first picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from imgsearch.errors import PackageError, reason_of

if TYPE_CHECKING:
    from imgsearch.images.decode import Pixels

__all__ = [
    "FEATURES",
    "AffineMap",
    "Keypoints",
    "Match",
    "Outline",
    "affinity",
    "cv2_of",
    "keypoints_of",
    "match",
    "mirrored",
]

FEATURES = 400  # Maximum features of a picture, unless told otherwise.
RATIO = 0.8  # Distance of a feature's match, as a share of that of the next best one.
REACH = 4.0  # Pixels that an inlier may be off.
LEAST = 12  # Inliers at different places.
LEAST_HULL = 0.15  # Share of the overlap of both pictures that the inliers span,
LEAST_SHARE = 0.5  # unless they are this share of the hit's features there: the rest is plain.
LEAST_AREA = 0.01  # Share of either picture that shows the other.
MOST_STRETCH = 3.0  # Ratio of the scales in the directions of most and of least scale.
FLAT = 2.5  # Pixels that features may be off, on average, in a flat picture.
FEW = 4  # Inliers that are enough where the pixels agree,
NEAR = 3.0  # each at most so many pixels off,
MOST_OF_IT = 0.5  # over at least this share of the smaller of the two,
LEAST_CORRELATION = 0.95  # with this correlation of their levels,
LEAST_CONTRAST = 4.0  # which have at least this standard deviation.
_TRIES = 500  # Homographies that are tried.
_SURE = 0.999  # Probability that the best one is among them.
_CELL = 3.0  # Pixels: inliers nearer than that count once.

_Floats = npt.NDArray[np.float32]
_Doubles = npt.NDArray[np.float64]
_Pairs = npt.NDArray[np.int64]
#: Corners of a part of a picture, as fractions of its width and height.
Outline: TypeAlias = tuple[tuple[float, float], ...]
#: The affine map from fractions of the width and height of one picture to those of another,
#: float64 `[2, 3]`.
AffineMap: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Keypoints:
    """The local features of a picture.

    Attributes:
        points: Where they are, in pixels, float32 `[n, 2]`.
        descriptors: What is there, L2-normalised, float32 `[n, 128]`.
        grey: The picture, uint8 `[height, width]`.
    """

    points: _Floats
    descriptors: _Floats
    grey: Pixels

    @property
    def width(self) -> int:
        """The width of the picture in pixels."""
        return int(self.grey.shape[1])

    @property
    def height(self) -> int:
        """The height of the picture in pixels."""
        return int(self.grey.shape[0])


@dataclass(frozen=True, slots=True)
class Match:
    """How a query lies in a hit.

    Attributes:
        inliers: Number of features that agree.
        query_outline: The part of the query that the hit shows.
        hit_outline: The part of the hit that the query shows.
    """

    inliers: int
    query_outline: Outline
    hit_outline: Outline


def keypoints_of(grey: Pixels, count: int = FEATURES) -> Keypoints:
    """Return the features of a picture.

    Args:
        grey: The picture, uint8 `[height, width]`.
        count: Maximum number of features.

    Raises:
        PackageError: If OpenCV is not installed.
    """
    grey = np.ascontiguousarray(grey)
    found = cv2_of().SIFT_create(nfeatures=count).detectAndCompute(grey, None)
    points = np.array([point.pt for point in found[0]], np.float32).reshape(-1, 2)
    descriptors = np.empty((0, 128), np.float32) if found[1] is None else found[1]
    shares = descriptors / np.maximum(np.abs(descriptors).sum(axis=1, keepdims=True), 1e-12)
    return Keypoints(points, np.sqrt(shares), grey)


def mirrored(picture: Keypoints) -> Keypoints:
    """Return the features of the mirror image.

    A descriptor has 4 x 4 cells of 8 directions, relative to the feature's own: its mirror image
    has the same cells in the reverse order of rows, and the directions the other way round.
    """
    cells = picture.descriptors.reshape(-1, 4, 4, 8)[:, ::-1][..., -np.arange(8) % 8]
    points = np.array([picture.width - 1, 0], np.float32) + picture.points * np.array(
        [-1, 1], np.float32
    )
    descriptors = np.ascontiguousarray(cells.reshape(picture.descriptors.shape))
    return Keypoints(points, descriptors, np.ascontiguousarray(picture.grey[:, ::-1]))


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """The homography from a query to a hit, and the features of both that agree with it."""

    homography: _Doubles
    source: _Floats
    target: _Floats
    inliers: int
    corners: _Floats


def match(query: Keypoints, hit: Keypoints) -> Match | None:
    """Return how a query lies in a hit, or None if it does not.

    One of them must not be a mirror image of the other: see `mirrored`.
    """
    pairs = _pairs(query, hit)
    seen = _seen(query, hit, pairs) or _laid_over(query, hit, pairs)
    if seen is None:
        return None
    corners = seen.corners
    back = _projected(corners, np.asarray(np.linalg.inv(seen.homography), np.float64))
    if back is None:
        return None
    return Match(seen.inliers, _outline(back, query), _outline(corners, hit))


def affinity(query: Keypoints, hit: Keypoints) -> AffineMap | None:
    """Return how a query lies flat in a hit; None if it does not, or is seen in perspective.

    It is the map from places in the query to those in the hit.
    """
    seen = _seen(query, hit, _pairs(query, hit))
    if seen is None:
        return None
    source = seen.source / (query.width, query.height)
    target = seen.target / (hit.width, hit.height)
    rows = np.c_[source, np.ones(len(source))]
    solution = np.linalg.lstsq(rows, target, rcond=None)[0]
    errors = (rows @ solution - target) * (hit.width, hit.height)
    if math.sqrt(float((errors**2).sum(axis=1).mean())) > FLAT:
        return None
    return np.asarray(solution.T, np.float64)


def _seen(query: Keypoints, hit: Keypoints, pairs: _Pairs) -> _Seen | None:
    """Return how a camera could see a query in a hit."""
    if len(pairs) < LEAST:
        return None
    cv2 = cv2_of()
    source, target = query.points[pairs[:, 0]], hit.points[pairs[:, 1]]
    found, inside = cv2.findHomography(
        source, target, cv2.USAC_MAGSAC, REACH, maxIters=_TRIES, confidence=_SURE
    )
    if found is None or not np.isfinite(found).all():
        return None
    agreeing = inside.ravel() > 0
    source, target = source[agreeing], target[agreeing]
    inliers = min(_places(source), _places(target))
    if inliers < LEAST:
        return None
    homography = np.asarray(found, np.float64)
    frame = _projected(_frame(query), homography)
    if frame is None or not cv2.isContourConvex(frame) or not _is_seen(source, homography):
        return None
    overlap, corners = cv2.intersectConvexConvex(frame, _frame(hit))
    areas = hit.width * hit.height, cv2.contourArea(frame)
    if not min(overlap / max(area, 1e-9) for area in areas) >= LEAST_AREA:
        return None
    if cv2.contourArea(cv2.convexHull(target)) < LEAST_HULL * overlap:
        shown = [cv2.pointPolygonTest(corners, point.tolist(), False) >= 0 for point in hit.points]
        if len(target) < LEAST_SHARE * sum(shown):
            return None
    return _Seen(homography, source, target, inliers, corners.reshape(-1, 2))


def _laid_over(query: Keypoints, hit: Keypoints, pairs: _Pairs) -> _Seen | None:
    """Return how a query, shifted, scaled and turned, lies over a hit with the same pixels.

    A crop of a plain part of a picture has few features, but they say where to look.
    """
    if len(pairs) < FEW:
        return None
    cv2 = cv2_of()
    source, target = query.points[pairs[:, 0]], hit.points[pairs[:, 1]]
    found, inside = cv2.estimateAffinePartial2D(
        source, target, None, cv2.RANSAC, NEAR, _TRIES, _SURE
    )
    if found is None or not np.isfinite(found).all():
        return None
    agreeing = inside.ravel() > 0
    source, target = source[agreeing], target[agreeing]
    inliers = min(_places(source), _places(target))
    homography = np.vstack([found, (0, 0, 1)])
    scale = math.sqrt(abs(float(np.linalg.det(found[:, :2]))))
    if inliers < FEW or scale < 1e-3:
        return None
    frame = np.asarray(_frame(query) @ found[:, :2].T + found[:, 2], np.float32)
    overlap, corners = cv2.intersectConvexConvex(frame, _frame(hit))
    areas = hit.width * hit.height, cv2.contourArea(frame)
    if overlap < max(MOST_OF_IT * min(areas), LEAST_AREA * max(areas)):
        return None
    if scale <= 1:
        correlation = _correlation(query.grey, hit.grey, homography, scale)
    else:
        correlation = _correlation(hit.grey, query.grey, np.linalg.inv(homography), 1 / scale)
    if correlation < LEAST_CORRELATION:
        return None
    return _Seen(homography, source, target, inliers, corners.reshape(-1, 2))


def _correlation(larger: Pixels, smaller: Pixels, homography: _Doubles, scale: float) -> float:
    """Return the correlation of two pictures where one lies over the other; 0 if it is plain.

    Args:
        larger: The picture that is reduced and laid over the other, uint8 `[h, w]`.
        smaller: The other, uint8 `[h, w]`.
        homography: How the larger one lies in the smaller one.
        scale: The scale to which it is reduced.
    """
    cv2 = cv2_of()
    size = smaller.shape[1], smaller.shape[0]
    reduced = cv2.GaussianBlur(larger, (0, 0), 0.5 / scale)
    laid = cv2.warpAffine(reduced, homography[:2], size)
    inside = cv2.warpAffine(np.ones_like(larger), homography[:2], size, flags=cv2.INTER_NEAREST)
    inside = cv2.erode(inside, np.ones((5, 5), np.uint8)) > 0  # where no blur reaches its border
    shown = [cv2.GaussianBlur(each, (0, 0), 1)[inside] for each in (laid, smaller)]
    if not inside.any() or min(float(each.std()) for each in shown) < LEAST_CONTRAST:
        return 0.0
    return float(np.corrcoef(*shown)[0, 1])


def _pairs(query: Keypoints, hit: Keypoints) -> _Pairs:
    """Return pairs of features that are each other's best by far, int64 `[n, 2]`."""
    if min(len(query.points), len(hit.points)) < FEW:
        return np.empty((0, 2), np.int64)
    # Not by BLAS, whose threads would go on spinning on cores that decode further hits.
    products = np.vecdot(query.descriptors[:, None], hit.descriptors)
    rows = np.arange(len(products))
    best = products.argmax(axis=1)
    near = _distances(products[rows, best])
    products[rows, best] = -1
    clear = near < RATIO * _distances(products.max(axis=1))
    order = np.flatnonzero(clear)[np.argsort(near[clear], kind="stable")]
    _, firsts = np.unique(best[order], return_index=True)  # of several, the nearest is right
    return np.stack([order[firsts], best[order[firsts]]], axis=1)


def _distances(products: _Floats) -> _Floats:
    return np.sqrt(np.maximum(2 - 2 * products, 0))


def _places(points: _Floats) -> int:
    """Return the number of points, of which several in one small cell count once."""
    return len(np.unique(np.floor(points / _CELL), axis=0))


def _frame(picture: Keypoints) -> _Floats:
    width, height = picture.width, picture.height
    return np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)


def _projected(points: _Floats, homography: _Doubles) -> _Floats | None:
    """Return where a homography puts points, or None if some lie behind the camera."""
    rows = np.c_[points, np.ones(len(points))] @ homography.T
    if (rows[:, 2] <= 1e-9).any():
        return None
    return np.asarray(rows[:, :2] / rows[:, 2:], np.float32)


def _is_seen(points: _Floats, homography: _Doubles) -> bool:
    """Tell whether the surface around some points is seen from its front, not too obliquely."""
    x, y, w = homography @ np.append(points.mean(axis=0, dtype=np.float64), 1)
    slopes = (homography[:2, :2] * w - np.outer((x, y), homography[2, :2])) / w**2
    most, least = np.linalg.svd(slopes, compute_uv=False).tolist()
    return bool(np.linalg.det(slopes) > 0) and most <= MOST_STRETCH * least


def _outline(points: _Floats, picture: Keypoints) -> Outline:
    shares = np.clip(points / (picture.width, picture.height), 0, 1)
    return tuple((round(x, 4), round(y, 4)) for x, y in shares.tolist())


def cv2_of() -> Any:
    """Import OpenCV.

    Raises:
        PackageError: If OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise PackageError(
            f"looking for local features needs OpenCV, which cannot be loaded: {reason_of(error)}",
            "verify",
        ) from error
    return cv2
