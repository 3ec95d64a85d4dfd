"""Export a collection to a file or folder that other programs read."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, get_args

import numpy as np

from imgsearch.ann.vectors import Ids, Vectors
from imgsearch.errors import (
    BusyError,
    InputError,
    NoImageError,
    PackageError,
    PicklableError,
    SettingError,
)
from imgsearch.files.paths import is_url, located
from imgsearch.querying.entries import entry_fields
from imgsearch.querying.hits import HitArrays, band_name
from imgsearch.querying.tables import csv_row
from imgsearch.storage.files import Sink, write_atomically, write_folder, write_result
from imgsearch.storage.records import Entry

__all__ = ["Chosen", "Readable", "check_absent", "export", "kind_of"]

Kind: TypeAlias = Literal["parquet", "csv", "npz", "folder"]
Told: TypeAlias = Callable[[int, int], None]

BLOCK = 2_048  # images whose embeddings are in memory at a time
ATTEMPTS = 3  # to export a collection that loses images meanwhile
#: The files of a folder: one row per image in each of them.
IDS, PATHS, EMBEDDINGS, IMAGES = "ids.npy", "paths.npy", "embeddings.npy", "images.csv"
FILES = (IDS, PATHS, EMBEDDINGS, IMAGES)
_ENTRY = [*entry_fields(Entry(0, "\udcff", 0, None, b""))]
_LIKENESS = ("rank", "distance", "similarity", "z", "band")


class Readable(Protocol):
    """What is read of a collection; see `imgsearch.querying.entries.Entries`."""

    def find(self, ids: Sequence[int]) -> dict[int, Entry]:
        """Return the entries of those images that exist."""
        ...

    def embeddings(self, ids: Sequence[int]) -> Vectors:
        """Return the embeddings of images, float32 `[n, dim]`, in the order of `ids`."""
        ...

    def hashes(self, ids: Sequence[int]) -> dict[int, int]:
        """Return the perceptual hashes of those images that have one, by id."""
        ...


@dataclass(frozen=True, slots=True)
class Chosen:
    """The images to export, and how similar they are to a query.

    Attributes:
        ids: Ids of the images, ascending.
        dim: Number of values of an embedding.
        hits: All of the images as hits of a query, `[1, n]`; None if there is no query.
    """

    ids: Sequence[int]
    dim: int
    hits: HitArrays | None = None


class _ChangedError(PicklableError):
    """Some of the images were removed meanwhile."""


def kind_of(path: str | os.PathLike[str]) -> Kind:
    """Return the kind of export that a path asks for.

    Raises:
        SettingError: If its suffix is not that of any kind, or it is a URL.
    """
    name = os.fspath(path)
    if is_url(name):
        raise SettingError(f"cannot export to {name}: give the path of a file or folder here")
    suffix = os.path.splitext(name)[1].lower().lstrip(".")
    if name.endswith("/") or os.path.isdir(os.path.expanduser(name)) or not suffix:
        return "folder"
    for kind in get_args(Kind):
        if kind == suffix:
            found: Kind = kind
            return found
    raise SettingError(
        f"cannot export to {name}: give a file that ends in .parquet, .csv or .npz, or a folder, "
        f"such as {os.path.splitext(name)[0]}/"
    )


def export(
    entries: Readable,
    path: str | os.PathLike[str],
    choose: Callable[[], Chosen],
    *,
    force: bool = False,
    progress: Told | None = None,
) -> int:
    """Write images to a file or folder, as a whole or not at all; return how many.

    Args:
        entries: The images of a collection.
        path: The file or folder.
        choose: Function that chooses the images. It is called again if some are removed meanwhile.
        force: Whether to replace an earlier export.
        progress: Function that is called with the number of images done, and of all.

    Raises:
        InputError: If no image is chosen, or there is something at the path already.
        SettingError: If the suffix of the path is not that of any kind.
        BusyError: If images are removed again and again meanwhile.
        PackageError: If pyarrow is not installed.
        StorageError: If the path cannot be written.
    """
    kind = kind_of(path)
    place = Path(os.fsdecode(located(path)))
    check_absent(place, force=force)
    write: Mapping[Kind, Callable[[Path, _Reading], object]] = {
        "parquet": _write_parquet,
        "csv": partial(_write_file, _fill_csv),
        "npz": partial(_write_file, _fill_npz),
        "folder": partial(_write_folder, force=force),
    }
    for _ in range(ATTEMPTS):
        chosen = choose()
        if not chosen.ids:
            raise InputError("there is nothing to export: no image passes the filter")
        try:
            write[kind](place, _Reading(entries, chosen, progress))
        except _ChangedError:
            continue
        return len(chosen.ids)
    raise BusyError("images were removed from the collection all the while; try again later")


def check_absent(path: Path, *, force: bool) -> None:
    """Raise `InputError` if there is something at a path, unless `force` lets it be replaced."""
    if force or not os.path.lexists(path) or (path.is_dir() and not os.listdir(path)):
        return
    raise InputError(f"{path} exists already; --force replaces it")


class _Reading:
    """The rows of an export, read block by block."""

    def __init__(self, entries: Readable, chosen: Chosen, progress: Told | None) -> None:
        self.chosen = chosen
        self._entries = entries
        self._progress = progress
        self._order: Ids | None = None
        if chosen.hits is not None:
            order = np.argsort(chosen.hits.ids[0], kind="stable")
            if not np.array_equal(chosen.hits.ids[0][order], chosen.ids):
                raise _ChangedError
            self._order = order

    def __len__(self) -> int:
        return len(self.chosen.ids)

    @property
    def columns(self) -> list[str]:
        """The names of the columns, without the embeddings."""
        return [*_ENTRY, "hash", *(_LIKENESS if self._order is not None else ())]

    def blocks(self, *, told: bool = False) -> Iterator[list[Entry]]:
        """Yield the entries of each block of images; `told` reports the progress.

        Raises:
            _ChangedError: If one of them was removed.
        """
        for start in range(0, len(self), BLOCK):
            ids = self.chosen.ids[start : start + BLOCK]
            found = self._entries.find(ids)
            if len(found) < len(ids):
                raise _ChangedError
            yield [found[id_] for id_ in ids]
            if told and self._progress is not None:
                self._progress(start + len(ids), len(self))

    def embeddings(self, block: Sequence[Entry]) -> Vectors:
        """Return the embeddings of a block; raises as `blocks`."""
        try:
            return self._entries.embeddings([entry.id for entry in block])
        except NoImageError as error:
            raise _ChangedError from error

    def rows(self, *, told: bool = False) -> Iterator[tuple[list[Entry], list[dict[str, Any]]]]:
        """Yield the entries of each block, and their rows: a value for each of `columns`."""
        start = 0
        for block in self.blocks(told=told):
            hashes = self._entries.hashes([entry.id for entry in block])
            rows = [_fields(entry, hashes.get(entry.id)) for entry in block]
            if self._order is not None:
                for row, place in zip(rows, self._order[start:].tolist(), strict=False):
                    row.update(self._likeness(place))
            yield block, rows
            start += len(block)

    def likeness(self) -> dict[str, Any]:
        """Return arrays `[n]` of how similar the images are to the query, if there is one."""
        hits, order = self.chosen.hits, self._order
        if hits is None or order is None:
            return {}
        bands = np.array([band_name(band) or "" for band in hits.bands[0][order].tolist()])
        return {
            "ranks": order + 1,
            "distances": hits.distances[0][order],
            "similarities": hits.similarities[0][order],
            "z": hits.z[0][order],
            "bands": bands,
        }

    def _likeness(self, place: int) -> dict[str, Any]:
        hits = self.chosen.hits
        assert hits is not None  # noqa: S101 - there is an order only then
        z = float(hits.z[0, place])
        return {
            "rank": place + 1,
            "distance": round(float(hits.distances[0, place]), 6),
            "similarity": round(float(hits.similarities[0, place]), 6),
            "z": None if np.isnan(z) else round(z, 6),
            "band": band_name(int(hits.bands[0, place])),
        }


def _fields(entry: Entry, hash_: int | None) -> dict[str, Any]:
    hexadecimal = None if hash_ is None else f"{hash_:016x}"
    return {"path_bytes": None, **entry_fields(entry), "hash": hexadecimal}


# -- the kinds ----------------------------------------------------------------------------------


def _write_file(fill: Callable[[Sink, _Reading], object], path: Path, reading: _Reading) -> None:
    write_result(path, lambda sink: fill(sink, reading), "export")


def _write_folder(path: Path, reading: _Reading, *, force: bool) -> None:
    def fill(folder: Path) -> None:
        fills: dict[str, Callable[[Sink], object]] = {
            IDS: lambda sink: _fill_ids(sink, reading),
            PATHS: lambda sink: _fill_paths(sink, reading),
            EMBEDDINGS: lambda sink: _fill_embeddings(sink, reading),
            IMAGES: lambda sink: _fill_csv(sink, reading, told=False),
        }
        for name in FILES:
            write_atomically(folder / name, fills[name], mode=0o666)

    write_folder(path, fill, "export", replaces=lambda name: force and name in FILES)


def _fill_csv(sink: Sink, reading: _Reading, *, told: bool = True) -> None:
    """Write the facts about the images as CSV; the embeddings are left out."""
    names = [name for name in reading.columns if name != "path_bytes"]
    sink.write(csv_row(*names))
    for _, rows in reading.rows(told=told):
        sink.write(b"".join(csv_row(*(row[name] for name in names)) for row in rows))


def _fill_npz(sink: Sink, reading: _Reading) -> None:
    members: dict[str, Callable[[Any], object]] = {
        "ids": lambda file: _fill_ids(file, reading),
        "paths": lambda file: _fill_paths(file, reading),
        "embeddings": lambda file: _fill_embeddings(file, reading),
    }
    for name, values in reading.likeness().items():
        members[name] = partial(np.save, arr=values, allow_pickle=False)
    with zipfile.ZipFile(_Stream(sink), "w", zipfile.ZIP_STORED) as archive:
        for name, fill in members.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                fill(file)


def _fill_ids(file: Any, reading: _Reading) -> None:
    _write_header(file, np.dtype(np.int64), (len(reading),))
    file.write(np.array(reading.chosen.ids, np.int64).tobytes())


def _fill_paths(file: Any, reading: _Reading) -> None:
    """Write the paths, as `os.fsdecode` returns them, as an array of text."""
    longest = max(len(entry.path) for block in reading.blocks() for entry in block)
    kind = np.dtype(f"<U{max(longest, 1)}")
    _write_header(file, kind, (len(reading),))
    for block in reading.blocks():
        file.write(np.array([entry.path for entry in block], kind).tobytes())


def _fill_embeddings(file: Any, reading: _Reading) -> None:
    _write_header(file, np.dtype(np.float32), (len(reading), reading.chosen.dim))
    for block in reading.blocks(told=True):
        file.write(np.ascontiguousarray(reading.embeddings(block)).tobytes())


def _write_header(file: Any, kind: np.dtype[Any], shape: tuple[int, ...]) -> None:
    facts = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_2_0(file, facts)


def _write_parquet(path: Path, reading: _Reading) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        what = "exporting to Parquet needs pyarrow, which is not installed"
        raise PackageError(what, "tables") from error
    kinds = {
        **dict.fromkeys(("id", "size", "width", "height", "rank"), pa.int64()),
        **dict.fromkeys(("mtime", "distance", "similarity", "z"), pa.float64()),
    }
    names = reading.columns
    fields = [(name, kinds.get(name, pa.string())) for name in names]
    dim = reading.chosen.dim
    schema = pa.schema([*fields, ("embedding", pa.list_(pa.float32(), dim))])

    def fill(sink: Sink) -> None:
        plain = [name for name in names if kinds.get(name) is None]
        with pq.ParquetWriter(_Stream(sink), schema, use_dictionary=plain) as writer:
            for block, rows in reading.rows(told=True):
                columns = [pa.array([row[name] for row in rows], kind) for name, kind in fields]
                values = pa.array(reading.embeddings(block).reshape(-1))
                columns.append(pa.FixedSizeListArray.from_arrays(values, dim))
                writer.write_table(pa.Table.from_arrays(columns, schema=schema))

    write_result(path, fill, "export")


class _Stream:
    """A sink as the writers of archives and of Parquet want a file."""

    closed = False

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def write(self, data: Any) -> int:
        return self._sink.write(data)

    def writable(self) -> bool:
        return True

    def flush(self) -> None:
        """Do nothing: the sink is flushed at the end."""

    def close(self) -> None:
        """Do nothing: the sink is closed at the end."""
