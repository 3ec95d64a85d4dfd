"""Make the map of a collection, bring it up to date, or read the one that was made.

- Up to 20,000 images are laid out together (`imgsearch.querying.map.layout`). Of more, as many are
  drawn, and the others are placed among them.
- Images that were added later are placed among those that were laid out. Once a quarter of all
  images is new, or half of those that were laid out are gone, the map is laid out again.
- Exact copies of a file are in one place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from imgsearch.ann.vectors import Ids, Vectors
from imgsearch.errors import InputError, NoMapError, SettingError
from imgsearch.querying.map.kept import (
    ADDED,
    LAID_OUT,
    MOST_IMAGES,
    PLACED,
    Kept,
    Keys,
    read_kept,
    write_kept,
)
from imgsearch.querying.map.layout import STEPS, Projection, check_package, lay_out, place
from imgsearch.querying.view import View
from imgsearch.storage.catalog import Catalog

__all__ = ["Map", "make_map", "read_map"]

LANDMARKS = 20_000  # images that are laid out together
NEW = 4  # once one image in so many is new, the map is laid out again
GONE = 2  # once one in so many of those that were laid out is gone
READING, PLACING = 50, 200  # steps, beside those of the layout
BLOCK = 4_096  # images whose embeddings are in memory at a time
SEED = 1234

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Map:
    """The images of a collection in a plane: those that look alike are near each other.

    Attributes:
        ids: Ids of the images, ascending, int64 `[n]`.
        positions: Their positions in the unit square, float32 `[n, 2]`; exact copies share one.
        missing: The number of images that have none yet: `imgsearch map` places them.
        rebuilt: Whether all images have just been laid out, rather than some placed among others.
        placed: The number of images that have just got a position.
    """

    ids: Ids
    positions: Vectors
    missing: int = 0
    rebuilt: bool = False
    placed: int = 0


class _Contents:
    """The images of a view, by their contents."""

    def __init__(self, catalog: Catalog, view: View) -> None:
        rows = catalog.contents()
        ids = np.array([id_ for id_, _ in rows], np.int64)
        keys = np.frombuffer(b"".join(digest[:8] for _, digest in rows), "<u8")
        there = np.isin(ids, view.live_ids(), assume_unique=True)
        self.view = view
        self.ids: Ids = ids[there]
        self.keys: Keys
        self.keys, self.first, self.row_of = np.unique(
            keys[there], return_index=True, return_inverse=True
        )

    def blocks(self, rows: Ids) -> Iterator[tuple[Ids, Vectors]]:
        """Yield some of `rows`, and the embeddings of these contents."""
        ids = self.ids[self.first[rows]]
        order = np.argsort(ids)  # one after the other on the disk
        for start in range(0, len(rows), BLOCK):
            some = order[start : start + BLOCK]
            yield some, self.view.rows(ids[some])

    def map_of(self, kept: Kept, **made: int) -> Map:
        """Return the map of the images that have a position in what is kept."""
        rows, known = _found(kept, self.keys)
        there = known[self.row_of]
        positions = kept.positions[rows[self.row_of[there]]]
        missing = len(self.ids) - int(there.sum())
        placed = made.get("placed", 0)
        return Map(self.ids[there], positions, missing, bool(made.get("rebuilt")), placed)


def read_map(directory: Path, catalog: Catalog, view: View) -> Map:
    """Return the map that was made of a collection, without images that have been removed since.

    Args:
        directory: Directory of the collection.
        catalog: Its catalog.
        view: A view of its present state.

    Raises:
        NoMapError: If none was made, or none of its images is left.
    """
    kept = read_kept(directory, view.snapshot.model)
    found = _Contents(catalog, view).map_of(kept)
    if not len(found.ids):
        raise NoMapError(directory)
    return found


def make_map(
    directory: Path,
    catalog: Catalog,
    view: View,
    *,
    rebuild: bool = False,
    progress: Progress | None = None,
) -> Map:
    """Make the map of a collection, or bring it up to date, and keep it in the user's cache.

    Args:
        directory: Directory of the collection.
        catalog: Its catalog.
        view: A view of its present state.
        rebuild: Whether to lay out all images again in any case.
        progress: Function that is called with the number of steps done, and of all.

    Raises:
        InputError: If the collection has no images.
        SettingError: If it has more images than a map can show.
        PackageError: If openTSNE is not installed.
        DamagedError: If a file of the collection is missing or damaged.
    """
    contents = _Contents(catalog, view)
    model, count = view.snapshot.model, len(contents.keys)
    if not count:
        raise InputError(f"{directory} has no images to make a map of; run `imgsearch index` first")
    if count > MOST_IMAGES:
        raise SettingError(f"{directory} has more than {MOST_IMAGES:,} images, the most of a map")
    kept = read_kept(directory, model)
    rows, known = _found(kept, contents.keys)
    roles = np.where(known, kept.roles[rows] if len(kept.keys) else ADDED, ADDED).astype(np.uint8)
    anchors = roles == LAID_OUT
    lost = int((kept.roles == LAID_OUT).sum()) - int(anchors.sum())
    is_outgrown = NEW * int((roles == ADDED).sum()) > count or GONE * lost > lost + anchors.sum()
    again = rebuild or is_outgrown or not anchors.any()
    if not again and known.all():
        return contents.map_of(kept)
    tell = _Steps(progress, again=again)
    if again:
        check_package()  # before anything is read
        roles = np.full(count, PLACED, np.uint8)
        roles[_landmarks(count)] = LAID_OUT
        anchors, known = roles == LAID_OUT, np.zeros(count, np.bool_)
    own = np.flatnonzero(anchors)
    projection = Projection.of((vectors for _, vectors in contents.blocks(own)), model.dim)
    projected = np.empty((len(own), projection.components.shape[1]), np.float32)
    for some, vectors in contents.blocks(own):
        projected[some] = projection(vectors)
    tell.read()
    positions = np.zeros((count, 2), np.float32)
    if again:
        positions[own] = lay_out(projected, tell.laid_out)
    else:
        positions[known] = kept.positions[rows[known]]
    others = np.flatnonzero(~known & ~anchors)
    done = 0
    for some, vectors in contents.blocks(others):
        positions[others[some]] = place(projection(vectors), projected, positions[own])
        done += len(some)
        tell.placed(done, len(others))
    tell.end()
    made = Kept(contents.keys, positions, roles)
    write_kept(directory, model, made)
    return contents.map_of(made, rebuilt=again, placed=count if again else len(others))


class _Steps:
    """The steps of making a map: reading, laying out unless that was done, and placing."""

    def __init__(self, progress: Progress | None, *, again: bool) -> None:
        self._progress = progress or _nothing
        self._layout = STEPS if again else 0
        self._all = READING + self._layout + PLACING
        self._progress(0, self._all)

    def read(self) -> None:
        self._progress(READING, self._all)

    def laid_out(self, steps: int) -> None:
        self._progress(READING + steps, self._all)

    def placed(self, done: int, total: int) -> None:
        self._progress(READING + self._layout + PLACING * done // total, self._all)

    def end(self) -> None:
        self._progress(self._all, self._all)


def _nothing(done: int, total: int) -> None:
    """Ignore the progress."""


def _found(kept: Kept, keys: Keys) -> tuple[Ids, npt.NDArray[np.bool_]]:
    """Return the row of each key in what is kept, and whether it has one."""
    if not len(kept.keys):
        return np.zeros(len(keys), np.int64), np.zeros(len(keys), np.bool_)
    rows = np.searchsorted(kept.keys, keys).clip(max=len(kept.keys) - 1)
    return rows, kept.keys[rows] == keys


def _landmarks(count: int) -> Ids:
    """Return the rows of the images to lay out, ascending."""
    if count <= LANDMARKS:
        return np.arange(count)
    drawn = np.random.default_rng(SEED).choice(count, LANDMARKS, replace=False)
    return np.sort(drawn)
