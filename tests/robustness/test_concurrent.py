"""Readers and writers, all at once: nobody errs, and nobody misses what was committed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from imgsearch.collection import Collection
from imgsearch.errors import NoCollectionError
from imgsearch.querying.hits import Hit
from imgsearch.querying.options import QueryOptions
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.files import exclusive
from tests.support.commands import Run, imgsearch_command, run_python
from tests.support.depth import Harm
from tests.support.grower import Grower, clustered
from tests.support.pictures import picture, save_pictures
from tests.support.small_network import make_small_collection
from tests.support.soak import Used
from tests.support.soak_notes import STABLE, Place, States
from tests.support.tiny_pictures import embedding_of

ROOT = Path(__file__).parents[2]
THREADS = {"OMP_NUM_THREADS": "4"}

# Searches with OpenMP's threads, and forks then: the child uses what it inherits, and its own.
FORKING = """
import os, sys
import numpy
from imgsearch import Collection, InputError
directory = sys.argv[1]
queries = numpy.eye(48, dtype=numpy.float32)
pixels = numpy.arange(48, dtype=numpy.uint8).reshape(4, 4, 3)
with Collection.open(directory, device="cpu") as collection:
    expected = collection.query_many(queries, k=5, exact=True, arrays=True).ids
    collection.query(pixels)
    child = os.fork()
    if not child:
        for ask in (lambda: collection.query(queries[0]), lambda: collection.query(pixels)):
            try:
                ask()
            except InputError as error:
                print(error)
        with Collection.open(directory, device="cpu") as own:
            for exact in (True, False):
                same = own.query_many(queries, k=5, exact=exact, arrays=True).ids == expected
                print(same.all() if exact else same[:, 0].all(), len(own.query(pixels)))
        sys.stdout.flush()
        os._exit(0)
    print(os.waitpid(child, 0)[1], len(collection.query(pixels)))
"""


@dataclass
class Soak:
    """The processes of a soak test, and what was done to them."""

    place: Place
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    kills = suspended = refused = queries = 0

    def start(self, role: str) -> None:
        with (self.place.top / role).open("ab") as out:
            command = [sys.executable, "-m", "tests.support.soak", role, str(self.place.top)]
            self.processes[role] = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out)

    def runs(self) -> int:
        """Count the runs that the writer has done."""
        return self.place.notes.read_text().count("done")

    def wait_for_runs(self, count: int, *, seconds: float = 60) -> bool:
        wanted, until = self.runs() + count, time.monotonic() + seconds
        while self.runs() < wanted and time.monotonic() < until:
            assert self.processes["write"].poll() is None, self.out("write")
            time.sleep(0.02)
        return self.runs() >= wanted

    def out(self, role: str) -> str:
        return (self.place.top / role).read_text()

    # What is done meanwhile

    def kill_the_writer(self) -> None:
        self.wait_for_runs(random.Random(self.kills).randint(1, 6))
        time.sleep(random.Random(self.kills).uniform(0, 0.2))
        self.processes["write"].kill()
        assert self.processes["write"].wait() == -signal.SIGKILL, self.out("write")
        self.kills += 1
        self.start("write")

    def suspend_a_reader(self) -> None:
        reader = self.processes["keep"]
        reader.send_signal(signal.SIGSTOP)
        try:
            # If it holds a lock on the catalog, the writer waits for it.
            self.suspended += self.wait_for_runs(4, seconds=4)
        finally:
            reader.send_signal(signal.SIGCONT)

    def start_another_writer(self) -> None:
        command = imgsearch_command("-c", self.place.collection, "index", "--prune")
        ended = run_python(command, cwd=ROOT)
        assert ended.code in (0, 5), ended
        if ended.code == 5:
            assert ended.err.count("\n") == 1
            assert "try again" in ended.err
            self.refused += 1

    def query(self) -> None:
        seed = self.runs() % STABLE
        states = States(self.place)
        image = self.place.tree / f"stable/{seed}.png"
        how = ([], ["--exact"], ["--nprobe", "1000"])[self.queries % 3]
        arguments: list[str | Path] = [
            "-c",
            self.place.collection,
            "query",
            image,
            "-k",
            "10000",
            "--json",
            "--include-self",
            "--all",
            *how,
        ]
        ended = run_python(imgsearch_command(*arguments), cwd=ROOT)
        assert (ended.code, ended.err) == (0, "")
        hits = [Hit(**hit) for hit in json.loads(ended.out)["hits"]]
        found = states.end()
        found.check(hits, embedding_of(seed), self.place.tree, whole=True)
        self.queries += 1

    def ask_for_info(self) -> None:
        states = States(self.place)
        command = imgsearch_command("-c", self.place.collection, "info", "--json")
        ended = run_python(command, cwd=ROOT)
        assert (ended.code, ended.err) == (0, "")
        found = states.end()
        assert len(found.must) <= json.loads(ended.out)["images"] <= len(found.may)
        self.queries += 1


@contextmanager
def soaking(place: Place, *roles: str) -> Iterator[Soak]:
    """Let processes play these roles meanwhile; assert that all of them end well."""
    soak = Soak(place)
    try:
        for role in roles:
            soak.start(role)
        yield soak
        place.stop_writing.touch()
        if "write" in soak.processes:
            assert soak.processes["write"].wait(timeout=100) == 0, soak.out("write")
        place.stop.touch()
        for role, process in soak.processes.items():
            assert process.wait(timeout=100) == 0, soak.out(role)
    finally:
        for process in soak.processes.values():
            process.kill()
            process.wait()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A collection of images that are never touched, for a soak test."""
    place = Place(tmp_path.resolve())
    make_small_collection(place.collection)
    state = {f"stable/{seed}.png": seed for seed in range(STABLE)}
    for name, seed in state.items():
        place.write(name, seed)
    with Collection.open(place.collection, device="cpu") as collection:
        collection.index([place.tree / name for name in state])  # with the ids from 1 on
        collection.index(place.tree)
    place.note(state)
    place.note("done")
    return place


