"""One indexing run: scan → embed → apply → commit → fold → fingerprint."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from imgsearch.ann.vectors import Ids, Vectors
from imgsearch.errors import GoneError, SettingError, missing
from imgsearch.indexing.apply import Applier, Contents
from imgsearch.indexing.commit import Batch
from imgsearch.indexing.engine import ModelFile, Wanted
from imgsearch.indexing.fingerprints import make_missing, merge_prints
from imgsearch.indexing.fold import fold, remove_orphans
from imgsearch.indexing.missing import Absence
from imgsearch.indexing.options import IndexOptions
from imgsearch.indexing.relocate import move_roots
from imgsearch.indexing.report import IndexReport, Reporter
from imgsearch.indexing.scan import Candidate, Scan
from imgsearch.indexing.scope import Scope, change_exclusions, find_scope, scope_of, scope_within
from imgsearch.storage.layout import Layout
from imgsearch.storage.seal import writing
from imgsearch.storage.writer import CatalogWriter

if TYPE_CHECKING:
    from imgsearch.ann.inverted import InvertedFile

__all__ = ["update"]

NAMED = 5  # locations named in the one line of an error


def update(
    layout: Layout,
    catalog: CatalogWriter,
    paths: Sequence[str | os.PathLike[str]],
    options: IndexOptions,
    *,
    device: str,
    trust_model: bool,
    within: Iterable[bytes] | None = None,
) -> IndexReport:
    """Update a collection with the files under `paths`, or under all its roots if empty.

    Args:
        layout: Location of the collection.
        catalog: Catalog of the collection.
        paths: Files, folders or URLs; none for all roots.
        options: Options of the run.
        device: Device that trains centroids and, on this machine, runs the model.
        trust_model: Whether to run even a model that imgsearch did not export.
        within: Folders of the roots to look through instead of `paths`: see `scope_within`.

    Raises:
        InputError: If a path does not exist, or a root that was said to have moved is not there.
        GoneError: If files are missing that an unplugged drive may hold; everything else is done.
        SettingError: If there is nothing to update.
        DamagedError: If a file of the collection is missing or damaged.
        BusyError: If another process is writing to the collection.
        StorageError: If the disk is full, or cannot be written.
        ModelError: If a worker cannot start.
    """
    started = time.monotonic()
    with writing(layout):
        remove_orphans(layout, catalog)
        kept = catalog.snapshot().settings.storage
        if options.pca is not None and (options.storage or kept) != "compact":
            raise SettingError("pca applies only to a compact index; pass --storage compact, too")
        left_out = 0
        if options.exclude or options.include:
            left_out = change_exclusions(catalog, list(options.exclude), list(options.include))
        if within is not None:
            scope = scope_within(catalog, within)
        elif options.moved:
            if paths:
                raise SettingError("give the folder that has moved, or folders to index, not both")
            scope = scope_of(catalog, move_roots(catalog, *options.moved))
        else:
            scope = find_scope(catalog, paths)
        catalog.change_settings(
            nlist=options.nlist, recall=options.recall, storage=options.storage, pca=options.pca
        )
        run = _Run(layout, catalog, scope, options, device=device, trust_model=trust_model)
        try:
            run.embed()
            away = run.absence.gone_away(run.tally.unread())
            removed, reasons = run.absence.settle(run.applier.moved)
            run.fold()
            run.fingerprint()
        except FileNotFoundError as error:
            raise missing(error) from error
    run.tally.leave_out(away)
    run.tally.leave_out_vanished()
    report = run.tally.report(
        removed=removed,
        left_out=left_out + run.absence.left_out,
        seconds=time.monotonic() - started,
    )
    if away or reasons:
        raise GoneError("; ".join(_complaints(away, reasons)), report)
    return report


class _Run:
    """The parts of a run, and its main loop."""

    def __init__(
        self,
        layout: Layout,
        catalog: CatalogWriter,
        scope: Scope,
        options: IndexOptions,
        *,
        device: str,
        trust_model: bool,
    ) -> None:
        record = catalog.snapshot().model
        self._layout = layout
        self._catalog = catalog
        self._device = device
        self._engine = options.engine_on(device)
        self._outcomes = partial(
            self._engine.embed_files,
            model=ModelFile.of(layout, record, trusted=trust_model),
            limits=options.limits,
        )
        self._reporter = Reporter(scope, layout.directory, options.progress)
        self._policy = options.policy
        self._workers, self._limits = options.workers, options.limits
        self._batch = Batch(layout, catalog, options.policy)
        self._contents = Contents(layout, catalog, record.dim)
        self._tail = 0  # images committed since the tail was folded in
        self.tally = self._reporter.tally
        self.absence = Absence(catalog, scope, prune=options.prune)
        self._scan = Scan(
            *(layout, catalog, scope, self.absence, self._batch, self._reporter),
            rehash=options.rehash,
        )
        self.applier = Applier(catalog, self._contents, self._batch, self.tally)

    def embed(self) -> None:
        """Embed and commit all new and changed files."""
        with self._reporter:
            try:
                self._embed(self._scan.candidates(), self._contents.wanted)
                while again := self.applier.undecided():
                    self._embed(iter(again), self._is_new)
            except KeyboardInterrupt:
                self._commit()
                raise
            self._reporter.tell()

    def _embed(self, candidates: Iterator[Candidate], wanted: Wanted) -> None:
        waiting: deque[Candidate] = deque()
        paths = self._queued(candidates, waiting)
        with closing(self._outcomes(paths, wanted)) as outcomes:
            for outcome in outcomes:
                self.applier.take(waiting.popleft(), outcome)
                if self._batch.is_due():
                    self._commit()
                    self._fold_tail()
                self._reporter.tell()
        self._commit()
        self._fold_tail()

    def fold(self) -> None:
        """Bring the index up to date."""
        self._reporter.tell_training()
        self._fold(meanwhile=False)

    def fingerprint(self) -> None:
        """Make the fingerprints that are missing: of images that an older version indexed."""
        made = make_missing(
            *(self._layout, self._catalog),
            workers=self._workers,
            limits=self._limits,
            progress=self._reporter.tell_fingerprints,
        )
        if made:
            live = np.array(self._catalog.image_ids(), np.int64)
            merge_prints(self._layout, self._catalog, live, self._policy)

    def _queued(self, candidates: Iterator[Candidate], waiting: deque[Candidate]) -> Iterator[str]:
        """Yield the paths of candidates, and queue the candidates for their outcomes."""
        for candidate in candidates:
            self._reporter.count_ahead()
            waiting.append(candidate)
            yield candidate.path

    def _is_new(self, _: str, digest: bytes) -> bool:
        return not self._catalog.holds(digest)

    def _commit(self) -> None:
        self._tail += self._batch.commit()
        self._contents.commit()
        self._engine.committed()

    def _fold_tail(self) -> None:
        """Fold the tail in during the run, so that it stays short."""
        if self._tail >= self._policy.tail_most:
            self._fold(meanwhile=True)
            self._tail = 0

    def _fold(self, *, meanwhile: bool) -> None:
        fold(
            *(self._layout, self._catalog),
            device=self._device,
            meanwhile=meanwhile,
            assign=self._engine.assign if meanwhile else self._assign,
            policy=self._policy,
        )

    def _assign(
        self, index: InvertedFile, blocks: Iterable[tuple[Ids, Vectors]]
    ) -> Iterator[tuple[Ids, Vectors, Ids]]:
        """Let the engine assign images to lists, and report how many of them it has assigned."""
        assigned = 0
        for ids, vectors, lists in self._engine.assign(index, blocks):
            yield ids, vectors, lists
            assigned += len(ids)
            self._reporter.tell_training(assigned)


def _complaints(away: list[bytes], reasons: list[str]) -> Iterator[str]:
    if away:
        yield (
            f"{_some([os.fsdecode(path) for path in away])} became unavailable during the run: "
            f"none of its images is lost; run the same command again when it is back"
        )
    if reasons:
        yield (
            f"{_some(reasons)} in case a drive is unplugged; plug it in, name the new location of "
            f"a folder with `imgsearch index --moved OLD NEW`, or drop the images with `imgsearch "
            f"index --prune`"
        )


def _some(facts: list[str]) -> str:
    more = len(facts) - NAMED
    return "; ".join(facts[:NAMED]) + (f"; and {more:,} more such places" if more > 0 else "")
