"""Gather what an indexing run finds, so that it is committed now and then."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np

from imgsearch.embedding.runtime import Embeddings
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import Commit, NewFailure, NewImage, Seen
from imgsearch.storage.shards import write_shard
from imgsearch.storage.writer import CatalogWriter

__all__ = ["Batch"]

# What a crash costs is a commit's worth of work, and each commit is a shard. So they grow with the
# run: every half second at first, then a twentieth of the time that it took so far, up to 5 s.
COMMIT_SECONDS = 0.5
COMMIT_SECONDS_MOST = 5.0
COMMIT_SHARE = 1 / 20
COMMIT_FILES = 4_096
COMMIT_LEARNT = 65_536  # files of which no more is new than their ctime and inode


class _Learnt(NamedTuple):
    """What was not known of the file of an image, which has not changed."""

    id: int
    ctime_ns: int
    inode: int | None


class Batch:
    """What is to be committed next."""

    def __init__(self, layout: Layout, catalog: CatalogWriter) -> None:
        """Begin a run."""
        self._layout = layout
        self._catalog = catalog
        self._images: list[tuple[NewImage, Embeddings]] = []
        self._seen: list[Seen] = []
        self._failures: list[NewFailure] = []
        self._learnt: list[_Learnt] = []
        self._started = self._committed = time.monotonic()

    def add(self, image: NewImage, embedding: Embeddings) -> None:
        """Note a new image; `embedding` is float32 `[dim]`."""
        self._images.append((image, embedding))

    def see(self, seen: Seen) -> None:
        """Note that an image has another time, or is elsewhere now."""
        self._seen.append(seen)

    def refuse(self, failure: NewFailure) -> None:
        """Note a file that is no image, or not one that can be used."""
        self._failures.append(failure)

    def learn(self, id_: int, ctime_ns: int, inode: int | None) -> None:
        """Note what was not known of an image's file, which has not changed.

        It is written by itself if there is much of it: all files may be such.
        """
        self._learnt.append(_Learnt(id_, ctime_ns, inode))
        if len(self._learnt) >= COMMIT_LEARNT:
            self._write_learnt()

    def is_due(self) -> bool:
        """Tell whether there is enough to commit, or the last time is long ago."""
        now = time.monotonic()
        grown = min(COMMIT_SECONDS_MOST, COMMIT_SHARE * (now - self._started))
        late = now - self._committed > max(COMMIT_SECONDS, grown)
        return late or len(self._images) + len(self._seen) >= COMMIT_FILES

    def commit(self) -> int:
        """Make all of it visible; return the number of new images.

        Raises:
            StorageError: the disk is full, or cannot be written.
        """
        # Taken first: what a second Ctrl-C interrupts is lost, never committed twice.
        images, self._images = self._images, []
        seen, self._seen = self._seen, []
        failures, self._failures = self._failures, []
        shard = None
        if images:
            number, first_id = self._catalog.next_shard()
            ids = np.arange(first_id, first_id + len(images), dtype=np.int64)
            vectors = np.stack([embedding for _, embedding in images])
            shard = write_shard(self._layout.vectors, number, ids, vectors)
        self._write_learnt()
        if images or seen or failures:
            news = tuple(new for new, _ in images)
            self._catalog.commit(Commit(shard, news, tuple(seen), tuple(failures)))
        self._committed = time.monotonic()
        return len(images)

    def _write_learnt(self) -> None:
        learnt, self._learnt = self._learnt, []
        if learnt:
            self._catalog.learn(learnt)
