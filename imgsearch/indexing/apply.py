"""Turn the outcomes of a run into catalog rows: new, moved, copied and refused files."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np

from imgsearch.embedding.pipeline import Embedded, Known, Outcome, Refused
from imgsearch.embedding.runtime import Embeddings
from imgsearch.files.kinds import kind_of
from imgsearch.files.mounts import is_gone
from imgsearch.indexing.commit import Batch
from imgsearch.indexing.fingerprints import facts_of
from imgsearch.indexing.missing import may_be_unplugged
from imgsearch.indexing.report import Failure, Tally
from imgsearch.indexing.scan import Candidate
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.changes import Holder, NewFailure, NewImage, Seen
from imgsearch.storage.fingerprints import Prints
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import Facts
from imgsearch.storage.roots import Roots
from imgsearch.storage.shards import open_ids, open_shard
from imgsearch.storage.writer import CatalogWriter

__all__ = ["Applier", "Contents"]

FEW = 8  # copies of a content whose files are checked; with more, any is as good


@dataclass(frozen=True, slots=True, eq=False)
class Content:
    """What is known about the content of a file: its embedding, float32 `[dim]`, and more."""

    embedding: Embeddings
    row: bytes | None
    facts: Facts

    @classmethod
    def of(cls, outcome: Embedded) -> Content:
        """Return the content of a file that was embedded."""
        found = outcome.fingerprint
        if found is None:
            return cls(outcome.embedding, None, Facts())
        return cls(outcome.embedding, found.row, facts_of(found))


class Contents:
    """The contents of a collection, and those of the run under way. Digests are SHA-256."""

    def __init__(self, layout: Layout, catalog: Catalog, dim: int) -> None:
        self._layout = layout
        self._catalog = catalog
        self._dim = dim
        self._roots = Roots.of(catalog)
        self._lock = threading.Lock()
        self._claimed: dict[bytes, str] = {}  # digest: the path under which it is embedded
        self._fresh: dict[bytes, Content] = {}  # embedded, but not committed yet
        self._prints: Prints | None = None

    def wanted(self, path: str, digest: bytes) -> bool:
        """Tell whether to embed a content for `path`. Called from several threads."""
        with self._lock:
            if digest in self._claimed:
                return self._claimed[digest] == path
            if self._catalog.holds(digest):
                return False
            self._claimed[digest] = path
            return True

    def add(self, digest: bytes, content: Content) -> None:
        """Note that a content was embedded."""
        self._fresh[digest] = content

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
        self._prints = None

    def find(self, digest: bytes) -> Content | None:
        """Return a content; None if its embedding is still to come."""
        if digest in self._fresh:
            return self._fresh[digest]
        holders = self._catalog.holders(digest, 1)
        if not holders:
            return None
        shard = self._catalog.shard_of(holders[0].id)
        folder, id_ = self._layout.vectors, holders[0].id
        row = np.searchsorted(open_ids(folder, shard), id_)
        embedding: Embeddings = open_shard(folder, shard, self._dim)[row].copy()
        return Content(
            embedding, self._print_of(holders[0].id), self._catalog.facts_of(holders[0].id)
        )

    def _print_of(self, id_: int) -> bytes | None:
        """Return the fingerprint of an image; None if its file states nothing or there is none."""
        if self._prints is None:
            self._prints = Prints.open(self._layout.fingerprints, self._catalog.prints())
        return self._prints.row_of(id_)

    def moved_from(self, digest: bytes, settled: set[int]) -> int | None:
        """Return the id of an image with this content whose file is missing, or None.

        Args:
            digest: The digest of the content.
            settled: The ids of images already found elsewhere or to be removed.
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


@dataclass(frozen=True, slots=True)
class _Copy:
    """A file whose content is already being embedded under another path."""

    candidate: Candidate
    known: Known


