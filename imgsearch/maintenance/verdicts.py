"""Remember from run to run which files were compared, and with what result.

The record is in the user's cache, because a command that only reads a collection writes nothing
into it. Nothing is deleted on its word: before a copy is discarded, both files and their pixels
are compared again.
"""

from __future__ import annotations

import hashlib
import struct
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import PIL

from imgsearch.images import (
    DECODER,
    agreement,
    compare,
    fingerprint,
    holdings,
    inspection,
    keypoints,
    kinds,
    overlay,
    placement,
    relation,
)
from imgsearch.images.holdings import Holdings
from imgsearch.images.inspection import Judgement
from imgsearch.images.kinds import KINDS
from imgsearch.images.relation import Relation, reversed_relation
from imgsearch.storage.cached import read_cached, write_cached
from imgsearch.storage.files import user_cache

__all__ = ["Verdicts", "version_of"]

MAGIC = b"imgsearch verdicts 3\n"
MOST_PAIRS = 1_000_000  # 10 bytes each
MOST_FILES = 200_000  # 41 bytes each
MOST_RELATIONS = 1_000_000  # 31 bytes each
_HEAD = struct.Struct("<32s32sIII")  # version of the comparison, SHA-256 of the rest, counts
_PAIR = np.dtype([("key", "<u8"), ("kind", "u1"), ("share", "u1")])
_FILE = np.dtype(
    [
        *(("key", "<u8"), ("width", "<u4"), ("height", "<u4"), ("frames", "<u4")),
        *(("extras", "<u4"), ("bits", "<u2"), ("raw", "?"), ("lossless", "?"), ("colour", "?")),
        *(("alpha", "?"), ("quality", "i1"), ("scale", "<f8"), ("dated", "?")),
    ]
)
_RELATION = np.dtype(
    [
        *(("key", "<u8"), ("kind", "u1"), ("share", "u1"), ("flags", "u1")),
        *(("angle", "<f4"), ("region", "<f4", 4)),
    ]
)
_MAY, _HELD, _RELATED, _MIRRORED = b"may", b"held", b"related", b"mirrored"
_SHARES = 100  # steps of the share of a picture
_NOT = Judgement("is known not to be a copy")


class Verdicts:
    """Findings about files and pairs of files, by their digests."""

    def __init__(self) -> None:
        """Start empty; `load` returns the findings of earlier runs."""
        self._pairs: dict[int, Judgement] = {}
        self._files: dict[int, Holdings] = {}
        self._old_pairs: dict[int, Judgement] = {}
        self._old_files: dict[int, Holdings] = {}
        self._relations: dict[int, Relation | None] = {}
        self._old_relations: dict[int, Relation | None] = {}
        self._changed = False

    @classmethod
    def load(cls) -> Verdicts:
        """Return the findings of earlier runs, or none if damaged, foreign or out of date."""
        found = cls()
        with suppress(OSError, ValueError, IndexError, struct.error):
            content = read_cached(_path(), _most())
            found._old_pairs, found._old_files, found._old_relations = _parsed(content)
        return found

    def save(self) -> None:
        """Keep the findings for later runs, if possible.

        Findings that this run used are kept first, then as many others as there is room for.
        """
        if not self._changed:
            return
        pairs = _first({**self._pairs, **self._old_pairs}, MOST_PAIRS)
        files = _first({**self._files, **self._old_files}, MOST_FILES)
        rows = [(key, *_fields(held)) for key, held in files.items()]
        judged = [(key, *_code(judgement)) for key, judgement in pairs.items()]
        relations = _first({**self._relations, **self._old_relations}, MOST_RELATIONS)
        related = [(key, *_code_of(relation)) for key, relation in relations.items()]
        body = np.array(judged, _PAIR).tobytes() + np.array(rows, _FILE).tobytes()
        body += np.array(related, _RELATION).tobytes()
        counts = len(pairs), len(files), len(relations)
        head = _HEAD.pack(_version(), hashlib.sha256(body).digest(), *counts)
        write_cached(_path(), MAGIC + head + body)

    def may(self, keep: bytes, copy: bytes) -> Judgement | None:
        """Return the judgement of a copy in favour of a file; None if unknown.

        It gives no reason but that it was found before.
        """
        key = _key(_MAY, keep, copy)
        if key in self._old_pairs:
            self._pairs[key] = self._old_pairs.pop(key)
        return self._pairs.get(key)

    def note_may(self, keep: bytes, copy: bytes, judgement: Judgement) -> None:
        """Record the answer of `may`."""
        self._pairs[_key(_MAY, keep, copy)] = judgement
        self._changed = True

    def relation(
        self, one: bytes, other: bytes, *, mirrored: bool = False
    ) -> tuple[bool, Relation | None]:
        """Return whether the relation of two files is known, and how the second was made.

        Args:
            one: Digest of a file.
            other: Digest of another file.
            mirrored: Whether the second was compared with the first as its mirror image.
        """
        kind = _MIRRORED if mirrored else _RELATED
        for digests, is_reversed in (((one, other), False), ((other, one), True)):
            key = _key(kind, *digests)
            if key in self._old_relations:
                self._relations[key] = self._old_relations.pop(key)
            if key in self._relations:
                found = self._relations[key]
                return True, reversed_relation(found) if found and is_reversed else found
        return False, None

    def note_relation(
        self, one: bytes, other: bytes, relation: Relation | None, *, mirrored: bool = False
    ) -> None:
        """Record the answer of `relation`."""
        self._relations[_key(_MIRRORED if mirrored else _RELATED, one, other)] = relation
        self._changed = True

    def held(self, digest: bytes) -> Holdings | None:
        """Return the holdings of a file, None if unknown."""
        key = _key(_HELD, digest)
        if key in self._old_files:
            self._files[key] = self._old_files.pop(key)
        return self._files.get(key)

    def note_held(self, digest: bytes, held: Holdings) -> None:
        """Record the answer of `held`."""
        self._files[_key(_HELD, digest)] = held
        self._changed = True


