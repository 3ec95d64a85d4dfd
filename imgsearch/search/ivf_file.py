"""Check the structure of an index file before Faiss maps it.

Faiss believes what it reads: of a file that is cut off or altered it may take sizes that end in a
crash, in gigabytes of memory, or in another metric. docs/format.md describes the file.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import BinaryIO

__all__ = ["L2", "TRAINED", "Ivf", "are_lists", "is_ivf_file", "read_ivf", "size_of"]

TRAINED, L2 = 1, 1
_IVF = struct.Struct("<4siq16xBiQ8x4siq16xBiQ")
_MAP = struct.Struct("<BQ")
_NO_MAP = 0
_LISTS = struct.Struct("<4sQQ4sQ")


@dataclass(frozen=True, slots=True)
class Ivf:
    """What the head of an inverted file tells; `dim` of its centroids."""

    kind: bytes
    dim: int
    count: int
    nlist: int


def is_ivf_file(file: BinaryIO) -> bool:
    """Tell whether a file is an `IndexIVFFlat` (L2) in all but its vectors and ids."""
    ivf = read_ivf(file)
    return ivf is not None and ivf.kind == b"IwFl" and are_lists(file, ivf, 4 * ivf.dim)


def read_ivf(file: BinaryIO) -> Ivf | None:
    """Read the head of an inverted file (L2), up to the end of its centroids; None if it is none.

    The file is left at what follows them.
    """
    head = file.read(_IVF.size)
    if len(head) < _IVF.size:
        return None
    kind, dim, count, trained, metric, nlist, *flat = _IVF.unpack(head)
    if (trained, metric) != (TRAINED, L2) or dim < 1 or count < 0:
        return None
    if flat != [b"IxF2", dim, nlist, TRAINED, L2, nlist * dim]:
        return None
    if size_of(file) - file.tell() < 4 * nlist * dim + _MAP.size:
        return None
    file.seek(4 * nlist * dim, os.SEEK_CUR)
    if _MAP.unpack(file.read(_MAP.size)) != (_NO_MAP, 0):
        return None
    return Ivf(kind, dim, count, nlist)


def are_lists(file: BinaryIO, ivf: Ivf, width: int) -> bool:
    """Tell whether what follows, to the end of the file, are the lists; a vector takes `width`."""
    head = file.read(_LISTS.size)
    if len(head) < _LISTS.size:
        return False
    kind, nlist, code_size, form, numbers = _LISTS.unpack(head)
    left = size_of(file) - file.tell()
    if (kind, nlist, code_size) != (b"ilar", ivf.nlist, width):
        return False
    if left != 8 * numbers + ivf.count * (width + 8):
        return False
    sizes = struct.unpack(f"<{numbers}Q", file.read(8 * numbers))
    return _fit(sizes, form, ivf.nlist, ivf.count)


def size_of(file: BinaryIO) -> int:
    """Return the size of a file in bytes."""
    return os.fstat(file.fileno()).st_size


def _fit(numbers: Sequence[int], form: bytes, nlist: int, count: int) -> bool:
    """Tell whether the lists fit together: their sizes, or number and size of those not empty."""
    if form == b"full":
        return len(numbers) == nlist and sum(numbers) == count
    places, sizes = numbers[::2], numbers[1::2]
    ascending = all(a < b for a, b in pairwise((-1, *places, nlist)))
    return form == b"sprs" and len(places) == len(sizes) and ascending and sum(sizes) == count
