"""Find pairs of images that show the same shot, although neither is a plain copy of the other.

Of the images near each other by their embeddings or hashes, small pictures tell which may be
related (`imgsearch.images.resemblance`), and how one lies in the other
(`imgsearch.images.placement`). Where they do not, local features do. The pixels of the files decide
at last (`imgsearch.images.relation`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeAlias

import numpy as np

from imgsearch.ann.vectors import Ids
from imgsearch.errors import PackageError
from imgsearch.images.crop import Region
from imgsearch.images.discs import Turned, turned_fitting
from imgsearch.images.fingerprint import MIRRORED
from imgsearch.images.inspection import Inspection
from imgsearch.images.keypoints import AffineMap, Keypoints, affinity
from imgsearch.images.keypoints import mirrored as mirror_image
from imgsearch.images.overlay import TRIALS, Trial, fitting
from imgsearch.images.placement import SAME, inverted, map_of, oriented_place, roughly_placed
from imgsearch.images.relation import (
    Relation,
    may_be_related,
    mirrored_related,
    related,
    reversed_relation,
)
from imgsearch.images.resemblance import (
    LEAST_EDGE,
    Resemblances,
    Small,
    Table,
    Turn,
    resemblances,
)
from imgsearch.maintenance.looks import Looks
from imgsearch.storage.records import Entry

__all__ = ["Kinship", "components"]

MOST = 32  # Images or groups near each image that are compared with it.
MOST_TURNED = 8  # The same for images that may be turned by any angle.
EACH = 3  # Images of such a group.
AT_ONCE = 256  # Images.

MAYBE_SAME = 0.3  # Correlation of details from which small pages may show the same.

#: Two images, and how the second may lie in the first.
_Start: TypeAlias = tuple[int, int, AffineMap]
#: The same of images that are akin; None if only their local features can tell.
_Akin: TypeAlias = tuple[int, int, AffineMap | None]


@dataclass(slots=True)
class Kinship:
    """Relations of images, found as they are asked for, and kept.

    Attributes:
        looks: A cache that looks at the images.
        near: The images that are near to each image, and deserve a close look as plain copies.
        akin: The images that show the same as each image, or a part of it, by their small pictures
            or their local features.
    """

    looks: Looks
    near: dict[int, set[int]]
    akin: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    _starts: dict[tuple[int, int], AffineMap] = field(default_factory=dict)
    _found: dict[tuple[int, int, bool], Relation | None] = field(default_factory=dict)
    _is_able: bool = True  # whether OpenCV is installed

    def search(self, others: dict[int, list[int]], turned: dict[int, list[int]]) -> Iterator[int]:
        """Find the images that are akin, and yield how many of `others` have been dealt with.

        Args:
            others: Images, each with those that are near to it, the nearest first.
            turned: Images, each with those that may show the same at another angle.
        """
        wanted = chain(self._wanted(others, MOST), self._wanted(turned, MOST_TURNED))
        unsure: dict[int, set[int]] = defaultdict(set)
        done = 0
        try:
            for seen, found in self._resembling(_both_ways(wanted)):
                for one, other, start in found:
                    if start is not None:
                        self._note_start(one, other, start)
                    elif (other, one) not in self._starts:
                        unsure[one].add(other)
                        unsure[other].add(one)
                done = max(done, min(seen, len(others)) - len(unsure))
                yield done
            for together in components(unsure):
                for one in together:
                    asked = [other for other in sorted(unsure[one]) if one < other]
                    for other, start in zip(asked, self._affinities(one, asked), strict=True):
                        if start is not None:
                            self._note_start(one, other, start)
                done += len(together)
                yield min(done, len(others))
        except PackageError:
            self._is_able = False

    def _note_start(self, one: int, other: int, start: AffineMap) -> None:
        self._starts[one, other] = start
        self.note_akin(one, other)

    def note_akin(self, one: int, other: int) -> None:
        """Record that two images are akin."""
        self.akin[one].add(other)
        self.akin[other].add(one)

    def _wanted(self, others: dict[int, list[int]], most: int) -> Iterator[tuple[int, list[int]]]:
        """Yield the images that each image is compared with: a few of each group of near ones."""
        group = {id_: together[0] for together in components(self.near) for id_ in together}
        for one, ids in others.items():
            groups: dict[int, list[int]] = defaultdict(list)
            own = group.get(one, one)
            for other in ids:
                if len(groups) > most:
                    break
                among = group.get(other, other)
                if among != own and len(groups[among]) < EACH:
                    groups[among].append(other)
            yield one, [*chain.from_iterable(groups.values())]

    def _resembling(self, pairs: Ids) -> Iterator[tuple[int, list[_Akin]]]:
        """Yield how many images were compared with others, and those that resemble each other.

        Args:
            pairs: The images to compare, each pair both ways, in ascending order: `[n, 2]`. A part
                is found from the picture that shows all.
        """
        ids, firsts = np.unique(pairs[:, 0], return_index=True)
        others = np.split(np.searchsorted(ids, pairs[:, 1]), firsts[1:])
        table, there = Table.empty(len(ids)), np.zeros(len(ids), bool)
        for start in range(0, len(ids), AT_ONCE):
            small = self._small(ids[start : start + AT_ONCE].tolist())
            rows = np.searchsorted(ids, list(small)).tolist()
            there[rows] = True
            list(self.looks.threads.map(table.put, rows, small.values()))
        for start in range(0, len(ids), AT_ONCE):
            small = self._small(ids[start : start + AT_ONCE].tolist())
            beside = [each[there[each]] for each in others[start : start + AT_ONCE]]
            near = dict(zip(ids[start : start + AT_ONCE].tolist(), beside, strict=True))
            asked = [one for one in small if len(near[one])]

            def ask(
                one: int, small: dict[int, Small] = small, near: dict[int, Ids] = near
            ) -> Resemblances:
                return resemblances(small[one], table, near[one])

            turns, parts = [], []
            for one, seen in zip(asked, self.looks.threads.map(ask, asked), strict=True):
                beside_it = ids[near[one]].tolist()
                turns += [(one, beside_it[row], turn) for row, turn in seen.turns.items()]
                parts += [(one, beside_it[row], place) for row, place in seen.places.items()]
            found = [*self._exact(self._turned(turns))]
            turned = {pair[:2] for pair in found}
            unsure = [each for each in parts if each[:2] not in turned]
            yield start + len(small), [*found, *self._exact(self._parts(unsure))]

    def _turned(self, unsure: list[tuple[int, int, Turn]]) -> Iterator[_Start]:
        """Yield the pairs in which a disc of the second image may lie in the first."""
        small = self._small([*{id_ for pair in unsure for id_ in pair[:2]}])

        def try_out(start: int) -> list[AffineMap | None]:
            some = unsure[start : start + TRIALS]
            return turned_fitting(
                [Turned(small[one], small[other], turn) for one, other, turn in some]
            )

        tried = self.looks.threads.map(try_out, range(0, len(unsure), TRIALS))
        for (one, other, _), found in zip(unsure, chain.from_iterable(tried), strict=True):
            if found is not None:
                yield one, other, found

    def _parts(self, unsure: list[tuple[int, int, Region]]) -> Iterator[_Start]:
        """Yield the pairs of which the second image may be a part of the first at a place."""
        lights = self.looks.prints.lights([*{id_ for pair in unsure for id_ in pair[:2]}])

        def try_out(start: int) -> list[Region | None]:
            some = unsure[start : start + TRIALS]
            trials = [Trial(lights[one], lights[other], place) for one, other, place in some]
            return fitting(trials, LEAST_EDGE)

        tried = self.looks.threads.map(try_out, range(0, len(unsure), TRIALS))
        for (one, other, _), found in zip(unsure, chain.from_iterable(tried), strict=True):
            if found is not None:
                yield one, other, map_of(found)

    def _exact(self, rough: Iterable[_Start]) -> Iterator[_Akin]:
        """Yield those of some pairs whose details are alike."""
        rough = [*rough]
        small = self._small([*{id_ for pair in rough for id_ in pair[:2]}])

        def refine(pair: _Start) -> _Akin | None:
            one, other, start = pair
            keep, copy = small[one], small[other]
            found = roughly_placed(keep.light, copy.light, start)
            if found is None:
                return None
            start, alike = found
            sizes = (keep.width, keep.height), (copy.width, copy.height)
            is_plain = copy.is_plain  # its place is not exact, then
            if alike < (MAYBE_SAME if is_plain else SAME) or not may_be_related(start, *sizes):
                return None
            return one, other, None if is_plain else start

        refined = self.looks.threads.map(refine, rough)
        yield from (found for found in refined if found is not None)

    def _small(self, ids: Sequence[int]) -> dict[int, Small]:
        sizes = self.looks.prints.sizes(ids)
        lights = self.looks.prints.lights(ids)
        return {id_: Small(light, *sizes[id_]) for id_, light in lights.items()}

    def _affinities(
        self, one: int, others: Sequence[int], *, mirrored: bool = False
    ) -> Iterator[AffineMap | None]:
        """Yield how each of some images, or the mirror image of each, lies in one."""
        for start in range(0, len(others), AT_ONCE):
            some = others[start : start + AT_ONCE]
            features = self.looks.features([one, *some])

            def ask(other: int, features: dict[int, Keypoints] = features) -> AffineMap | None:
                if one not in features or other not in features:
                    return None
                theirs, own = features[other], features[one]
                found = affinity(mirror_image(theirs) if mirrored else theirs, own)
                sizes = (own.width, own.height), (theirs.width, theirs.height)
                return found if found is not None and may_be_related(found, *sizes) else None

            yield from self.looks.threads.map(ask, some)

    def of(self, id_: int) -> set[int]:
        """Return the images that may be related to one."""
        return self.near.get(id_, set()) | self.akin.get(id_, set())

    def beyond(self, sides: Mapping[int, bool]) -> dict[int, set[bool]]:
        """Return the images that may be related to some, and whether as mirror images, or both.

        Args:
            sides: Images, each with whether it is a mirror image itself.
        """
        found: dict[int, set[bool]] = defaultdict(set)
        for id_, is_mirrored in sides.items():
            for other in self.of(id_):
                is_near = other in self.near.get(id_, ())
                turns = is_near and self.looks.way(id_, other) in MIRRORED
                found[other].add(is_mirrored != turns)
        return found

    def relations(
        self, keep: Entry, others: Sequence[Entry], *, mirrored: bool = False
    ) -> Iterator[tuple[int, Relation]]:
        """Yield those images that were made from one, or that it was made from, and how.

        Args:
            keep: The one.
            others: The images to compare with it.
            mirrored: Whether to compare their mirror images.
        """
        unknown = []
        for other in others:
            is_known, relation = self._known(keep, other, mirrored=mirrored)
            if not is_known:
                unknown.append(other)
            elif relation is not None:
                yield other.id, relation
        starts = dict(self._begun(keep.id, [other.id for other in unknown], mirrored=mirrored))
        relation_of = mirrored_related if mirrored else related
        for start in range(0, len(unknown), AT_ONCE):
            some = unknown[start : start + AT_ONCE]
            begun = [other.id for other in some if starts[other.id] is not None]
            seen = dict(self.looks.closely([keep.id, *begun] if begun else []))

            def ask(other: Entry, seen: dict[int, Inspection] = seen) -> Relation | None:
                begin = starts[other.id]
                if begin is None or keep.id not in seen or other.id not in seen:
                    return None
                return relation_of(seen[keep.id].close, seen[other.id].close, begin)

            for other, found in zip(some, self.looks.threads.map(ask, some), strict=True):
                if not {keep.id, other.id} & self.looks.failures.keys():
                    self._note(keep, other, found, mirrored=mirrored)
                if found is not None:
                    yield other.id, found

    def _begun(
        self, one: int, others: Sequence[int], *, mirrored: bool
    ) -> Iterator[tuple[int, AffineMap | None]]:
        """Yield how each of some images, or the mirror image of each, lies in one, roughly."""
        if not self._is_able:
            yield from ((other, None) for other in others)
            return
        try:
            starts = {other: self._start(one, other, mirrored=mirrored) for other in others}
            missing = [other for other, start in starts.items() if start is None]
            starts |= zip(missing, self._affinities(one, missing, mirrored=mirrored), strict=True)
        except PackageError:
            self._is_able = False
            starts = dict.fromkeys(others)
        yield from starts.items()

    def _start(self, one: int, other: int, *, mirrored: bool) -> AffineMap | None:
        """Return how an image, or its mirror image, lies in another by their small pictures."""
        if not mirrored and (one, other) in self._starts:
            return self._starts[one, other]
        if not mirrored and (other, one) in self._starts:
            return inverted(self._starts[other, one])
        small = self._small([one, other])
        if other not in self.near.get(one, ()) or len(small) < 2 or small[other].is_plain:
            return None
        way = self.looks.way(one, other)
        if (way in MIRRORED) != mirrored:
            return None
        return oriented_place(small[one], small[other], way, mirrored=mirrored)

    def _known(
        self, one: Entry, other: Entry, *, mirrored: bool = False
    ) -> tuple[bool, Relation | None]:
        for ids in ((one.id, other.id, mirrored), (other.id, one.id, mirrored)):
            if ids in self._found:
                found = self._found[ids]
                return True, reversed_relation(found) if found and ids[0] != one.id else found
        if len(self.looks.unchanged([one, other])) < 2:
            return False, None
        return self.looks.verdicts.relation(one.digest, other.digest, mirrored=mirrored)

    def _note(
        self, one: Entry, other: Entry, found: Relation | None, *, mirrored: bool = False
    ) -> None:
        self._found[one.id, other.id, mirrored] = found
        self.looks.verdicts.note_relation(one.digest, other.digest, found, mirrored=mirrored)


def _both_ways(wanted: Iterable[tuple[int, list[int]]]) -> Ids:
    """Return images with each of those that they are compared with, both ways, ascending."""
    pairs = [np.array([(one, other) for other in others]) for one, others in wanted if others]
    there = np.concatenate([np.empty((0, 2), np.int64), *pairs]).astype(np.int64)
    return np.unique(np.concatenate([there, there[:, ::-1]]), axis=0)


def components(near: dict[int, set[int]]) -> Iterator[list[int]]:
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
