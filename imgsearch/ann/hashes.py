"""Find near perceptual hashes: 64 bits, compared by the number of bits in which they differ."""

from __future__ import annotations

from collections.abc import Iterator

import faiss
import numpy as np
import numpy.typing as npt

from imgsearch.ann.vectors import Ids

__all__ = ["near_hashes"]

EXACT_UP_TO = 20_000  # hashes up to which each is compared with all others
PARTS, PART_BITS, FLIPS = 4, 16, 1  # hashes that differ in up to 7 bits are all found
ASKED = 4_096  # hashes per search
MOST = 64  # near hashes of one; with more, the nearest

Hashes = npt.NDArray[np.uint64]


def near_hashes(hashes: Hashes, asked: Hashes, most_bits: int) -> Iterator[tuple[Ids, Ids]]:
    """Yield rows of `asked` with the rows of `hashes` near to them, block by block.

    Hashes that differ in up to 7 bits are all found; of those that differ in more, most.

    Args:
        hashes: Hashes to search among, uint64 `[n]`.
        asked: Hashes to search for, uint64 `[m]`.
        most_bits: Number of bits in which near hashes may differ.
    """
    if not len(hashes):
        return
    index = faiss.IndexBinaryFlat(64)
    if len(hashes) > EXACT_UP_TO:
        index = faiss.IndexBinaryMultiHash(64, PARTS, PART_BITS)
        index.nflip = FLIPS
    index.add(_octets(hashes))
    for start in range(0, len(asked), ASKED):
        part = asked[start : start + ASKED]
        limits, distances, found = index.range_search(_octets(part), most_bits + 1)
        counts = np.diff(limits.astype(np.int64))
        rows = np.repeat(np.arange(len(part)), counts)
        order = np.lexsort((found, distances, rows))
        place = np.arange(len(rows)) - np.repeat(limits[:-1].astype(np.int64), counts)
        kept = order[place < MOST]
        yield rows[kept] + start, found[kept].astype(np.int64)


def _octets(hashes: Hashes) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(hashes, "<u8").view(np.uint8).reshape(-1, 8)
