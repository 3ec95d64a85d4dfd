"""The arrays that search works on, and the one check of their type and shape."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from imgsearch.errors import InputError, reason_of

__all__ = [
    "Block",
    "Ids",
    "Neighbours",
    "Vectors",
    "as_queries",
    "columns_of",
    "combine",
    "places_among",
    "rows_of",
]

Vectors: TypeAlias = npt.NDArray[np.float32]
Ids: TypeAlias = npt.NDArray[np.int64]

_Value = TypeVar("_Value", bound=np.generic)


class Block(NamedTuple):
    """A block of images: ascending ids, int64 `[m]`, and vectors, float32 `[m, dim]`."""

    ids: Ids
    vectors: Vectors


class Neighbours(NamedTuple):
    """The images nearest to each of n queries, nearest first.

    `distances` are squared L2 distances, float32 `[n, k]`; `ids` are int64 `[n, k]`, and -1, as in
    Faiss, if there are fewer than k images.
    """

    distances: Vectors
    ids: Ids

    @classmethod
    def none(cls, queries: int, k: int) -> Neighbours:
        """Return a result without any images, `[queries, k]`."""
        return cls(np.full((queries, k), np.inf, np.float32), np.full((queries, k), -1, np.int64))

    @classmethod
    def scattered(cls, queries: int, k: int, parts: Iterable[tuple[Ids, Neighbours]]) -> Neighbours:
        """Combine partial results, each for some of the queries; a later part prevails.

        Args:
            queries: Number of queries.
            k: Number of columns in each part.
            parts: Rows of each part, int64 `[m]`, with their neighbours, `[m, k]`.
        """
        whole = cls.none(queries, k)
        for rows, part in parts:
            whole.distances[rows], whole.ids[rows] = part
        return whole

    @property
    def there(self) -> npt.NDArray[np.bool_]:
        """A mask of the places that hold an image, bool `[n, k]`."""
        return np.asarray(self.ids >= 0)

    def first(self, k: int) -> Neighbours:
        """Return the `k` nearest of each row."""
        return Neighbours(self.distances[:, :k], self.ids[:, :k])

    def take(self, columns: Ids) -> Neighbours:
        """Return the given columns of each row, int64 `[n, m]`."""
        return Neighbours(columns_of(self.distances, columns), columns_of(self.ids, columns))

    def without(self, dropped: npt.NDArray[np.bool_]) -> Neighbours:
        """Return the remaining images, nearest first, without those in a mask, bool `[n, k]`."""
        distances = np.where(dropped, np.float32(np.inf), self.distances)
        kept = Neighbours(distances, np.where(dropped, -1, self.ids))
        return kept.take(np.argsort(dropped, axis=1, kind="stable"))


UNLIKE = 0.5  # weight of the unwanted embeddings; the weight of the wanted ones is 1


def as_queries(embeddings: npt.NDArray[Any], dim: int) -> Vectors:
    """Return embeddings as contiguous float32 `[n, dim]`, L2-normalised; one as `[1, dim]`.

    Raises:
        InputError: If the shape differs, a value is not a finite number, or all values of an
            embedding are zero.
    """
    if np.asarray(embeddings).dtype.kind not in "iuf":
        raise InputError(f"an embedding is made of numbers, not of {np.asarray(embeddings).dtype}")
    with np.errstate(over="ignore", invalid="ignore"):
        array = np.ascontiguousarray(embeddings, dtype=np.float32)
        array = array[None] if array.ndim == 1 else array
        norms = np.sqrt(np.vecdot(array, array))
    if array.ndim != 2 or array.shape[1] != dim:
        raise InputError(
            f"an embedding of this collection has {dim} values, but this array has the shape "
            f"{list(np.shape(embeddings))}"
        )
    far = (~(np.abs(norms - 1) < 1e-3)).nonzero()[0]  # NaN is far, too
    if far.size:
        array = array.copy() if array is embeddings or array.base is embeddings else array
        array[far] = _normalised(np.atleast_2d(embeddings)[far].astype(np.float64), far)
    return array


def _normalised(rows: npt.NDArray[np.float64], numbers: Ids) -> npt.NDArray[np.float64]:
    largest = np.abs(rows).max(axis=1, initial=0)
    wrong = numbers[~(np.isfinite(largest) & (largest > 0))]
    if wrong.size:
        raise InputError(f"embedding {wrong[0]} has a value that is not finite, or only zeros")
    rows = rows / largest[:, None]  # squares of larger values may overflow
    normalised: npt.NDArray[np.float64] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return normalised


def columns_of(values: npt.NDArray[_Value], columns: Ids) -> npt.NDArray[_Value]:
    """Return the given columns of each row, `[n, m]`: `np.take_along_axis`, which takes longer."""
    return values[np.arange(len(values))[:, None], columns]


def rows_of(ids: Ids, wanted: Ids) -> npt.NDArray[np.bool_]:
    """Tell for each of `ids` whether it is in `wanted` (sorted)."""
    if not wanted.size:
        return np.zeros(ids.shape, dtype=np.bool_)
    return np.asarray(wanted[places_among(ids, wanted)] == ids, dtype=np.bool_)


def places_among(ids: Ids, among: Ids) -> Ids:
    """Return the place of each id in `among` (sorted, distinct); any for another id."""
    if not among.size:
        return np.zeros(ids.shape, np.int64)
    first, last = int(among[0]), among.size - 1
    if int(among[-1]) - first == last:  # without a gap
        return np.asarray((ids - first).clip(0, last))
    return np.asarray(np.searchsorted(among, ids).clip(max=last))


def combine(wanted: Vectors, unwanted: Vectors, weights: Sequence[float] | None = None) -> Vectors:
    """Return one embedding that is near some embeddings and far from others, float32 `[dim]`.

    The result is mean(wanted) - 0.5 * mean(unwanted), L2-normalised: J. J. Rocchio, "Relevance
    feedback in information retrieval" (1971; in G. Salton, The SMART Retrieval System), with the
    weights alpha = 0, beta = 1 and gamma = 0.5.

    Args:
        wanted: Embeddings to be near, at least one, float32 `[n, dim]`.
        unwanted: Embeddings to be far from, possibly none, float32 `[m, dim]`.
        weights: Weights of the n wanted, then the m unwanted embeddings in their means; None for
            equal weights.

    Raises:
        InputError: If `wanted` is empty, the embeddings cancel out, or a weight is not above 0.
    """
    if not len(wanted):
        raise InputError("there is nothing to combine; give at least one image")
    count = len(wanted) + len(unwanted)
    try:
        each = np.ones(count) if weights is None else np.asarray(weights, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"weights must be numbers: {reason_of(error)}") from error
    if each.shape != (count,) or not (np.isfinite(each) & (each > 0)).all():
        raise InputError(f"{count} embeddings have {count} weights, all of them more than 0")
    mean = np.average(wanted.astype(np.float64), axis=0, weights=each[: len(wanted)])
    if len(unwanted):
        against = np.average(unwanted.astype(np.float64), axis=0, weights=each[len(wanted) :])
        mean -= UNLIKE * against
    norm = float(np.linalg.norm(mean))
    if not norm > 1e-6:
        raise InputError("these images cancel one another out; leave one of them out")
    return np.asarray(mean / norm, dtype=np.float32)
