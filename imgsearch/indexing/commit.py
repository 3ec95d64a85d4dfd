"""Gather the changes of an indexing run, so that they are committed in batches."""

from __future__ import annotations

import time

import numpy as np

from imgsearch.embedding.runtime import Embeddings
from imgsearch.indexing.policy import FoldPolicy
from imgsearch.storage.changes import Commit, NewFailure, NewImage, Seen, Stamp
from imgsearch.storage.fingerprints import rows_of_bytes, write_prints
from imgsearch.storage.layout import Layout
from imgsearch.storage.shards import write_shard
from imgsearch.storage.writer import CatalogWriter

__all__ = ["Batch"]

# A crash costs one commit's worth of work, and each commit is a shard. So the intervals grow with
# the run: `FoldPolicy.commit_seconds` at first, then a twentieth of the time elapsed, up to 5 s.
COMMIT_SECONDS_MOST = 5.0
COMMIT_SHARE = 1 / 20
COMMIT_LEARNT = 65_536  # files of which only the ctime and inode are new


class Batch:
    """The changes to commit next."""

    def __init__(self, layout: Layout, catalog: CatalogWriter, policy: FoldPolicy) -> None:
        """Begin a run."""
        self._layout = layout
        self._catalog = catalog
        self._policy = policy
        self._images: list[tuple[NewImage, Embeddings]] = []
        self._prints: dict[int, bytes] = {}  # by place among the images
        self._seen: list[Seen] = []
        self._failures: list[NewFailure] = []
        self._learnt: list[Stamp] = []
        self._started = self._committed = time.monotonic()

    def add(self, image: NewImage, embedding: Embeddings, row: bytes | None = None) -> None:
        """Note a new image.

        Args:
            image: The image.
            embedding: Its embedding, float32 `[dim]`.
            row: Its fingerprint, one item of `imgsearch.images.fingerprint.FINGERPRINT`; None if
                it is to be made at the end of the run.
        """
        if row is not None:
            self._prints[len(self._images)] = row
        self._images.append((image, embedding))

    def see(self, seen: Seen) -> None:
        """Note that an image has a new time or a new location."""
        self._seen.append(seen)

    def refuse(self, failure: NewFailure) -> None:
        """Note a file that is not an image, or not a usable one."""
        self._failures.append(failure)

    def learn(self, stamp: Stamp) -> None:
        """Note newly learnt facts about the unchanged file of an image.

        They are written on their own once there are many: this may concern every file.
        """
        self._learnt.append(stamp)
        if len(self._learnt) >= COMMIT_LEARNT:
            self._write_learnt()

    def is_due(self) -> bool:
        """Tell whether there is enough to commit, or the last commit was long ago."""
        now = time.monotonic()
        grown = min(COMMIT_SECONDS_MOST, COMMIT_SHARE * (now - self._started))
        late = now - self._committed > max(self._policy.commit_seconds, grown)
        return late or len(self._images) + len(self._seen) >= self._policy.commit_files

    def commit(self) -> int:
        """Make all changes visible; return the number of new images.

        Raises:
            StorageError: If the disk is full, or cannot be written.
        """
        # Taken first: whatever a second Ctrl-C interrupts is lost, never committed twice.
        images, self._images = self._images, []
        prints, self._prints = self._prints, {}
        seen, self._seen = self._seen, []
        failures, self._failures = self._failures, []
        shard = written = None
        if images:
            number, first_id = self._catalog.next_shard()
            ids = np.arange(first_id, first_id + len(images), dtype=np.int64)
            vectors = np.stack([embedding for _, embedding in images])
            shard = write_shard(self._layout.vectors, number, ids, vectors)
            if prints:
                rows = rows_of_bytes(list(prints.values()))
                number, those = self._catalog.next_prints(), ids[list(prints)]
                written = write_prints(self._layout.fingerprints, number, those, rows)
        self._write_learnt()
        if images or seen or failures:
            news = tuple(new for new, _ in images)
            self._catalog.commit(Commit(shard, news, tuple(seen), tuple(failures), written))
        self._committed = time.monotonic()
        return len(images)

    def _write_learnt(self) -> None:
        learnt, self._learnt = self._learnt, []
        if learnt:
            self._catalog.learn(learnt)
