"""Group images that are copies of one another around the one to keep."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

from imgsearch.ann.vectors import Vectors
from imgsearch.embedding.decoder import Stored
from imgsearch.embedding.lanes import Lane
from imgsearch.errors import ImageError, PackageError, SettingError
from imgsearch.files.sources import status_of
from imgsearch.images.agreement import CloseUp
from imgsearch.images.compare import EDGE
from imgsearch.images.holdings import Holdings, advantage, lacks, worth
from imgsearch.images.inspection import Frames, Inspection, all_frames, why_not
from imgsearch.images.render import Glance
from imgsearch.indexing.report import Failure
from imgsearch.maintenance.copies import Copy, Duplicates, Group, RawPhoto
from imgsearch.maintenance.verdicts import Verdicts
from imgsearch.querying.view import View
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.records import Entry

__all__ = ["Grouping", "Looks"]

GLANCES = 240_000_000  # bytes in memory, 12 KB each
INSPECTIONS = 256_000_000  # bytes in memory, up to 10 MB each
AT_ONCE = 32  # images
UNKNOWN = Holdings(0, 0)

_Seen = TypeVar("_Seen")


@dataclass(slots=True)
class Looks:
    """A cache of the latest glances and close looks at images.

    Worker processes decode the images, with limits on time and memory. Findings of earlier runs are
    reused for files that have not changed.
    """

    catalog: Catalog
    threads: ThreadPoolExecutor
    lane: Lane
    verdicts: Verdicts
    failures: dict[int, Failure] = field(default_factory=dict)
    _glances: dict[int, Glance] = field(default_factory=dict)
    _inspections: dict[int, Inspection] = field(default_factory=dict)
    _unchanged: dict[int, bool] = field(default_factory=dict)

    def glances(self, ids: Iterable[int]) -> dict[int, Glance]:
        """Return small pictures of those images that can be read."""
        kept = _Kept(self._glances, GLANCES, lambda glance: glance.pixels.nbytes)
        return self._of(list(dict.fromkeys(ids)), kept, self._glance)

    def closely(self, ids: Sequence[int]) -> Iterator[tuple[int, Inspection]]:
        """Yield the result of a close look at each image that can be read."""
        kept = _Kept(self._inspections, INSPECTIONS, lambda seen: 4 * seen.close.pixels.nbytes)
        for start in range(0, len(ids), AT_ONCE):
            yield from self._of(ids[start : start + AT_ONCE], kept, self._inspection).items()

    def held(self, ids: Sequence[int]) -> dict[int, Holdings]:
        """Return the holdings of those files that can be read."""
        found: dict[int, Holdings] = {}
        for start in range(0, len(ids), AT_ONCE):
            entries = self.catalog.entries_of(ids[start : start + AT_ONCE])
            known = {each.id: self.verdicts.held(each.digest) for each in self.unchanged(entries)}
            unknown = [each for each in entries if known.get(each.id) is None]
            seen = dict(self.closely([each.id for each in unknown]))
            for entry in unknown:
                if entry.id in seen:
                    known[entry.id] = seen[entry.id].held
                    self.verdicts.note_held(entry.digest, seen[entry.id].held)
            found |= {id_: held for id_, held in known.items() if held is not None}
        return found

    def unchanged(self, entries: Iterable[Entry]) -> list[Entry]:
        """Return the entries whose file has the size and the time of when it was indexed."""
        for entry in entries:
            if entry.id not in self._unchanged:
                self._unchanged[entry.id] = _is_unchanged(entry)
        return [entry for entry in entries if self._unchanged[entry.id]]

    def _of(
        self, ids: Sequence[int], kept: _Kept[_Seen], decode: Callable[[Entry], _Seen]
    ) -> dict[int, _Seen]:
        missing = [id_ for id_ in ids if id_ not in kept.seen and id_ not in self.failures]
        entries = self.catalog.entries_of(missing)
        seen_of = partial(_seen, decode=decode)
        for entry, seen in zip(entries, self.threads.map(seen_of, entries), strict=True):
            if isinstance(seen, Failure):
                self.failures[entry.id] = seen
            else:
                kept.seen[entry.id] = seen
        return kept.latest(ids)

    def _glance(self, entry: Entry) -> Glance:
        with self.lane.decoder() as decoder:
            return decoder.glance(Stored(entry.path, entry.digest), EDGE)

    def _inspection(self, entry: Entry) -> Inspection:
        with self.lane.decoder() as decoder:
            return decoder.inspection(Stored(entry.path, entry.digest))

    def frames(self, entry: Entry) -> Iterator[CloseUp | None]:
        """Yield all frames of a file; see `imgsearch.images.inspection.all_frames`.

        Raises:
            ImageError: If it cannot be decoded.
        """

        def some(first: int) -> Frames:
            with self.lane.decoder() as decoder:
                return decoder.frames(Stored(entry.path, entry.digest), first)

        return all_frames(some)


@dataclass(slots=True)
class _Kept(Generic[_Seen]):
    """A least-recently-used cache of looks, bounded in bytes."""

    seen: dict[int, _Seen]
    most: int
    size_of: Callable[[_Seen], int]

    def latest(self, ids: Sequence[int]) -> dict[int, _Seen]:
        """Return the cached looks at some images, and evict the least recently used others."""
        found = {id_: self.seen.pop(id_) for id_ in ids if id_ in self.seen}
        self.seen |= found
        left = self.most - sum(map(self.size_of, self.seen.values()))
        for id_ in list(self.seen):
            if left >= 0:
                break
            left += self.size_of(self.seen.pop(id_))
        return found


def _is_unchanged(entry: Entry) -> bool:
    try:
        stamp = status_of(entry.path)
    except (OSError, PackageError, SettingError):
        return False  # looking at it will tell why
    return entry.mtime_ns is not None and (stamp.size, stamp.mtime_ns) == (
        entry.size,
        entry.mtime_ns,
    )


def _seen(entry: Entry, decode: Callable[[Entry], _Seen]) -> _Seen | Failure:
    try:
        return decode(entry)
    except ImageError as error:
        return Failure(entry.path, error.reason)


class Grouping:
    """Groups of images, each around the one to keep."""

    def __init__(
        self, catalog: Catalog, view: View, looks: Looks, same: dict[int, tuple[int, ...]]
    ) -> None:
        """Start from the images that share a content.

        Args:
            catalog: Catalog of the collection.
            view: View of the collection.
            looks: Cache that looks at the images.
            same: All images of each content, keyed by the first of them.
        """
        self._catalog, self._view, self._looks, self._same = catalog, view, looks, same
        self._groups: list[Group] = []
        self._photos: dict[str, set[str]] = {}
        self._held: dict[int, Holdings] = {}

    def group(self, near: dict[int, set[int]]) -> Iterator[int]:
        """Find groups, and yield how many images each step dealt with.

        Args:
            near: The images that deserve a close look beside each image.
        """
        for together in _components(near):
            self._held = self._looks.held(together)
            entries = {entry.id: entry for entry in self._catalog.entries_of(together)}
            order = sorted(
                (id_ for id_ in entries if id_ in self._held),
                key=lambda id_: (worth(self._held[id_]), _age(entries[id_])),
            )
            yield from self._split(order, entries, near)
        exact = [id_ for id_, same in self._same.items() if len(same) > 1 and id_ not in near]
        self._held = self._looks.held(exact)
        for id_ in exact:
            self._add(id_, [])

    def found(self, images: int) -> Duplicates:
        """Return all groups, the one that would free most bytes first."""
        groups = sorted(self._groups, key=lambda group: -sum(copy.size for copy in group.others))
        photos = (RawPhoto(raw, tuple(sorted(of))) for raw, of in sorted(self._photos.items()))
        failures = tuple(self._looks.failures.values())
        return Duplicates(tuple(groups), images, failures, tuple(photos))

    def _split(
        self, order: list[int], entries: dict[int, Entry], near: dict[int, set[int]]
    ) -> Iterator[int]:
        """Assign each image, the one that holds most first, the copies that agree with it."""
        left = dict.fromkeys(order)
        for keep in order:
            if keep not in left:
                continue
            keep = self._better(keep, left, entries, near)
            del left[keep]
            copies: list[int] = []
            ahead, tried = near[keep], {keep}
            while ahead:  # an image near a copy may be a copy, too, although not near this one
                candidates = [id_ for id_ in left if id_ in ahead - tried]
                tried |= ahead
                candidates = [id_ for id_ in candidates if not self._is_one_photo(keep, id_)]
                found = list(self._copies(entries[keep], [entries[id_] for id_ in candidates]))
                for id_ in found:
                    del left[id_]
                copies += found
                ahead = set().union(*(near[id_] for id_ in found)) - tried
            self._add(keep, copies)
            yield 1 + len(copies)

    def _better(
        self, keep: int, left: Iterable[int], entries: dict[int, Entry], near: dict[int, set[int]]
    ) -> int:
        """Return the image that may replace the one to keep, or that one if there is none.

        The order is by the weightiest property; an image further back may hold all of it and more.
        """
        held = self._held[keep]
        for id_ in [each for each in left if each in near[keep]]:
            other = self._held[id_]
            more = lacks(held, other) and not lacks(other, held)
            if more and list(self._copies(entries[id_], [entries[keep]])):
                return id_
        return keep

    def _copies(self, keep: Entry, candidates: list[Entry]) -> Iterator[int]:
        """Yield those of the candidates that may be discarded in favour of the image to keep."""
        verdicts = self._looks.verdicts
        held = self._held[keep.id]
        candidates = [each for each in candidates if not lacks(held, self._held[each.id])]
        known = {
            each.id: verdicts.may(keep.digest, each.digest)
            for each in (self._looks.unchanged(candidates) if self._looks.unchanged([keep]) else ())
        }
        yield from (id_ for id_, may in known.items() if may)
        by_id = {each.id: each for each in candidates if known.get(each.id) is None}
        kept = dict(self._looks.closely([keep.id] if by_id else [])).get(keep.id)
        if kept is None:
            return
        for start in range(0, len(by_id), AT_ONCE):
            seen = list(self._looks.closely(list(by_id)[start : start + AT_ONCE]))

            def judge(pair: tuple[int, Inspection]) -> bool | None:
                id_, copy = pair
                sequences = self._looks.frames(keep), self._looks.frames(by_id[id_])
                try:
                    return not why_not(kept, copy, sequences)
                except ImageError:  # a later frame cannot be decoded, at least this time
                    return None

            for (id_, _), may in zip(seen, self._looks.threads.map(judge, seen), strict=True):
                if may is not None:
                    verdicts.note_may(keep.digest, by_id[id_].digest, so=may)
                if may:
                    yield id_

    def _is_one_photo(self, one: int, other: int) -> bool:
        """Tell by their names whether two images are a camera's raw file and its JPEG."""
        if self._held[one].raw == self._held[other].raw:
            return False
        raw, image = (one, other) if self._held[one].raw else (other, one)
        paths = self._catalog.paths([*self._same[raw], *self._same[image]])
        raws = [paths[id_] for id_ in self._same[raw] if id_ in paths]
        images = [paths[id_] for id_ in self._same[image] if id_ in paths]
        for path in raws:
            beside = [each for each in images if _stem(each) == _stem(path)]
            if beside:
                self._photos.setdefault(path, set()).update(beside)
        names = {os.path.basename(_stem(path)) for path in raws}
        return any(os.path.basename(_stem(path)) in names for path in images)

    def _add(self, keep: int, copies: list[int]) -> None:
        """Add a group, unless nothing in it could be discarded."""
        ids = [id_ for copy in (keep, *copies) for id_ in self._same[copy]]
        entries = self._catalog.entries_of(ids)
        first = {id_: copy for copy in (keep, *copies) for id_ in self._same[copy]}
        kept = min((entry for entry in entries if first[entry.id] == keep), key=_age, default=None)
        if kept is None or len(entries) < 2:
            return
        rest = [entry for entry in entries if entry.id != kept.id]
        order = [
            kept,
            *sorted(rest, key=lambda entry: (ids.index(first[entry.id]), _age(entry))),
        ]
        embeddings = self._view.embeddings([entry.id for entry in order])
        held = [self._held.get(first[entry.id], UNKNOWN) for entry in order]
        found = [
            _copy(entry, kept, holdings, embeddings[[0, number]])
            for number, (entry, holdings) in enumerate(zip(order, held, strict=True))
        ]
        self._groups.append(Group(found[0], tuple(found[1:]), _reason(found, held)))


