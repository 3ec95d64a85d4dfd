"""Find files that need no embedding: unchanged, moved or copied, their content has one."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import numpy as np

from imgsearch.embedding.runtime import Embeddings
from imgsearch.files.listing import File
from imgsearch.files.mounts import is_gone
from imgsearch.indexing.missing import may_be_unplugged
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import FileRecord, Holder
from imgsearch.storage.roots import Roots
from imgsearch.storage.shards import open_ids, open_shard

__all__ = ["Changes", "Contents"]

MANY = 8  # files in a folder with new inode numbers that suggest a renumbering
FEW = 8  # copies of a content whose files are checked; with more, any is as good


class Changes:
    """The files of a folder that may have changed since they were indexed."""

    def __init__(
        self, files: Sequence[File], known: Mapping[bytes, FileRecord], *, rehash: bool
    ) -> None:
        """Compare files with the catalog's records; with `rehash`, all may have changed."""
        self._files, self._known, self._rehash = files, dict(known), rehash
        self._has_inodes: bool | None = None  # whether inode numbers persist, once checked

    def are_possible(self, file: File, old: FileRecord) -> bool:
        """Tell whether a file may have changed."""
        if old.excluded:
            return False
        if self._rehash or not _has_same_times(file, old):
            return True
        if old.inode is None or old.inode == file.inode:
            return False
        if self._has_inodes is None:
            self._has_inodes = self._are_kept()
        return self._has_inodes

    def _are_kept(self) -> bool:
        # exFAT, FAT and many network drives renumber their files at each mount. If times are kept
        # and most numbers are not, that is why: replacing a file always shows in its ctime.
        pairs = [
            (file.inode, old.inode)
            for file in self._files
            if (old := self._known.get(file.name)) is not None
            and old.inode is not None
            and _has_same_times(file, old)
        ]
        renumbered = sum(now != before for now, before in pairs)
        return renumbered < MANY or 2 * renumbered <= len(pairs)


def _has_same_times(file: File, old: FileRecord) -> bool:
    return (
        file.mtime_ns is not None
        and file.mtime_ns == old.mtime_ns
        and file.size == old.size
        and (old.ctime_ns is None or old.ctime_ns == file.ctime_ns)
    )


class Contents:
    """The contents of a collection, and those of the run under way. Digests are SHA-256."""

    def __init__(self, layout: Layout, catalog: Catalog, dim: int) -> None:
        self._layout = layout
        self._catalog = catalog
        self._dim = dim
        self._roots = Roots.of(catalog)
        self._lock = threading.Lock()
        self._claimed: dict[bytes, str] = {}  # digest: the path under which it is embedded
        self._fresh: dict[bytes, Embeddings] = {}  # embedded, but not committed yet

    def wanted(self, path: str, digest: bytes) -> bool:
        """Tell whether to embed a content for `path`. Called from several threads."""
        with self._lock:
            if digest in self._claimed:
                return self._claimed[digest] == path
            if self._catalog.holds(digest):
                return False
            self._claimed[digest] = path
            return True

    def add(self, digest: bytes, embedding: Embeddings) -> None:
        """Note that a content was embedded."""
        self._fresh[digest] = embedding

    def give_up(self, path: str) -> bytes | None:
        """Note that a file could not be embedded; return the digest that others wait for."""
        with self._lock:
            digests = [digest for digest, claimant in self._claimed.items() if claimant == path]
            for digest in digests:
                del self._claimed[digest]
        return digests[0] if digests else None

    def commit(self) -> None:
        """Note that all embeddings are in the catalog now."""
        with self._lock:
            for digest in self._fresh:
                self._claimed.pop(digest, None)
            self._fresh.clear()

    def find(self, digest: bytes) -> Embeddings | None:
        """Return the embedding of a content, float32 `[dim]`; None if it is still to come."""
        if digest in self._fresh:
            return self._fresh[digest]
        holders = self._catalog.holders(digest, 1)
        if not holders:
            return None
        shard = self._catalog.shard_of(holders[0].id)
        folder = self._layout.vectors
        row = np.searchsorted(open_ids(folder, shard), holders[0].id)
        embedding: Embeddings = open_shard(folder, shard, self._dim)[row].copy()
        return embedding

    def moved_from(self, digest: bytes, settled: set[int]) -> int | None:
        """Return the id of an image with this content whose file is missing, or None.

        Args:
            digest: the digest of the content.
            settled: the ids of images already found elsewhere or to be removed.
        """
        for holder in self._catalog.holders(digest, FEW):
            if holder.id not in settled and self._has_left(holder):
                return holder.id
        return None

    def _has_left(self, holder: Holder) -> bool:
        """Tell whether an image's file is missing although the drive of its folder is there."""
        if holder.path is None or not is_gone(holder.path):
            return False
        return not may_be_unplugged(holder.path, self._roots, self._catalog)
