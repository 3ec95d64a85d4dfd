"""What somebody judged not to be copies of one another: sets of contents, in one small file.

The file is replaced as a whole. Every line has a checksum of its own, so that damage to one
judgement leaves the others readable.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from imgsearch.errors import REPAIR_IT, DamagedError
from imgsearch.storage.files import read_file, write_atomically
from imgsearch.storage.layout import Layout

__all__ = ["Apart", "Distinct", "read_distinct", "salvage_distinct", "write_distinct"]

_MOST = 256 << 20  # bytes of the file: a million pairs take half as many
_FORMAT, _VERSION = "imgsearch not-duplicates", 1
_CHECK = 8  # hex digits of the SHA-256 of the rest of a line
_LINE = re.compile(rb"[0-9a-f]{8}( [0-9a-f]{64}){2,}")


@dataclass(frozen=True, slots=True)
class Distinct:
    """Sets of contents, by digest, of which no two are copies of one another.

    A set of the same digest twice says that all files with this content are to stay.
    """

    sets: tuple[tuple[bytes, ...], ...] = ()

    def with_set(self, digests: Sequence[bytes]) -> Distinct:
        """Return these judgements and that no two of some files are copies of one another.

        Args:
            digests: Their digests, at least two; files of the same content have the same digest.
        """
        several = tuple(dict.fromkeys(digests))
        twice = [(each, each) for each in several if digests.count(each) > 1]
        new = [several] if len(several) > 1 else []
        known = set(map(_as_key, self.sets))
        return Distinct(
            (*self.sets, *(each for each in (*new, *twice) if _as_key(each) not in known))
        )

    def without(self, digests: Sequence[bytes]) -> Distinct:
        """Return these judgements except those of any two of some files; `digests` as above."""
        gone = set(digests)
        kept: list[tuple[bytes, ...]] = []
        for each in self.sets:
            some = [digest for digest in dict.fromkeys(each) if digest in gone]
            rest = tuple(digest for digest in each if digest not in gone)
            if each[0] == each[-1]:  # one content: the same digest twice
                kept += [] if digests.count(each[0]) > 1 else [each]
            elif len(some) < 2:
                kept.append(each)
            else:
                kept += [(digest, *rest) for digest in some if rest]
        return Distinct(tuple(dict.fromkeys(kept)))

    def apart(self) -> Apart:
        """Return these judgements in a form that answers questions about pairs."""
        places: dict[bytes, set[int]] = {}
        for number, each in enumerate(self.sets):
            for digest in each:
                places.setdefault(digest, set()).add(number)
        return Apart(places, frozenset(each[0] for each in self.sets if each[0] == each[-1]))


@dataclass(frozen=True, slots=True)
class Apart:
    """The sets that each digest is in, and the digests whose files all stay."""

    places: dict[bytes, set[int]]
    alone: frozenset[bytes]

    def are_apart(self, one: bytes, other: bytes) -> bool:
        """Tell whether two files were judged not to be copies of one another."""
        if one == other:
            return one in self.alone
        return not self.places.get(one, _NONE).isdisjoint(self.places.get(other, _NONE))


_NONE: set[int] = set()


def read_distinct(layout: Layout) -> Distinct:
    """Return the judgements kept in a collection; none if there is no such file.

    Raises:
        DamagedError: If the file is damaged.
        StorageError: If it cannot be read.
    """
    sets, sound = _read(layout)
    if not sound:
        raise DamagedError(f"{layout.distinct} is damaged; {REPAIR_IT}")
    return Distinct(sets)


def salvage_distinct(layout: Layout) -> Distinct:
    """Return the judgements that a damaged file still holds; none if it is a link, for example.

    Raises:
        StorageError: If it cannot be read.
    """
    try:
        return Distinct(_read(layout)[0])
    except DamagedError:
        return Distinct()


def write_distinct(layout: Layout, distinct: Distinct) -> None:
    """Replace the judgements kept in a collection; for its writer only.

    Raises:
        StorageError: If the disk is full or cannot be written.
    """
    lines = b"".join(_lines(distinct.sets))
    content = _head(len(distinct.sets), lines) + b"\n" + lines
    write_atomically(layout.distinct, lambda sink: sink.write(content))


def _lines(sets: Iterable[Sequence[bytes]]) -> Iterator[bytes]:
    for each in sets:
        rest = " ".join(digest.hex() for digest in each).encode()
        yield _check_of(rest) + b" " + rest + b"\n"


def _check_of(rest: bytes) -> bytes:
    return hashlib.sha256(rest).hexdigest()[:_CHECK].encode()


def _read(layout: Layout) -> tuple[tuple[tuple[bytes, ...], ...], bool]:
    """Return the sound sets, and whether everything is as it was written."""
    try:
        content = read_file(layout.distinct, _MOST)
    except FileNotFoundError:
        return (), True
    first, _, lines = content.partition(b"\n")
    sets = [
        tuple(bytes.fromhex(each.decode()) for each in line.split()[1:])
        for line in lines.splitlines()
        if _LINE.fullmatch(line) and line[:_CHECK] == _check_of(line[_CHECK + 1 :])
    ]
    return tuple(sets), first == _head(len(sets), lines)


def _head(count: int, lines: bytes) -> bytes:
    sha256 = hashlib.sha256(lines).hexdigest()
    fields = {"format": _FORMAT, "version": _VERSION, "sets": count, "sha256": sha256}
    return json.dumps(fields).encode()


def _as_key(digests: Sequence[bytes]) -> tuple[bytes, ...]:
    return tuple(sorted(digests))
