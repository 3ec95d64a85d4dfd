"""Layers: files with what the ranking knows of each image, written once, mapped for reading.

A row of a layer replaces the rows of the same id in layers with lower numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from imgsearch.errors import REPAIR_IT, DamagedError
from imgsearch.storage.files import Sink, write_atomically
from imgsearch.storage.mapping import Places, mapped, places_of
from imgsearch.storage.records import Layer
from imgsearch.storage.shards import Ids, Vectors

__all__ = [
    "LISTED",
    "MOST_ID",
    "LayerRows",
    "Layers",
    "bytes_of_row",
    "layer_name",
    "open_layer",
    "write_layer",
]

LISTED = 40  # neighbours in a row
MOST_ID = 2**32 - 1  # highest id that a list can hold
_MAGIC = b"imgsearch layer\n"
_HEADER = 32  # bytes

#: The columns after the augmented embeddings: name, type, values in a row.
_COLUMNS: tuple[tuple[str, str, int], ...] = (
    ("ids", "<i8", 1),
    ("leaders", "<u4", 1),
    ("along", "<f4", 1),
    ("means", "<f4", 1),
    ("deviations", "<f4", 1),
    ("scales", "<f4", 1),
    ("neighbours", "<u4", LISTED),
    ("similarities", "<u2", LISTED + 1),
)


class LayerRows(NamedTuple):
    """The rows of a layer, ordered by id.

    Attributes:
        codes: Augmented embeddings, int8 `[n, dim]`; see `imgsearch.ann.neighbourhood`.
        ids: Ids of the images, int64 `[n]`.
        leaders: Lowest id among each image and its near copies, uint32 `[n]`.
        along: Product of each embedding with the mean, float32 `[n]`.
        means: Mean of the similarities to the references, float32 `[n]`.
        deviations: Standard deviation of these, float32 `[n]`.
        scales: Scale of each row of `codes`, float32 `[n]`.
        neighbours: Ids of the neighbours, uint32 `[n, LISTED]`, 0 if there are fewer.
        similarities: Codes of their similarities and of the bound, uint16 `[n, LISTED + 1]`.
    """

    codes: npt.NDArray[np.int8]
    ids: Ids
    leaders: npt.NDArray[np.uint32]
    along: Vectors
    means: Vectors
    deviations: Vectors
    scales: Vectors
    neighbours: npt.NDArray[np.uint32]
    similarities: npt.NDArray[np.uint16]


def layer_name(number: int) -> str:
    """Return the name of a layer's file."""
    return f"{number:08d}.layer"


def bytes_of_row(dim: int) -> int:
    """Return the number of bytes that a row takes."""
    return dim + sum(np.dtype(kind).itemsize * width for _, kind, width in _COLUMNS)


def write_layer(
    folder: Path,
    number: int,
    dim: int,
    count: int,
    codes: Iterable[npt.NDArray[np.int8]],
    rest: Sequence[npt.NDArray[Any]],
) -> Layer:
    """Write a layer.

    Args:
        folder: Folder of the layers.
        number: Number of the layer, which was not used before.
        dim: Length of an augmented embedding.
        count: Number of rows.
        codes: Blocks of augmented embeddings, int8 `[n, dim]`, ordered by id.
        rest: The other columns, as in `LayerRows`; they are read once all codes are written.

    Raises:
        StorageError: If the layer cannot be written.
    """

    def fill(sink: Sink) -> None:
        sink.write(_MAGIC + np.array([count, dim], "<i8").tobytes())
        for block in codes:
            sink.write(np.ascontiguousarray(block, np.int8).data)
        sink.write(bytes(-count * dim % 8))
        for (_, kind, _), column in zip(_COLUMNS, rest, strict=True):
            sink.write(np.ascontiguousarray(column, kind).data)

    path = folder / layer_name(number)
    sha256 = write_atomically(path, fill)
    return Layer(number, count, sha256, path.stat().st_size)


def open_layer(folder: Path, layer: Layer, dim: int) -> LayerRows:
    """Map a layer into memory, for reading.

    Raises:
        FileNotFoundError: If the file is missing; another process may just have replaced it.
        DamagedError: If the file does not match the catalog.
        StorageError: If the file cannot be read.
    """
    path = folder / layer_name(layer.number)
    count = layer.count
    start = _HEADER + count * dim + -count * dim % 8
    size = start + count * (bytes_of_row(dim) - dim)
    if size != layer.size:
        raise DamagedError(f"{path} is not the layer that the catalog names; {REPAIR_IT}")
    header = _MAGIC + np.array([count, dim], "<i8").tobytes()
    content = mapped(path, header, size, "layer")
    columns: list[npt.NDArray[Any]] = [
        np.frombuffer(content, np.int8, count * dim, _HEADER).reshape(count, dim)
    ]
    for _, kind, width in _COLUMNS:
        column = np.frombuffer(content, kind, count * width, start)
        columns.append(column.reshape(count, width) if width > 1 else column)
        start += column.nbytes
    return LayerRows(*columns)


class Layers:
    """The layers of a collection, as one table. Safe for concurrent use."""

    def __init__(self, rows: Sequence[LayerRows], dim: int) -> None:
        """Combine layers, the one with the highest number last."""
        self.rows = rows
        self.dim = dim

    @classmethod
    def open(cls, folder: Path, layers: Sequence[Layer], dim: int) -> Layers:
        """Map all layers; raises as `open_layer`."""
        return cls([open_layer(folder, layer, dim) for layer in layers], dim)

    def places(self, ids: Ids) -> Places:
        """Find the rows of ids, int64 of any shape."""
        return places_of(ids, [layer.ids for layer in self.rows])

    def ids(self) -> Ids:
        """Return the ids of all rows, ascending."""
        return np.unique(np.concatenate([np.empty(0, np.int64), *(each.ids for each in self.rows)]))

    def last_id(self) -> int:
        """Return the highest id of all rows; images above it are new."""
        return max((int(each.ids[-1]) for each in self.rows), default=0)

    def take(self, name: str, places: Places) -> npt.NDArray[Any]:
        """Return a column at some places, `[n]` or `[n, width]`; 0 where there is no row."""
        if len(self.rows) == 1:
            values: npt.NDArray[Any] = getattr(self.rows[0], name).take(places.rows, axis=0)
            values[~places.there] = 0
            return values
        width = {"codes": (self.dim,), "neighbours": (LISTED,), "similarities": (LISTED + 1,)}
        kind = np.dtype(np.int8) if name == "codes" else np.dtype(_KINDS[name])
        result = np.zeros(places.files.shape + width.get(name, ()), kind)
        for number, layer in enumerate(self.rows):
            here = places.files == number
            if here.any():
                result[here] = getattr(layer, name).take(places.rows[here], axis=0)
        return result


_KINDS = {name: kind for name, kind, _ in _COLUMNS}
