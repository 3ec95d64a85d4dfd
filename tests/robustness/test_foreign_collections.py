"""A collection that somebody else made is used without harm: nothing but itself is ever touched."""

from __future__ import annotations

import hashlib
import random
import re
import resource
import shutil
import sqlite3
import stat
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from imgsearch.collection import Collection
from imgsearch.errors import DamagedError, ImgsearchError
from imgsearch.maintenance.damage import Part
from imgsearch.maintenance.verify import verify
from imgsearch.storage.layout import Layout
from imgsearch.storage.seal import reseal
from tests.support.aged_collection import LivedIn, in_this_process
from tests.support.commands import imgsearch_command
from tests.support.depth import Harm
from tests.support.forked import Fate, play_apart
from tests.support.malicious_collections import (
    FILES,
    JOURNALS,
    PLACES,
    SCHEMAS,
    Victims,
    change_a_row,
    in_its_place,
    journal,
)
from tests.support.pictures import picture
from tests.support.small_network import random_embeddings
from tests.support.strace import run_traced

MEMORY = 3 << 30  # bytes of address space, of which threads take most


def use(directory: str) -> str:
    """Use a collection in all ways, whatever comes of the one before; return the errors."""
    resource.setrlimit(resource.RLIMIT_AS, (_mapped() + MEMORY, resource.RLIM_INFINITY))
    ways: list[Callable[[Collection], object]] = [
        lambda collection: collection.query_many(random_embeddings(3), k=100),
        lambda collection: collection.query_many(random_embeddings(3), k=100, exact=True),
        lambda collection: collection.query(picture(0)),
        lambda collection: collection.info(),
        lambda collection: collection.index(),
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
        for repair in (False, True):
            try:
                report = verify(directory, repair=repair, workers=1)
                errors += [f"{damage.file}: {damage.reason}" for damage in report.damages]
            except ImgsearchError as error:
                errors.append(f"{error}")
    return "\n".join(errors)


def _mapped() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


class Foreign:
    """Copies of a collection, each with victims beside it, that are altered and then used."""

    def __init__(self, original: Path, folder: Path) -> None:
        self._original = original
        self._folder = folder
        self._victims: dict[Path, Victims] = {}
        self._told: dict[str, str] = {}

    def add(self, told: str) -> tuple[Path, Victims]:
        """Return one more copy, and its victims."""
        number = len(self._told)
        place = self._folder / f"{number}"
        place.mkdir()
        directory = shutil.copytree(self._original, place / "collection")
        victims = Victims(place / "victims").make()
        self._victims[directory] = victims
        self._told[str(directory)] = told
        return directory, victims

    def call(self, directory: Path, told: str) -> None:
        """Say what was done to a copy."""
        self._told[str(directory)] = told

    def use(self) -> list[tuple[str, Fate]]:
        """Use all copies, and check that each is refused or used, and its victims are whole."""
        before = {directory: victims.state() for directory, victims in self._victims.items()}
        fates = play_apart(use, self._told)
        for fate, (directory, told) in zip(fates, self._told.items(), strict=True):
            assert fate.status == 0, f"{told}: {fate.said}"
            victims = self._victims[Path(directory)]
            assert victims.state() == before[Path(directory)], told
            beside = {path.name for path in Path(directory).parent.iterdir()}
            assert beside == {"collection", "victims"}, told
        return list(zip(self._told.values(), fates, strict=True))


@pytest.fixture
def foreign(lived_in: LivedIn, tmp_path: Path) -> Foreign:
    (tmp_path / "foreign").mkdir()
    return Foreign(lived_in.directory, tmp_path / "foreign")


@pytest.fixture
def directory(lived_in: LivedIn) -> Path:
    return lived_in.directory


@pytest.fixture
def victims(tmp_path: Path) -> Victims:
    return Victims(tmp_path / "victims").make()


# Each kind of harm, many times


def test_whatever_is_in_the_place_of_a_file_nothing_outside_is_touched(
    foreign: Foreign, harm: Harm
) -> None:
    cases = [(place, what) for place in PLACES for what in FILES]
    chance = random.Random(16)
    for place, what in chance.sample(cases, harm.times(40, len(cases), fast=2)):
        copy, victims = foreign.add(f"{place}: {what}")
        in_its_place(copy, place, what, victims)
    harm.done("foreign files", len(foreign.use()))


@pytest.mark.whole("test_a_journal_that_names_a_file_is_refused_and_the_file_is_kept")
def test_no_journal_reaches_beyond_its_database(foreign: Foreign, harm: Harm) -> None:
    for name, make in JOURNALS.items():
        for catalog in ("catalog.sqlite", "catalog.copy"):
            copy, victims = foreign.add(f"{catalog}: {name}")
            content = make(copy / catalog, victims.folder / "id_rsa")
            (copy / f"{catalog}-journal").write_bytes(content)
    chance = random.Random(17)
    for number in range(harm.times(4, 300, fast=2)):
        copy, victims = foreign.add(f"journal {number}")
        name = chance.choice(sorted(JOURNALS))
        made = bytearray(JOURNALS[name](copy / "catalog.sqlite", victims.folder / "id_rsa"))
        for _ in range(chance.randrange(1, 5)):
            made[chance.randrange(len(made))] ^= 1 << chance.randrange(8)
        (copy / "catalog.sqlite-journal").write_bytes(made)
    found = foreign.use()
    for told, fate in found:
        if told.startswith("catalog.sqlite:"):
            assert "catalog.sqlite-journal" in fate.said, told
    harm.done("foreign journals", len(found))


def test_no_schema_but_ours_is_used(foreign: Foreign, harm: Harm) -> None:
    for name in sorted(SCHEMAS)[:: harm.times(1, 1, fast=3)]:
        SCHEMAS[name](foreign.add(name)[0])
    found = foreign.use()
    for told, fate in found:
        assert "catalog.sqlite is damaged" in fate.said, f"{told}: {fate.said}"
    harm.done("foreign schemas", len(found))


@pytest.mark.whole("test_no_schema_but_ours_is_used")
def test_no_number_of_a_catalog_is_believed(foreign: Foreign, harm: Harm) -> None:
    chance = random.Random(18)
    for number in range(harm.times(25, 1_000)):
        copy, _ = foreign.add(f"row {number}")
        foreign.call(copy, change_a_row(copy, chance))
    harm.done("foreign rows", len(foreign.use()))


@pytest.mark.parametrize(
    "change", ["nlist = 0", "nlist = -1", "recall = 0.0", "recall = 9e999", "pca = 0"]
)
def test_impossible_settings_are_damage(directory: Path, change: str) -> None:
    with closing(sqlite3.connect(directory / "catalog.sqlite")) as catalog, catalog:
        catalog.execute(f"UPDATE settings SET {change}")
    with pytest.raises(DamagedError, match="settings of nlist"):
        Collection.open(directory, device="cpu")


@pytest.mark.whole("test_no_schema_but_ours_is_used")
def test_no_number_of_an_index_or_a_shard_is_believed(foreign: Foreign, harm: Harm) -> None:
    chance = random.Random(19)
    for number in range(harm.times(25, 1_000)):
        copy, _ = foreign.add(f"file {number}")
        file = chance.choice([*copy.glob("vectors/*.npy"), *copy.glob("segments/*.faiss")])
        content = bytearray(file.read_bytes())
        at = chance.randrange(min(len(content) - 8, 600))
        value = chance.choice([0, 1, 2**31, 2**40, 2**62, 2**63 - 1, 2**64 - 1])
        content[at : at + 8] = struct.pack("<Q", value)
        if chance.random() < 0.3:
            content = content[: chance.randrange(len(content))]
        file.write_bytes(content)
        vouch_for(copy, file)
        foreign.call(copy, f"{file.name} at {at}: {value}")
    harm.done("foreign numbers in files", len(foreign.use()))


def vouch_for(directory: Path, file: Path) -> None:
    """Let the catalog say that a file is what was written, as who made it can."""
    sha256 = hashlib.sha256(file.read_bytes()).digest()
    number = int(file.name.partition(".")[0])
    with closing(sqlite3.connect(directory / "catalog.sqlite")) as catalog, catalog:
        if file.suffix == ".faiss":
            catalog.execute(
                "UPDATE segments SET sha256 = ?, size = ? WHERE number = ?",
                (sha256, file.stat().st_size, number),
            )
        else:
            column = "ids_sha256" if ".ids." in file.name else "sha256"
            catalog.execute(f"UPDATE shards SET {column} = ? WHERE number = ?", (sha256, number))
    reseal(Layout(directory))


# One by one


@pytest.mark.parametrize("command", ["info", "verify", "query", "index"])
def test_a_journal_that_names_a_file_is_refused_and_the_file_is_kept(
    directory: Path, victims: Victims, command: str, photos: Path
) -> None:
    victim = victims.folder / "id_rsa"
    beside = directory / "catalog.sqlite-journal"
    beside.write_bytes(journal(directory / "catalog.sqlite", victim))
    if command == "verify":
        (found,) = verify(directory).damages
        assert (found.part, found.file) == (Part.CATALOG, "catalog.sqlite")
        assert "catalog.sqlite-journal names another file" in found.reason
    else:
        with pytest.raises(DamagedError, match=r"catalog\.sqlite-journal names another file"):
            Collection.open(directory, device="cpu").query(photos / "0003.png")
    assert victim.exists()
    assert beside.exists()


def test_a_catalog_with_a_foreign_journal_is_repaired_from_its_copy(
    lived_in: LivedIn, directory: Path, victims: Victims
) -> None:
    victim = victims.folder / "id_rsa"
    beside = directory / "catalog.sqlite-journal"
    beside.write_bytes(journal(directory / "catalog.sqlite", victim))
    with in_this_process():
        assert verify(directory, repair=True).left == ()
    assert victim.exists()
    assert not beside.exists()
    with Collection.open(directory, device="cpu") as collection:
        assert collection.info().images == len(lived_in.held)


@pytest.mark.parametrize("part", ["vectors", "segments"])
def test_folders_that_are_links_are_refused_and_nothing_behind_them_is_deleted(
    directory: Path, victims: Victims, part: str
) -> None:
    for file in (directory / part).iterdir():
        file.rename(victims.folder / f"moved {file.name}")
    (directory / part).rmdir()
    (directory / part).symlink_to(victims.folder)
    before = victims.state()
    with pytest.raises(DamagedError, match=f"{part} is a link"):
        Collection.open(directory, device="cpu")
    for repair in (False, True):
        (found,) = verify(directory, repair=repair, workers=1).left
        assert (found.part, found.file, found.reason) == (Part.FOREIGN, part, "is a link")
    assert victims.state() == before


def test_the_directory_itself_may_be_reached_by_a_link(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(directory)
    with in_this_process(), Collection.open(tmp_path / "link", device="cpu") as collection:
        images = collection.info().images
        assert len(collection.query(picture(0), k=1_000)) == images
        collection.index()
    assert verify(tmp_path / "link").damages == ()


def test_a_file_that_is_a_link_is_repaired_and_what_it_led_to_is_left_alone(
    directory: Path, tmp_path: Path
) -> None:
    shard = sorted(directory.glob("vectors/*.npy"))[0]
    moved = shard.rename(tmp_path / "moved.npy")
    before = moved.read_bytes()
    shard.symlink_to(moved)
    with in_this_process():
        (found,) = verify(directory).damages
        assert (found.part, found.reason) == (Part.SHARD, "is a link")
        assert verify(directory, repair=True).left == ()
    assert moved.read_bytes() == before
    assert not any(path.is_symlink() for path in directory.rglob("*"))


def test_verify_tells_of_files_that_it_does_not_know_and_of_a_lock_that_is_not_empty(
    directory: Path,
) -> None:
    (directory / "notes.txt").write_text("mine")
    (directory / "vectors" / "mine.npy").write_text("mine")
    (directory / "lock").write_text("12345")
    report = verify(directory)
    assert report.damages == ()
    assert {each.file: each.reason for each in report.oddities} == {
        "notes.txt": "is a file that imgsearch does not know",
        "vectors/mine.npy": "is a file that imgsearch does not know",
        "lock": "has 5 bytes; imgsearch leaves it empty",
    }
    (directory / "notes.txt").unlink()
    (directory / "notes.txt").symlink_to("/etc/passwd")
    (found,) = verify(directory).damages
    assert (found.part, found.file) == (Part.FOREIGN, "notes.txt")
    assert found.reason == "is a link, which imgsearch never makes"


def test_a_new_collection_is_closed_to_others_and_an_old_one_stays_as_it_is(
    directory: Path, tmp_path: Path, photos: Path
) -> None:
    Layout(tmp_path / "new").make_folders()
    for folder in (tmp_path / "new", tmp_path / "new" / "vectors"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in [directory, *directory.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    with in_this_process(), Collection.open(directory, device="cpu") as collection:
        collection.index(photos / "0003.png", nlist=2)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in directory.rglob("*")}
    assert modes == {0o755, 0o644}


@pytest.mark.whole("test_folders_that_are_links_are_refused_and_nothing_behind_them_is_deleted")
def test_what_only_reads_writes_nowhere(
    directory: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "1")  # of which another test is
    before = {path: path.lstat().st_mtime_ns for path in [directory, *directory.rglob("*")]}
    for command in (["info"], ["query", str(photos / "0003.png")]):
        traced = run_traced(
            imgsearch_command("-c", directory, *command),
            tmp_path / "strace",
            "open,openat,creat,unlink,unlinkat,rename,renameat,renameat2,mkdir,mkdirat,truncate",
        )
        assert traced.code == 0, traced.err
        writing = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|^(unlink|rename|mkdir|creat|trunc)")
        lines = [line for line in traced.lines if writing.search(line) and " = -1 " not in line]
        allowed = re.compile(r'"/(dev|proc|sys)/|__pycache__|\.pyc|/\.coverage\.')
        assert [line for line in lines if not allowed.search(line)] == []
    after = {path: path.lstat().st_mtime_ns for path in [directory, *directory.rglob("*")]}
    assert after == before


def test_who_only_reads_takes_a_killed_transaction_back(directory: Path, lived_in: LivedIn) -> None:
    copy = (directory / "catalog.sqlite").read_bytes()
    with Collection.open(directory, device="cpu") as collection:
        assert collection.info().images == len(lived_in.held)
        leave_a_hot_journal(directory)
        assert collection.info().images == len(lived_in.held)
        assert len(collection.query_many(random_embeddings(1), k=1_000)[0]) == len(lived_in.held)
    assert (directory / "catalog.sqlite").read_bytes() == copy


def leave_a_hot_journal(directory: Path) -> None:
    """Leave what a transaction that was killed leaves."""
    catalog = directory / "catalog.sqlite"
    other = sqlite3.connect(catalog, isolation_level=None)
    other.execute("PRAGMA cache_size = 1")
    other.execute("BEGIN IMMEDIATE")
    other.execute("UPDATE images SET size = 7")
    rows = [(n, b"x" * 99) for n in range(10_000, 19_000)]
    other.executemany("INSERT INTO removed VALUES (?, ?, 0)", rows)
    beside = catalog.with_name(f"{catalog.name}-journal")
    torn, kept = catalog.read_bytes(), beside.read_bytes()
    other.execute("ROLLBACK")
    other.close()
    catalog.write_bytes(torn)
    beside.write_bytes(kept)
