"""Gather new images and send them, but hold some back to measure the index with."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from imgsearch.ann.vectors import Vectors
from imgsearch.backends.milvus.rows import Row
from imgsearch.backends.milvus.store import Store

__all__ = ["HELD", "New", "RowSink"]

HELD = 500  # maximum images, drawn at random from those of the run
_ROWS = 500
_SECONDS = 5.0
_SEED = 1234


@dataclass(frozen=True, slots=True, eq=False)
class New:
    """An image to add, its embedding, and the ids of the rows that it replaces."""

    row: Row
    embedding: Vectors
    replaces: Sequence[int] = ()


class RowSink:
    """A sender of rows in batches; `release` sends held-back rows, which a crash would lose."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[New] = []
        self._held: list[New] = []
        self._added = 0
        self._random = random.Random(_SEED)  # noqa: S311 - nothing secret
        self._sent = time.monotonic()

    @property
    def held(self) -> int:
        """The number of images held back."""
        return len(self._held)

    def add(self, new: New) -> None:
        """Add an image; reservoir sampling (Vitter's algorithm R) holds some back."""
        self._added += 1
        if len(self._held) < HELD:
            self._held.append(new)
            return
        place = self._random.randrange(self._added)
        if place < HELD:
            new, self._held[place] = self._held[place], new
        self._waiting.append(new)
        if len(self._waiting) >= _ROWS or time.monotonic() - self._sent > _SECONDS:
            self.send()

    def send(self) -> None:
        """Send waiting rows; only then delete the rows that they replace."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            vectors = np.stack([new.embedding for new in waiting])
            self._store.upsert([new.row for new in waiting], vectors)
        own = {new.row.id for new in waiting}
        self._store.delete({id_ for new in waiting for id_ in new.replaces} - own)
        self._sent = time.monotonic()

    def release(self, keep: int = 0) -> Vectors:
        """Send the held-back rows except `keep` of them; return the embeddings of those."""
        self._random.shuffle(self._held)
        self._waiting += self._held[keep:]
        self._held = self._held[:keep]
        self.send()
        return np.array([new.embedding for new in self._held], np.float32)
