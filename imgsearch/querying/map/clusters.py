"""Find the clusters of a map: for people who cannot see it, and to find one's way on it.

The density of the images is counted on a grid and smoothed. Each cell belongs to the peak that is
reached by going to the densest cell around it again and again; the images around a peak are a
cluster.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imgsearch.ann.vectors import Ids, Vectors

__all__ = ["Clusters", "clusters_of"]

MOST = 48  # clusters
LEAST_CELLS, MOST_CELLS = 8, 128  # along an edge of the grid
SHARE = 200  # a cluster has at least one image in so many

_Grid = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """The clusters of the images of a map, the largest first.

    Attributes:
        of: Number of the cluster of each image, int64 `[n]`.
        middles: Mean position of the images of each, float32 `[k, 2]`.
        central: Row of the image that is nearest to this position, int64 `[k]`.
        sizes: Number of images of each, int64 `[k]`.
    """

    of: Ids
    middles: Vectors
    central: Ids
    sizes: Ids


def clusters_of(positions: Vectors) -> Clusters:
    """Find the clusters of positions in the unit square, float32 `[n, 2]`, at least one."""
    edge = int(np.clip(np.sqrt(len(positions)), LEAST_CELLS, MOST_CELLS))
    cells = np.minimum((positions * edge).astype(np.int64), edge - 1)
    density = np.zeros((edge, edge))
    np.add.at(density, (cells[:, 1], cells[:, 0]), 1)
    while True:
        density = _smoothed(density)
        peaks = _peaks(density)[cells[:, 1], cells[:, 0]]
        found, of, sizes = np.unique(peaks, return_inverse=True, return_counts=True)
        if len(found) <= MOST:
            break
    large = sizes * SHARE >= len(positions)
    middles = _means(positions, of, len(sizes))
    away = ((middles[:, None] - middles[large][None]) ** 2).sum(axis=2)
    of = np.flatnonzero(large)[away.argmin(axis=1)][of]  # the small ones go to their neighbours
    found, of, sizes = np.unique(of, return_inverse=True, return_counts=True)
    by_size = np.argsort(-sizes, kind="stable")
    of = np.argsort(by_size)[of]
    middles = _means(positions, of, len(sizes))
    away_from_middle = ((positions - middles[of]) ** 2).sum(axis=1)
    order = np.lexsort((away_from_middle, of))
    central = order[np.searchsorted(of[order], np.arange(len(sizes)))]
    return Clusters(of, middles, central, sizes[by_size])


def _smoothed(density: _Grid) -> _Grid:
    """Return a density, smoothed by a binomial filter of three cells a side."""
    for axis in (0, 1):
        padded = np.pad(density, [(1, 1) if each == axis else (0, 0) for each in (0, 1)])
        shifted = (np.take(padded, np.arange(n, n + density.shape[axis]), axis) for n in range(3))
        before, own, after = shifted
        density = 0.25 * before + 0.5 * own + 0.25 * after
    return density


def _peaks(density: _Grid) -> Ids:
    """Return the peak of each cell, as the number of a cell, int64 `[edge, edge]`."""
    edge = len(density)
    numbers = np.pad(np.arange(edge * edge).reshape(edge, edge), 1, constant_values=-1)
    padded = np.pad(density, 1, constant_values=-1.0)
    around = [(y, x) for y in range(3) for x in range(3)]
    values = np.stack([padded[y : y + edge, x : x + edge] for y, x in around])
    cells = np.stack([numbers[y : y + edge, x : x + edge] for y, x in around])
    # Of cells of one density, the one with the highest number is the densest.
    best = np.lexsort((cells, values), axis=0)[-1]
    above = np.take_along_axis(cells, best[None], 0)[0].ravel()
    while True:
        further = above[above]
        if (further == above).all():
            return np.asarray(above.reshape(edge, edge))
        above = further


def _means(positions: Vectors, of: Ids, count: int) -> Vectors:
    sizes = np.maximum(np.bincount(of, minlength=count), 1)[:, None]
    sums = [np.bincount(of, positions[:, axis], count) for axis in (0, 1)]
    return np.asarray(np.stack(sums, axis=1) / sizes, np.float32)