def _path() -> Path:
    return user_cache("duplicates") / "verdicts"


def _key(kind: bytes, *digests: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(kind + b"".join(digests), digest_size=8).digest())


@cache
def _version() -> bytes:
    """Return the version of the comparison: of its code, and of the decoders."""
    return version_of()


def version_of(*modules: ModuleType) -> bytes:
    """Return the version of the comparison and of what else some modules do."""
    told = hashlib.sha256(f"{PIL.__version__} {DECODER}".encode())
    compare_by = (
        *(agreement, compare, fingerprint, holdings, inspection, keypoints, kinds, overlay),
        *(placement, relation),
    )
    for module in (*compare_by, *modules):
        told.update(Path(str(module.__file__)).read_bytes())
    return told.digest()


def _most() -> int:
    """Return the number of bytes that the file has at most."""
    most = len(MAGIC) + _HEAD.size + MOST_PAIRS * _PAIR.itemsize + MOST_FILES * _FILE.itemsize
    return most + MOST_RELATIONS * _RELATION.itemsize


def _code(judgement: Judgement) -> tuple[int, int]:
    if judgement.reason:
        return 0, 0
    return 1 + KINDS.index(judgement.kind), round(_SHARES * judgement.share)


def _judgement(kind: int, share: int) -> Judgement:
    return Judgement("", KINDS[kind - 1], share / _SHARES) if kind else _NOT


def _code_of(relation: Relation | None) -> tuple[Any, ...]:
    if relation is None:
        return 0, 0, 0, 0.0, (0.0, 0.0, 0.0, 0.0)
    region = relation.region or (0.0, 0.0, 0.0, 0.0)
    flags = relation.swapped | relation.certain << 1 | (relation.region is not None) << 2
    share = round(_SHARES * relation.share)
    return 1 + KINDS.index(relation.kind), share, flags, relation.angle, region


def _relation(
    kind: int, share: int, flags: int, angle: float, region: list[float]
) -> Relation | None:
    if not kind:
        return None
    left, top, right, bottom = map(float, region)
    return Relation(
        KINDS[kind - 1],
        share / _SHARES,
        round(angle, 1),
        (left, top, right, bottom) if flags & 4 else None,
        swapped=bool(flags & 1),
        certain=bool(flags & 2),
    )


def _parsed(
    content: bytes,
) -> tuple[dict[int, Judgement], dict[int, Holdings], dict[int, Relation | None]]:
    """Return the findings about pairs and files, and the relations of pairs.

    Raises:
        ValueError: If it is damaged, or belongs to another comparison.
        IndexError: If it names a kind that there is not.
        struct.error: If it is too short.
    """
    version, digest, pairs, files, relations = _HEAD.unpack_from(content, len(MAGIC))
    body = content[len(MAGIC) + _HEAD.size :]
    sizes = pairs * _PAIR.itemsize, files * _FILE.itemsize, relations * _RELATION.itemsize
    intact = hashlib.sha256(body).digest() == digest and len(body) == sum(sizes)
    if not content.startswith(MAGIC) or version != _version() or not intact:
        raise ValueError("not what is expected")
    one = np.frombuffer(body, _PAIR, pairs)
    other = np.frombuffer(body, _FILE, files, sizes[0])
    third = np.frombuffer(body, _RELATION, relations, sizes[0] + sizes[1])
    known = {key: _judgement(kind, share) for key, kind, share in one.tolist()}
    held = {row[0]: _holdings(row[1:]) for row in other.tolist()}
    return known, held, {row[0]: _relation(*row[1:]) for row in third.tolist()}


def _fields(held: Holdings) -> tuple[Any, ...]:
    quality = -1 if held.quality is None else held.quality
    return (
        *(held.width, held.height, held.frames, held.extras, held.bits, held.raw, held.lossless),
        *(held.colour, held.alpha, quality, held.scale, held.dated),
    )


def _holdings(row: tuple[Any, ...]) -> Holdings:
    *before, quality, scale, dated = row
    width, height, frames, extras, bits, raw, lossless, colour, alpha = before
    return Holdings(
        width=width,
        height=height,
        frames=frames,
        extras=extras,
        bits=bits,
        raw=raw,
        lossless=lossless,
        colour=colour,
        alpha=alpha,
        quality=None if quality < 0 else quality,
        scale=scale,
        dated=dated,
    )


def _first(known: dict[int, Any], most: int) -> dict[int, Any]:
    return dict(list(known.items())[:most])
