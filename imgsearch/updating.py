"""One indexing run: list, compare with the catalog, embed, commit, fold the tail in."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass

import numpy as np

from imgsearch.embedding.listing import File, Kind, Listing, Unreadable, list_files, list_one
from imgsearch.embedding.pipeline import Embedded, Outcome, embed_files
from imgsearch.embedding.runtime import Runtime
from imgsearch.errors import missing
from imgsearch.folding import fold
from imgsearch.reports import Failure, IndexReport, Progress
from imgsearch.roots import Place, Roots
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.files import exclusive, remove_unnamed
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import ModelRecord, NewFailure, NewImage, Snapshot
from imgsearch.storage.shards import Shard, shard_name, write_shard
from imgsearch.tops import Tops, find_tops

__all__ = ["UpdateOptions", "update"]

# What a crash costs is a commit's worth of work, and each commit is a shard. So they grow with the
# run: every half second at first, then a twentieth of the time that it took so far, up to 5 s.
COMMIT_SECONDS = 0.5
COMMIT_SECONDS_MOST = 5.0
COMMIT_SHARE = 1 / 20
COMMIT_IMAGES = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateOptions:
    """How to run: see `imgsearch.collection.Collection.index`. `gpu` is None on a CPU."""

    nlist: int | None
    workers: int
    time_limit: float
    device: str
    gpu: Runtime | None
    progress: Callable[[Progress], None] | None


def update(
    layout: Layout,
    catalog: Catalog,
    paths: Sequence[str | os.PathLike[str]],
    options: UpdateOptions,
) -> IndexReport:
    """Bring a collection up to date with the files under `paths` (all its roots if empty).

    Raises:
        InputError: a path does not exist.
        SettingError: there is nothing to update.
        DamagedError: a file of the collection is missing or damaged.
        BusyError: another process is writing to the collection.
        StorageError: the disk is full, or cannot be written.
        ModelError: a worker cannot start.
    """
    started = time.monotonic()
    with exclusive(layout.directory):
        snapshot = catalog.snapshot()
        _remove_orphans(layout, snapshot)
        tops = find_tops(catalog, paths)
        run = _Run(layout, catalog, tops, options)
        run.embed(snapshot.model)
        if options.progress:
            options.progress(Progress(run.done, run.done, training=True))
        try:
            fold(layout, catalog, nlist=options.nlist, device=options.device)
        except FileNotFoundError as error:
            raise missing(error) from error
    return run.report(time.monotonic() - started)


def _remove_orphans(layout: Layout, snapshot: Snapshot) -> None:
    """Delete what no commit names: left by a crash, or replaced by an earlier run."""
    shards = {shard_name(shard.number) for shard in snapshot.shards}
    segments = {layout.segment(segment.number).name for segment in snapshot.segments}
    remove_unnamed(layout.vectors, ".npy", shards)
    remove_unnamed(layout.segments, ".faiss", segments)


def _is_one_of(folder: bytes, seen: set[tuple[int, int]]) -> bool:
    try:
        status = os.stat(folder)
    except OSError:
        return False
    return (status.st_dev, status.st_ino) in seen


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A file to be embedded; `replaces` is the id of the image that its path had before."""

    place: Place
    folder: bytes
    file: File
    replaces: int | None

    @property
    def path(self) -> str:
        return os.fsdecode(os.path.join(self.folder, self.file.name))