@pytest.mark.whole("test_a_collection_kept_open_answers_after_all_its_files_were_replaced")
def test_all_that_is_committed_is_found_while_a_writer_does_everything(
    place: Place, harm: Harm
) -> None:
    with soaking(place, "write", "keep", "share", "anew") as soak:
        until = time.monotonic() + harm.times(8, 150, fast=1)
        while time.monotonic() < until or not soak.suspended:
            for do in (
                soak.query,
                soak.suspend_a_reader,
                soak.ask_for_info,
                soak.kill_the_writer,
                soak.start_another_writer,
            ):
                do()
    states = States(place)
    state = states.last
    with Collection.open(place.collection, device="cpu") as collection:
        hits = collection.query(embedding_of(0), k=10_000, exact=True)
    states.end().check(hits, embedding_of(0), place.tree, whole=True)
    assert len(hits) == len(state)
    used = [
        [Used(**json.loads(line)) for line in soak.out(role).splitlines()]
        for role in ("keep", "share")
    ]
    for samples in used:
        does_not_grow(samples)
    queries = soak.queries + int(soak.out("anew")) + sum(each[-1].queries for each in used)
    harm.done("queries while others wrote", queries)
    harm.done("kills", soak.kills)
    harm.done("suspended readers", soak.suspended)


def does_not_grow(samples: list[Used]) -> None:
    """Assert that a process that queries all the time does not use more and more."""
    third = len(samples) // 3
    middle, last = samples[third : 2 * third], samples[2 * third :]
    assert samples[-1].deleted == 0
    for used in (*middle, *last):
        assert used.files < 40
        assert used.threads <= 16
        assert used.deleted < 40
    # The least of many, for what one query needs comes and goes.
    memory = [min(used.memory for used in part) for part in (middle, last)]
    assert memory[1] - memory[0] < 12 << 20


def test_a_second_writer_is_told_so_in_one_line_and_is_served_later(
    indexed: Path, tmp_path: Path, run: Run
) -> None:
    (new,) = save_pictures(tmp_path / "new", 1, first=100)
    writes: tuple[list[str | Path], ...] = (["index", new], ["index"], ["remove", new])
    with exclusive(indexed):
        for arguments in writes:
            ended = run("-c", indexed, *arguments)
            assert (ended.code, ended.out) == (5, "")
            assert ended.err.count("\n") == 1
            assert "another imgsearch is writing" in ended.err
        assert run("-c", indexed, "query", new).code == 0
        assert run("-c", indexed, "info").code == 0
    for arguments in writes:
        assert run("-c", indexed, *arguments).code == 0


