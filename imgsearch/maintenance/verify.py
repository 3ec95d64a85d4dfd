"""Verify that a collection is intact, and repair it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace

from imgsearch.ann.inverted import InvertedFile
from imgsearch.embedding.pipeline import cores
from imgsearch.errors import DamagedError
from imgsearch.maintenance.check import (
    Checker,
    check_catalog,
    check_manifest,
    check_parts,
    is_older,
    oddities_of,
)
from imgsearch.maintenance.damage import Part, Verification
from imgsearch.maintenance.originals import Originals
from imgsearch.maintenance.repair import Repairer, repair_catalog
from imgsearch.maintenance.sample import Sample
from imgsearch.querying.options import whole
from imgsearch.querying.view import open_view
from imgsearch.storage.catalog import Catalog, open_catalog
from imgsearch.storage.files import exclusive, remove_unfinished, undisturbed
from imgsearch.storage.layout import Layout
from imgsearch.storage.migrations import migrate
from imgsearch.storage.repair import CatalogRepairer
from imgsearch.storage.seal import seal

__all__ = ["SAMPLE", "verify"]

SAMPLE = 20  # images

#: Parts whose damage keeps the catalog from being used, or the images from being searched.
_FIRST = {Part.CATALOG}
_SEARCHED = {Part.MODEL, Part.SHARD, Part.IMAGES, Part.INDEX, Part.RANKING}


@dataclass(slots=True)
class _Findings:
    """The findings of one look at a collection."""

    report: Verification
    sound: list[InvertedFile]


@dataclass(frozen=True, slots=True)
class _Asked:
    """How many images to sample, and with how many processes and which models to embed them."""

    sample: int
    workers: int
    trust_model: bool


def verify(
    directory: str | os.PathLike[str],
    *,
    repair: bool = False,
    sample: int = SAMPLE,
    workers: int | None = None,
    trust_model: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Verification:
    """Check every file of a collection, and its index; repair it if asked to.

    Every file is compared with its checksum, the catalog with its seal, the index with the images
    it should cover. A sample of images is embedded again, and searched for. Files that have changed
    since they were indexed are named; they are not damage, and the next run indexes them again.

    Args:
        directory: The collection itself.
        repair: Whether to restore the catalog to its sealed state, export the model again, recover
            the embeddings of a damaged shard from the index, from their images, or from its sound
            rows, and rebuild the index. An image that none of these can recover is dropped.
        sample: The number of images to embed again.
        workers: The number of processes that embed lost images; None for one per core.
        trust_model: Whether to run the collection's model even if imgsearch did not export it.
        progress: A function called with the number of bytes read, and the total.

    Raises:
        NoCollectionError: If there is no collection.
        DamagedError: If it has another format version.
        BusyError: If another process is writing to it.
        StorageError: If the disk cannot be read or written.
        UntrustedModelError: If imgsearch did not export the model.
    """
    started = time.monotonic()
    sample = whole("sample", sample, 0)
    workers = None if workers is None else whole("workers", workers, 1)
    layout = Layout.at(directory)
    if repair and is_older(layout):
        migrate(layout)
    with _held(layout, repair=repair):
        asked = _Asked(sample, workers or cores(), trust_model)
        found = _look(layout, asked, progress)
        report = found.report
        if repair and report.damages:
            repairs = tuple(_repair(layout, found, asked))
            left = _look(layout, asked, progress).report
            report = replace(left, damages=report.damages, repairs=repairs, left=left.damages)
        else:
            report = replace(report, left=report.damages)
    return replace(report, seconds=time.monotonic() - started)


@contextmanager
def _held(layout: Layout, *, repair: bool) -> Iterator[None]:
    if not repair:
        with ExitStack() as held:
            with suppress(DamagedError):  # of the lock, which is reported below
                held.enter_context(undisturbed(layout.directory))
            yield
        return
    check_manifest(layout)  # there may be nothing to lock
    with exclusive(layout.directory):
        yield


def _look(layout: Layout, asked: _Asked, progress: Callable[[int, int], None] | None) -> _Findings:
    damages = check_parts(layout)
    if damages:
        return _Findings(Verification(0, 0, 0, 0, 0, False, 0, tuple(damages), (), (), 0.0), [])
    older = is_older(layout)
    damages = check_manifest(layout, older=older)
    more, sealed = check_catalog(layout, older=older)
    foreign, oddities = oddities_of(layout)
    damages += more + foreign
    report = Verification(
        *(0, 0, 0, 0, 0, sealed, 0, tuple(damages), (), (), 0.0), oddities=tuple(oddities)
    )
    if _FIRST & {damage.part for damage in damages}:
        return _Findings(report, [])
    total = layout.size()
    done = 0

    def tell(size: int) -> None:
        nonlocal done
        done += size
        if progress:
            progress(done, total)

    opened = open_catalog(layout) if older else Catalog(layout.catalog)
    with closing(opened) as catalog:
        checker = Checker(layout, catalog, catalog.snapshot(), tell)
        damages += checker.check()
        report = replace(
            report,
            images=catalog.counts().images,
            files=checker.files,
            bytes=checker.size,
            leftovers=checker.leftovers,
        )
        originals = Originals(catalog)
        changed = dict.fromkeys(originals.changed())
        if asked.sample and not _SEARCHED & {damage.part for damage in damages}:
            view = open_view(layout, catalog)
            samples = Sample(layout, catalog, view, asked.sample, asked.trust_model)
            damages += samples.check()
            changed |= dict.fromkeys(samples.changed)
            report = replace(report, sampled=samples.sampled, embedded=samples.embedded)
        report = replace(report, changed=tuple(changed), gone=originals.gone)
    return _Findings(replace(report, damages=tuple(damages)), checker.sound)


def _repair(layout: Layout, found: _Findings, asked: _Asked) -> Iterator[str]:
    if check_parts(layout):
        return  # this needs a person to look at it
    layout.make_folders()
    remove_unfinished(layout.directory)
    yield from repair_catalog(layout, found.report.damages)
    if _FIRST & {damage.part for damage in found.report.damages}:
        found = _look(layout, asked, None)
        if _FIRST & {damage.part for damage in found.report.damages}:
            return
    with closing(CatalogRepairer(layout.catalog)) as catalog:
        repairer = Repairer(layout, catalog, found.sound, asked.workers, asked.trust_model)
        yield from repairer.repair(found.report.damages)
    seal(layout)
