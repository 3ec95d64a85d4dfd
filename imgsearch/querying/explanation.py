"""Explain the similarity of two images, cell by cell of the network's feature map.

Average pooling is linear, so the similarity of two embeddings splits exactly over the cells of
either image. With `A` the feature map of the query divided by the length of its mean, without the
mean of the collection, `B` that of the hit, and n cells:

    contribution of cell a = A_a · mean(B) / (n ‖mean A‖ ‖mean B‖)

The contributions of all cells sum to the centred similarity (A. Stylianou, R. Souvenir and
R. Pless, "Visualizing deep similarity networks", 2019).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from imgsearch.ann.vectors import Neighbours, Vectors
from imgsearch.files.paths import path_fields
from imgsearch.images.keypoints import Match
from imgsearch.querying.ranking import BANDS, Band, Ranking
from imgsearch.storage.records import Entry

__all__ = ["Explanation", "Part", "explain", "explanation_fields", "parts_of"]

_ROWS = ("top", "", "bottom")
_COLUMNS = ("left", "", "right")
_TINY = 1e-12

_Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Where the similarity of a query and a hit comes from.

    Attributes:
        id: Id of the hit in its collection.
        path: Absolute path of the hit, decoded with `os.fsdecode`.
        similarity: Cosine of the embeddings, -1 to 1; 1 is identical.
        centred: Cosine of the embeddings without the mean of the collection; the same as
            `similarity` if the collection has too few images for a ranking.
        z: As in `imgsearch.Hit`.
        band: As in `imgsearch.Hit`.
        query_map: Contribution of each cell of the query, float32 `[rows, columns]`; negative where
            the two differ. The sum is `centred`.
        hit_map: Contribution of each cell of the hit, in the same form.
        match: How the query lies in the hit, by local features; None if it does not, or if they
            were not compared.
    """

    id: int
    path: str
    similarity: float
    centred: float
    z: float | None
    band: Band | None
    query_map: Vectors
    hit_map: Vectors
    match: Match | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """A named part of an image, and its share of all positive contributions."""

    name: str
    share: float


def explain(entry: Entry, maps: Vectors, ranking: Ranking | None) -> Explanation:
    """Explain the similarity of a query and a hit.

    Args:
        entry: Entry of the hit.
        maps: Feature maps of the query and of the hit, float32 `[2, rows, columns, dim]`.
        ranking: What the collection knows of itself; None for the plain cosine.
    """
    cells = maps.reshape(2, -1, maps.shape[-1]).astype(np.float64)
    lengths = np.linalg.norm(cells.mean(axis=1), axis=1)
    cells /= np.maximum(lengths, _TINY)[:, None, None]
    query, hit = cells.mean(axis=1)
    similarity = float(np.clip(query @ hit, -1, 1))
    z, band = None, None
    if ranking is not None:
        z, band = _meaning(ranking, query, entry.id, similarity)
        cells -= ranking.centre.mean
    means = cells.mean(axis=1)
    scale = cells.shape[1] * max(float(np.prod(np.linalg.norm(means, axis=1))), _TINY)
    contributions = np.stack([cells[0] @ means[1], cells[1] @ means[0]]) / scale
    shown = contributions.reshape(maps.shape[:3]).astype(np.float32)
    return Explanation(
        id=entry.id,
        path=entry.path,
        similarity=similarity,
        centred=float(contributions[0].sum()),
        z=z,
        band=band,
        query_map=shown[0],
        hit_map=shown[1],
    )


def explanation_fields(explained: Explanation) -> dict[str, Any]:
    """Return the fields of an explanation; numbers are rounded to six digits.

    `inliers` and the outlines are there only if the query lies in the hit.
    """
    match = explained.match
    matched = {} if match is None else asdict(match)
    return {
        "id": explained.id,
        **path_fields(explained.path),
        "similarity": round(explained.similarity, 6),
        "centred": round(explained.centred, 6),
        "z": None if explained.z is None else round(explained.z, 6),
        "band": explained.band,
        "query_map": _rounded(explained.query_map),
        "hit_map": _rounded(explained.hit_map),
        **matched,
    }


def _rounded(contributions: Vectors) -> list[list[float]]:
    return [[round(value, 6) for value in row] for row in contributions.tolist()]


def parts_of(contributions: Vectors) -> list[Part]:
    """Return the nine parts of an image, a third of each edge, with the highest share first.

    Args:
        contributions: Contributions of the cells of an image, float32 `[rows, columns]`; negative
            ones do not count.
    """
    height, width = contributions.shape
    positive = np.maximum(contributions.astype(np.float64), 0)
    shares = _thirds(height) @ positive @ _thirds(width).T
    shares /= max(shares.sum(), _TINY)
    parts = [
        Part(f"the {f'{row} {column}'.strip() or 'centre'}", float(shares[y, x]))
        for y, row in enumerate(_ROWS)
        for x, column in enumerate(_COLUMNS)
    ]
    return sorted(parts, key=lambda part: -part.share)


def _thirds(cells: int) -> _Doubles:
    """Return how much of each cell lies in each third of an edge, `[3, cells]`."""
    ends = np.linspace(0, cells, 4)[:, None]
    starts = np.arange(cells)
    overlap = np.clip(ends[1:], starts, starts + 1) - np.clip(ends[:-1], starts, starts + 1)
    return np.asarray(overlap, np.float64)


def _meaning(
    ranking: Ranking, query: _Doubles, id_: int, similarity: float
) -> tuple[float | None, Band | None]:
    """Return z and the band of a hit, as in an answer to the query."""
    squared = np.array([[2 - 2 * similarity]], np.float32)
    found = Neighbours(squared, np.array([[id_]], np.int64))
    ranked = ranking.order(query.astype(np.float32)[None], found, rank="cosine")
    z, number = float(ranked.z[0, 0]), int(ranked.bands[0, 0])
    return (None, None) if np.isnan(z) else (z, BANDS[number])
