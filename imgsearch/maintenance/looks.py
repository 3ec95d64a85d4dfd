"""Look at images, and keep the latest looks in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

import numpy as np

from imgsearch.embedding.decoder import Stored
from imgsearch.embedding.lanes import Lane
from imgsearch.errors import ImageError, PackageError, SettingError
from imgsearch.files.sources import status_of
from imgsearch.files.stamps import Stamp
from imgsearch.images.agreement import CloseUp
from imgsearch.images.compare import EDGE, LUMINANCE, all_flattened, oriented_likeness
from imgsearch.images.fingerprint import inverse
from imgsearch.images.holdings import Holdings
from imgsearch.images.inspection import Frames, Inspection, all_frames
from imgsearch.images.keypoints import Keypoints, keypoints_of
from imgsearch.images.relation import FEATURES, FEATURES_EDGE
from imgsearch.images.render import Glance
from imgsearch.indexing.report import Failure
from imgsearch.maintenance.verdicts import Verdicts
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.fingerprints import Light, Prints
from imgsearch.storage.records import Entry

__all__ = ["AT_ONCE", "Looks", "is_there"]

GLANCES = 240_000_000  # bytes in memory, 12 KB each
INSPECTIONS = 128_000_000  # bytes in memory, up to 10 MB each
FEATURES_KEPT = 64_000_000  # bytes in memory, 430 KB each
AT_ONCE = 32  # images

_Seen = TypeVar("_Seen")


@dataclass(slots=True)
class Looks:
    """A cache of the latest glances and close looks at images.

    Worker processes decode the images, with limits on time and memory. Findings of earlier runs are
    reused for files that have not changed.
    """

    catalog: Catalog
    prints: Prints
    threads: ThreadPoolExecutor
    lane: Lane
    verdicts: Verdicts
    failures: dict[int, Failure] = field(default_factory=dict)
    _glances: dict[int, Glance] = field(default_factory=dict)
    _features: dict[int, Keypoints] = field(default_factory=dict)
    _ways: dict[tuple[int, int], int] = field(default_factory=dict)
    _inspections: dict[int, Inspection] = field(default_factory=dict)
    _unchanged: dict[int, bool] = field(default_factory=dict)

    def lights(self, ids: Sequence[int]) -> dict[int, Light]:
        """Return the luminance of small pictures, uint8 `[EDGE, EDGE]`, of all that have one.

        It is that of the fingerprint. Only images without a fingerprint are decoded.
        """
        found = self.prints.lights(ids)
        there = self.prints.places(np.array(ids, np.int64)).there
        unknown = [id_ for row, id_ in enumerate(ids) if not there[row]]
        kept = _Kept(self._glances, GLANCES, lambda glance: glance.pixels.nbytes)
        for id_, glance in self._of(unknown, kept, self._glance).items():
            found[id_] = (glance.pixels @ LUMINANCE).astype(np.uint8)
        return found

    def note_way(self, one: int, other: int, orientation: int) -> None:
        """Record the orientation in which the second image looks like the first."""
        self._ways[one, other] = orientation

    def is_near(self, one: int, other: int) -> bool:
        """Tell whether two images deserve a close look, as recorded by `note_way`."""
        return (one, other) in self._ways

    def way(self, one: int, other: int) -> int:
        """Return the orientation in which the second image looks like the first."""
        if (one, other) not in self._ways:
            self._ways[one, other] = self._way(one, other)
        return self._ways[one, other]

    def _way(self, one: int, other: int) -> int:
        if (other, one) in self._ways:
            return inverse(self._ways[other, one])
        lights = self.lights([one, other])
        if len(lights) < 2:
            return 0
        own, theirs = all_flattened(np.stack([lights[one], lights[other]]))
        return int(oriented_likeness(lights[one], own, theirs[None]).ways[0])

    def closely(self, ids: Sequence[int]) -> Iterator[tuple[int, Inspection]]:
        """Yield the result of a close look at each image that can be read."""
        kept = _Kept(self._inspections, INSPECTIONS, lambda seen: 4 * seen.close.pixels.nbytes)
        for start in range(0, len(ids), AT_ONCE):
            yield from self._of(ids[start : start + AT_ONCE], kept, self._inspection).items()

    def features(self, ids: Sequence[int]) -> dict[int, Keypoints]:
        """Return the local features of those images that can be read.

        Raises:
            PackageError: If OpenCV is not installed.
        """
        kept = _Kept(self._features, FEATURES_KEPT, _bytes_of)
        return self._of(ids, kept, self._features_of)

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

    def _features_of(self, entry: Entry) -> Keypoints:
        with self.lane.decoder() as decoder:
            grey = decoder.grey(Stored(entry.path, entry.digest), FEATURES_EDGE)
        return keypoints_of(grey, FEATURES)

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


def _bytes_of(seen: Keypoints) -> int:
    return seen.descriptors.nbytes + seen.grey.nbytes


def is_there(entry: Entry) -> bool:
    """Tell whether the file of an image is there, and as long as when it was indexed."""
    stamp = _status(entry)
    return stamp is not None and stamp.size == entry.size


def _is_unchanged(entry: Entry) -> bool:
    stamp = _status(entry)
    return (
        stamp is not None
        and entry.mtime_ns is not None
        and (stamp.size, stamp.mtime_ns) == (entry.size, entry.mtime_ns)
    )


def _status(entry: Entry) -> Stamp | None:
    try:
        return status_of(entry.path)
    except (OSError, PackageError, SettingError):
        return None  # looking at it will tell why


def _seen(entry: Entry, decode: Callable[[Entry], _Seen]) -> _Seen | Failure:
    try:
        return decode(entry)
    except ImageError as error:
        return Failure(entry.path, error.reason)
