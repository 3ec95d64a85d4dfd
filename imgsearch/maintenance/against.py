"""Tell which files of a folder, or images of another collection, a collection has already.

Nothing is indexed. The files are hashed, decoded and embedded as for an index, then searched for
by their embeddings and their perceptual hashes, and confirmed on pixels as copies are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from imgsearch.ann.hashes import near_hashes
from imgsearch.ann.threads import single_threaded_blas
from imgsearch.ann.vectors import Ids, Vectors
from imgsearch.embedding.decoder import Stored
from imgsearch.embedding.lanes import decoders
from imgsearch.embedding.pipeline import Embedded, cores
from imgsearch.embedding.pool import Known
from imgsearch.errors import ImageError
from imgsearch.files.listing import Kind, Unreadable, list_files, list_one
from imgsearch.files.paths import is_url
from imgsearch.files.sources import existing, is_folder
from imgsearch.images.agreement import CloseUp
from imgsearch.images.compare import NEAR, all_flattened, oriented_likeness
from imgsearch.images.decode import ImageFile
from imgsearch.images.fingerprint import FINGERPRINT, inverse, oriented, oriented_hashes
from imgsearch.images.holdings import lacks
from imgsearch.images.inspection import Frames, Inspection, Judgement, all_frames, judged
from imgsearch.images.kinds import EXACT
from imgsearch.images.limits import LIMITS
from imgsearch.images.overlay import Trial, fitting
from imgsearch.indexing.engine import LocalEngine, ModelFile
from imgsearch.indexing.report import Failure
from imgsearch.maintenance.candidates import LEAST_DEVIATION, MOST_BITS, SURE, useful_hashes
from imgsearch.maintenance.copies import Against, Owned
from imgsearch.maintenance.looks import Looks
from imgsearch.maintenance.verdicts import Verdicts
from imgsearch.querying.options import SearchOptions, number
from imgsearch.querying.search import search
from imgsearch.querying.view import View, open_view
from imgsearch.storage.catalog import Catalog, open_catalog
from imgsearch.storage.distinct import Apart, read_distinct
from imgsearch.storage.fingerprints import Prints
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import Entry, ModelRecord

__all__ = ["find_against"]

BLOCK = 2_048  # files that are searched for at once, some 10 KB each
NEIGHBOURS = 16  # whose pixels are compared, at most, by their embeddings
HOLDERS = 64  # images of the same content that are looked at, until one is found to be there
MIN_SIMILARITY = 0.75

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """A file to search for: `light` is the luminance of its small picture."""

    path: str
    digest: bytes
    size: int
    embedding: Vectors | None = None
    hash: int = 0
    light: npt.NDArray[np.uint8] | None = None


_Items: TypeAlias = Generator[_Asked, None, None]


def find_against(
    directory: str | os.PathLike[str],
    other: str | os.PathLike[str],
    *,
    min_similarity: float = MIN_SIMILARITY,
    trust_model: bool = False,
    progress: Progress | None = None,
) -> Against:
    """Tell which files of a folder or another collection a collection has; change nothing.

    A file that is itself an image of the collection does not count as its own copy.

    Args:
        directory: The collection.
        other: A folder, a file, or the directory of another collection.
        min_similarity: The minimum similarity of embeddings for their pixels to be compared.
        trust_model: Whether to run the collection's model even if imgsearch did not export it.
        progress: Function called with the number of files compared and the total, from the start.

    Raises:
        NoCollectionError: If there is no collection.
        InputError: If there is nothing at `other`.
        SettingError: If `min_similarity` makes no sense.
        DamagedError: If a file of a collection is missing or damaged.
        UntrustedModelError: If imgsearch did not export the model.
        ModelError: If no worker can be started.
    """
    min_similarity = number("min_similarity", min_similarity, -1, 1)
    progress = progress or _nothing
    layout = Layout.at(directory)
    with ExitStack() as opened:
        catalog = opened.enter_context(closing(open_catalog(layout)))
        view = open_view(layout, catalog)
        failures: list[Failure] = []
        source = _Source(layout, view.snapshot.model, failures, trust_model)
        count, asked = source.ask(other, opened)
        opened.enter_context(single_threaded_blas())
        threads = opened.enter_context(ThreadPoolExecutor(cores()))
        lane = opened.enter_context(decoders(cores()))
        verdicts = Verdicts.load()
        opened.callback(verdicts.save)
        prints = Prints.open(layout.fingerprints, catalog.prints())
        looks = Looks(catalog, prints, threads, lane, verdicts)
        apart = read_distinct(layout).apart()
        match = _Match(view, catalog, looks, apart, min_similarity, failures)
        files: list[Owned] = []
        progress(0, count)
        ids = np.array(catalog.image_ids(), np.int64)
        held = {entry.digest for entry in _entries(catalog, ids)}
        with closing(asked(held)) as items:
            while block := list(islice(items, BLOCK)):
                files += match.all(block)
                progress(len(files), count)
    return Against(tuple(files), view.count, tuple(dict.fromkeys(failures)))


def _nothing(done: int, total: int) -> None:
    """Ignore the progress."""


def _entries(catalog: Catalog, ids: Ids) -> Iterator[Entry]:
    for start in range(0, len(ids), 1_024):
        yield from catalog.entries_of(ids[start : start + 1_024].tolist())


@dataclass(frozen=True, slots=True)
class _Source:
    """Where the files to search for come from; notes those that cannot be read."""

    layout: Layout
    model: ModelRecord
    failures: list[Failure]
    trust_model: bool

    def ask(
        self, other: str | os.PathLike[str], opened: ExitStack
    ) -> tuple[int, Callable[[set[bytes]], _Items]]:
        """Return how many files there are, and a function that yields them.

        The function takes digests, of which nothing but the digest is needed.

        Args:
            other: A folder, a file, or the directory of another collection.
            opened: Stack on which to leave a catalog open.

        Raises:
            InputError: If there is nothing there.
        """
        if not is_url(other) and os.path.isfile(os.path.join(other, "collection.json")):
            layout = Layout.at(other)
            catalog = opened.enter_context(closing(open_catalog(layout)))
            view = open_view(layout, catalog)
            ids = np.array(catalog.image_ids(), np.int64)
            if view.snapshot.model.onnx_sha256 == self.model.onnx_sha256:
                prints = Prints.open(layout.fingerprints, catalog.prints())
                return len(ids), lambda _: _of_collection(view, catalog, prints, ids)
            paths = [entry.path for entry in _entries(catalog, ids)]
        else:
            paths = list(self._listed(existing(other)))
        return len(paths), partial(self._of_files, paths)

    def _listed(self, top: bytes) -> Iterator[str]:
        own = os.stat(self.layout.directory)  # which may be inside
        seen = {(own.st_dev, own.st_ino)}
        for listing in list_files([top], seen) if is_folder(top) else [list_one(top)]:
            if isinstance(listing, Unreadable):
                self.failures.append(Failure(os.fsdecode(listing.folder), listing.reason))
                continue
            for file in listing.files:
                if file.kind is Kind.REGULAR:
                    yield os.fsdecode(os.path.join(listing.folder, file.name))

    def _of_files(self, paths: list[str], held: set[bytes]) -> _Items:
        """Yield the files that are images, decoded and embedded unless their digest is held."""
        outcomes = LocalEngine().embed_files(
            paths,
            lambda _, digest: digest not in held,
            model=ModelFile.of(self.layout, self.model, trusted=self.trust_model),
            limits=LIMITS,
        )
        with closing(outcomes):
            for path, outcome in zip(paths, outcomes, strict=True):
                if isinstance(outcome, Known):
                    yield _Asked(path, outcome.digest, outcome.size)
                elif isinstance(outcome, Embedded):
                    asked = _Asked(path, outcome.digest, outcome.size, outcome.embedding)
                    row = outcome.fingerprint.row if outcome.fingerprint else None
                    yield replace(asked, **_of_print(row))
                elif outcome.recognised:
                    self.failures.append(Failure(path, outcome.reason))


def _of_collection(view: View, catalog: Catalog, prints: Prints, ids: Ids) -> _Items:
    for start in range(0, len(ids), BLOCK):
        entries = list(_entries(catalog, ids[start : start + BLOCK]))
        embeddings = view.embeddings([entry.id for entry in entries])
        for entry, embedding in zip(entries, embeddings, strict=True):
            asked = _Asked(entry.path, entry.digest, entry.size, embedding)
            yield replace(asked, **_of_print(prints.row_of(entry.id)))


def _of_print(row: bytes | None) -> dict[str, Any]:
    """Return the fields of `_Asked` that a fingerprint gives."""
    if row is None:
        return {}
    found = np.frombuffer(row, FINGERPRINT)[0]
    return {"hash": int(found["hash"]), "light": np.array(found["luminance"])}


@dataclass(slots=True)
class _Match:
    """A search in a collection for files from outside."""

    view: View
    catalog: Catalog
    looks: Looks
    apart: Apart
    min_similarity: float
    failures: list[Failure]
    _ids: Ids = field(init=False)
    _hashes: npt.NDArray[np.uint64] = field(init=False)

    def __post_init__(self) -> None:
        ids = np.array(self.catalog.image_ids(), np.int64)
        self._ids, self._hashes = useful_hashes(self.looks.prints, ids)

    def all(self, block: Sequence[_Asked]) -> list[Owned]:
        """Return for each file the image that shows the same, if there is one."""
        exact = {number: self._exact(asked) for number, asked in enumerate(block)}
        near = self._near(block, [number for number, found in exact.items() if found is None])
        entries = {number: list(self._entries(block[number], near[number])) for number in near}
        confirm = self.looks.threads.map(
            lambda number: self._confirmed(block[number], entries[number]), near
        )
        found = dict(zip(near, confirm, strict=True))
        return [exact[number] or found[number] for number in range(len(block))]

    def _exact(self, asked: _Asked) -> Owned | None:
        """Return the image with the same content, unless its file is missing or that file."""
        holders = self.catalog.holders(asked.digest, HOLDERS)
        entries = self.catalog.entries_of([each.id for each in holders if each.path is not None])
        for entry in entries:
            if not _is_same(entry.path, asked.path) and self._is_there(entry):
                return _owned(asked, entry, EXACT)
        return None

    def _is_there(self, entry: Entry) -> bool:
        """Tell whether the file of an image has the content that was indexed."""
        if self.looks.unchanged([entry]):
            return True
        try:
            with ImageFile(entry.path) as file:
                return file.digest == entry.digest
        except ImageError:
            return False

    def _near(
        self, block: Sequence[_Asked], numbers: Sequence[int]
    ) -> dict[int, list[tuple[int, int]]]:
        """Return candidates for each file, the likeliest first, with their orientations."""
        wanted: dict[int, dict[int, None]] = {number: {} for number in numbers}
        embedded = [number for number in numbers if block[number].embedding is not None]
        if embedded and self.view.count:
            vectors = np.array([block[number].embedding for number in embedded], np.float32)
            options = SearchOptions(k=NEIGHBOURS, min_similarity=self.min_similarity)
            found = search(self.view, vectors, options).hits.ids
            for number, row in zip(embedded, found.tolist(), strict=True):
                wanted[number] |= dict.fromkeys(id_ for id_ in row if id_ >= 0)
        drawn = [
            number
            for number in numbers
            if (light := block[number].light) is not None and light.std() >= LEAST_DEVIATION
        ]
        hashes = np.array([block[number].hash for number in drawn], np.uint64)
        for turned in oriented_hashes(hashes) if len(hashes) else ():
            for rows, others in near_hashes(self._hashes, turned, MOST_BITS):
                for row, id_ in zip(rows.tolist(), self._ids[others].tolist(), strict=True):
                    wanted[drawn[row]][id_] = None
        return {number: self._alike(block[number], list(ids)) for number, ids in wanted.items()}

    def _alike(self, asked: _Asked, ids: list[int]) -> list[tuple[int, int]]:
        """Return the images that look like a file, and how to turn the file to look like them."""
        lights = self.looks.lights(ids) if ids and asked.light is not None else {}
        if asked.light is None or not lights:
            return []
        pictures = np.stack([asked.light, *lights.values()])
        own, *others = all_flattened(pictures)
        first = oriented_likeness(asked.light, own, np.stack(others))
        found = []
        for row, (id_, light) in enumerate(lights.items()):
            # Either may be a part of the other, and parts of one are laid over all of the other.
            way, like = inverse(int(first.ways[row])), float(first.likeness[row])
            trial = Trial(asked.light, oriented(light, inverse(way)), first.place(row))
            also = oriented_likeness(light, others[row], own[None])
            if also.likeness[0] > like:
                way, like = int(also.ways[0]), float(also.likeness[0])
                trial = Trial(light, oriented(asked.light, way), also.place(0))
            if like >= SURE or (like >= NEAR and fitting([trial])[0] is not None):
                found.append((-like, id_, way))
        return [(id_, way) for _, id_, way in sorted(found)]

    def _confirmed(self, asked: _Asked, near: Sequence[tuple[Entry, int]]) -> Owned:
        """Return the first image that is confirmed to show the same, with all the file holds.

        If there is only one that shows the same and holds less, return that.
        """
        less: Owned | None = None
        for entry, way in near:
            try:
                with_all = self._judged(entry, asked, way)
                if not with_all.reason:
                    return replace(
                        _owned(asked, entry, with_all.kind),
                        share=with_all.share,
                        orientation=way,
                    )
                less = less or self._less(entry, asked, way)
            except ImageError as error:  # of the file, or of an image that is missing
                self.failures.append(Failure(error.path, error.reason))
                if error.path == asked.path:
                    break
        return less or Owned(asked.path, asked.size, asked.digest)

    def _entries(self, asked: _Asked, near: list[tuple[int, int]]) -> Iterator[tuple[Entry, int]]:
        entries = {entry.id: entry for entry in self.catalog.entries_of([id_ for id_, _ in near])}
        for id_, way in near:
            entry = entries.get(id_)
            if entry is None or _is_same(entry.path, asked.path):
                continue
            if not self.apart.are_apart(entry.digest, asked.digest):
                yield entry, way

    def _judged(self, entry: Entry, asked: _Asked, way: int) -> Judgement:
        """Tell whether an image shows all that a file shows, and holds all that it holds."""
        verdicts = self.looks.verdicts
        known = verdicts.may(entry.digest, asked.digest)
        if known is None:
            keep, copy = self._inspection(entry), self._inspection(asked)
            known = judged(keep, copy, (self._frames(entry), self._frames(asked)), way)
            verdicts.note_may(entry.digest, asked.digest, known)
        return known

    def _less(self, entry: Entry, asked: _Asked, way: int) -> Owned | None:
        """Return an image that shows a part of what a file shows, or holds less."""
        keep, copy = self._inspection(asked), self._inspection(entry)
        frames = self._frames(asked), self._frames(entry)
        found = judged(keep, copy, frames, inverse(way))
        if found.reason:
            return None
        lacking = lacks(copy.held, keep.held) or "a part of the picture"
        return replace(_owned(asked, entry, found.kind), orientation=way, lacks=lacking)

    def _inspection(self, file: Entry | _Asked) -> Inspection:
        with self.looks.lane.decoder() as decoder:
            return decoder.inspection(Stored(file.path, file.digest))

    def _frames(self, file: Entry | _Asked) -> Iterator[CloseUp | None]:
        def some(first: int) -> Frames:
            with self.looks.lane.decoder() as decoder:
                return decoder.frames(Stored(file.path, file.digest), first)

        return all_frames(some)


def _owned(asked: _Asked, entry: Entry, kind: str) -> Owned:
    return Owned(asked.path, asked.size, asked.digest, entry.path, entry.id, kind)


def _is_same(one: str, other: str) -> bool:
    """Tell whether two paths lead to the same file."""
    try:
        return one == other or os.path.samefile(one, other)
    except OSError:
        return False
