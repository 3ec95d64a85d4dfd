"""Shards: files of embeddings, written once and memory-mapped for reading."""

from __future__ import annotations

import math
import mmap
import os
import resource
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from imgsearch.errors import REPAIR_IT, DamagedError, StorageError, reason_of
from imgsearch.files.opening import open_regular
from imgsearch.storage.files import check_sha256, write_atomically
from imgsearch.storage.records import Shard

__all__ = [
    "Ids",
    "ShardCache",
    "ShardRows",
    "Vectors",
    "check_shard",
    "open_ids",
    "open_shard",
    "read_ahead",
    "salvage",
    "shard_files",
    "write_shard",
]

_HEADER = 128  # bytes to which NumPy pads the header, for an array of any realistic size

Vectors: TypeAlias = npt.NDArray[np.float32]
Ids: TypeAlias = npt.NDArray[np.int64]

MAPPED = 16_384  # maximum number of shards that stay mapped
FILES = 4  # as many times the files that they take may be open in this process


class ShardRows(NamedTuple):
    """The images of a shard: ascending ids, int64 `[n]`, and vectors, float32 `[n, dim]`."""

    ids: Ids
    vectors: Vectors


def shard_files(shard: Shard) -> dict[str, bytes]:
    """Return the names of a shard's files, each with its SHA-256."""
    files = {_name(shard.number): shard.sha256}
    if shard.ids_sha256 is not None:
        files[_ids_name(shard.number)] = shard.ids_sha256
    return files


def write_shard(folder: Path, number: int, ids: Ids, vectors: Vectors) -> Shard:
    """Write vectors, float32 `[n, dim]`, with ascending ids, int64 `[n]`, as shard `number`.

    Raises:
        StorageError: If the shard cannot be written.
    """
    first, last = int(ids[0]), int(ids[-1])
    listed = None
    if last - first + 1 != len(ids):
        listed = _write(folder / _ids_name(number), ids)
    sha256 = _write(folder / _name(number), vectors)
    return Shard(number, first, last, len(ids), sha256, listed)


def check_shard(folder: Path, shard: Shard) -> None:
    """Check that a shard's files still hold what was written; raises as `check_sha256`."""
    for name, sha256 in shard_files(shard).items():
        check_sha256(folder / name, sha256)


def open_shard(folder: Path, shard: Shard, dim: int) -> Vectors:
    """Map a shard into memory, as a read-only array, float32 `[count, dim]`.

    Raises:
        FileNotFoundError: If the shard is missing; another process may just have replaced it.
        DamagedError: If the shard does not match the catalog.
        StorageError: If the shard cannot be read.
    """
    vectors: Vectors = _open(folder / _name(shard.number), np.float32, (shard.count, dim))
    return vectors


def open_ids(folder: Path, shard: Shard) -> Ids:
    """Return the ids of a shard's rows, int64 `[count]`, ascending; raises as `open_shard`."""
    if shard.ids_sha256 is None:
        return np.arange(shard.first_id, shard.last_id + 1, dtype=np.int64)
    ids: Ids = _open(folder / _ids_name(shard.number), np.int64, (shard.count,))
    return ids


class ShardCache:
    """A cache that maps shards on reading and keeps some mapped. Safe for concurrent use."""

    def __init__(self, folder: Path, dim: int) -> None:
        self.folder = folder
        self.dim = dim
        self._mapped: dict[int, ShardRows] = {}
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = MAPPED if soft == resource.RLIM_INFINITY else min(MAPPED, soft // FILES)

    def kept(self, shards: Iterable[Shard]) -> ShardCache:
        """Return a new cache with those of the given shards that this one has mapped."""
        before, cache = self._mapped.copy(), ShardCache(self.folder, self.dim)
        numbers = [shard.number for shard in shards]
        cache._mapped = {number: before[number] for number in numbers if number in before}
        return cache

    def read(self, shards: Iterable[Shard]) -> Iterator[ShardRows]:
        """Yield the rows of each shard; raises as `open_shard`."""
        return map(self.rows, shards)

    def rows(self, shard: Shard) -> ShardRows:
        """Return the rows of a shard; raises as `open_shard`."""
        rows = self._mapped.get(shard.number)
        if rows is None:
            vectors = open_shard(self.folder, shard, self.dim)
            rows = ShardRows(open_ids(self.folder, shard), vectors)
            if len(self._mapped) < self._most:
                self._mapped[shard.number] = rows
        return rows


def read_ahead(vectors: Vectors, rows: Ids) -> None:
    """Let the system begin to read some rows of a mapped shard, int64 `[n]`.

    Without this, the system reads some 100 KB or more around each row that is not in memory, and
    drops others for that.
    """
    mapped = vectors.base
    if not isinstance(mapped, np.memmap) or not isinstance(mapped.base, mmap.mmap):
        return
    advise, first, width = mapped.base.madvise, mapped.offset, vectors.strides[0]
    for row in rows.tolist():
        start = first + row * width
        page = start - start % mmap.PAGESIZE
        advise(mmap.MADV_WILLNEED, page, start + width - page)


def salvage(folder: Path, shard: Shard, dim: int) -> Vectors:
    """Return the first n rows, all that is left of a damaged shard, as float32 `[n, dim]`.

    Neither the header nor the length of the file is trusted, nor anything else in it.
    """
    try:
        with open_regular(folder / _name(shard.number)) as file:
            content = file.read(_HEADER + 4 * dim * shard.count)[_HEADER:]
    except (OSError, DamagedError):
        return np.empty((0, dim), np.float32)
    rows = len(content) // (4 * dim)
    return np.frombuffer(content, np.float32, rows * dim).reshape(rows, dim)


def _name(number: int) -> str:
    return f"{number:08d}.npy"


def _ids_name(number: int) -> str:
    return f"{number:08d}.ids.npy"


def _write(path: Path, array: npt.NDArray[Any]) -> bytes:
    return write_atomically(
        path, lambda sink: np.lib.format.write_array(sink, array, allow_pickle=False)
    )


def _open(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Map an array with a known type and shape, or raise as `open_shard`."""
    kind = np.dtype(dtype)
    # The header as NumPy writes it (numpy.lib.format, version 1.0); NumPy's parser may fail in any
    # way on another one.
    expected = f"{{'descr': {kind.str!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    try:
        with open_regular(path) as file:
            start = file.read(10)
            header = file.read(int.from_bytes(start[8:], "little"))
            size = os.fstat(file.fileno()).st_size
            offset = len(start) + len(header)
            is_whole = size == offset + kind.itemsize * math.prod(shape)
            if start[:8] == b"\x93NUMPY\x01\x00" and header.rstrip() == expected and is_whole:
                return np.asarray(np.memmap(file, kind, "r", offset, shape))  # quicker to index
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageError(f"cannot read {path}: {reason_of(error)}") from error
    raise DamagedError(f"{path} does not hold {kind} {list(shape)}; {REPAIR_IT}")
