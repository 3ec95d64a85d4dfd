"""Find images that may show the same at another angle, by their fingerprints alone.

The embedding of a picture that was turned by any angle is often far from that of the picture, and
so is its hash. But the discs around the centres of both have rings that are alike, except for the
angle (`imgsearch.images.resemblance`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from imgsearch.ann.nearest import Nearest
from imgsearch.ann.vectors import Ids, Vectors
from imgsearch.images.resemblance import TURNLESS, Small, turnless
from imgsearch.maintenance.candidates import LEAST_DEVIATION
from imgsearch.storage.fingerprints import Prints

__all__ = ["may_be_turned"]

AT_ONCE = 512  # Images.
NEIGHBOURS = 32  # Of each disc of an image.
ALIKE = 0.97  # Similarity of rings from which images are compared.


def may_be_turned(
    prints: Prints, firsts: frozenset[int], known: frozenset[int]
) -> dict[int, list[int]]:
    """Return some images, each with those that may show the same at another angle, likeliest first.

    Args:
        prints: Fingerprints of the images.
        firsts: Images to search among.
        known: Those of them that are not searched for, because an earlier run did.
    """
    if firsts <= known:
        return {}
    rings = [np.empty((0, TURNLESS), np.float32)]
    among: list[int] = []
    for ids, small in _small(prints, sorted(firsts)):
        rings.append(turnless(np.stack([each.disc for each in small])))
        among += ids
    if len(among) < 2:
        return {}
    index = Nearest(np.concatenate(rings))
    found: dict[int, list[int]] = {}
    for ids, small in _small(prints, [id_ for id_ in among if id_ not in known]):
        asked = turnless(np.stack([each.discs for each in small]))
        found |= zip(ids, _nearest(index, asked, np.array(among, np.int64)), strict=True)
    return {id_: [each for each in near if each != id_] for id_, near in found.items()}


def _small(prints: Prints, ids: Sequence[int]) -> Iterator[tuple[list[int], list[Small]]]:
    """Yield small pictures with some contrast, block by block, and their images."""
    for start in range(0, len(ids), AT_ONCE):
        some = ids[start : start + AT_ONCE]
        sizes, lights = prints.sizes(some), prints.lights(some)
        useful = [id_ for id_ in lights if lights[id_].std(dtype=np.float32) >= LEAST_DEVIATION]
        if useful:
            yield useful, [Small(lights[id_], *sizes[id_]) for id_ in useful]


def _nearest(index: Nearest, asked: Vectors, among: Ids) -> Iterator[list[int]]:
    """Yield the images near to each of some others, by all of their discs, `[n, discs, dim]`."""
    found, places = index.search(asked.reshape(-1, TURNLESS), NEIGHBOURS)
    similarities, rows = found.reshape(len(asked), -1), places.reshape(len(asked), -1)
    for order, row, near in zip(np.argsort(-similarities), rows, similarities, strict=True):
        best = order[(near[order] >= ALIKE) & (row[order] >= 0)]
        yield list(dict.fromkeys(among[row[best]].tolist()))
