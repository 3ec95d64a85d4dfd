"""The files of one indexing run: compare them with the catalog, embed what is new, commit."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

from imgsearch.embedding.pipeline import Embedded, Known, Outcome, Refused
from imgsearch.embedding.runtime import Embeddings
from imgsearch.errors import reason_of
from imgsearch.files.kinds import APPLE_DOUBLE, LEFT_OUT, SPECIAL, kind_of
from imgsearch.files.listing import File, Kind, Unreadable
from imgsearch.files.mounts import is_gone
from imgsearch.indexing.commit import Committer
from imgsearch.indexing.engine import Embed, Wanted
from imgsearch.indexing.missing import Absence
from imgsearch.indexing.report import Ahead, Failure, Progress, Tally
from imgsearch.indexing.reuse import Changes, Contents
from imgsearch.indexing.scope import Tops, list_tops
from imgsearch.storage import records
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import NewFailure, NewImage, Seen, Spot
from imgsearch.storage.roots import Place, Roots
from imgsearch.storage.writer import CatalogWriter

__all__ = ["Run"]


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A file that is new or may have changed; `replaces` is the id of the image at its path."""

    place: Place
    folder: bytes
    file: File
    replaces: int | None

    @property
    def path(self) -> str:
        return os.fsdecode(os.path.join(self.folder, self.file.name))

    @property
    def spot(self) -> Spot:
        return self.place.spot(self.file.name)


