"""One indexing run: list, compare with the catalog, embed, commit, fold the tail in."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from functools import partial

from imgsearch.errors import GoneError, SettingError, missing
from imgsearch.indexing.engine import ModelFile
from imgsearch.indexing.fold import Tail, fold, remove_orphans
from imgsearch.indexing.missing import Absence
from imgsearch.indexing.options import IndexOptions
from imgsearch.indexing.relocate import move_roots
from imgsearch.indexing.report import IndexReport, Progress
from imgsearch.indexing.scan import Run
from imgsearch.indexing.scope import change_exclusions, find_tops, tops_of
from imgsearch.storage.layout import Layout
from imgsearch.storage.seal import writing
from imgsearch.storage.writer import CatalogWriter

__all__ = ["update"]

NAMED = 5  # places, in the one line of an error


def update(
    layout: Layout,
    catalog: CatalogWriter,
    paths: Sequence[str | os.PathLike[str]],
    options: IndexOptions,
    *,
    device: str,
    trust_model: bool,
) -> IndexReport:
    """Bring a collection up to date with the files under `paths` (all its roots if empty).

    Args:
        layout: Where the collection is.
        catalog: The catalog of the collection.
        paths: Files, folders or URLs; none for all roots.
        options: How to index.
        device: Where centroids are trained, and where this machine runs the model.
        trust_model: Whether to run even a model that imgsearch did not export.

    Raises:
        InputError: a path does not exist; what was to have moved is not there.
        GoneError: files are missing that an unplugged drive may hold; all else is done.
        SettingError: there is nothing to update.
        DamagedError: a file of the collection is missing or damaged.
        BusyError: another process is writing to the collection.
        StorageError: the disk is full, or cannot be written.
        ModelError: a worker cannot start.
    """
    started = time.monotonic()
    with writing(layout):
        remove_orphans(layout, catalog)
        kept = catalog.snapshot().settings.storage
        if options.pca is not None and (options.storage or kept) != "compact":
            raise SettingError("pca is for a compact index: say --storage compact, too")
        left_out = 0
        if options.exclude or options.include:
            left_out = change_exclusions(catalog, list(options.exclude), list(options.include))
        if options.moved:
            if paths:
                raise SettingError("give the folder that has moved, or folders to index, not both")
            tops = tops_of(catalog, move_roots(catalog, *options.moved))
        else:
            tops = find_tops(catalog, paths)
        catalog.change_settings(
            nlist=options.nlist, recall=options.recall, storage=options.storage, pca=options.pca
        )
        absence = Absence(catalog, tops, prune=options.prune)
        engine = options.engine_on(device)
        tail = Tail(layout, catalog, device, engine.assign)

        def after_commit(images: int) -> None:
            engine.committed()
            tail.grow(images)

        run = Run(
            layout,
            catalog,
            tops,
            absence,
            options.progress,
            after_commit,
            rehash=options.rehash,
        )
        try:
            model = ModelFile.of(layout, catalog.snapshot().model, trusted=trust_model)
            run.embed(partial(engine.embed_files, model=model, limits=options.limits))
            away = absence.gone_away(run.tally.unread())
            removed, reasons = absence.settle(run.moved)
            if options.progress:
                options.progress(Progress(run.tally.done, run.tally.done, training=True))
            fold(layout, catalog, device=device, assign=engine.assign)
        except FileNotFoundError as error:
            raise missing(error) from error
    run.tally.leave_out(away)
    seconds = time.monotonic() - started
    report = run.tally.report(
        removed=removed, left_out=left_out + absence.left_out, seconds=seconds
    )
    if away or reasons:
        raise GoneError("; ".join(_complaints(away, reasons)), report)
    return report


def _complaints(away: list[bytes], reasons: list[str]) -> Iterator[str]:
    if away:
        yield (
            f"{_some([os.fsdecode(path) for path in away])} went away in the middle of the run: "
            "nothing of it is lost; when it is back, the same command goes on from there"
        )
    if reasons:
        yield (
            f"{_some(reasons)}, in case a drive is not there: plug it in, name the new place of a "
            "folder with `imgsearch index --moved OLD NEW`, or drop them with "
            "`imgsearch index --prune`"
        )


def _some(facts: list[str]) -> str:
    more = len(facts) - NAMED
    return "; ".join(facts[:NAMED]) + (f"; and {more:,} more such places" if more > 0 else "")
