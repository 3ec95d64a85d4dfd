"""Group images that are copies of one another around the one to keep."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

from imgsearch.ann.vectors import Vectors
from imgsearch.errors import ImageError
from imgsearch.images.fingerprint import MIRRORED
from imgsearch.images.holdings import Holdings, advantage, lacks, worth
from imgsearch.images.inspection import Inspection, Judgement, judged, own_of
from imgsearch.images.kinds import EXACT
from imgsearch.images.relation import Relation
from imgsearch.maintenance.copies import Copy, Duplicates, Group, RawPhoto
from imgsearch.maintenance.kinship import Kinship, components
from imgsearch.maintenance.looks import AT_ONCE, Looks
from imgsearch.maintenance.preference import Preference, mtime_of
from imgsearch.querying.view import View
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.distinct import Apart
from imgsearch.storage.records import Entry

__all__ = ["Grouping"]

UNKNOWN = Holdings(0, 0)


class Grouping:
    """Groups of images, each around the one to keep."""

    def __init__(
        self,
        catalog: Catalog,
        view: View,
        looks: Looks,
        same: dict[int, tuple[int, ...]],
        apart: Apart,
        preference: Preference,
        kinship: Kinship,
    ) -> None:
        """Start from the images that share a content.

        Args:
            catalog: Catalog of the collection.
            view: View of the collection.
            looks: Cache that looks at the images.
            same: All images of each content, keyed by the first of them.
            apart: What was judged not to be copies of one another, and is never in one group.
            preference: What to keep, where the files leave the choice.
            kinship: Relations of images that are no plain copies.
        """
        self._catalog, self._view, self._looks, self._same = catalog, view, looks, same
        self._apart, self._preference, self._kinship = apart, preference, kinship
        self._groups: list[Group] = []
        self._photos: dict[str, set[str]] = {}
        self._held: dict[int, Holdings] = {}
        self._judged: dict[tuple[int, int], Judgement] = {}
        self._related: dict[tuple[int, int], Relation] = {}

    def group(self, near: dict[int, set[int]]) -> Iterator[int]:
        """Find groups, and yield how many images each step dealt with.

        Args:
            near: The images that deserve a close look beside each image.
        """
        akin = self._kinship.akin
        for together in components({id_: self._kinship.of(id_) for id_ in {*near, *akin}}):
            self._held = self._looks.held(together)
            entries = {entry.id: entry for entry in self._catalog.entries_of(together)}
            order = sorted(
                (id_ for id_ in entries if id_ in self._held),
                key=lambda id_: (
                    *(not self._stays(id_), worth(self._held[id_])),
                    self._rank(entries[id_]),
                ),
            )
            yield from self._split(order, entries, near)
        near = {**akin, **near}
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
        alone: set[int] = set()  # in a folder to keep, and shown with an image elsewhere, if at all
        turn = deque(order)
        while turn:
            first = turn.popleft()
            if first not in left or first in alone:
                continue
            free = [id_ for id_ in left if id_ not in alone]
            keep = self._original(first, free, entries, near)
            others = [id_ for id_ in free if id_ in near.get(keep, ())]
            keep = self._better(keep, others, entries)
            keep = self._preferred(keep, [id_ for id_ in others if id_ in near[keep]], entries)
            del left[keep]
            copies: list[int] = []
            ahead, tried = near.get(keep, set()), {keep}
            while ahead:  # an image near a copy may be a copy, too, although not near this one
                candidates = [id_ for id_ in left if id_ in ahead - tried]
                tried |= ahead
                candidates = [id_ for id_ in candidates if not self._is_one_photo(keep, id_)]
                found: list[int] = []
                for id_ in self._copies(entries[keep], [entries[id_] for id_ in candidates]):
                    if self._fits(entries[id_], (entries[each] for each in chain(copies, found))):
                        found.append(id_)
                for id_ in found:
                    del left[id_]
                copies += found
                ahead = set().union(*(near[id_] for id_ in found)) - tried
            others = list(self._relatives(keep, copies, [*left], entries))
            for id_ in others:
                del left[id_]
            copies += others
            if self._stays(keep) and not copies:
                left[keep] = None
                alone.add(keep)
            if first in left and first != keep:
                turn.appendleft(first)
            self._add(keep, copies)
            yield 1 + len(copies)

    def _original(
        self,
        first: int,
        others: list[int],
        entries: dict[int, Entry],
        near: dict[int, set[int]],
    ) -> int:
        """Return the image that another was cropped from, or that it frames; or else itself.

        No image was made from its plain copies. To find these is quicker, so it comes first.
        """
        keep, seen = first, {first}
        while True:
            beside = [id_ for id_ in others if id_ in near.get(keep, ()) and id_ != keep]
            beside = [id_ for id_ in beside if not self._is_one_photo(keep, id_)]
            copies = set(self._copies(entries[keep], [entries[id_] for id_ in beside]))
            left = [id_ for id_ in others if id_ not in copies]
            found = self._relations(keep, [keep], left, entries)
            originals = {id_ for id_, relation in found if relation.swapped and relation.certain}
            if not originals - seen:
                return keep
            keep = next(id_ for id_ in others if id_ in originals - seen)  # holds most of them
            seen.add(keep)

    def _relatives(
        self, keep: int, copies: list[int], left: Iterable[int], entries: dict[int, Entry]
    ) -> Iterator[int]:
        """Yield the images that were made from the one to keep, but are no plain copies of it."""
        group = [keep, *copies]
        for id_, relation in self._relations(keep, group, left, entries):
            if self._fits(entries[id_], (entries[each] for each in group)):
                self._related[keep, id_] = relation
                group.append(id_)
                yield id_

    def _relations(
        self, keep: int, group: list[int], others: Iterable[int], entries: dict[int, Entry]
    ) -> Iterator[tuple[int, Relation]]:
        """Yield those of some images that are related to one, of all that are near its group."""
        others = [id_ for id_ in others if id_ not in group]
        way = self._looks.way
        sides = {id_: id_ != keep and way(keep, id_) in MIRRORED for id_ in group}
        tried, ahead = {keep}, self._kinship.beyond(sides)
        while ahead.keys() - tried:
            candidates = [id_ for id_ in others if id_ in ahead.keys() - tried]
            candidates = [id_ for id_ in candidates if not self._is_one_photo(keep, id_)]
            tried |= ahead.keys()
            sides = {}
            for mirrored in (False, True):
                left = [id_ for id_ in candidates if mirrored in ahead[id_] and id_ not in sides]
                some = [entries[id_] for id_ in left]
                for id_, found in self._kinship.relations(entries[keep], some, mirrored=mirrored):
                    sides[id_] = mirrored
                    yield id_, found
            ahead = self._kinship.beyond(sides)

    def _better(self, keep: int, others: Iterable[int], entries: dict[int, Entry]) -> int:
        """Return the image that may replace the one to keep, or that one if there is none.

        The order is by the weightiest property; an image further back may hold all of it and more.
        """
        held = self._held[keep]
        for id_ in others:
            other = self._held[id_]
            more = lacks(held, other) and not lacks(other, held)
            if not more or (self._stays(keep) and not self._stays(id_)):
                continue
            if list(self._copies(entries[id_], [entries[keep]])):
                return id_
        return keep

    def _preferred(self, keep: int, others: Iterable[int], entries: dict[int, Entry]) -> int:
        """Return the image that is preferred, of those that hold the same; see `Preference`."""
        if not self._preference.order:
            return keep
        held = self._held[keep]
        equal = [
            id_
            for id_ in others
            if not lacks(held, self._held[id_])
            and not lacks(self._held[id_], held)
            and self._stays(id_) >= self._stays(keep)
            and self._rank(entries[id_]) < self._rank(entries[keep])
        ]
        for id_ in sorted(equal, key=lambda id_: self._rank(entries[id_])):
            if list(self._copies(entries[id_], [entries[keep]])):
                return id_
        return keep

    def _stays(self, id_: int) -> bool:
        """Tell whether a file with the content of an image lies in a folder to keep."""
        if not self._preference.folders:
            return False
        paths = self._catalog.paths(self._same[id_]).values()
        return any(map(self._preference.protects, paths))

    def _rank(self, entry: Entry, held: Holdings | None = None) -> tuple[Any, ...]:
        held = held or self._held.get(entry.id, UNKNOWN)
        return not self._preference.protects(entry.path), *self._preference.rank(entry, held)

    def _fits(self, entry: Entry, group: Iterable[Entry]) -> bool:
        """Tell whether nobody judged an image not to be a copy of some others."""
        return not self._apart.places or not any(
            self._apart.are_apart(entry.digest, other.digest) for other in group
        )

    def _copies(self, keep: Entry, candidates: list[Entry]) -> Iterator[int]:
        """Yield those of the candidates that may be discarded in favour of the image to keep."""
        verdicts = self._looks.verdicts
        held = self._held[keep.id]
        candidates = [
            each
            for each in candidates
            if not lacks(held, self._held[each.id]) and self._fits(each, [keep])
        ]
        known = {
            each.id: verdicts.may(keep.digest, each.digest)
            for each in (self._looks.unchanged(candidates) if self._looks.unchanged([keep]) else ())
        }
        known |= {
            each.id: self._judged[keep.id, each.id]
            for each in candidates
            if (keep.id, each.id) in self._judged
        }
        for id_, judgement in known.items():
            if judgement is not None and not judgement.reason:
                self._judged[keep.id, id_] = judgement
                yield id_
        by_id = {each.id: each for each in candidates if known.get(each.id) is None}
        kept = dict(self._looks.closely([keep.id] if by_id else [])).get(keep.id)
        if kept is None:
            return
        for start in range(0, len(by_id), AT_ONCE):
            seen = list(self._looks.closely(list(by_id)[start : start + AT_ONCE]))

            def judge(pair: tuple[int, Inspection]) -> Judgement | None:
                id_, copy = pair
                sequences = self._looks.frames(keep), self._looks.frames(by_id[id_])
                try:
                    return judged(kept, copy, sequences, self._looks.way(keep.id, id_))
                except ImageError:  # a later frame cannot be decoded, at least this time
                    return None

            for (id_, _), may in zip(seen, self._looks.threads.map(judge, seen), strict=True):
                if may is None:
                    continue
                verdicts.note_may(keep.digest, by_id[id_].digest, may)
                if not may.reason:
                    self._judged[keep.id, id_] = may
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
        turn = {copy: number for number, copy in enumerate((keep, *copies))}
        held_of = {id_: self._held.get(copy, UNKNOWN) for id_, copy in first.items()}

        def rank(entry: Entry) -> tuple[Any, ...]:
            return self._rank(entry, held_of[entry.id])

        entries = self._one_each(entries, rank)
        kept = min((entry for entry in entries if first[entry.id] == keep), key=rank, default=None)
        if kept is None or len(entries) < 2:
            return
        rest = [entry for entry in entries if entry.id != kept.id]
        order = [
            kept,
            *sorted(rest, key=lambda entry: (turn[first[entry.id]], rank(entry))),
        ]
        embeddings = self._view.embeddings([entry.id for entry in order])
        held = [held_of[entry.id] for entry in order]
        found = [
            replace(
                _copy(entry, kept, holdings, embeddings[[0, number]]),
                **self._manner(keep, first[entry.id], exact=entry.digest == kept.digest),
                protected=self._preference.protects(entry.path),
            )
            if number
            else _copy(entry, kept, holdings, embeddings[[0, 0]])
            for number, (entry, holdings) in enumerate(zip(order, held, strict=True))
        ]
        protected = self._preference.protects(kept.path)
        if protected and all(copy.protected for copy in found[1:]):
            return  # they are where they are to stay
        reason = "in a folder to keep" if protected else ""
        reason = reason or _reason(found, held, self._preference.order)
        self._groups.append(Group(found[0], tuple(found[1:]), reason))

    def _one_each(
        self, entries: list[Entry], rank: Callable[[Entry], tuple[Any, ...]]
    ) -> list[Entry]:
        """Leave out all but the first file of each content whose files are all to stay."""
        best: dict[bytes, Entry] = {}
        for entry in sorted(entries, key=rank):
            best.setdefault(entry.digest, entry)
        return [
            entry
            for entry in entries
            if entry is best[entry.digest] or self._fits(entry, [best[entry.digest]])
        ]

    def _manner(self, keep: int, copy: int, *, exact: bool) -> dict[str, Any]:
        """Return the fields of a copy that say how it was made."""
        if exact:
            return {"kind": EXACT}
        if relation := self._related.get((keep, copy)):
            return {
                "kind": relation.kind,
                "share": relation.share,
                "angle": relation.angle,
                "region": relation.region,
                "own": own_of(self._held[keep], self._held[copy], relation),
            }
        judgement = self._judged[keep, copy]
        way = self._looks.way(keep, copy)
        return {"kind": judgement.kind, "share": judgement.share, "orientation": way}


def _reason(copies: list[Copy], held: list[Holdings], order: str) -> str:
    """Return what the first of some copies has more of than the others."""
    first, second = copies[:2]
    if order and not lacks(held[1], held[0]):
        return order
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
        mtime=mtime_of(entry),
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
