"""The arrays that search works on, and the one check that they are what they should be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from imgsearch.errors import InputError, reason_of

__all__ = ["Ids", "Vectors", "as_queries", "combine", "rows_of"]

Vectors: TypeAlias = npt.NDArray[np.float32]
Ids: TypeAlias = npt.NDArray[np.int64]

UNLIKE = 0.5  # weight of what is not wanted; that of what is wanted is 1


def as_queries(embeddings: npt.NDArray[Any], dim: int) -> Vectors:
    """Return embeddings as contiguous float32 `[n, dim]`, one embedding as `[1, dim]`.

    Raises:
        InputError: another shape, not numbers, or not L2-normalised.
    """
    try:
        array = np.atleast_2d(np.ascontiguousarray(embeddings, dtype=np.float32))
    except (TypeError, ValueError) as error:
        raise InputError(f"an embedding is made of numbers: {reason_of(error)}") from error
    if array.ndim != 2 or array.shape[1] != dim:
        raise InputError(
            f"an embedding of this collection has {dim} values, this array has the shape "
            f"{list(np.shape(embeddings))}"
        )
    norms = np.sqrt(np.vecdot(array, array))
    wrong = np.flatnonzero(~(np.abs(norms - 1) < 1e-3))  # NaN is wrong too
    if wrong.size:
        raise InputError(
            f"embedding {wrong[0]} is not L2-normalised (its norm is {norms[wrong[0]]:g}); "
            "divide it by its norm"
        )
    return array


def rows_of(ids: Ids, wanted: Ids) -> npt.NDArray[np.bool_]:
    """Tell for each of `ids` whether it is one of `wanted` (sorted)."""
    if not wanted.size:
        return np.zeros(ids.shape, dtype=np.bool_)
    places = np.searchsorted(wanted, ids).clip(max=wanted.size - 1)
    return np.asarray(wanted[places] == ids, dtype=np.bool_)


def combine(wanted: Vectors, unwanted: Vectors, weights: Sequence[float] | None = None) -> Vectors:
    """Return one embedding that is near to some embeddings and far from others, float32 `[dim]`.

    mean(wanted) - 0.5 * mean(unwanted), L2-normalised: J. J. Rocchio, "Relevance feedback in
    information retrieval" (1971; in G. Salton, The SMART Retrieval System), with the weights
    alpha = 0, beta = 1 and gamma = 0.5.

    Args:
        wanted: float32 `[n, dim]`, at least one.
        unwanted: float32 `[m, dim]`, perhaps none.
        weights: what each of the n, then of the m, counts for in its mean; None for all the same.

    Raises:
        InputError: nothing is wanted, or nothing is left of it; a weight is not more than 0.
    """
    if not len(wanted):
        raise InputError("there is nothing to combine; give at least one image")
    count = len(wanted) + len(unwanted)
    each = np.ones(count) if weights is None else np.asarray(weights, np.float64)
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