class Run:
    """The state of a run: what is to be committed next, and what became of its files, the `tally`.

    `moved` are the ids of images that were found at another path.
    """

    def __init__(
        self,
        layout: Layout,
        catalog: CatalogWriter,
        tops: Tops,
        absence: Absence,
        progress: Callable[[Progress], None] | None,
        after_commit: Callable[[int], None],
        *,
        rehash: bool = False,
    ) -> None:
        """Begin a run; `after_commit` is told the number of new images after each commit.

        With `rehash`, every file counts as one that may have changed.
        """
        self._rehash = rehash
        self.moved: set[int] = set()
        self._settled: set[int] = set()
        self._layout = layout
        self._catalog = catalog
        self._tops = tops
        self._absence = absence
        self._progress = progress
        self._roots = Roots.of(catalog)
        self._contents = Contents(layout, catalog, catalog.snapshot().model.dim)
        self.tally = Tally()
        self._waiting: deque[_Candidate] = deque()
        self._copies: dict[bytes, list[tuple[_Candidate, Known]]] = {}  # of what is being embedded
        self._again: list[_Candidate] = []
        self._committer = Committer(layout, catalog, self._committed)
        self._after_commit = after_commit
        self._ahead = Ahead(tops, layout.directory)

    def embed(self, embed: Embed) -> None:
        """Embed and commit all that is new or changed."""
        with self._ahead:
            try:
                self._embed(self._candidates(), embed, self._contents.wanted)
                self._committer.commit()
                while again := self._undecided():
                    self._embed(iter(again), embed, self._is_new)
                    self._committer.commit()
            except KeyboardInterrupt:
                self._committer.commit()
                raise
            self._tell()

    def _embed(
        self,
        candidates: Iterator[_Candidate],
        embed: Embed,
        wanted: Wanted,
    ) -> None:
        with closing(embed(self._paths(candidates), wanted)) as outcomes:
            for outcome in outcomes:
                self._take(self._waiting.popleft(), outcome)
                self._committer.commit_if_due()
                self._tell()

    def _committed(self, images: int) -> None:
        self._contents.commit()
        self._after_commit(images)

    def _paths(self, candidates: Iterator[_Candidate]) -> Iterator[str]:
        for candidate in candidates:
            if self._progress:  # a run with nothing to embed is over before it is counted
                self._ahead.start()
            self._waiting.append(candidate)
            yield candidate.path

    def _undecided(self) -> list[_Candidate]:
        """Return the copies of what could not be embedded: each has to show why."""
        copies = [candidate for row in self._copies.values() for candidate, _ in row]
        again, self._again = [*self._again, *copies], []
        self._copies.clear()
        return again

    def _is_new(self, _: str, digest: bytes) -> bool:
        return not self._catalog.holds(digest)

    # Listing

    def _candidates(self) -> Iterator[_Candidate]:
        """Yield what is new or may have changed; account for all other files."""
        for listing in list_tops(self._tops, self._layout.directory):
            if isinstance(listing, Unreadable):
                self._note_unreadable(listing)
                continue
            place = self._roots.find(listing.folder)
            if place is None:  # a root was made of every path given: see find_tops
                raise AssertionError(listing.folder)
            folder = self._catalog.folder(place.root, place.folder)
            known = {}
            if folder is not None:
                known = self._catalog.known(folder, listing.first, listing.upto)
            self.tally.found += len(listing.files)
            out = {}
            changes = Changes(listing.files, known, rehash=self._rehash)
            for file in listing.files:
                if file.kind is Kind.REGULAR:
                    old = known.pop(file.name, None)
                    if old is None or changes.are_possible(file, old):
                        replaces = old.id if old else None
                        yield _Candidate(place, listing.folder, file, replaces)
                    else:
                        self._account_for(listing.folder, file, old)
                elif file.kind is Kind.LEFT_OUT:
                    self.tally.skipped[APPLE_DOUBLE if file.name[:2] == b"._" else LEFT_OUT] += 1
                    if file.name in known and not known[file.name].excluded:
                        out[file.name] = known.pop(file.name)
                elif not self._account_for_special(listing.folder, file):
                    known.pop(file.name, None)
            if folder is not None:
                self._absence.see(listing.folder, folder, known)
                self._absence.leave_out(listing.folder, folder, out)
            self._tell()

    def _account_for(self, folder: bytes, file: File, old: records.Known) -> None:
        """Account for a file that is as it was."""
        if old.id is not None:
            self.tally.unchanged += 1
            if old.ctime_ns is None and file.ctime_ns is not None:
                self._committer.learn(old.id, file.ctime_ns, file.inode)
        elif old.excluded:
            self.tally.excluded += 1
        elif old.reason is not None:
            path = os.fsdecode(os.path.join(folder, file.name))
            self.tally.failures.append(Failure(path, old.reason))
        else:
            self.tally.skipped[old.kind or kind_of(file.name)] += 1

    def _account_for_special(self, folder: bytes, file: File) -> bool:
        """Account for what is no file, or cannot be looked at; tell whether a file is gone."""
        if file.kind is not Kind.BROKEN:
            self.tally.skipped[SPECIAL] += 1
            return True
        path = os.path.join(folder, file.name)
        if not os.path.lexists(path) and is_gone(path):
            self.tally.found -= 1
            return True
        self.tally.failures.append(Failure(os.fsdecode(path), _why_broken(path)))
        self._absence.cannot_see(path)  # the link may lead to a folder on a drive
        return is_gone(path)

    def _note_unreadable(self, listing: Unreadable) -> None:
        folder = listing.folder
        self.tally.unreadable.append(Failure(os.fsdecode(folder), listing.reason))
        if os.path.lexists(folder) or not is_gone(folder):
            self._absence.cannot_see(folder)

    # Outcomes

    def _take(self, candidate: _Candidate, outcome: Outcome) -> None:
        """Account for one outcome, and note what is to be committed of it."""
        if isinstance(outcome, Refused):
            self._refuse(candidate, outcome)
        elif isinstance(outcome, Known):
            self._reuse(candidate, outcome)
        else:
            self.tally.indexed += 1
            self._contents.add(outcome.digest, outcome.embedding)
            self._add(candidate, outcome, outcome.embedding)
            for copy, known in self._copies.pop(outcome.digest, ()):
                self._reuse(copy, known)

    def _refuse(self, candidate: _Candidate, outcome: Refused) -> None:
        digest = self._contents.give_up(candidate.path)
        if digest is not None:
            self._again += [copy for copy, _ in self._copies.pop(digest, ())]
        file = candidate.file
        reason = outcome.reason if outcome.recognised else None
        kind = None if outcome.recognised else kind_of(file.name, outcome.reason)
        if kind is None:
            self.tally.failures.append(Failure(candidate.path, outcome.reason))
        else:
            self.tally.skipped[kind] += 1
        if not outcome.transient:  # else it is tried again next time, and its image is kept
            replaces = self._replaced(candidate)
            # Without a time it counts as changed: the limit may be another one next time.
            mtime_ns = None if outcome.limited else file.mtime_ns
            self._settle(replaces)
            found = file.ctime_ns, file.inode
            self._committer.refuse(
                NewFailure(candidate.spot, file.size, mtime_ns, reason, replaces, *found, kind)
            )

    def _reuse(self, candidate: _Candidate, known: Known) -> None:
        """Give a file the embedding that its content has already."""
        replaces = self._replaced(candidate)
        found = candidate.file.ctime_ns, candidate.file.inode
        content = known.size, known.mtime_ns
        if replaces is not None and self._catalog.digest_of(replaces) == known.digest:
            self.tally.unchanged += 1
            self._committer.see(Seen(replaces, candidate.spot, *content, None, *found))
            return
        moved = self._contents.moved_from(known.digest, self._settled)
        if moved is not None:
            self.moved.add(moved)
            self.tally.moved += 1
            self._settle(moved, replaces)
            self._committer.see(Seen(moved, candidate.spot, *content, replaces, *found))
            return
        embedding = self._contents.find(known.digest)
        if embedding is None:
            self._copies.setdefault(known.digest, []).append((candidate, known))
            return
        self.tally.copied += 1
        self._add(candidate, known, embedding)

    def _add(self, candidate: _Candidate, content: Embedded | Known, embedding: Embeddings) -> None:
        replaces = self._replaced(candidate)
        self._settle(replaces)
        # Its ctime and inode as they were when it was listed: what changes it later changes these.
        found = candidate.file.ctime_ns, candidate.file.inode
        new = NewImage(
            candidate.spot, content.size, content.mtime_ns, content.digest, replaces, *found
        )
        self._committer.add(new, embedding)

    def _replaced(self, candidate: _Candidate) -> int | None:
        """Return the id of the image at a path, unless that was found elsewhere."""
        return None if candidate.replaces in self.moved else candidate.replaces

    def _settle(self, *ids: int | None) -> None:
        """Note that images have been found elsewhere, or are replaced: they have moved nowhere."""
        self._settled.update(id_ for id_ in ids if id_ is not None)

    # Progress

    def _tell(self) -> None:
        if self._progress:
            self._progress(Progress(self.tally.done, self._ahead.total))


def _why_broken(path: bytes) -> str:
    try:
        os.stat(path)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return reason_of(error)
    return "cannot be read, or is a link to nowhere"
