"""The processes of a soak test: one writes to a collection all the time, others query it.

`python -m tests.support.soak write|keep|share|anew FOLDER` runs one until there is a file `stop`.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil

from imgsearch.collection import Collection
from imgsearch.errors import ImgsearchError
from imgsearch.indexing.policy import FoldPolicy
from imgsearch.querying import view
from imgsearch.querying.options import QueryOptions
from imgsearch.storage import shards
from tests.support.embedding_here import EngineInProcess
from tests.support.injection import index_with
from tests.support.random_writer import Writer
from tests.support.soak_notes import STABLE, Place, States
from tests.support.tiny_pictures import embedding_of, pixels_of

__all__ = ["Used", "anew", "ask", "keep", "often"]

ALL = 100_000  # hits: more than there are images


def ask(collection: Collection, place: Place, states: States, chance: random.Random) -> None:
    """Ask one of many questions, and assert that the answer is right."""
    seed = chance.randrange(STABLE)
    name, own = f"stable/{seed}.png", embedding_of(seed)
    way = chance.choice(["exact", "lists", "wide", "own", "self", "near", "arrays", "info"])
    states.begin()
    if way in ("exact", "lists", "wide"):
        ways: dict[str, QueryOptions] = {
            "exact": {"k": ALL, "exact": True},
            "lists": {"k": ALL, "nprobe": 1_000},
            "wide": {"k": ALL},
        }
        hits = collection.query(pixels_of(seed), **ways[way])
        states.end().check(hits, own, place.tree, whole=True)
    elif way == "own":
        recall = chance.choice([None, 0.5, 0.99, 1])
        hits = collection.query(own, k=5, recall=recall, include_self=True)
        states.end().check(hits, own, place.tree, whole=False)
        assert (hits[0].path, len(hits)) == (str(place.tree / name), 5)
        assert hits[0].distance < 1e-6
    elif way == "self":
        hits = collection.query(place.tree / name, k=ALL)
        assert str(place.tree / name) not in {hit.path for hit in hits}
        states.end().check(hits, own, place.tree, whole=False)
    elif way == "near":
        queries = np.stack([embedding_of(number) for number in range(5)])
        found = collection.query_many(queries, k=ALL, min_similarity=0.5)
        ended = states.end()
        for query, hits in zip(queries, found, strict=True):
            ended.check(hits, query, place.tree, whole=False)
            assert hits[0].distance < 1e-6
            assert all(hit.similarity > 0.4999 for hit in hits)
    elif way == "arrays":
        queries = np.stack([embedding_of(number) for number in range(STABLE)])
        arrays = collection.query_many(queries, k=3, arrays=True, nprobe=chance.randint(1, 4))
        assert arrays.ids[:, 0].tolist() == list(range(1, STABLE + 1))
        assert float(arrays.distances[:, 0].max()) < 1e-6
    else:
        images = collection.info().images
        found_now = states.end()
        assert len(found_now.must) <= images <= len(found_now.may)


@dataclass(frozen=True, slots=True)
class Used:
    """What a process uses: memory of its own in bytes, open files, threads, deleted files."""

    seconds: float
    queries: int
    memory: int
    files: int
    threads: int
    deleted: int

    @classmethod
    def now(cls, started: float, queries: int) -> Used:
        process = psutil.Process()
        maps = {each.path for each in process.memory_maps(grouped=False)}
        return cls(
            *(time.monotonic() - started, queries, process.memory_full_info().uss),
            *(process.num_fds(), process.num_threads()),
            sum("/collection/" in path and not Path(path).exists() for path in maps),
        )


def keep(place: Place, *, threads: int, report: Callable[[Used], None]) -> None:
    """Keep one `Collection`, ask it from several threads, and report what that uses."""
    counts, errors = [0] * threads, list[BaseException]()
    with Collection.open(place.collection, device="cpu") as collection:

        def read(number: int) -> None:
            states, chance = States(place), random.Random(number)
            try:
                while not place.stop.exists() and not errors:
                    ask(collection, place, states, chance)
                    counts[number] += 1
            except BaseException as error:
                errors.append(error)

        readers = [threading.Thread(target=read, args=(number,)) for number in range(threads)]
        for reader in readers:
            reader.start()
        started = time.monotonic()
        while any(reader.is_alive() for reader in readers):
            readers[0].join(timeout=0.5)
            report(Used.now(started, sum(counts)))
        for error in errors:
            raise error
        collection.query(pixels_of(0), k=ALL)
        report(Used.now(started, sum(counts)))


def anew(place: Place) -> int:
    """Open the collection for each question; return how many were asked."""
    states, chance, asked = States(place), random.Random(9), 0
    while not place.stop.exists():
        with Collection.open(place.collection, device="cpu") as collection:
            ask(collection, place, states, chance)
        asked += 1
    return asked


def often() -> None:
    """Let everything that happens to large collections happen to small ones."""
    policy = FoldPolicy(
        commit_files=3,
        small_shard=16,
        ivf_from=30,
        tail_least=4,
        tail_most=10,
        segments=3,
        ranked_from=20,
    )
    index_with(policy=policy, engine=EngineInProcess())
    shards.MAPPED, view.TAIL_KEPT = 4, 1_000


def tell(value: object) -> None:
    """Write a line for the test."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def main(role: str, top: str) -> None:
    """Play one role until there is a file `stop`."""
    place = Place(Path(top))
    often()
    if role == "write":
        writer = Writer(place, seed=place.notes.stat().st_size)
        writer.resume()
        while not place.stop_writing.exists():
            writer.step()
    elif role == "anew":
        tell(anew(place))
    else:
        threads = {"keep": 1, "share": 3}[role]
        keep(place, threads=threads, report=lambda used: tell(asdict(used)))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except ImgsearchError as failure:
        sys.exit(f"{type(failure).__name__}: {failure}")
