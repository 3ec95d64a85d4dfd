"""The options of a run, declared only here; CONTRIBUTING.md explains how to add one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypedDict, Unpack

from imgsearch.errors import SettingError
from imgsearch.images.limits import MAX_PIXELS, TIME_LIMIT, Limits
from imgsearch.indexing.engine import Engine, LocalEngine
from imgsearch.indexing.policy import POLICY, FoldPolicy
from imgsearch.indexing.report import Progress
from imgsearch.querying.options import (
    PathLike,
    SearchOptions,
    check_names,
    items,
    number,
    paths_of,
    patterns_of,
    whole,
)
from imgsearch.storage.records import Storage

__all__ = ["IndexKeywords", "IndexOptions"]


class IndexKeywords(TypedDict, total=False):
    """The keywords of `Collection.index`: the fields of `IndexOptions`, which documents them."""

    nlist: int | None
    recall: float | None
    storage: Storage | None
    pca: int | None
    prune: bool
    moved: tuple[PathLike, PathLike] | None
    exclude: Iterable[str]
    include: Iterable[str]
    rehash: bool
    workers: int | None
    time_limit: float
    max_pixels: int
    engine: Engine | None
    policy: FoldPolicy
    progress: Callable[[Progress], None] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexOptions:
    """How to index, and which settings to keep from then on.

    Attributes:
        nlist: Number of centroids from now on. None for the previous setting, or else for a
            number that depends on the number of images.
        recall: Recall@10 that queries keep from now on unless they ask for another. None for the
            previous setting, 0.95 at first.
        storage: Content of the index from now on: "flat", the embeddings, or "compact", one bit
            for each value that PCA keeps of them. None for the previous setting, "flat" at first.
        pca: Number of values that PCA keeps from now on. None for the previous setting, 256 at
            first.
        prune: Whether to drop images whose files are missing even if a drive may be unplugged.
        moved: Old and new location of a root.
        exclude: One or more patterns to leave out from now on; see
            `imgsearch.files.exclusions`.
        include: Patterns, of these or of the default ones, to drop from now on.
        rehash: Whether to read every file again, even if its size, times and inode are unchanged.
        workers: Number of processes on this machine; None for one per core.
        time_limit: Maximum seconds to spend on one file.
        max_pixels: Maximum number of pixels of an image; it also limits the memory of a worker.
        engine: Machines that do the work instead of this one, like an `imgsearch.RayEngine`.
        policy: Thresholds that decide when to commit, fold, train and compact.
        progress: Function called from time to time with the progress so far.

    Raises:
        SettingError: If a value makes no sense.
        InputError: If `exclude`, `include` or `moved` are not paths or patterns.
    """

    nlist: int | None = None
    recall: float | None = None
    storage: Storage | None = None
    pca: int | None = None
    prune: bool = False
    moved: tuple[PathLike, PathLike] | None = None
    exclude: Iterable[str] = ()
    include: Iterable[str] = ()
    rehash: bool = False
    workers: int | None = None
    time_limit: float = TIME_LIMIT
    max_pixels: int = MAX_PIXELS
    engine: Engine | None = None
    policy: FoldPolicy = POLICY
    progress: Callable[[Progress], None] | None = None

    def __post_init__(self) -> None:
        if self.storage not in (None, "flat", "compact"):
            raise SettingError(f'storage is {self.storage!r}; it must be "flat" or "compact"')
        for name in ("nlist", "pca", "workers"):
            value = getattr(self, name)
            self._set(name, None if value is None else whole(name, value, 1))
        self._set("max_pixels", whole("max_pixels", self.max_pixels, 1))
        seconds = number("time_limit", self.time_limit, -math.inf, math.inf)
        if not 0 < seconds < math.inf:
            raise SettingError(f"time_limit is {self.time_limit}; it must be more than 0")
        self._set("time_limit", seconds)
        if self.recall is not None:
            self._set("recall", SearchOptions(recall=self.recall).recall)
        if self.moved is not None and len(paths_of(items("moved", self.moved))) != 2:
            raise SettingError("moved must be two folders: the old location and the new one")
        self._set("exclude", patterns_of(self.exclude))
        self._set("include", patterns_of(self.include))

    @classmethod
    def of(cls, **options: Unpack[IndexKeywords]) -> IndexOptions:
        """Return the options that the keywords stand for; raise `SettingError` for unknown ones."""
        check_names(options, IndexKeywords.__annotations__)
        return cls(**options)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)  # frozen, but still being made

    @property
    def limits(self) -> Limits:
        """The limits for one file."""
        return Limits(self.max_pixels, self.time_limit)

    def engine_on(self, device: str) -> Engine:
        """Return the given engine, or else this machine with the model on a device."""
        return self.engine or LocalEngine(workers=self.workers, device=device)
