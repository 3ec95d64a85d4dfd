"""Find pairs of images that deserve a close look, by their fingerprints alone.

Candidates come from two sources: near embeddings, found by the index, and near perceptual hashes in
eight orientations. The small pictures of each pair are compared in the orientation that suits
them best. No file is decoded, unless an image has no fingerprint yet.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from imgsearch.ann.vectors import Ids, Vectors
from imgsearch.images.compare import ALIKE, NEAR, Overlay, all_flattened, oriented_likeness
from imgsearch.images.crop import Region
from imgsearch.images.fingerprint import oriented, oriented_hashes
from imgsearch.images.overlay import TRIALS, Trial, fitting
from imgsearch.maintenance.looks import Looks
from imgsearch.querying.view import View
from imgsearch.storage.fingerprints import Prints

__all__ = ["LEAST_DEVIATION", "MOST_BITS", "SURE", "Candidates", "Pair", "useful_hashes"]

SEARCHED = 64  # images per search, so that progress is visible
NEIGHBOURS = 32  # per image; four times as many as long as all are near enough
MOST_NEIGHBOURS = 1_024
MOST_OTHERS = 96  # neighbours that are remembered although they look different
LOOSE = 0.6  # similarity of embeddings that pictures turned by any angle have as a rule
MOST_BITS = 8  # by which the hashes of copies usually differ at most
LEAST_DEVIATION = 4.0  # levels; the hash of a picture with less contrast is noise
SURE = 0.97  # correlation from which only the files themselves can tell two images apart
BLOCK = 8_192  # fingerprints

#: Two images, and the orientation in which the second looks like the first.
Pair: TypeAlias = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Candidates:
    """The search for candidates among the first images of each content, `firsts`.

    An earlier run has searched for those in `known` among one another. Images that are near to
    another one, but do not look like copies of it, are in `others`, the nearest first.
    """

    view: View
    looks: Looks
    firsts: frozenset[int]
    known: frozenset[int]
    min_similarity: float
    others: dict[int, list[int]] = field(default_factory=dict)

    def pairs(self) -> Iterator[tuple[int, list[Pair]]]:
        """Yield how many images were examined, and their pairs that deserve a close look."""
        if self.firsts <= self.known:
            return
        by_hash = _near_by_hash(self.looks.prints, self.firsts, self.known)
        for ids, vectors in self._blocks():
            wanted: dict[int, list[int]] = {}
            loose: dict[int, list[int]] = {}
            for id_, found, far in self._near(ids, vectors):
                others = dict.fromkeys(found) | dict.fromkeys(by_hash.pop(id_, ()))
                wanted[id_] = [each for each in others if each in self.firsts and each != id_]
                loose[id_] = [each for each in far if each in self.firsts and each not in others]
            back: dict[int, list[int]] = defaultdict(list)  # the parts of known ones, too
            for one, near in wanted.items():
                for other in self.known.intersection(near):
                    back[other].append(one)
            pairs = list(alike({**wanted, **back}, self.looks))
            are_near = {pair for one, other, _ in pairs for pair in ((one, other), (other, one))}
            for one, near in wanted.items():
                left = [other for other in near if (one, other) not in are_near] + loose[one]
                self.others[one] = left[:MOST_OTHERS]
            yield len(ids), pairs

    def _blocks(self) -> Iterator[tuple[Ids, Vectors]]:
        """Yield ids and embeddings of the images to search for, block by block."""
        asked = self.firsts - self.known
        for ids, vectors in self.view.live_blocks():
            rows = np.flatnonzero([id_ in asked for id_ in ids.tolist()])
            for start in range(0, len(rows), SEARCHED):
                some = rows[start : start + SEARCHED]
                yield ids[some], np.ascontiguousarray(vectors[some])

    def _near(self, ids: Ids, vectors: Vectors) -> Iterator[tuple[int, list[int], list[int]]]:
        """Yield each image with those whose embeddings are near, and a few that are less near."""
        k = 4 * NEIGHBOURS  # which takes hardly longer than fewer
        while len(ids):
            most = min(k, self.view.count)
            hits = self.view.search(vectors, most, recall=None, nprobe=None, exact=False)
            found, similarities = hits.ids, 1 - hits.distances / 2
            near = similarities >= self.min_similarity - 5e-7  # as in a search
            there = (found >= 0) & (similarities >= min(LOOSE, self.min_similarity))
            few = ~near[:, min(NEIGHBOURS, most) - 1]
            there[few, NEIGHBOURS:] = False
            more = there[:, -1] & near[:, -1] & (k < min(MOST_NEIGHBOURS, self.view.count))
            for row in np.flatnonzero(~more).tolist():
                far = found[row][there[row] & ~near[row]].tolist()
                yield int(ids[row]), found[row][there[row] & near[row]].tolist(), far
            ids, vectors, k = ids[more], vectors[more], 4 * k


def useful_hashes(prints: Prints, ids: Ids) -> tuple[Ids, npt.NDArray[np.uint64]]:
    """Return the images whose hash is more than noise, and their hashes."""
    useful = []
    for start in range(0, len(ids), BLOCK):
        part = ids[start : start + BLOCK]
        lights = prints.take("luminance", prints.places(part))
        deviations = lights.reshape(len(part), -1).std(axis=1, dtype=np.float32)
        useful.append(part[deviations >= LEAST_DEVIATION])
    ids = np.concatenate([np.empty(0, np.int64), *useful])
    return ids, prints.take("hash", prints.places(ids)).astype(np.uint64)


def _near_by_hash(
    prints: Prints, ids: frozenset[int], known: frozenset[int]
) -> dict[int, list[int]]:
    """Return the images whose hash is near to that of each, in any orientation.

    Those that are `known` are not searched for.
    """
    from imgsearch.ann.hashes import near_hashes

    among, hashes = useful_hashes(prints, np.array(sorted(ids), np.int64))
    asked = np.flatnonzero(~np.isin(among, np.array(list(known), np.int64)))
    near: dict[int, list[int]] = defaultdict(list)
    for turned in oriented_hashes(hashes[asked]):
        for rows, others in near_hashes(hashes, turned, MOST_BITS):
            apart = asked[rows] != others
            for one, other in zip(
                among[asked[rows[apart]]].tolist(), among[others[apart]].tolist(), strict=True
            ):
                near[one].append(other)
    return near


def alike(wanted: dict[int, list[int]], looks: Looks) -> Iterator[Pair]:
    """Yield the pairs of images and candidates that look alike.

    Args:
        wanted: Images, each with its candidates.
        looks: Cache with the small pictures of the images.
    """
    ids = sorted({id_ for one, others in wanted.items() if others for id_ in (one, *others)})
    lights = looks.lights(ids)
    if len(lights) < 2:
        return
    rows = {id_: row for row, id_ in enumerate(lights)}
    pictures = np.stack(list(lights.values()))
    flat = all_flattened(pictures)

    def compare(one: int) -> list[tuple[Pair, float, Region]]:
        others = [each for each in wanted[one] if each in rows and not looks.is_near(each, one)]
        if one not in rows or not others:
            return []
        theirs = flat[[rows[other] for other in others]]
        found = oriented_likeness(pictures[rows[one]], flat[rows[one]], theirs)
        return [
            (
                (one, others[number], int(found.ways[number])),
                float(found.likeness[number]),
                found.place(number),
            )
            for number in np.flatnonzero(found.likeness >= NEAR).tolist()
        ]

    unsure: list[tuple[Pair, float, Region]] = []
    for found in looks.threads.map(compare, wanted):
        yield from (pair for pair, like, _ in found if like >= SURE)
        unsure += [each for each in found if each[1] < SURE]

    def is_alike(trial: Trial, like: float) -> bool:
        # A heavier crop fits, too, but a finer overlay of slight crops is less alike.
        return like >= ALIKE or bool(
            Overlay(trial.keep).likeness(all_flattened(trial.copy[None]))[0] >= ALIKE
        )

    def try_out(start: int) -> list[Pair]:
        some = unsure[start : start + TRIALS]
        trials = [
            Trial(pictures[rows[one]], oriented(pictures[rows[other]], way), place)
            for (one, other, way), _, place in some
        ]
        fits = [row for row, found in enumerate(fitting(trials)) if found is not None]
        return [some[row][0] for row in fits if is_alike(trials[row], some[row][1])]

    for pairs in looks.threads.map(try_out, range(0, len(unsure), TRIALS)):
        yield from pairs
