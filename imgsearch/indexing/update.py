"""One indexing run: list, compare with the catalog, embed, commit, fold the tail in."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass

from imgsearch.embedding.pipeline import Outcome, embed_files
from imgsearch.embedding.runtime import Runtime
from imgsearch.errors import GoneError, SettingError, missing
from imgsearch.indexing.engine import Engine, assign_here
from imgsearch.indexing.fold import Tail, fold, remove_orphans
from imgsearch.indexing.missing import Absence
from imgsearch.indexing.relocate import move_roots
from imgsearch.indexing.report import IndexReport, Progress
from imgsearch.indexing.scan import Embed, Run
from imgsearch.indexing.scope import change_exclusions, find_tops, tops_of
from imgsearch.querying.options import SearchOptions, items, number, paths_of, whole
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import Storage
from imgsearch.storage.seal import writing
from imgsearch.storage.writer import CatalogWriter

__all__ = ["UpdateOptions", "update"]

NAMED = 5  # places, in the one line of an error


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateOptions:
    """How to run: see `imgsearch.collection.Collection.index`. `gpu` is None on a CPU.

    With an `engine`, `workers` and `gpu` are of no account.
    """

    nlist: int | None
    recall: float | None
    storage: Storage | None
    pca: int | None
    prune: bool
    moved: tuple[str | os.PathLike[str], str | os.PathLike[str]] | None
    exclude: Sequence[str]
    include: Sequence[str]
    rehash: bool
    workers: int
    time_limit: float
    max_pixels: int
    device: str
    gpu: Runtime | None
    trust_model: bool
    engine: Engine | None
    progress: Callable[[Progress], None] | None

    def __post_init__(self) -> None:
        if self.storage not in (None, "flat", "compact"):
            raise SettingError(f'storage is {self.storage!r}; it must be "flat" or "compact"')
        for name in ("nlist", "pca", "workers", "time_limit", "max_pixels"):
            value = getattr(self, name)
            if value is None:
                continue
            if name != "time_limit":
                value = whole(name, value, 1)
            elif not 0 < (seconds := number(name, value, -math.inf, math.inf)) < math.inf:
                raise SettingError(f"{name} is {value}; it must be more than 0")
            else:
                value = seconds
            object.__setattr__(self, name, value)  # it is frozen, and made just now
        if self.recall is not None:
            object.__setattr__(self, "recall", SearchOptions(recall=self.recall).recall)
        if self.moved is not None and len(paths_of(items("moved", self.moved))) != 2:
            raise SettingError("moved is two folders: where it was, and where it is now")


def update(
    layout: Layout,
    catalog: CatalogWriter,
    paths: Sequence[str | os.PathLike[str]],
    options: UpdateOptions,
) -> IndexReport:
    """Bring a collection up to date with the files under `paths` (all its roots if empty).

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
            left_out = change_exclusions(catalog, options.exclude, options.include)
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
        engine = options.engine
        assign = assign_here if engine is None else engine.assign
        tail = Tail(layout, catalog, options.device, assign)

        def after_commit(images: int) -> None:
            if engine is not None:
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
            run.embed(_embedder(layout, catalog, options))
            away = absence.gone_away(run.tally.unread())
            removed, reasons = absence.settle(run.moved)
            if options.progress:
                options.progress(Progress(run.tally.done, run.tally.done, training=True))
            fold(layout, catalog, device=options.device, assign=assign)
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


def _embedder(layout: Layout, catalog: CatalogWriter, options: UpdateOptions) -> Embed:
    model = catalog.snapshot().model
    engine = options.engine
    if options.gpu is None:
        layout.check_model(model.onnx_sha256)

    def embed(
        paths: Iterable[str], wanted: Callable[[str, bytes], bool]
    ) -> Generator[Outcome, None, None]:
        if engine is not None:
            return engine.embed_files(
                paths,
                wanted=wanted,
                model=layout.model,
                record=model,
                time_limit=options.time_limit,
                max_pixels=options.max_pixels,
                trust_model=options.trust_model,
            )
        return embed_files(
            paths,
            wanted=wanted,
            model=layout.model,
            input_size=model.input_size,
            dim=model.dim,
            workers=options.workers,
            time_limit=options.time_limit,
            max_pixels=options.max_pixels,
            gpu=options.gpu,
            trust_model=options.trust_model,
        )

    return embed
