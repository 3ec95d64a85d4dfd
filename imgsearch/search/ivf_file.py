"""Check the structure of an index file before Faiss maps it.

Faiss believes what it reads: of a file that is cut off or altered it may take sizes that end in a
crash, in gigabytes of memory, or in another metric. docs/format.md describes the file.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from itertools import pairwise
from typing import BinaryIO

__all__ = ["is_ivf_file"]

_HEADER = struct.Struct("<4siq16xBiQ8x4siq16xBiQ")
_LISTS = struct.Struct("<BQ4sQQ4sQ")
_TRAINED, _L2, _NO_MAP = 1, 1, 0


def is_ivf_file(file: BinaryIO) -> bool:
    """Tell whether a file is an `IndexIVFFlat` (L2) in all but its vectors and ids."""
    size = os.fstat(file.fileno()).st_size
    if size < _HEADER.size:
        return False
    kind, dim, count, trained, metric, nlist, *flat = _HEADER.unpack(file.read(_HEADER.size))
    if (kind, trained, metric) != (b"IwFl", _TRAINED, _L2) or dim < 1:
        return False
    if flat != [b"IxF2", dim, nlist, _TRAINED, _L2, nlist * dim]:
        return False
    start = _HEADER.size + 4 * nlist * dim + _LISTS.size
    if size < start:
        return False
    file.seek(start - _LISTS.size)
    *fixed, form, numbers = _LISTS.unpack(file.read(_LISTS.size))
    if fixed != [_NO_MAP, 0, b"ilar", nlist, 4 * dim] or size < start + 8 * numbers:
        return False
    if size != start + 8 * numbers + count * (4 * dim + 8):
        return False
    return _fit(struct.unpack(f"<{numbers}Q", file.read(8 * numbers)), form, nlist, count)


def _fit(numbers: Sequence[int], form: bytes, nlist: int, count: int) -> bool:
    """Tell whether the lists fit together: their sizes, or number and size of those not empty."""
    if form == b"full":
        return len(numbers) == nlist and sum(numbers) == count
    places, sizes = numbers[::2], numbers[1::2]
    ascending = all(a < b for a, b in pairwise((-1, *places, nlist)))
    return form == b"sprs" and len(places) == len(sizes) and ascending and sum(sizes) == count
