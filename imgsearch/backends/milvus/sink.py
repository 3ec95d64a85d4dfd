"""Gather new images and send them; some are held back, to measure the index with."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from imgsearch.ann.vectors import Vectors
from imgsearch.backends.milvus.rows import Row
from imgsearch.backends.milvus.store import Store

__all__ = ["HELD", "New", "Sink"]

HELD = 500  # images at most, drawn at random from those of the run
_ROWS = 500
_SECONDS = 5.0
_SEED = 1234


@dataclass(frozen=True, slots=True, eq=False)
class New:
    """An image to be added: its embedding, and the ids of rows that it takes the place of."""

    row: Row
    embedding: Vectors
    replaces: Sequence[int] = ()


class Sink:
    """Sends rows now and then; what is held back is sent by `release`, or lost by a crash."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[New] = []
        self._held: list[New] = []
        self._added = 0
        self._random = random.Random(_SEED)  # noqa: S311 - nothing secret
        self._sent = time.monotonic()

    @property
    def held(self) -> int:
        """The number of images that are held back."""
        return len(self._held)

    def add(self, new: New) -> None:
        """Take an image; by reservoir sampling (Vitter's algorithm R), some are held back."""
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
        """Send what is waiting; only then is deleted what it replaces."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            vectors = np.stack([new.embedding for new in waiting])
            self._store.upsert([new.row for new in waiting], vectors)
        own = {new.row.id for new in waiting}
        self._store.delete({id_ for new in waiting for id_ in new.replaces} - own)
        self._sent = time.monotonic()

    def release(self, keep: int = 0) -> Vectors:
        """Send all but `keep` of what is held back; return the embeddings of those."""
        self._random.shuffle(self._held)
        self._waiting += self._held[keep:]
        self._held = self._held[:keep]
        self.send()
        return np.array([new.embedding for new in self._held], np.float32)
