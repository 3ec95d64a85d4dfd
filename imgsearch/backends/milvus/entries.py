"""The entries of images in Milvus."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Unpack

import numpy as np

from imgsearch.ann.vectors import Vectors
from imgsearch.backends.milvus.rows import Row
from imgsearch.backends.milvus.store import Store
from imgsearch.errors import NoImageError, SettingError
from imgsearch.querying.filters import Filter, FilterKeywords, Order
from imgsearch.storage.fingerprints import Light
from imgsearch.storage.records import Entry

__all__ = ["MilvusEntries", "refuse_filter"]


class MilvusEntries:
    """The images of a collection in Milvus, with the methods of `Entries`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, id_: int) -> Entry:
        """Return the entry of an image, or raise `NoImageError`."""
        for row in self._store.rows_of([id_]):
            return _entry(row)
        raise NoImageError(id_)

    def find(self, ids: Sequence[int]) -> dict[int, Entry]:
        """Return the entries of those images that exist."""
        return {row.id: _entry(row) for row in self._store.rows_of(ids)}

    def after(self, id_: int, limit: int) -> list[Entry]:
        """Return up to `limit` images in the order of ids, which is not the order of arrival."""
        return [_entry(row) for row in self._store.rows_after(id_, limit)]

    def where(
        self, *, order: Order = "added", reverse: bool = False, **keywords: Unpack[FilterKeywords]
    ) -> Iterator[Entry]:
        """Yield all images, or raise `SettingError` for a filter; "added" is the order of ids."""
        refuse_filter(Filter.of(**keywords))
        keys: dict[Order, Callable[[Entry], Any]] = {
            "path": lambda entry: os.path.split(entry.path),
            "name": lambda entry: (os.path.basename(entry.path).lower(), entry.id),
            "date": lambda entry: (entry.mtime_ns or 0, entry.id),
            "size": lambda entry: (entry.size, entry.id),
            "added": lambda entry: entry.id,
        }
        yield from sorted(map(_entry, self._store.rows()), key=keys[order], reverse=reverse)

    def ids(
        self, *, order: Order = "added", reverse: bool = False, **keywords: Unpack[FilterKeywords]
    ) -> list[int]:
        """Return the ids of all images; see `where`."""
        return [entry.id for entry in self.where(order=order, reverse=reverse, **keywords)]

    def ids_after(self, id_: int, limit: int) -> list[int]:
        """Return up to `limit` ids after an id; see `after`."""
        return [row.id for row in self._store.rows_after(id_, limit)]

    def sizes(self, ids: Sequence[int]) -> list[tuple[int, int] | None]:
        """Return None for each image: in Milvus, sizes are not kept."""
        return [None] * len(ids)

    def folders(self) -> list[tuple[str, int]]:
        """Return nothing, as collections in Milvus cannot be filtered by folder."""
        return []

    def cameras(self) -> list[tuple[str, int]]:
        """Return nothing: in Milvus, cameras are not kept."""
        return []

    def version(self) -> object:
        """Return another value each time: nobody tells when something in Milvus has changed."""
        return object()

    def count(self) -> int:
        """Return the number of images."""
        return self._store.count()

    def unread(self) -> int:
        """Return 0: in Milvus, what an image states is not kept."""
        return 0

    def failures(self, **keywords: Unpack[FilterKeywords]) -> Iterator[tuple[str, str]]:
        """Yield nothing: in Milvus, files that failed are not kept."""
        refuse_filter(Filter.of(**keywords))
        return iter(())

    def embeddings(self, ids: Sequence[int]) -> Vectors:
        """Return the embeddings of images, float32 `[n, dim]`, or raise `NoImageError`."""
        found = self._store.vectors(ids)
        for id_ in ids:
            if id_ not in found:
                raise NoImageError(id_)
        return np.stack([found[id_] for id_ in ids]) if ids else np.empty((0, 0), np.float32)

    def lights(self, ids: Sequence[int]) -> dict[int, Light]:  # noqa: ARG002 - of `AnyEntries`
        """Return no small pictures: there are no fingerprints in Milvus."""
        return {}

    def hashes(self, ids: Sequence[int]) -> dict[int, int]:
        """Return nothing: in Milvus, fingerprints are not kept."""
        del ids
        return {}

    def are_changing(self) -> bool:
        """Return False: in Milvus, no writer locks others out."""
        return False


def refuse_filter(wanted: Filter) -> None:
    """Raise `SettingError` unless a filter lets all images pass."""
    if wanted:
        raise SettingError(
            "filters apply only to collections in directories: this one is in Milvus, which "
            "does not store what filters compare; leave the filter out"
        )


def _entry(row: Row) -> Entry:
    return Entry(row.id, os.fsdecode(row.path), row.size, row.mtime_ns, row.digest)
