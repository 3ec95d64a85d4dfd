"""Map numbered files of columns into memory, and find the rows of ids in several of them.

A row of a file replaces the rows of the same id in files with lower numbers.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from imgsearch.errors import REPAIR_IT, DamagedError, StorageError, reason_of
from imgsearch.files.opening import open_regular
from imgsearch.storage.shards import Ids

__all__ = ["Places", "mapped", "places_of"]


def mapped(path: Path, header: bytes, size: int, what: str) -> mmap.mmap:
    """Map a file into memory, for reading.

    Args:
        path: Path of the file.
        header: Bytes with which it begins.
        size: Its size in bytes.
        what: What it is, for an error.

    Raises:
        FileNotFoundError: If the file is missing; another process may just have replaced it.
        DamagedError: If the file has another header or size.
        StorageError: If the file cannot be read.
    """
    try:
        with open_regular(path) as file:
            found = file.read(len(header))
            file.seek(0, 2)
            if found != header or file.tell() != size:
                raise DamagedError(f"{path} is not the {what} that the catalog names; {REPAIR_IT}")
            return mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageError(f"cannot read {path}: {reason_of(error)}") from error


class Places(NamedTuple):
    """Where the rows of some ids are, in arrays of any shape.

    Attributes:
        files: Number of the file, int64; -1 for none.
        rows: Row in it, int64; 0 if there is none.
        there: Mask of the ids that have a row, bool.
    """

    files: Ids
    rows: Ids
    there: npt.NDArray[np.bool_]

    def first(self, k: int) -> Places:
        """Return the first `k` columns."""
        return Places(self.files[:, :k], self.rows[:, :k], self.there[:, :k])


def places_of(ids: Ids, files: Sequence[Ids]) -> Places:
    """Find the rows of ids, int64 of any shape, in files with these ids, each ascending."""
    found, at = np.full(ids.shape, -1, np.int64), np.zeros(ids.shape, np.int64)
    for number, theirs in enumerate(files):
        if not len(theirs):
            continue
        first = int(theirs[0])
        if int(theirs[-1]) - first == len(theirs) - 1:  # without a gap
            rows = ids - first
            here = (rows >= 0) & (rows < len(theirs))
        else:
            rows = np.minimum(np.searchsorted(theirs, ids), len(theirs) - 1)
            here = theirs.take(rows) == ids
        np.copyto(found, number, where=here)
        np.copyto(at, rows, where=here)
    return Places(found, at, found >= 0)
