"""Damage a collection as a disk does, and see what is left of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from imgsearch.collection import Collection
from tests.support.grower import clustered

__all__ = ["DAMAGE", "answers", "files_of"]

QUERIES = clustered(5, seed=99)


def files_of(directory: Path) -> list[Path]:
    """Return the files of a collection that hold anything, relative to it."""
    files = (path for path in directory.rglob("*") if path.is_file() and path.stat().st_size)
    return sorted(path.relative_to(directory) for path in files)


def answers(directory: Path) -> list[list[tuple[str, float]]]:
    """Return all images in the order of their distances from a few queries."""
    with Collection.open(directory, device="cpu") as collection:
        found = collection.query_many(QUERIES, k=1_000, exact=True, rank="cosine")
        assert collection.info().images == len(found[0])
    return [[(hit.path, round(hit.distance, 5)) for hit in hits] for hits in found]


def _flip_a_bit(content: bytearray, chance: random.Random) -> None:
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)


def _flip_near_the_start(content: bytearray, chance: random.Random) -> None:
    content[chance.randrange(min(len(content), 120))] ^= chance.randrange(1, 256)


def _change_a_byte(content: bytearray, chance: random.Random) -> None:
    content[chance.randrange(len(content))] ^= chance.randrange(1, 256)


def _cut_off(content: bytearray, chance: random.Random) -> None:
    del content[chance.randrange(len(content)) :]


def _cut_off_a_little(content: bytearray, chance: random.Random) -> None:
    del content[-chance.randrange(1, min(8, len(content))) :]


def _append(content: bytearray, chance: random.Random) -> None:
    content += chance.randbytes(chance.randrange(1, 9))


def _lose_a_block(content: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(content)) // 512 * 512
    block = slice(start, min(start + 512, len(content)))
    content[block] = bytes(value ^ 0xFF for value in content[block])


#: What may happen to the content of a file, by what it is called.
DAMAGE: dict[str, Callable[[bytearray, random.Random], None]] = {
    "bit flips": _flip_a_bit,
    "damaged headers": _flip_near_the_start,
    "damaged bytes": _change_a_byte,
    "truncations": _cut_off,
    "truncations by a few bytes": _cut_off_a_little,
    "appended bytes": _append,
    "damaged blocks": _lose_a_block,
}
