"""Check the structure of an index file before Faiss maps it."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, BinaryIO

__all__ = [
    "L2",
    "QUERY_BITS",
    "TRAINED",
    "Ivf",
    "are_lists",
    "is_compact_file",
    "is_ivf_file",
    "read_ivf",
    "size_of",
]


TRAINED, L2 = 1, 1
QUERY_BITS = 4  # to which RaBitQ rounds each value of a query
_IVF = struct.Struct("<4siq16xBiQ8x4siq16xBiQ")
_MAP = struct.Struct("<BQ")
_NO_MAP = 0
_LISTS = struct.Struct("<4sQQ4sQ")
_HEAD = struct.Struct("<4siq16xBii")
_PCA = struct.Struct("<4s8xBi")
_BIAS = struct.Struct("<B")
_PCA_END = struct.Struct("<iiB")
_LENGTH = struct.Struct("<Q")
_RABITQ = struct.Struct("<QQiQBB")
_SQ = struct.Struct("<iiiQQ")
_SQ_END = struct.Struct("<QB")
_ONE, _QT_8BIT, _MINMAX, _NO, _YES = 1, 0, 0, 0, 1


@dataclass(frozen=True, slots=True)
class Ivf:
    """The facts in the head of an inverted file; `dim` is the length of its centroids."""

    kind: bytes
    dim: int
    count: int
    nlist: int


def is_ivf_file(file: BinaryIO) -> bool:
    """Tell whether a file is an `IndexIVFFlat` (L2), without checking its vectors and ids."""
    ivf = read_ivf(file)
    return ivf is not None and ivf.kind == b"IwFl" and are_lists(file, ivf, 4 * ivf.dim)


def read_ivf(file: BinaryIO) -> Ivf | None:
    """Read the head of an inverted file (L2), or return None if it is not one.

    The head ends with the centroids; the file is left at the position after them.
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
    """Tell whether the rest of the file is the lists, with `width` bytes per vector."""
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
    """Tell whether the lists are consistent, given all sizes, or number and size of each in use."""
    if form == b"full":
        return len(numbers) == nlist and sum(numbers) == count
    places, sizes = numbers[::2], numbers[1::2]
    ascending = all(a < b for a, b in pairwise((-1, *places, nlist)))
    return form == b"sprs" and len(places) == len(sizes) and ascending and sum(sizes) == count


def is_compact_file(file: BinaryIO) -> bool:
    """Tell whether a file is an `IndexPreTransform` of a `PCAMatrix` and a RaBitQ or SQ8 (L2).

    The values of the PCA, the centroids and the ranges are not checked, nor are the codes and ids.
    """
    try:
        return _is_compact(file)
    except EOFError:
        return False


def _is_compact(file: BinaryIO) -> bool:
    kind, dim, count, *fixed = _read(file, _HEAD)
    if (kind, fixed) != (b"IxPT", [TRAINED, L2, _ONE]) or dim < 1:
        return False
    if _read(file, _PCA) != (b"Pcam", _NO, _NO):
        return False
    if (_floats(file), _floats(file), _floats(file)) != (dim, dim, 0):
        return False
    if _read(file, _BIAS) != (_YES,):
        return False
    matrix, pca = _floats(file), _floats(file)
    if matrix != pca * dim:
        return False
    if _read(file, _PCA_END) != (dim, pca, TRAINED):
        return False
    ivf = read_ivf(file)
    if ivf is None or (ivf.dim, ivf.count) != (pca, count):
        return False
    if ivf.kind == b"Iwrq":
        width = (pca + 7) // 8 + 8  # a bit per value, and two factors
        codes = pca, width, L2, width, _YES, QUERY_BITS
        return _read(file, _RABITQ) == codes and are_lists(file, ivf, width)
    if ivf.kind != b"IwSq":
        return False
    if (_read(file, _SQ), _floats(file)) != ((_QT_8BIT, _MINMAX, _NO, pca, pca), 2 * pca):
        return False
    return _read(file, _SQ_END) == (pca, _NO) and are_lists(file, ivf, pca)


def _read(file: BinaryIO, form: struct.Struct) -> tuple[Any, ...]:
    """Read fields, or raise `EOFError`."""
    content = file.read(form.size)
    if len(content) < form.size:
        raise EOFError
    return form.unpack(content)


def _floats(file: BinaryIO) -> int:
    """Skip an array of float32 and return its length, or raise `EOFError`."""
    (length,) = _read(file, _LENGTH)
    if 4 * length > size_of(file) - file.tell():
        raise EOFError
    file.seek(4 * length, os.SEEK_CUR)
    return int(length)