def _components(near: dict[int, set[int]]) -> Iterator[list[int]]:
    """Yield the connected components of the images, with near pairs as edges."""
    left = set(near)
    while left:
        found, ahead = [], [left.pop()]
        while ahead:
            found.append(ahead.pop())
            more = near[found[-1]] & left
            left -= more
            ahead += more
        yield sorted(found)


def _reason(copies: list[Copy], held: list[Holdings]) -> str:
    """Return what the first of some copies has more of than the others."""
    first, second = copies[:2]
    if first.digest == second.digest:
        return "older" if (first.mtime or 0) < (second.mtime or 0) else "same file"
    if found := advantage(held[0], held[1]):
        return found
    return "larger file" if first.size > second.size else "older"


def _copy(entry: Entry, kept: Entry, held: Holdings, embeddings: Vectors) -> Copy:
    return Copy(
        id=entry.id,
        path=entry.path,
        width=held.width,
        height=held.height,
        size=entry.size,
        mtime=_mtime(entry),
        digest=entry.digest,
        exact=entry.digest == kept.digest,
        similarity=min(1.0, float(embeddings[1] @ embeddings[0])),
        frames=held.frames,
        bits=held.bits,
        raw=held.raw,
        lossless=held.lossless,
        scale=held.scale,
    )


def _stem(path: str) -> str:
    return os.path.splitext(path)[0].casefold()


def _age(entry: Entry) -> tuple[float, float, int, str]:
    """Return the sort key of files with equal holdings: the largest, then the oldest first."""
    mtime = _mtime(entry)
    age = math.inf if mtime is None else mtime
    return -entry.size, age, len(entry.path), entry.path


def _mtime(entry: Entry) -> float | None:
    if entry.mtime_ns is not None:
        return entry.mtime_ns / 1e9
    try:
        mtime_ns = status_of(entry.path).mtime_ns
    except OSError:
        return None
    return None if mtime_ns is None else mtime_ns / 1e9
