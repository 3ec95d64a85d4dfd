"""Whoever opens a damaged collection is told so, and what to do: nobody has to verify it first."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from imgsearch.collection import Collection
from imgsearch.errors import DamagedError, ImgsearchError
from imgsearch.maintenance.damage import Part
from imgsearch.maintenance.verify import verify
from tests.support.aged_collection import LivedIn, holdings, in_this_process
from tests.support.damage import DAMAGE, files_of
from tests.support.depth import Harm
from tests.support.forked import play_apart
from tests.support.pictures import picture, save_pictures
from tests.support.small_network import random_embeddings

REMEDIES = (
    "imgsearch verify --repair",
    "update imgsearch",
    "into a new collection",
    "create one with",
)


def use(directory: str) -> str:
    """Use a collection in all ways, whatever comes of the one before; return the errors."""
    ways: list[Callable[[Collection], object]] = [
        lambda collection: collection.query_many(random_embeddings(3), k=100),
        lambda collection: collection.query_many(random_embeddings(3), k=100, exact=True),
        lambda collection: collection.query(picture(0)),
        lambda collection: collection.info(),
        lambda collection: collection.index(),
        lambda collection: collection.index(nlist=2),
        lambda collection: collection.remove("/*0100.jpg"),
    ]
    errors = []
    with in_this_process(), np.errstate(all="ignore"):
        for way in ways:
            try:
                with Collection.open(directory, device="cpu") as collection:
                    way(collection)
            except ImgsearchError as error:
                errors.append(f"{error}")
    return "\n".join(errors)


def test_a_damaged_collection_that_is_used_crashes_nobody(
    lived_in: LivedIn, tmp_path: Path, harm: Harm
) -> None:
    chance = random.Random(99)
    files = files_of(lived_in.directory)
    told: dict[str, str] = {}
    for number in range(harm.times(60, 3_000, fast=5)):
        victim = shutil.copytree(lived_in.directory, tmp_path / f"{number}")
        file, kind = chance.choice(files), list(DAMAGE)[number % len(DAMAGE)]
        content = bytearray((victim / file).read_bytes())
        DAMAGE[kind](content, chance)
        (victim / file).write_bytes(content)
        told[str(victim)] = f"{kind} of {file}"
    fates = play_apart(use, told)
    for fate, harmed in zip(fates, told.values(), strict=True):
        assert fate.status == 0, f"{harmed}: {fate.said}"
        for line in fate.said.splitlines():
            assert any(remedy in line for remedy in REMEDIES), f"{harmed}: {line}"
    assert sum("imgsearch verify --repair" in fate.said for fate in fates) > len(fates) // 3
    harm.done("damages met in use", len(fates))


def test_nothing_is_built_on_a_damaged_catalog(lived_in: LivedIn) -> None:
    catalog = lived_in.directory / "catalog.sqlite"
    content = bytearray(catalog.read_bytes())
    content[91] ^= 1  # reserved for the future: SQLite does not mind
    catalog.write_bytes(content)
    with Collection.open(lived_in.directory, device="cpu") as collection:
        for write in (collection.index, lambda: collection.remove("/*0100.jpg")):
            before = {
                path: (lived_in.directory / path).read_bytes()
                for path in files_of(lived_in.directory)
            }
            with pytest.raises(DamagedError, match="does not match its seal"):
                write()
            for path, there in before.items():
                assert (lived_in.directory / path).read_bytes() == there


# What is made of damaged files would have a checksum of its own, and pass for sound.


def alter(path: Path, at: int) -> None:
    """Make a number of a file another one: nothing notices but its checksum."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("file", "work"),
    [
        ("vectors/00000001.npy", "train"),
        ("vectors/00000006.npy", "file the tail"),
        ("segments/00000002.faiss", "purge"),
    ],
)
def test_no_index_is_made_of_damaged_files(
    lived_in: LivedIn, tmp_path: Path, file: str, work: str
) -> None:
    damaged = lived_in.directory / file
    alter(damaged, damaged.stat().st_size - 400)
    with in_this_process(), Collection.open(lived_in.directory, device="cpu") as collection:
        if work == "purge":
            collection.remove([lived_in.photos / f"010{n}.{kind}" for n, kind in PURGED])
        else:
            save_pictures(tmp_path / "more", 9, first=500)
        before = sorted(lived_in.directory.glob("segments/*"))
        with pytest.raises(
            DamagedError, match=f"{damaged} has changed since it was written; `imgsearch"
        ):
            collection.index(() if work == "purge" else tmp_path / "more", nlist=NLIST[work])
        assert sorted(lived_in.directory.glob("segments/*")) == before
        assert [found.file for found in verify(lived_in.directory).damages] == [file]
        assert verify(lived_in.directory, repair=True).left == ()
        collection.index()
        images = len(lived_in.held) + (-3 if work == "purge" else 9)
        assert len(holdings(lived_in.directory)) == images


PURGED = [(0, "jpg"), (1, "png"), (2, "jpg")]
NLIST = {"train": 2, "file the tail": 3, "purge": 3}


def test_shards_are_not_merged_where_one_is_damaged(empty: Path, tree: Path) -> None:
    with in_this_process(), Collection.open(empty, device="cpu") as collection:
        collection.index([tree / "0000.jpg", tree / "0001.png"])
        alter(empty / "vectors" / "00000001.npy", 200)
        with pytest.raises(DamagedError, match=r"00000001\.npy has changed since it was written"):
            collection.index([tree / "0002.jpg", tree / "0003.png"])
        assert [found.part for found in verify(empty).damages] == [Part.SHARD]
        assert verify(empty, repair=True).left == ()
        assert collection.index(tree).unchanged == 4