class Applier:
    """The part of a run that decides what to commit for each outcome.

    `moved` holds the ids of images that were found at another path.
    """

    def __init__(
        self, catalog: CatalogWriter, contents: Contents, batch: Batch, tally: Tally
    ) -> None:
        """Begin a run that collects its changes in `batch` and its counts in `tally`."""
        self.moved: set[int] = set()
        self._settled: set[int] = set()
        self._catalog = catalog
        self._contents = contents
        self._batch = batch
        self._tally = tally
        self._copies: dict[bytes, list[_Copy]] = {}  # of contents being embedded, by digest
        self._again: list[Candidate] = []

    def undecided(self) -> list[Candidate]:
        """Return the copies of files that could not be embedded: each must show its own reason."""
        copies = [copy.candidate for row in self._copies.values() for copy in row]
        again, self._again = [*self._again, *copies], []
        self._copies.clear()
        return again

    def take(self, candidate: Candidate, outcome: Outcome) -> None:
        """Count one outcome, and add what it changes to the batch."""
        if isinstance(outcome, Refused):
            self._refuse(candidate, outcome)
        elif isinstance(outcome, Known):
            self._reuse(candidate, outcome)
        else:
            self._tally.indexed += 1
            content = Content.of(outcome)
            self._contents.add(outcome.digest, content)
            self._add(candidate, outcome, content)
            for copy in self._copies.pop(outcome.digest, ()):
                self._reuse(copy.candidate, copy.known)

    def _refuse(self, candidate: Candidate, outcome: Refused) -> None:
        digest = self._contents.give_up(candidate.path)
        if digest is not None:
            self._again += [copy.candidate for copy in self._copies.pop(digest, ())]
        file = candidate.file
        reason = outcome.reason if outcome.recognised else None
        kind = None if outcome.recognised else kind_of(file.name, outcome.reason)
        if kind is None:
            self._tally.failures.append(Failure(candidate.path, outcome.reason))
        else:
            self._tally.skipped[kind] += 1
        if not outcome.transient:  # else the next run tries again, and its image is kept
            replaces = self._replaced(candidate)
            # Without a time it counts as changed: the limit may be different next time.
            mtime_ns = None if outcome.limited else file.mtime_ns
            self._settle(replaces)
            found = file.ctime_ns, file.inode
            self._batch.refuse(
                NewFailure(candidate.location, file.size, mtime_ns, reason, replaces, *found, kind)
            )

    def _reuse(self, candidate: Candidate, known: Known) -> None:
        """Give a file the embedding that its content already has."""
        replaces = self._replaced(candidate)
        found = candidate.file.ctime_ns, candidate.file.inode
        times = known.size, known.mtime_ns
        if replaces is not None and self._catalog.digest_of(replaces) == known.digest:
            self._tally.unchanged += 1
            self._batch.see(Seen(replaces, candidate.location, *times, None, *found))
            return
        moved = self._contents.moved_from(known.digest, self._settled)
        if moved is not None:
            self.moved.add(moved)
            self._tally.moved += 1
            self._settle(moved, replaces)
            self._batch.see(Seen(moved, candidate.location, *times, replaces, *found))
            return
        content = self._contents.find(known.digest)
        if content is None:
            self._copies.setdefault(known.digest, []).append(_Copy(candidate, known))
            return
        self._tally.copied += 1
        self._add(candidate, known, content)

    def _add(self, candidate: Candidate, file: Embedded | Known, content: Content) -> None:
        replaces = self._replaced(candidate)
        self._settle(replaces)
        # The ctime and inode from the listing: any later change to the file changes these.
        found = candidate.file.ctime_ns, candidate.file.inode
        new = NewImage(
            *(candidate.location, file.size, file.mtime_ns, file.digest, replaces, *found),
            facts=content.facts,
        )
        self._batch.add(new, content.embedding, content.row)

    def _replaced(self, candidate: Candidate) -> int | None:
        """Return the id of the image at a path, unless it was found elsewhere."""
        return None if candidate.replaces in self.moved else candidate.replaces

    def _settle(self, *ids: int | None) -> None:
        """Note that images were found elsewhere or replaced: no other file has moved from there."""
        self._settled.update(id_ for id_ in ids if id_ is not None)
