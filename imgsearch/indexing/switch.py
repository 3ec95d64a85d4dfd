"""Switch a collection to another network: embed all its images again, beside the old embeddings.

The collection goes on answering with the old network until one transaction replaces everything
(`imgsearch.storage.succession`). What was embedded before an interruption is kept.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imgsearch.embedding.models import is_file, names_same
from imgsearch.embedding.own import digest_of, path_of
from imgsearch.embedding.pipeline import Embedded, Outcome, Refused
from imgsearch.embedding.runtime import Embeddings
from imgsearch.errors import DamagedError, GoneError, InputError, SettingError, missing
from imgsearch.indexing.create import begin, make_model
from imgsearch.indexing.engine import ModelFile
from imgsearch.indexing.fold import fold, remove_orphans
from imgsearch.indexing.options import IndexOptions
from imgsearch.indexing.report import Progress
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.files import check_room
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import Entry, ModelRecord
from imgsearch.storage.seal import seal, writing
from imgsearch.storage.shards import write_shard
from imgsearch.storage.succession import drop_successor, keep_copy, settle, succeed
from imgsearch.storage.writer import CatalogWriter

__all__ = ["Network", "SwitchReport", "give_up", "kept_at", "switch", "unfinished"]

COMMIT_SECONDS = 5.0  # a crash costs that much work, and each commit is a shard
ASKED = 1_024  # entries of the catalog


@dataclass(frozen=True, slots=True)
class Network:
    """The network to switch to: its name, and its weights, None for its default ones."""

    name: str
    weights: str | None = None


@dataclass(frozen=True, slots=True)
class SwitchReport:
    """The report of a switch to another network.

    Attributes:
        before, after: The names of the old and the new network.
        images: Images that have an embedding of the new network.
        resumed: Those of them that an interrupted run had embedded.
        left_out: Images whose files have changed or cannot be read any more. They are no longer in
            the collection; the next run of `index` looks at these files again.
        kept: The directory of the old collection, if it was kept.
        seconds: The duration of the run.
    """

    before: str
    after: str
    images: int
    resumed: int
    left_out: int
    kept: str | None
    seconds: float


def switch(
    layout: Layout,
    catalog: CatalogWriter,
    network: Network,
    options: IndexOptions,
    *,
    device: str,
    keep_old: bool = False,
) -> SwitchReport:
    """Switch a collection to another network.

    Args:
        layout: Location of the collection.
        catalog: Catalog of the collection.
        network: The other network.
        options: Options of the run, of which those that say how to embed apply, the policy, and
            the progress.
        device: Device that embeds, unless the options have an engine, and that trains centroids.
        keep_old: Whether to keep the old collection beside the new one: see `kept_at`.

    Raises:
        SettingError: If the collection was made with this network.
        ModelError: If there is no such network, or its weights cannot be obtained.
        PackageError: If a package is needed, but not installed.
        GoneError: If a file cannot be read; the old network still answers.
        InputError: If there is something where the old collection would be kept.
        DamagedError: If a file of the collection is missing or damaged.
        BusyError: If another process is writing to the collection.
        StorageError: If the disk is full, or cannot be written.
    """
    started = time.monotonic()
    with writing(layout):
        remove_orphans(layout, catalog)
        before = catalog.counts().images
        old = catalog.snapshot().model
        target = kept_at(layout, old) if keep_old else None
        _check_kept(target)
        _begin(layout, catalog, network, old)
        try:
            with closing(CatalogWriter(layout.next.catalog)) as successor, writing(layout.next):
                run = _Run(layout, catalog, successor, options, device)
                resumed = run.embed()
                fold(layout.next, successor, device=device, policy=options.policy)
                seal(layout)
                if target is not None:
                    keep_copy(layout, catalog, target)
                succeed(layout, catalog, successor)
                new = successor.snapshot().model
        except FileNotFoundError as error:
            raise missing(error) from error
        seal(layout)
        settle(layout, new)
        images = catalog.counts().images
    kept = None if target is None else str(target)
    seconds = time.monotonic() - started
    return SwitchReport(old.name, new.name, images, resumed, before - images, kept, seconds)


def unfinished(layout: Layout) -> ModelRecord | None:
    """Return the network that a collection is being switched to, None if there is none.

    Raises:
        StorageError: If it cannot be read.
    """
    try:
        if not (layout.next.exists() and layout.next.is_current()):
            return None
        with closing(Catalog(layout.next.catalog)) as successor:
            return successor.model()
    except DamagedError:  # it is begun again
        return None


def give_up(layout: Layout) -> None:
    """Delete what an unfinished switch has made; raises as `imgsearch.storage.succession`."""
    with writing(layout):
        drop_successor(layout)


def kept_at(layout: Layout, model: ModelRecord) -> Path:
    """Return the directory in which the old collection is kept: beside it, named by its network."""
    network = re.sub(r"[^A-Za-z0-9._-]+", "-", model.name).strip("-.")
    return layout.directory.with_name(f"{layout.directory.name}-{network}")


def _check_kept(target: Path | None) -> None:
    if target is not None and (target.exists() or target.is_symlink()):
        raise InputError(
            f"{target}, where the old collection would be kept, is already there; move it away, "
            "or leave out --keep-old"
        )


def _begin(layout: Layout, catalog: CatalogWriter, network: Network, old: ModelRecord) -> None:
    """Make an empty successor, unless an interrupted run has left one of this network."""
    there = unfinished(layout)
    if there is None or not _is_of(there, network):
        model, onnx, words = make_model(network.name, network.weights, progress=True)
        if model.onnx_sha256 == old.onnx_sha256:
            raise SettingError(f"this collection was made with {model.name} and these weights")
        drop_successor(layout)
        begin(layout.next, model, onnx, words)
    settings = catalog.snapshot().settings
    with closing(CatalogWriter(layout.next.catalog)) as successor:
        successor.adopt(settings)


def _is_of(model: ModelRecord, network: Network) -> bool:
    if is_file(network.name):
        return digest_of(path_of(network.name)) == model.weights_sha256
    return names_same(network.name, model.name) and network.weights in (None, model.weights)


class _Run:
    """The parts of a switch, and its main loop."""

    def __init__(
        self,
        layout: Layout,
        catalog: CatalogWriter,
        successor: CatalogWriter,
        options: IndexOptions,
        device: str,
    ) -> None:
        model = successor.snapshot().model
        self._new = layout.next
        self._catalog = catalog
        self._successor = successor
        self._rows: list[tuple[int, bytes, Embeddings]] = []
        self._dim = model.dim
        self._engine = options.engine_on(device)
        self._model = ModelFile.of(layout.next, model, trusted=False)
        self._limits = options.limits
        self._tell = options.progress or (lambda _: None)
        self._policy = options.policy
        self._digests: dict[str, bytes] = {}
        self._committed = time.monotonic()

    def embed(self) -> int:
        """Embed all images, and return how many of them had been embedded before.

        They are embedded in the order of their ids, so that all up to the last one are done.
        """
        remove_orphans(self._new, self._successor)
        self._successor.keep(self._catalog.image_ids())
        resumed = len(self._successor.image_ids())
        first = 1 + max((shard.last_id for shard in self._successor.shards()), default=0)
        ids = self._catalog.image_ids(first)
        check_room(self._new.vectors, 4 * self._dim * len(ids))
        waiting: deque[Entry] = deque()
        outcomes = self._engine.embed_files(
            self._paths(ids, waiting),
            lambda path, digest: self._digests.get(path) == digest,
            model=self._model,
            limits=self._limits,
        )
        try:
            with closing(outcomes):
                for done, outcome in enumerate(outcomes, resumed + 1):
                    self._take(waiting.popleft(), outcome)
                    self._tell(Progress(done, resumed + len(ids)))
        finally:
            self._commit()
        self._tell(Progress(resumed + len(ids), resumed + len(ids), training=True))
        return resumed

    def _paths(self, ids: list[int], waiting: deque[Entry]) -> Iterator[str]:
        """Yield the paths to embed, and queue their entries for the outcomes."""
        for start in range(0, len(ids), ASKED):
            for entry in self._catalog.entries_of(ids[start : start + ASKED]):
                self._digests[entry.path] = entry.digest
                waiting.append(entry)
                yield entry.path

    def _take(self, entry: Entry, outcome: Outcome) -> None:
        """Add the embedding of an image, unless its file has changed or cannot be decoded."""
        self._digests.pop(entry.path, None)
        if isinstance(outcome, Refused) and outcome.transient:
            raise GoneError(
                f"{entry.path} {outcome.reason}; nothing was switched, and the collection still "
                "answers with its old network: run the same command again when the file is back"
            )
        if isinstance(outcome, Embedded):
            self._rows.append((entry.id, entry.digest, outcome.embedding))
        if (
            len(self._rows) >= self._policy.commit_files
            or time.monotonic() - self._committed > COMMIT_SECONDS
        ):
            self._commit()

    def _commit(self) -> None:
        """Commit what was embedded."""
        if not self._rows:
            return
        ids, digests, embeddings = zip(*self._rows, strict=True)
        number, _ = self._successor.next_shard()
        vectors = np.stack(embeddings)
        shard = write_shard(self._new.vectors, number, np.array(ids, np.int64), vectors)
        self._successor.add_embedded(list(zip(ids, digests, strict=True)), shard)
        self._rows.clear()
        self._engine.committed()
        self._committed = time.monotonic()
