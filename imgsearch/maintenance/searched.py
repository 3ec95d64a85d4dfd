"""Remember from run to run which images were searched for among one another, and what was near.

The record of each collection is in the user's cache, as the verdicts are, and as little is deleted
on its word: it only spares the search. It names contents by their digests, so images that are
removed, moved or copied do not matter; new ones are searched for.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from imgsearch.ann import hashes, nearest
from imgsearch.images import discs, resemblance
from imgsearch.maintenance import candidates, kinship, turning
from imgsearch.maintenance.candidates import Pair
from imgsearch.maintenance.verdicts import version_of
from imgsearch.storage.cached import read_cached, write_cached
from imgsearch.storage.files import user_cache

__all__ = ["Searched", "recall_search", "remember_search"]

MAGIC = b"imgsearch searched 1\n"
MOST_IMAGES = 2_000_000  # 8 bytes each
MOST_PAIRS = 2_000_000  # 9 bytes each, of each of the two sorts
MOST_COLLECTIONS = 32
_HEAD = struct.Struct("<32s32sIII")  # version of the search, SHA-256 of the rest, counts
_PAIR = np.dtype([("one", "<u4"), ("other", "<u4"), ("way", "u1")])

_Keys = npt.NDArray[np.uint64]
_Pairs = npt.NDArray[np.void]


@dataclass(frozen=True, slots=True)
class Searched:
    """What a search found among some images.

    Attributes:
        ids: The images that were searched for among one another.
        near: Those that deserve a close look as plain copies.
        akin: Those whose small pictures show the same otherwise.
    """

    ids: frozenset[int] = frozenset()
    near: list[Pair] = field(default_factory=list)
    akin: list[tuple[int, int]] = field(default_factory=list)


def recall_search(directory: Path, settings: str, digests: Mapping[int, bytes]) -> Searched:
    """Return what earlier runs found among the images that are there now, if anything.

    Args:
        directory: The collection.
        settings: All on which the search depends, apart from the code: see `remember_search`.
        digests: The digests of the images that are there.
    """
    with suppress(OSError, ValueError, struct.error):
        keys, near, akin = _parsed(read_cached(_path(directory), _most()), settings)
        own, asked = np.array(list(digests), np.int64), _keys_of(digests)
        rows = np.minimum(np.searchsorted(keys, asked), max(0, len(keys) - 1))
        known = keys[rows] == asked if len(keys) else np.zeros(len(own), bool)
        ids = np.full(len(keys), -1, np.int64)
        ids[rows[known]] = own[known]
        return Searched(
            frozenset(own[known].tolist()),
            _there(near, ids),
            [(one, other) for one, other, _ in _there(akin, ids)],
        )
    return Searched()


def remember_search(
    directory: Path, settings: str, digests: Mapping[int, bytes], found: Searched
) -> None:
    """Keep for later runs what was found, if possible; arguments as for `recall_search`."""
    if len(found.ids) > MOST_IMAGES or max(len(found.near), len(found.akin)) > MOST_PAIRS:
        return
    ids = sorted(found.ids, key=lambda id_: digests[id_][:8][::-1])  # as the keys are sorted
    rows = {id_: row for row, id_ in enumerate(ids)}
    near = _as_rows(rows, found.near)
    akin = _as_rows(rows, [(one, other, 0) for one, other in found.akin])
    keys = _keys_of({id_: digests[id_] for id_ in ids})
    body = keys.tobytes() + near.tobytes() + akin.tobytes()
    counts = len(keys), len(near), len(akin)
    head = _HEAD.pack(_version(settings), hashlib.sha256(body).digest(), *counts)
    write_cached(_path(directory), MAGIC + head + body, files=MOST_COLLECTIONS)


def _path(directory: Path) -> Path:
    name = hashlib.sha256(os.fsencode(os.path.realpath(directory))).hexdigest()[:32]
    return user_cache("duplicates") / "searched" / name


def _most() -> int:
    return len(MAGIC) + _HEAD.size + 8 * MOST_IMAGES + 2 * MOST_PAIRS * _PAIR.itemsize


def _version(settings: str) -> bytes:
    modules = candidates, hashes, kinship, nearest, resemblance, discs, turning
    return hashlib.sha256(version_of(*modules) + settings.encode()).digest()


def _keys_of(digests: Mapping[int, bytes]) -> _Keys:
    return np.frombuffer(b"".join(digest[:8] for digest in digests.values()), "<u8")


def _parsed(content: bytes, settings: str) -> tuple[_Keys, _Pairs, _Pairs]:
    """Return the keys of images, ascending, and the pairs of their rows.

    Raises:
        ValueError: If it is damaged, or belongs to another search.
        struct.error: If it is too short.
    """
    version, digest, images, near, akin = _HEAD.unpack_from(content, len(MAGIC))
    body = content[len(MAGIC) + _HEAD.size :]
    sizes = 8 * images, near * _PAIR.itemsize, akin * _PAIR.itemsize
    intact = len(body) == sum(sizes) and hashlib.sha256(body).digest() == digest
    if not content.startswith(MAGIC) or version != _version(settings) or not intact:
        raise ValueError("not what is expected")
    keys = np.frombuffer(body, "<u8", images)
    pairs = np.frombuffer(body, _PAIR, near + akin, sizes[0])
    if len(pairs) and max(pairs["one"].max(), pairs["other"].max()) >= images:
        raise ValueError("not what is expected")
    return keys, pairs[:near], pairs[near:]


def _as_rows(rows: Mapping[int, int], pairs: Iterable[Pair]) -> _Pairs:
    """Return pairs of images that have a row as those rows."""
    there = rows.keys()
    return np.array(
        [(rows[one], rows[other], way) for one, other, way in pairs if {one, other} <= there],
        _PAIR,
    )


def _there(pairs: _Pairs, ids: npt.NDArray[np.int64]) -> list[Pair]:
    """Return those pairs of rows as images that are there: -1 are not."""
    ones, others = ids[pairs["one"]], ids[pairs["other"]]
    there = (ones >= 0) & (others >= 0)
    found = ones[there].tolist(), others[there].tolist(), pairs["way"][there].tolist()
    return list(zip(*found, strict=True))