class _Run:
    """The state of a run: its counts, and what is to be committed next."""

    def __init__(
        self, layout: Layout, catalog: Catalog, tops: Tops, options: UpdateOptions
    ) -> None:
        self._layout = layout
        self._catalog = catalog
        self._tops = tops
        self._options = options
        self._roots = Roots(catalog.roots())
        self._found = self._indexed = self._unchanged = self._skipped = 0
        self._failures: list[Failure] = []
        self._unreadable: list[Failure] = []
        self._waiting: deque[_Candidate] = deque()
        self._images: list[tuple[NewImage, Embedded]] = []
        self._refused: list[NewFailure] = []
        self._started = self._committed = time.monotonic()
        self._total: int | None = None

    @property
    def done(self) -> int:
        """The number of files that are accounted for."""
        return self._indexed + self._unchanged + self._skipped + len(self._failures)

    def report(self, seconds: float) -> IndexReport:
        return IndexReport(
            found=self._found,
            indexed=self._indexed,
            unchanged=self._unchanged,
            failed=len(self._failures),
            skipped=self._skipped,
            failures=tuple(self._failures),
            unreadable=tuple(self._unreadable),
            seconds=seconds,
        )

    def embed(self, model: ModelRecord) -> None:
        """Embed and commit all that is new or changed."""
        if self._options.progress:
            threading.Thread(target=self._count, daemon=True).start()
        outcomes = embed_files(
            (candidate.path for candidate in self._candidates()),
            model=self._layout.model,
            input_size=model.input_size,
            dim=model.dim,
            workers=self._options.workers,
            time_limit=self._options.time_limit,
            gpu=self._options.gpu,
        )
        try:
            with closing(outcomes):
                for outcome in outcomes:
                    self._take(self._waiting.popleft(), outcome)
                    self._commit_if_due()
                    self._tell()
        except KeyboardInterrupt:
            self._commit()
            raise
        self._commit()
        self._tell()

    def _candidates(self) -> Iterator[_Candidate]:
        """Yield what has to be embedded; account for all other files."""
        for listing in self._listings():
            if isinstance(listing, Unreadable):
                self._unreadable.append(Failure(os.fsdecode(listing.folder), listing.reason))
                continue
            place = self._roots.find(listing.folder)
            if place is None:  # a root was made of every path given: see find_tops
                raise AssertionError(listing.folder)
            names = listing.files[0].name, listing.files[-1].name
            known = self._catalog.known(place.root, place.folder, *names)
            for file in listing.files:
                self._found += 1
                old = known.get(file.name)
                candidate = _Candidate(place, listing.folder, file, old.id if old else None)
                if file.kind is not Kind.REGULAR:
                    self._account_for_special(candidate)
                elif old is None or (old.size, old.mtime_ns) != (file.size, file.mtime_ns):
                    self._waiting.append(candidate)
                    yield candidate
                elif old.id is not None:
                    self._unchanged += 1
                elif old.reason is not None:
                    self._failures.append(Failure(candidate.path, old.reason))
                else:
                    self._skipped += 1
            self._tell()

    def _listings(self) -> Iterator[Listing | Unreadable]:
        status = self._layout.directory.stat()
        seen = {(status.st_dev, status.st_ino)}  # the collection itself is left out
        for folder in self._tops.folders:
            yield from list_files(folder, seen)
        for file in self._tops.files:
            if not _is_one_of(os.path.dirname(file), seen):
                yield list_one(file)

    def _account_for_special(self, candidate: _Candidate) -> None:
        if candidate.file.kind is Kind.BROKEN:
            reason = "is gone, or a link that leads nowhere"
            self._failures.append(Failure(candidate.path, reason))
        else:
            self._skipped += 1

    def _take(self, candidate: _Candidate, outcome: Outcome) -> None:
        """Account for one outcome, and note what is to be committed of it."""
        place, file = candidate.place, candidate.file
        if isinstance(outcome, Embedded):
            self._indexed += 1
            new = NewImage(
                place.root,
                place.folder,
                file.name,
                outcome.size,
                outcome.mtime_ns,
                outcome.digest,
                candidate.replaces,
            )
            self._images.append((new, outcome))
            return
        reason = outcome.reason if outcome.recognised else None
        if reason is None:
            self._skipped += 1
        else:
            self._failures.append(Failure(candidate.path, reason))
        if not outcome.transient:  # else it is tried again next time, and its image is kept
            self._refused.append(
                NewFailure(
                    place.root,
                    place.folder,
                    file.name,
                    file.size,
                    file.mtime_ns,
                    reason,
                    candidate.replaces,
                )
            )

    def _commit_if_due(self) -> None:
        now = time.monotonic()
        grown = min(COMMIT_SECONDS_MOST, COMMIT_SHARE * (now - self._started))
        due = now - self._committed > max(COMMIT_SECONDS, grown)
        if due or len(self._images) >= COMMIT_IMAGES:
            self._commit()

    def _commit(self) -> None:
        # Taken first: what a second Ctrl-C interrupts is lost, never committed twice.
        images, self._images = self._images, []
        refused, self._refused = self._refused, []
        shard = None
        if images:
            number, first_id = self._catalog.next_shard()
            vectors = np.stack([outcome.embedding for _, outcome in images])
            sha256 = write_shard(self._layout.vectors, number, vectors)
            shard = Shard(number, first_id, len(images), sha256)
        if images or refused:
            self._catalog.commit(shard, [new for new, _ in images], refused)
        self._committed = time.monotonic()

    def _tell(self) -> None:
        if self._options.progress:
            self._options.progress(Progress(self.done, self._total))

    def _count(self) -> None:
        """Count the files ahead of the run, in a thread of its own, for the progress only."""
        with suppress(OSError):
            self._total = sum(
                len(listing.files) for listing in self._listings() if isinstance(listing, Listing)
            )
