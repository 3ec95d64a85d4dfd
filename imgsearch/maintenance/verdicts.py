"""Remember from run to run which files were compared, and with what result.

The record is in the user's cache, because a command that only reads a collection writes nothing
into it. Nothing is deleted on its word: before a copy is discarded, both files and their pixels
are compared again.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from imgsearch.errors import StorageError
from imgsearch.images import DECODER, agreement, compare, holdings, inspection, overlay
from imgsearch.images.holdings import Holdings
from imgsearch.storage.files import user_cache, write_atomically

__all__ = ["Verdicts"]

MAGIC = b"imgsearch verdicts 1\n"
MOST_PAIRS = 1_000_000  # 9 bytes each
MOST_FILES = 200_000  # 41 bytes each
_HEAD = struct.Struct("<32s32sII")  # version of the comparison, SHA-256 of the rest, counts
_PAIR = np.dtype([("key", "<u8"), ("so", "u1")])
_FILE = np.dtype(
    [
        *(("key", "<u8"), ("width", "<u4"), ("height", "<u4"), ("frames", "<u4")),
        *(("extras", "<u4"), ("bits", "<u2"), ("raw", "?"), ("lossless", "?"), ("colour", "?")),
        *(("alpha", "?"), ("quality", "i1"), ("scale", "<f8"), ("dated", "?")),
    ]
)
_NEAR, _MAY, _HELD = b"near", b"may", b"held"


class Verdicts:
    """Findings about files and pairs of files, by their digests."""

    def __init__(self) -> None:
        """Start empty; `load` returns the findings of earlier runs."""
        self._pairs: dict[int, bool] = {}
        self._files: dict[int, Holdings] = {}
        self._old_pairs: dict[int, bool] = {}
        self._old_files: dict[int, Holdings] = {}
        self._changed = False

    @classmethod
    def load(cls) -> Verdicts:
        """Return the findings of earlier runs, or none if damaged, foreign or out of date."""
        found = cls()
        with suppress(OSError, ValueError, struct.error):
            found._old_pairs, found._old_files = _parsed(_content_of(_path()))
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
        body = np.array(list(pairs.items()), _PAIR).tobytes() + np.array(rows, _FILE).tobytes()
        path = _path()
        with suppress(OSError, StorageError):  # it only saves work
            head = _HEAD.pack(_version(), hashlib.sha256(body).digest(), len(pairs), len(files))
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(path, lambda sink: sink.write(MAGIC + head + body), mode=0o600)

    def near(self, one: bytes, other: bytes) -> bool | None:
        """Tell whether two files deserve a close look; None if unknown."""
        return self._known(_key(_NEAR, one, other))

    def note_near(self, one: bytes, other: bytes, *, so: bool) -> None:
        """Record the answer of `near`."""
        self._note(_key(_NEAR, one, other), so=so)

    def may(self, keep: bytes, copy: bytes) -> bool | None:
        """Tell whether a copy may be discarded in favour of a file; None if unknown."""
        return self._known(_key(_MAY, keep, copy))

    def note_may(self, keep: bytes, copy: bytes, *, so: bool) -> None:
        """Record the answer of `may`."""
        self._note(_key(_MAY, keep, copy), so=so)

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

    def _known(self, key: int) -> bool | None:
        if key in self._old_pairs:
            self._pairs[key] = self._old_pairs.pop(key)
        return self._pairs.get(key)

    def _note(self, key: int, *, so: bool) -> None:
        self._pairs[key] = so
        self._changed = True


def _path() -> Path:
    return user_cache("duplicates") / "verdicts"


def _key(kind: bytes, *digests: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(kind + b"".join(digests), digest_size=8).digest())


@cache
def _version() -> bytes:
    """Return the version of the comparison: of its code, and of the decoders."""
    told = hashlib.sha256(f"{PIL.__version__} {DECODER}".encode())
    for module in (agreement, compare, holdings, inspection, overlay):
        told.update(Path(str(module.__file__)).read_bytes())
    return told.digest()


def _content_of(path: Path) -> bytes:
    """Return the content of this user's file.

    Raises:
        OSError: If there is no readable file.
        ValueError: If it is another user's, not a regular file, or too large.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags), "rb") as file:
        status = os.fstat(file.fileno())
        most = len(MAGIC) + _HEAD.size + MOST_PAIRS * _PAIR.itemsize + MOST_FILES * _FILE.itemsize
        mine = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
        if not mine or status.st_size > most:
            raise ValueError(path)
        return file.read(most)


def _parsed(content: bytes) -> tuple[dict[int, bool], dict[int, Holdings]]:
    """Return the findings about pairs and files.

    Raises:
        ValueError: If it is damaged, or belongs to another comparison.
        struct.error: If it is too short.
    """
    version, digest, pairs, files = _HEAD.unpack_from(content, len(MAGIC))
    body = content[len(MAGIC) + _HEAD.size :]
    size = pairs * _PAIR.itemsize + files * _FILE.itemsize
    intact = hashlib.sha256(body).digest() == digest and len(body) == size
    if not content.startswith(MAGIC) or version != _version() or not intact:
        raise ValueError("not what is expected")
    one = np.frombuffer(body, _PAIR, pairs)
    other = np.frombuffer(body, _FILE, files, pairs * _PAIR.itemsize)
    known = dict(zip(one["key"].tolist(), one["so"].astype(bool).tolist(), strict=True))
    return known, {row[0]: _holdings(row[1:]) for row in other.tolist()}


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
