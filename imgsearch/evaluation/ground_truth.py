"""The ground truth: the labelled images of a view, and which of them a search can reach."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from imgsearch.ann.exact import ranking, squared_distances
from imgsearch.ann.metrics import Flags, Values
from imgsearch.ann.recall import Assignment
from imgsearch.ann.vectors import Block, Ids, Vectors, rows_of
from imgsearch.errors import InputError
from imgsearch.evaluation.labels import Labelled, difference, near_labels, near_miss
from imgsearch.files.paths import real_path
from imgsearch.querying.hits import Search
from imgsearch.querying.search import Searchable
from imgsearch.querying.view import View

__all__ = ["GroundTruth", "Lists", "Reach", "ground_truth"]

#: Given the vectors of queries and the way of each search, tells which images these reached.
Reach: TypeAlias = Callable[[Vectors, Sequence[Search]], Flags]

_ROWS = 4_096  # embeddings read at a time


@dataclass(frozen=True, slots=True, eq=False)
class GroundTruth:
    """The labelled images of a view.

    Attributes:
        view: The view of the collection.
        ids: The ids of the images, ascending, int64 `[m]`.
        paths: The paths of the images.
        names: The names of the classes.
        classes: The index in `names` of each image's class, int64 `[m]`.
        totals: The number of other images in each image's class, int64 `[m]`.
        reach: A function that tells which of the images each search reached.
        missing: The labelled paths that are not in the view.
        warnings: Warnings about labels and paths that are nearly the same.
    """

    view: Searchable
    ids: Ids
    paths: Sequence[str]
    names: Sequence[str]
    classes: Ids
    totals: Ids
    reach: Reach
    missing: Sequence[str]
    warnings: Sequence[str]

    def blocks(self, ids: Ids, size: int = _ROWS) -> Iterator[Block]:
        """Yield the embeddings of some images, up to `size` at a time."""
        for block_ids, block in self.view.live_blocks():
            rows = np.flatnonzero(rows_of(block_ids, ids))
            for start in range(0, len(rows), size):
                part = rows[start : start + size]
                yield Block(block_ids[part], block[part])

    def rank(self, ids: Ids, vectors: Vectors) -> tuple[Ids, Ids, Values]:
        """Return each query's own column `[n]`, all columns by rank, and distances `[n, m]`."""
        distances = squared_distances(vectors, self.ids, self.blocks(self.ids))
        return np.searchsorted(self.ids, ids), ranking(distances), distances

    def scanned(self, vectors: Vectors, searches: Sequence[Search]) -> Flags:
        """Tell which images each search reached, bool `[n, m]`."""
        if not any(each.nprobe for each in searches):
            return np.ones((len(searches), len(self.ids)), np.bool_)
        return self.reach(vectors, searches)


@dataclass(frozen=True, slots=True, eq=False)
class Lists:
    """The inverted lists that hold some images of a view, -1 for none; `lists` is int64 `[m]`."""

    view: View
    lists: Ids

    @classmethod
    def of(cls, view: View, ids: Ids) -> Lists:
        """Look up the lists of images."""
        if view.promise is None:
            return cls(view, np.full(len(ids), -1))
        assignment = Assignment.of(view.segments)
        return cls(view, np.where(rows_of(ids, assignment.ids), assignment.of_ids(ids), -1))

    def __call__(self, vectors: Vectors, searches: Sequence[Search]) -> Flags:
        """Tell which images are in lists that a search scanned, or in none; bool `[n, m]`."""
        index = self.view.segments[0]
        nearest = index.assign(vectors, max(each.nprobe for each in searches)).lists
        scanned = np.zeros((len(searches), index.nlist + 1), np.bool_)
        for row, search in enumerate(searches):
            if search.kind == "ivf":
                scanned[row, nearest[row, : search.nprobe]] = True
            else:
                scanned[row] = True
        scanned[:, -1] = True
        return scanned[:, self.lists]


def ground_truth(
    paths: Mapping[int, str],
    view: Callable[[Ids], tuple[Searchable, Reach]],
    labelled: Iterable[Labelled],
    given: str,
) -> GroundTruth:
    """Find the labelled images in a collection.

    Args:
        paths: The paths of all its images, by their ids.
        view: A function that, for some of the ids, returns the view to search and its `Reach`.
        labelled: The labelled paths, as from `imgsearch.evaluation.labels.read_labels`.
        given: The source of the labels, for messages.

    Raises:
        InputError: If none of them is there, an image has two labels, or no class has two images.
    """
    at = {path: id_ for id_, path in paths.items()}
    found: dict[int, Labelled] = {}
    unknown: list[str] = []
    for row in labelled:
        # First as written, as it may lead through a linked folder, then resolved.
        id_ = at.get(row.path, at.get(os.fsdecode(real_path(row.path))))
        if id_ is None:
            unknown.append(row.path)
        elif found.setdefault(id_, row).label != row.label:
            raise InputError(
                f"{row.where}: {row.path} is {row.label!r} here, and the same image is "
                f"{found[id_].label!r} in {found[id_].where}; keep one of them"
            )
    near = _near_paths(unknown, paths.values())
    if not found:
        raise InputError(
            f"none of the {len(unknown):,} files of {given} is in the collection: "
            + (near[0] if near else f"{unknown[0]} was looked for; index them, or check the paths")
        )
    ids = np.array(sorted(found), np.int64)
    names = sorted({row.label for row in found.values()})
    number = {name: place for place, name in enumerate(names)}
    classes = np.array([number[found[id_].label] for id_ in ids.tolist()], np.int64)
    totals = np.bincount(classes)[classes] - 1
    if not totals.any():
        raise InputError(
            f"no class of {given} has two images in the collection, so there is nothing to find; "
            f"label more"
        )
    own = [paths[id_] for id_ in ids.tolist()]
    searched, reach = view(ids)
    warnings = [*near_labels(names), *near]
    return GroundTruth(searched, ids, own, names, classes, totals, reach, unknown, warnings)


def _near_paths(unknown: Sequence[str], known: Iterable[str]) -> list[str]:
    """Say which unknown paths nearly match those of images: one example per difference."""
    if not unknown:
        return []
    near = {near_miss(path): path for path in known}
    named = {os.path.basename(key): path for key, path in near.items()}
    examples: dict[str, list[str]] = {}
    for path in unknown:
        key = near_miss(path)
        how = "they have the same name"
        there = near.get(key)
        if there is not None:
            how = f"they differ by {difference(path, there)}"
        else:
            there = named.get(os.path.basename(key))
        if there is not None:
            text = f"{path} is not in the collection, while {there} is"
            examples.setdefault(how, []).append(text)
    return [
        f"{texts[0]}: {how}" + (f" ({len(texts) - 1:,} more like this)" if texts[1:] else "")
        for how, texts in examples.items()
    ]
