"""Files of fingerprints (`imgsearch.images.fingerprint`), written once, mapped for reading.

A fingerprint in a file replaces that of the same id in files with lower numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from imgsearch.images.fingerprint import FINGERPRINT
from imgsearch.storage.files import Sink, write_atomically
from imgsearch.storage.mapping import Places, mapped, places_of
from imgsearch.storage.records import PrintFile
from imgsearch.storage.shards import Ids

__all__ = [
    "PRINT_BYTES",
    "Light",
    "Prints",
    "Rows",
    "open_prints",
    "prints_name",
    "rows_of_bytes",
    "write_prints",
]

_MAGIC = b"imgsearch print\n"
_HEADER = 32  # bytes
PRINT_BYTES = 8 + FINGERPRINT.itemsize  # bytes of a row in a file

_NAMES = FINGERPRINT.names or ()

#: The luminance of a small picture, uint8 `[EDGE, EDGE]`.
Light: TypeAlias = npt.NDArray[np.uint8]

#: Some fingerprints: a column for each field of `FINGERPRINT`.
Rows = Mapping[str, npt.NDArray[Any]]


class PrintRows(NamedTuple):
    """The fingerprints of a file: ids, int64 `[n]`, ascending, and the columns."""

    ids: Ids
    columns: Rows


def prints_name(number: int) -> str:
    """Return the name of a file of fingerprints."""
    return f"{number:08d}.prints"


def rows_of_bytes(rows: Sequence[bytes]) -> Rows:
    """Return the columns of fingerprints as `imgsearch.images.fingerprint` makes them."""
    found = np.frombuffer(b"".join(rows), FINGERPRINT)
    return {name: found[name] for name in _NAMES}


def write_prints(folder: Path, number: int, ids: Ids, columns: Rows) -> PrintFile:
    """Write fingerprints, with ascending ids, int64 `[n]`, as file `number`.

    Raises:
        StorageError: If they cannot be written.
    """

    def fill(sink: Sink) -> None:
        sink.write(_header(len(ids)))
        sink.write(np.ascontiguousarray(ids, "<i8").data)
        for name in _NAMES:
            column = np.ascontiguousarray(columns[name], FINGERPRINT[name].base)
            sink.write(column.data)

    path = folder / prints_name(number)
    sha256 = write_atomically(path, fill)
    return PrintFile(number, len(ids), sha256, _HEADER + PRINT_BYTES * len(ids))


def open_prints(folder: Path, file: PrintFile) -> PrintRows:
    """Map a file of fingerprints into memory, for reading.

    Raises:
        FileNotFoundError: If the file is missing; another process may just have replaced it.
        DamagedError: If the file does not match the catalog.
        StorageError: If the file cannot be read.
    """
    count = file.count
    path = folder / prints_name(file.number)
    size = _HEADER + PRINT_BYTES * count
    content = mapped(path, _header(count), size, "file of fingerprints")
    ids = np.frombuffer(content, "<i8", count, _HEADER)
    start = _HEADER + ids.nbytes
    columns = {}
    for name in _NAMES:
        kind = FINGERPRINT[name]
        values = count * int(np.prod(kind.shape, dtype=np.int64))
        column = np.frombuffer(content, kind.base, values, start)
        columns[name] = column.reshape(count, *kind.shape)
        start += column.nbytes
    return PrintRows(ids, columns)


class Prints:
    """The fingerprints of a collection, as one table. Safe for concurrent use."""

    def __init__(self, files: Sequence[PrintRows]) -> None:
        """Combine files, the one with the highest number last."""
        self._files = files

    @classmethod
    def open(cls, folder: Path, files: Sequence[PrintFile]) -> Prints:
        """Map all files; raises as `open_prints`."""
        return cls([open_prints(folder, file) for file in files])

    def ids(self) -> Ids:
        """Return the ids of all fingerprints, ascending."""
        return np.unique(
            np.concatenate([np.empty(0, np.int64), *(each.ids for each in self._files)])
        )

    def ids_in(self, number: int) -> Ids:
        """Return the ids of the file at a position, ascending."""
        return self._files[number].ids

    def places(self, ids: Ids) -> Places:
        """Find the fingerprints of ids, int64 of any shape."""
        return places_of(ids, [each.ids for each in self._files])

    def take(self, name: str, places: Places) -> npt.NDArray[Any]:
        """Return a column at some places; 0 where there is no fingerprint."""
        kind = FINGERPRINT[name]
        result = np.zeros((*places.files.shape, *kind.shape), kind.base)
        for number, file in enumerate(self._files):
            here = places.files == number
            if here.any():
                result[here] = file.columns[name][places.rows[here]]
        return result

    def lights(self, ids: Sequence[int]) -> dict[int, Light]:
        """Return the small pictures of those images that have one, by id."""
        places = self.places(np.array(ids, np.int64))
        lights = self.take("luminance", places)
        known = places.there & (self.take("width", places) > 0)
        return {ids[row]: lights[row] for row in np.flatnonzero(known).tolist()}

    def hashes(self, ids: Sequence[int]) -> dict[int, int]:
        """Return the perceptual hashes, of 64 bits, of those images that have one, by id."""
        places = self.places(np.array(ids, np.int64))
        hashes = self.take("hash", places).tolist()
        known = places.there & (self.take("width", places) > 0)
        return {ids[row]: hashes[row] for row in np.flatnonzero(known).tolist()}

    def sizes(self, ids: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Return the upright width and height of those images that have a fingerprint, by id."""
        places = self.places(np.array(ids, np.int64))
        widths, heights = self.take("width", places), self.take("height", places)
        known = np.flatnonzero(places.there & (widths > 0))
        return {ids[row]: (int(widths[row]), int(heights[row])) for row in known.tolist()}

    def row_of(self, id_: int) -> bytes | None:
        """Return one fingerprint, as `imgsearch.images.fingerprint` makes it; None if missing."""
        ids = np.array([id_], np.int64)
        if not self.places(ids).there[0]:
            return None
        row = np.zeros(1, FINGERPRINT)
        for name, column in self.rows(ids).items():
            row[name] = column
        return row.tobytes()

    def rows(self, ids: Ids) -> Rows:
        """Return all columns of some ids; 0 where there is no fingerprint."""
        places = self.places(ids)
        return {name: self.take(name, places) for name in _NAMES}


def _header(count: int) -> bytes:
    return _MAGIC + np.array([count, PRINT_BYTES], "<i8").tobytes()
