"""Compare listed files with the catalog, to find those that are new or may have changed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from imgsearch.errors import reason_of
from imgsearch.files.kinds import APPLE_DOUBLE, LEFT_OUT, SPECIAL, kind_of
from imgsearch.files.listing import File, Kind, Listing, Unreadable
from imgsearch.files.mounts import is_gone
from imgsearch.indexing.commit import Batch
from imgsearch.indexing.missing import Absence
from imgsearch.indexing.report import Failure, Reporter
from imgsearch.indexing.scope import Scope, list_scope
from imgsearch.storage.changes import FileLocation, FileRecord, FolderLocation, Stamp
from imgsearch.storage.layout import Layout
from imgsearch.storage.roots import Roots
from imgsearch.storage.writer import CatalogWriter

__all__ = ["Candidate", "Changes", "Scan"]

MANY = 8  # files in a folder with new inode numbers that suggest a renumbering


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that is new or may have changed; `replaces` is the id of the image at its path."""

    place: FolderLocation
    folder: bytes
    file: File
    replaces: int | None

    @property
    def path(self) -> str:
        """The absolute path, decoded with `os.fsdecode`."""
        return os.fsdecode(os.path.join(self.folder, self.file.name))

    @property
    def location(self) -> FileLocation:
        """The location of the file, as the catalog records it."""
        return self.place.location(self.file.name)


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


class Scan:
    """The listing of a run, which accounts for all files that need no further work."""

    def __init__(
        self,
        layout: Layout,
        catalog: CatalogWriter,
        scope: Scope,
        absence: Absence,
        batch: Batch,
        reporter: Reporter,
        *,
        rehash: bool,
    ) -> None:
        """Prepare a scan, without listing anything yet.

        Args:
            layout: Location of the collection, whose own folder is not listed.
            catalog: Catalog to compare the files with.
            scope: Scope of the scan.
            absence: Receiver of missing files.
            batch: Receiver of newly learnt facts about unchanged files.
            reporter: Receiver of the outcome of each file.
            rehash: Whether every file counts as one that may have changed.
        """
        self._layout = layout
        self._catalog = catalog
        self._scope = scope
        self._absence = absence
        self._batch = batch
        self._reporter = reporter
        self._tally = reporter.tally
        self._rehash = rehash
        self._roots = Roots.of(catalog)

    def candidates(self) -> Iterator[Candidate]:
        """Yield files that are new or may have changed; account for all other files."""
        for listing in list_scope(self._scope, self._layout.directory):
            if isinstance(listing, Unreadable):
                self._note_unreadable(listing)
            else:
                yield from self._compare(listing)
                self._reporter.tell()

    def _compare(self, listing: Listing) -> Iterator[Candidate]:
        place = self._roots.find(listing.folder)
        if place is None:  # every given path was made a root: see find_scope
            raise AssertionError(listing.folder)
        folder = self._catalog.folder(place.root, place.folder)
        known = {}
        if folder is not None:
            known = self._catalog.known(folder, listing.first, listing.upto)
        self._tally.found += len(listing.files)
        out = {}
        changes = Changes(listing.files, known, rehash=self._rehash)
        for file in listing.files:
            if file.kind is Kind.REGULAR:
                old = known.pop(file.name, None)
                if old is None or changes.are_possible(file, old):
                    yield Candidate(place, listing.folder, file, old.id if old else None)
                else:
                    self._account_for(listing.folder, file, old)
            elif file.kind is Kind.LEFT_OUT:
                self._tally.skipped[APPLE_DOUBLE if file.name[:2] == b"._" else LEFT_OUT] += 1
                if file.name in known and not known[file.name].excluded:
                    out[file.name] = known.pop(file.name)
            elif not self._account_for_special(listing.folder, file):
                known.pop(file.name, None)
        if folder is not None:
            self._absence.see(listing.folder, folder, known)
            self._absence.leave_out(listing.folder, folder, out)

    def _account_for(self, folder: bytes, file: File, old: FileRecord) -> None:
        """Account for an unchanged file."""
        if old.id is not None:
            self._tally.unchanged += 1
            if old.ctime_ns is None and file.ctime_ns is not None:
                self._batch.learn(Stamp(old.id, file.ctime_ns, file.inode))
        elif old.excluded:
            self._tally.excluded += 1
        elif old.reason is not None:
            path = os.fsdecode(os.path.join(folder, file.name))
            self._tally.failures.append(Failure(path, old.reason))
        else:
            self._tally.skipped[old.kind or kind_of(file.name)] += 1

    def _account_for_special(self, folder: bytes, file: File) -> bool:
        """Account for a special or unreadable entry; tell whether a file is missing."""
        if file.kind is not Kind.BROKEN:
            self._tally.skipped[SPECIAL] += 1
            return True
        path = os.path.join(folder, file.name)
        if not os.path.lexists(path) and is_gone(path):
            self._tally.found -= 1
            return True
        self._tally.failures.append(Failure(os.fsdecode(path), _why_broken(path)))
        self._absence.cannot_see(path)  # the link may lead to a folder on a drive
        return is_gone(path)

    def _note_unreadable(self, listing: Unreadable) -> None:
        folder = listing.folder
        self._tally.unreadable.append(Failure(os.fsdecode(folder), listing.reason))
        if os.path.lexists(folder) or not is_gone(folder):
            self._absence.cannot_see(folder)


def _why_broken(path: bytes) -> str:
    try:
        os.stat(path)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return reason_of(error)
    return "cannot be read, or is a broken link"
