"""Search what can be searched, and leave out of the hits what is not to be among them."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol

import numpy as np

from imgsearch.errors import InputError
from imgsearch.hits import HitArrays, Search, arrays_of
from imgsearch.queries import PathLike, Query, SearchOptions
from imgsearch.search.vectors import Ids, Vectors, rows_of

__all__ = ["Searchable", "left_out", "names_left_out", "search"]


class Searchable(Protocol):
    """The images of a collection as of one moment."""

    @property
    def count(self) -> int:
        """The number of images."""
        ...

    @property
    def has_index(self) -> bool:
        """Whether there are inverted lists; else every search is exact."""
        ...

    def live_blocks(self) -> Iterable[tuple[Ids, Vectors]]:
        """Yield ids int64 `[m]` and vectors float32 `[m, dim]` block by block."""
        ...

    def search(
        self, queries: Vectors, k: int, *, recall: float | None, nprobe: int | None, exact: bool
    ) -> tuple[Vectors, Ids, list[Search]]:
        """Return squared L2 distances and ids `[n, k]`, nearest first, and how they were found."""
        ...


def names_left_out(
    queries: Sequence[Query] | Vectors, options: SearchOptions
) -> list[list[PathLike | int]]:
    """Return the paths or ids of images that are no hits of each query; nothing if there are none.

    Args:
        queries: as they were asked, for the paths among them.
        options: how to search.

    Raises:
        InputError: `exclude` has not one list for each query.
    """
    if options.exclude and len(options.exclude) != len(queries):
        raise InputError(
            f"exclude has {len(options.exclude)} entries for {len(queries)} queries; "
            "give a list of paths or ids for each query"
        )
    own: list[list[PathLike | int]] = []
    if options.leaves_self_out and not isinstance(queries, np.ndarray):
        own = [[query] if isinstance(query, str | os.PathLike) else [] for query in queries]
    named = [list(images) for images in options.exclude]
    if named and own:
        named = [images + self for images, self in zip(named, own, strict=True)]
    named = named or own
    return named if any(named) else []


def left_out(
    named: list[list[PathLike | int]], ids_at: Callable[[PathLike], Collection[int]]
) -> Ids:
    """Return the ids that are no hits of each query, int64 `[n, m]`; -1 stands for none.

    Args:
        named: as from `names_left_out`.
        ids_at: returns the ids of the images at a path.
    """
    found = [
        {id_ for image in images for id_ in ([image] if isinstance(image, int) else ids_at(image))}
        for images in named
    ]
    out = np.full((len(found), max(map(len, found), default=0)), -1, dtype=np.int64)
    for row, ids in zip(out, found, strict=True):
        row[: len(ids)] = sorted(ids)
    return out


def search(
    view: Searchable, queries: Vectors, options: SearchOptions, without: Ids | None
) -> tuple[HitArrays, list[Search]]:
    """Return the nearest images of each query, and how they were found.

    Args:
        view: what is searched.
        queries: float32 `[n, dim]`, L2-normalised.
        options: how to search.
        without: as from `left_out`; None for nothing.
    """
    k = min(options.k, view.count)
    if not k:
        nothing = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        return arrays_of(*nothing), [Search("exact", 0, 1.0)] * len(queries)
    distances, ids, searches = view.search(
        queries,
        k if without is None else k + without.shape[1],
        recall=options.recall,
        nprobe=options.nprobe,
        exact=options.exact,
    )
    if without is not None and without.size:
        distances, ids = _without(distances, ids, without)
    found = arrays_of(distances[:, :k], ids[:, :k])
    if options.min_similarity is not None:
        # 5e-7, so that what is printed with six digits is compared as it is printed.
        near = found.similarities >= options.min_similarity - 5e-7
        found = HitArrays(np.where(near, found.ids, -1), found.distances, found.similarities)
    return found, searches


def _without(distances: Vectors, ids: Ids, left_out: Ids) -> tuple[Vectors, Ids]:
    """Put the ids to be left out of each row behind all others, as -1."""
    sorted_out = np.sort(left_out)
    drop = np.array([rows_of(row, out) for row, out in zip(ids, sorted_out, strict=True)])
    drop &= ids >= 0
    order = np.argsort(drop, axis=1, kind="stable")
    rows = np.arange(len(ids))[:, None]
    return distances[rows, order], np.where(drop, -1, ids)[rows, order]
