"""Check the structure of the file of a compact index before Faiss maps it: see `ivf_file`."""

from __future__ import annotations

import os
import struct
from typing import Any, BinaryIO

from imgsearch.search.ivf_file import L2, TRAINED, are_lists, read_ivf, size_of

__all__ = ["is_compact_file"]

_HEAD = struct.Struct("<4siq16xBii")
_PCA = struct.Struct("<4s8xBi")
_BIAS = struct.Struct("<B")
_PCA_END = struct.Struct("<iiB")
_LENGTH = struct.Struct("<Q")
_SQ = struct.Struct("<iiiQQ")
_SQ_END = struct.Struct("<QB")
_ONE, _QT_8BIT, _MINMAX, _NO, _YES = 1, 0, 0, 0, 1


def is_compact_file(file: BinaryIO) -> bool:
    """Tell whether a file is an `IndexPreTransform` of a `PCAMatrix` and an SQ8 in lists (L2).

    In all but the values of the PCA, the centroids and the ranges, and the codes and ids.
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
    if ivf is None or (ivf.kind, ivf.dim, ivf.count) != (b"IwSq", pca, count):
        return False
    if (_read(file, _SQ), _floats(file)) != ((_QT_8BIT, _MINMAX, _NO, pca, pca), 2 * pca):
        return False
    return _read(file, _SQ_END) == (pca, _NO) and are_lists(file, ivf, pca)


def _read(file: BinaryIO, form: struct.Struct) -> tuple[Any, ...]:
    """Read some fields, or raise `EOFError`."""
    content = file.read(form.size)
    if len(content) < form.size:
        raise EOFError
    return form.unpack(content)


def _floats(file: BinaryIO) -> int:
    """Pass over an array of float32 and return its length, or raise `EOFError`."""
    (length,) = _read(file, _LENGTH)
    if 4 * length > size_of(file) - file.tell():
        raise EOFError
    file.seek(4 * length, os.SEEK_CUR)
    return int(length)
