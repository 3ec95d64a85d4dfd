"""Shards: files of embeddings, written once, memory-mapped for reading."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from imgsearch.errors import DamagedError, StorageError, reason_of
from imgsearch.storage.files import write_atomically

__all__ = ["Shard", "Vectors", "open_shard", "shard_name", "write_shard"]

Vectors: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Shard:
    """`vectors/NUMBER.npy`: row i is the embedding of the image with the id `first_id` + i."""

    number: int
    first_id: int
    count: int
    sha256: bytes

    @property
    def ids(self) -> npt.NDArray[np.int64]:
        """The ids of its rows, int64 `[count]`."""
        return np.arange(self.first_id, self.first_id + self.count, dtype=np.int64)


def shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f"{number:08d}.npy"


def write_shard(folder: Path, number: int, vectors: Vectors) -> bytes:
    """Write float32 `[n, dim]` as shard `number` and return its SHA-256.

    Raises:
        StorageError: it cannot be written.
    """
    return write_atomically(
        folder / shard_name(number),
        lambda sink: np.lib.format.write_array(sink, vectors, allow_pickle=False),
    )


def open_shard(folder: Path, shard: Shard, dim: int) -> Vectors:
    """Map a shard into memory: float32 `[count, dim]`, read-only.

    Raises:
        FileNotFoundError: it is gone; another process may just have replaced it.
        DamagedError: it is not what the catalog says.
        StorageError: it cannot be read.
    """
    path = folder / shard_name(shard.number)
    try:
        vectors: Vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageError(f"cannot read {path}: {reason_of(error)}") from error
    except (ValueError, EOFError) as error:
        raise DamagedError(
            f"{path} cannot be read ({reason_of(error)}); restore it from a copy"
        ) from error
    if vectors.shape != (shard.count, dim) or vectors.dtype != np.float32:
        raise DamagedError(
            f"{path} holds {vectors.dtype} {list(vectors.shape)}, the catalog says float32 "
            f"[{shard.count}, {dim}]; restore it from a copy"
        )
    return vectors
