"""Look up the images of a collection: their paths, digests and embeddings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, Unpack

from imgsearch.ann.vectors import Vectors
from imgsearch.errors import BusyError, NoImageError, SettingError
from imgsearch.files.paths import path_fields
from imgsearch.querying.filters import (
    ORDERS,
    Filter,
    FilterKeywords,
    Order,
    failures_matching,
    ids_matching,
)
from imgsearch.querying.options import LEAST_ID, items, whole
from imgsearch.querying.view import View, with_present
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.files import undisturbed
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import Entry

if TYPE_CHECKING:
    from imgsearch.storage.fingerprints import Light

__all__ = ["Entries", "entry_fields"]

BLOCK = 10_000  # images whose entries are read at a time


class Entries:
    """The images of a collection, by id. Its methods may be called from any thread."""

    def __init__(self, layout: Layout, catalog: Catalog, view: Callable[[], View]) -> None:
        """Read entries from a catalog, and embeddings from the current view."""
        self._layout = layout
        self._catalog = catalog
        self._view = view

    def get(self, id_: int) -> Entry:
        """Return the entry of an image.

        Raises:
            NoImageError: If the image is not, or no longer, in the collection.
        """
        for entry in self._catalog.entries_of([whole("an id", id_, LEAST_ID)]):
            return entry
        raise NoImageError(id_)

    def find(self, ids: Sequence[int]) -> dict[int, Entry]:
        """Return the entries of those images that are in the collection."""
        return {entry.id: entry for entry in self._catalog.entries_of(_ids(ids))}

    def after(self, id_: int, limit: int) -> list[Entry]:
        """Return up to `limit` images after an id, in the order in which they were added."""
        return self._catalog.entries_of(self.ids_after(id_, limit))

    def ids(
        self, *, order: Order = "added", reverse: bool = False, **keywords: Unpack[FilterKeywords]
    ) -> list[int]:
        """Return the ids of the images that pass a filter.

        Args:
            order: Order of the images: by "path", by "name", by "date" or "size" of the file, or as
                "added".
            reverse: Whether to begin with the last.
            keywords: Keywords of the filter: see `imgsearch.querying.filters.Filter.of`.

        Raises:
            SettingError: If the order or a keyword makes no sense.
        """
        if order not in ORDERS:
            raise SettingError(f"order is {order!r}; it must be {' or '.join(map(repr, ORDERS))}")
        ids = ids_matching(self._catalog, Filter.of(**keywords), order)
        return ids[::-1] if reverse else ids

    def where(
        self, *, order: Order = "added", reverse: bool = False, **keywords: Unpack[FilterKeywords]
    ) -> Iterator[Entry]:
        """Yield the images that pass a filter, except those removed meanwhile; see `ids`."""
        rest = iter(self.ids(order=order, reverse=reverse, **keywords))
        while block := list(islice(rest, BLOCK)):
            found = {entry.id: entry for entry in self._catalog.entries_of(block)}
            yield from (found[id_] for id_ in block if id_ in found)

    def ids_after(self, id_: int, limit: int) -> list[int]:
        """Return up to `limit` ids after an id, in the order in which the images were added."""
        return self._catalog.ids_after(whole("an id", id_, LEAST_ID), whole("limit", limit, 0))

    def sizes(self, ids: Sequence[int]) -> list[tuple[int, int] | None]:
        """Return width and height of images, in the order of `ids`; None where they are unknown."""
        known = self._catalog.sizes(_ids(ids))
        return [known.get(id_) for id_ in ids]

    def folders(self) -> list[tuple[str, int]]:
        """Return each folder that has images, and their number, by path."""
        return sorted((os.fsdecode(path), count) for path, count in self._catalog.folder_counts())

    def cameras(self) -> list[tuple[str, int]]:
        """Return each camera that took images, and their number, by name."""
        return self._catalog.camera_counts()

    def version(self) -> object:
        """Return a value that differs once the images have changed."""
        return self._catalog.version()

    def count(self) -> int:
        """Return the number of images."""
        return self._catalog.counts().images

    def unread(self) -> int:
        """Return the number of images whose pixels, capture time and camera no run has read yet."""
        return self._catalog.count_unread()

    def failures(self, **keywords: Unpack[FilterKeywords]) -> Iterator[tuple[str, str]]:
        """Yield path and reason of the files that failed and pass a filter, by path."""
        for path, reason in failures_matching(self._catalog, Filter.of(**keywords)):
            yield os.fsdecode(path), reason

    def embeddings(self, ids: Sequence[int]) -> Vectors:
        """Return the embeddings of images, float32 `[n, dim]`, in the order of `ids`.

        Raises:
            NoImageError: If an image is not, or no longer, in the collection.
            DamagedError: If a file of the collection is missing or damaged.
        """
        ids = _ids(ids)
        return with_present(self._view, lambda view: view.embeddings(ids))

    def lights(self, ids: Sequence[int]) -> dict[int, Light]:
        """Return the small pictures of those images whose fingerprint has one, by id.

        Each is the luminance of the image squashed to a square, uint8 `[EDGE, EDGE]`.

        Raises:
            DamagedError: If a file of the collection is missing or damaged.
        """
        from imgsearch.storage.fingerprints import Prints

        ids, folder = _ids(ids), self._layout.fingerprints
        return with_present(
            self._catalog.prints, lambda files: Prints.open(folder, files).lights(ids)
        )

    def hashes(self, ids: Sequence[int]) -> dict[int, int]:
        """Return the perceptual hashes, of 64 bits, of those images that have one, by id.

        Raises:
            DamagedError: If a file of the collection is missing or damaged.
        """
        from imgsearch.storage.fingerprints import Prints

        ids, folder = _ids(ids), self._layout.fingerprints
        return with_present(
            self._catalog.prints, lambda files: Prints.open(folder, files).hashes(ids)
        )

    def are_changing(self) -> bool:
        """Tell whether a writer is at work on the collection."""
        try:
            with undisturbed(self._layout.directory):
                return False
        except BusyError:
            return True


def entry_fields(entry: Entry) -> dict[str, Any]:
    """Return the fields of an image.

    `mtime` is in seconds since 1970, `taken` in ISO 8601 by the camera's clock.
    """
    facts = entry.facts
    return {
        "id": entry.id,
        **path_fields(entry.path),
        "size": entry.size,
        "mtime": None if entry.mtime_ns is None else entry.mtime_ns / 1e9,
        "digest": entry.digest.hex(),
        "width": facts.width,
        "height": facts.height,
        "taken": None if facts.taken is None else _iso(facts.taken),
        "camera": facts.camera,
    }


def _iso(taken: int) -> str | None:
    with suppress(OverflowError):  # a foreign catalog may have any number
        return (datetime(1970, 1, 1) + timedelta(seconds=taken)).isoformat()
    return None


def _ids(ids: Sequence[int]) -> list[int]:
    return [whole("an id", id_, LEAST_ID) for id_ in items("ids", ids)]
