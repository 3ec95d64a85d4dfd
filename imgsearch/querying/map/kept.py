"""Keep the map of each collection in the user's cache, and read it defensively.

It is derived from the collection, in which a command that only reads writes nothing. It names
contents by their digests, so images that are removed, moved or copied do not matter, and one of
another collection at the same place has no image of this one.
"""

from __future__ import annotations

import hashlib
import os
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from imgsearch.ann.vectors import Vectors
from imgsearch.storage.cached import read_cached, write_cached
from imgsearch.storage.files import user_cache
from imgsearch.storage.records import ModelRecord

__all__ = ["ADDED", "LAID_OUT", "MOST_IMAGES", "PLACED", "Kept", "Keys", "read_kept", "write_kept"]

MAGIC = b"imgsearch map 1\n"
METHOD = 1  # version of the method; maps of another version are not used
MOST_IMAGES = 2_000_000  # 17 bytes each
MOST_COLLECTIONS = 32
ADDED, PLACED, LAID_OUT = range(3)  # since the layout, with it, or by it
_HEAD = struct.Struct("<32s32sI")  # version, SHA-256 of the rest, count

Keys = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """The positions of contents.

    Attributes:
        keys: First eight bytes of each digest, distinct, ascending, uint64 `[n]`.
        positions: Their positions in the unit square, float32 `[n, 2]`.
        roles: How each got its position, uint8 `[n]`: `LAID_OUT`, `PLACED` or `ADDED`.
    """

    keys: Keys = field(default_factory=lambda: np.empty(0, np.uint64))
    positions: Vectors = field(default_factory=lambda: np.empty((0, 2), np.float32))
    roles: npt.NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))


def read_kept(directory: Path, model: ModelRecord) -> Kept:
    """Return the map that was kept of a collection; an empty one if there is none to rely on."""
    with suppress(OSError, ValueError, struct.error):
        most = len(MAGIC) + _HEAD.size + 17 * MOST_IMAGES
        return _parsed(read_cached(_path(directory), most), model)
    return Kept()


def write_kept(directory: Path, model: ModelRecord, kept: Kept) -> None:
    """Keep the map of a collection, if possible."""
    columns: tuple[tuple[npt.NDArray[Any], str], ...] = (
        (kept.keys, "<u8"),
        (kept.positions, "<f4"),
        (kept.roles, "u1"),
    )
    body = b"".join(column.astype(kind).tobytes() for column, kind in columns)
    head = _HEAD.pack(_version(model), hashlib.sha256(body).digest(), len(kept.keys))
    write_cached(_path(directory), MAGIC + head + body, files=MOST_COLLECTIONS)


def _path(directory: Path) -> Path:
    name = hashlib.sha256(os.fsencode(os.path.realpath(directory))).hexdigest()[:32]
    return user_cache("maps") / name


def _version(model: ModelRecord) -> bytes:
    return hashlib.sha256(repr((METHOD, model)).encode()).digest()


def _parsed(content: bytes, model: ModelRecord) -> Kept:
    """Return the map in a file.

    Raises:
        ValueError: If it is damaged, or belongs to another model or method.
        struct.error: If it is too short.
    """
    version, digest, count = _HEAD.unpack_from(content, len(MAGIC))
    body = content[len(MAGIC) + _HEAD.size :]
    intact = len(body) == 17 * count and hashlib.sha256(body).digest() == digest
    if not content.startswith(MAGIC) or version != _version(model) or not intact:
        raise ValueError("not what is expected")
    keys = np.frombuffer(body, "<u8", count)
    positions = np.frombuffer(body, "<f4", 2 * count, 8 * count).reshape(count, 2)
    roles = np.frombuffer(body, "u1", count, 16 * count)
    within = ((positions >= 0) & (positions <= 1)).all()  # which NaN is not
    if not within or (keys[1:] <= keys[:-1]).any() or roles.max(initial=0) > LAID_OUT:
        raise ValueError("not what is expected")
    return Kept(keys, positions, roles)
