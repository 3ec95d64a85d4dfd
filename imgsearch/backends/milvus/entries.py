"""The entries of images in Milvus."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from imgsearch.ann.vectors import Vectors
from imgsearch.backends.milvus.rows import Row
from imgsearch.backends.milvus.store import Store
from imgsearch.errors import NoImageError
from imgsearch.storage.records import Entry

__all__ = ["MilvusEntries"]


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

    def embeddings(self, ids: Sequence[int]) -> Vectors:
        """Return the embeddings of images, float32 `[n, dim]`, or raise `NoImageError`."""
        found = self._store.vectors(ids)
        for id_ in ids:
            if id_ not in found:
                raise NoImageError(id_)
        return np.stack([found[id_] for id_ in ids]) if ids else np.empty((0, 0), np.float32)

    def are_changing(self) -> bool:
        """Return False: in Milvus, no writer locks others out."""
        return False


def _entry(row: Row) -> Entry:
    return Entry(row.id, os.fsdecode(row.path), row.size, row.mtime_ns, row.digest)
