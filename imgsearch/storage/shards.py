"""Shards: files of embeddings, written once, memory-mapped for reading."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from imgsearch.errors import DamagedError, StorageError, reason_of
from imgsearch.storage.files import write_atomically

__all__ = ["Ids", "Shard", "Vectors", "open_ids", "open_shard", "shard_names", "write_shard"]

Vectors: TypeAlias = npt.NDArray[np.float32]
Ids: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Shard:
    """`vectors/NUMBER.npy`: a row an image, ordered by id.

    Its ids are `first_id` to `last_id` without a gap, unless `ids_sha256` is given: then they are
    listed in `vectors/NUMBER.ids.npy`.
    """

    number: int
    first_id: int
    last_id: int
    count: int
    sha256: bytes
    ids_sha256: bytes | None = None


def shard_names(shard: Shard) -> set[str]:
    """Return the names of the files of a shard."""
    names = {_name(shard.number)}
    return names if shard.ids_sha256 is None else names | {_ids_name(shard.number)}


def write_shard(folder: Path, number: int, ids: Ids, vectors: Vectors) -> Shard:
    """Write float32 `[n, dim]` as shard `number`; `ids` int64 `[n]` ascend.

    Raises:
        StorageError: it cannot be written.
    """
    first, last = int(ids[0]), int(ids[-1])
    listed = None
    if last - first + 1 != len(ids):
        listed = _write(folder / _ids_name(number), ids)
    sha256 = _write(folder / _name(number), vectors)
    return Shard(number, first, last, len(ids), sha256, listed)


def open_shard(folder: Path, shard: Shard, dim: int) -> Vectors:
    """Map a shard into memory: float32 `[count, dim]`, read-only.

    Raises:
        FileNotFoundError: it is gone; another process may just have replaced it.
        DamagedError: it is not what the catalog says.
        StorageError: it cannot be read.
    """
    vectors: Vectors = _open(folder / _name(shard.number), np.float32, (shard.count, dim))
    return vectors


def open_ids(folder: Path, shard: Shard) -> Ids:
    """Return the ids of a shard's rows, int64 `[count]`, ascending; raises as `open_shard`."""
    if shard.ids_sha256 is None:
        return np.arange(shard.first_id, shard.last_id + 1, dtype=np.int64)
    ids: Ids = _open(folder / _ids_name(shard.number), np.int64, (shard.count,))
    return ids


def _name(number: int) -> str:
    return f"{number:08d}.npy"


def _ids_name(number: int) -> str:
    return f"{number:08d}.ids.npy"


def _write(path: Path, array: npt.NDArray[Any]) -> bytes:
    return write_atomically(
        path, lambda sink: np.lib.format.write_array(sink, array, allow_pickle=False)
    )


def _open(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageError(f"cannot read {path}: {reason_of(error)}") from error
    except (ValueError, EOFError) as error:
        raise DamagedError(
            f"{path} cannot be read ({reason_of(error)}); restore it from a copy"
        ) from error
    if array.shape != shape or array.dtype != dtype:
        raise DamagedError(
            f"{path} holds {array.dtype} {list(array.shape)}, the catalog says "
            f"{np.dtype(dtype)} {list(shape)}; restore it from a copy"
        )
    return array