def test_a_collection_kept_open_answers_after_all_its_files_were_replaced(empty: Path) -> None:
    with Grower(empty) as grower, Collection.open(empty, device="cpu") as collection:
        vectors = clustered(300, seed=1)
        grower.add(vectors)
        grower.fold()
        assert len(collection.query(vectors[0], k=1_000)) == 300
        before = {path for path in empty.rglob("0*") if path.is_file()}
        for seed in range(2, 8):
            grower.remove(np.arange(300 * (seed - 2) + 1, 300 * (seed - 2) + 201))
            grower.add(clustered(300, seed=seed))
            grower.fold()
        assert before
        assert not [path for path in before if path.exists()]
        ways: list[QueryOptions] = [
            {"k": 10_000, "exact": True},
            {"k": 10_000, "nprobe": 1_000},
            {"k": 10_000},
        ]
        for way in ways:
            hits = collection.query(vectors[250], **way)
            assert len(hits) == 7 * 300 - 6 * 200
            assert (hits[0].id, hits[0].distance) == (251, 0)


def test_an_image_is_left_out_by_its_path_though_a_writer_has_just_replaced_it(
    opened: Collection, indexed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path, *_) = save_pictures(tmp_path / "own", 2, first=200)
    opened.index(tmp_path / "own")
    look_up = Catalog.id_of
    looked: list[int | None] = []

    def then_replace(self: Catalog, path_bytes: bytes) -> int | None:
        id_ = look_up(self, path_bytes)
        looked.append(id_)
        if len(looked) == 1:
            picture(300).save(path)
            with Collection.open(indexed, device="cpu") as other:
                other.index(path)
        return id_

    monkeypatch.setattr(Catalog, "id_of", then_replace)
    hits = opened.query(path, k=100)
    assert len(hits) == 41
    assert str(path) not in {hit.path for hit in hits}
    assert len(set(looked)) > 1


def _delete(directory: Path, _: Path) -> None:
    shutil.rmtree(directory)


def _move(directory: Path, other: Path) -> None:
    directory.rename(other.with_name("elsewhere"))


def _rebuild(directory: Path, _: Path) -> None:
    shutil.rmtree(directory)
    make_small_collection(directory)


def _replace(directory: Path, other: Path) -> None:
    directory.rename(other.with_name("elsewhere"))
    other.rename(directory)


def _restore(directory: Path, other: Path) -> None:
    shutil.rmtree(directory)
    shutil.copytree(other, directory)


@pytest.mark.few(1)
@pytest.mark.parametrize("away", [_delete, _move, _rebuild, _replace, _restore])
@pytest.mark.parametrize("warm", [True, False], ids=["after a query", "before any"])
def test_a_collection_whose_directory_becomes_another_says_so(
    empty: Path, tmp_path: Path, away: Callable[[Path, Path], None], *, warm: bool
) -> None:
    other = make_small_collection(tmp_path / "other")
    for directory, seed in ((empty, 1), (other, 2)):
        with Grower(directory) as grower:
            grower.add(clustered(300, seed=seed))
            grower.fold()
    query = clustered(300, seed=1)[0]
    with Collection.open(empty, device="cpu") as collection:
        if warm:
            assert collection.query(query)[0].distance == 0
        away(empty, other)
        for ask in (
            lambda: collection.query(query),
            lambda: collection.query(query, exact=True),
            lambda: collection.query_many(query[None], arrays=True),
            collection.info,
        ):
            with pytest.raises(NoCollectionError, match="moved, deleted or replaced"):
                ask()
    if (empty / "collection.json").exists():
        with Collection.open(empty, device="cpu") as collection:
            assert len(collection.query(query, k=300)) == collection.info().images


@pytest.mark.whole("test_a_collection_kept_open_answers_after_all_its_files_were_replaced")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_to_open_the_collection_itself(empty: Path, tmp_path: Path) -> None:
    with Grower(empty) as grower:
        grower.add(clustered(3_000, seed=1))
        grower.fold()
    ended = run_python([sys.executable, "-c", FORKING, str(empty)], cwd=tmp_path, env=THREADS)
    refusal = f"the collection at {empty} was opened before this process was forked"
    assert ended.err == ""
    assert ended.out.splitlines() == [
        f"{refusal}; open it in each process",
        f"{refusal}; open it in each process",
        "True 10",
        "True 10",
        "0 10",
    ]
