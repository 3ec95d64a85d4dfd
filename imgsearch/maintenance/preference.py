"""Which of several copies to keep, where the files themselves leave the choice."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from imgsearch.errors import InputError, SettingError
from imgsearch.files.paths import is_at, is_url, plain_path, relative, resolved_path
from imgsearch.files.sources import status_of
from imgsearch.images.holdings import Holdings
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.records import Entry

__all__ = ["PREFERENCES", "Preference", "mtime_of"]

PREFERENCES = ("largest", "oldest", "newest", "sharpest")


@dataclass(frozen=True, slots=True)
class Preference:
    """What to keep among copies, none of which holds anything that another lacks.

    Attributes:
        folders: Absolute paths of folders, free of links. What lies below is kept and stays.
        order: One of `PREFERENCES`; empty for most bytes, then the oldest.
    """

    folders: tuple[bytes, ...] = ()
    order: str = ""
    _below: dict[str, bool] = field(default_factory=dict, compare=False)

    @classmethod
    def of(
        cls, keep_in: Iterable[str | os.PathLike[str]], prefer: str | None, catalog: Catalog
    ) -> Preference:
        """Return the preference for the images of a collection.

        Raises:
            SettingError: If there is no such preference.
            InputError: If something in `keep_in` is not a folder with images of the collection.
        """
        if prefer not in (None, *PREFERENCES):
            raise SettingError(f"prefer is {prefer!r}, and must be one of {', '.join(PREFERENCES)}")
        keep_in = (keep_in,) if isinstance(keep_in, str | Path) else keep_in
        folders = tuple(resolved_path(folder) for folder in keep_in)
        for folder in folders:
            shown = os.fsdecode(folder)
            if not is_url(folder) and not os.path.isdir(folder):
                raise InputError(f"{shown} is not a folder, so nothing can be kept in it")
            if not _holds_images(catalog, folder):
                raise InputError(
                    f"{shown}: the collection has no image in this folder, so nothing can be kept "
                    "in it; index it first"
                )
        return cls(folders, prefer or "")

    def protects(self, path: str) -> bool:
        """Tell whether a file lies in one of the folders, with links in its path resolved."""
        if not self.folders:
            return False
        above = os.path.dirname(path)
        if above not in self._below:
            places = plain_path(above), resolved_path(above)
            self._below[above] = any(is_at(at, of) for at in places for of in self.folders)
        return self._below[above]

    def rank(self, entry: Entry, held: Holdings) -> tuple[float | str, ...]:
        """Return the sort key by which, of two such files, the one to keep comes first."""
        mtime = mtime_of(entry)
        oldest = math.inf if mtime is None else mtime
        quality = 100 if held.lossless or held.quality is None else held.quality
        own: dict[str, tuple[float, ...]] = {
            "largest": (-held.width * held.height,),
            "oldest": (oldest,),
            "newest": (math.inf if mtime is None else -mtime,),
            "sharpest": (-held.edge, -quality),
        }
        return (*own.get(self.order, ()), -entry.size, oldest, len(entry.path), entry.path)


def mtime_of(entry: Entry) -> float | None:
    """Return when a file was modified, in seconds since 1970; None if nobody knows."""
    if entry.mtime_ns is not None:
        return entry.mtime_ns / 1e9
    try:
        mtime_ns = status_of(entry.path).mtime_ns
    except OSError:
        return None
    return None if mtime_ns is None else mtime_ns / 1e9


def _holds_images(catalog: Catalog, folder: bytes) -> bool:
    for root in catalog.roots():
        top = root.path if is_url(root.path) else os.path.realpath(root.path)
        if is_at(top, folder) and catalog.count_in(root.id):
            return True
        if is_at(folder, top) and catalog.folders_below(root.id, relative(folder, top)):
            return True
    return False
