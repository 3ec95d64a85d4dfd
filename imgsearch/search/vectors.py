"""The arrays that search works on, and the one check that they are what they should be."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from imgsearch.errors import InputError, reason_of

__all__ = ["Ids", "Vectors", "as_queries", "rows_of"]

Vectors: TypeAlias = npt.NDArray[np.float32]
Ids: TypeAlias = npt.NDArray[np.int64]


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
    norms = np.sqrt(np.einsum("ij,ij->i", array, array))
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
