"""Whatever happens to a collection, what its index finds is what a search by brute force finds."""

from __future__ import annotations

import functools
import itertools
import os
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from imgsearch.ann.vectors import Vectors
from imgsearch.collection import Collection
from imgsearch.indexing.policy import FoldPolicy
from imgsearch.querying import view
from imgsearch.querying.hits import Hit
from imgsearch.querying.options import Query, QueryOptions
from imgsearch.storage import shards
from tests.support.depth import Harm
from tests.support.embedding_here import EngineInProcess
from tests.support.killing import MOMENTS, Moment, do_and_die, preload
from tests.support.small_network import DIM, make_small_collection
from tests.support.tiny_pictures import content_of, embedding_of

Held: TypeAlias = dict[Path, int]  # the seed of the picture at each path

#: So that all that happens to large collections happens to small ones; in killed processes, too.
SMALL: list[tuple[Any, str, object]] = [
    (shards, "MAPPED", 2),
    (view, "TAIL_KEPT", 4 * DIM * 4),
]

POLICY = FoldPolicy(
    commit_files=3,
    ivf_from=12,
    tail_least=3,
    tail_most=6,
    segments=4,
    merge=1,
    segment_bytes=4 * DIM * 20,
    small_shard=6,
)
ENGINE = EngineInProcess(seed=2)

SEEDS = st.integers(0, 60)
NUMBERS = st.lists(st.integers(0, 10**6), min_size=1, max_size=6)
NLIST = st.one_of(*[st.none()] * 5, st.integers(1, 9))

preload(__name__)


def make_small() -> None:
    """Lower the thresholds for good, in a process that is to be killed."""
    for owner, name, value in SMALL:
        setattr(owner, name, value)


def index_all(collection: Collection, *, tree: Path, nlist: int | None) -> None:
    """Index without a fear of unplugged drives."""
    collection.index(tree, prune=True, nlist=nlist, policy=POLICY, engine=ENGINE)


def remove(collection: Collection, *, path: Path) -> None:
    """Take one image out."""
    collection.remove(path)


class Searching(RuleBasedStateMachine):
    """Does things to files and to their collection, and knows what the collection holds."""

    histories = kills = 0

    def __init__(self) -> None:
        super().__init__()
        shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.temporary = tempfile.TemporaryDirectory(dir=shared)
        self.tree = Path(self.temporary.name).resolve() / "tree"
        self.tree.mkdir()
        self.directory = make_small_collection(self.tree.with_name("collection"))
        self.collection = Collection.open(self.directory, device="cpu")
        self.files: Held = {}  # all pictures that there are
        self.held: Held = {}  # those in the collection
        self.out: set[Path] = set()  # files that were taken out of it
        self.names = itertools.count()
        self.patches = [patch.object(*change) for change in SMALL]
        for each in self.patches:
            each.start()

    def teardown(self) -> None:
        for each in self.patches:
            each.stop()
        self.collection.close()
        self.temporary.cleanup()
        Searching.histories += 1

    # What happens to the files

    @initialize(seeds=st.lists(SEEDS, min_size=1, max_size=40), nlist=NLIST)
    def begin(self, seeds: list[int], nlist: int | None) -> None:
        self.add(seeds)
        self.index([], nlist=nlist, recall=None)

    @rule(seeds=st.lists(SEEDS, min_size=1, max_size=12))
    def add(self, seeds: list[int]) -> None:
        for seed in seeds:
            self.write(self.new_path(), seed)

    @rule(numbers=NUMBERS, how=st.sampled_from(["change", "move", "copy"]))
    def alter(self, numbers: list[int], how: str) -> None:
        for path in self.pick(numbers):
            if how == "change":
                self.write(path, numbers[0] % 60)
            elif how == "copy":
                self.write(self.new_path(), self.files[path])
            else:
                new = self.new_path()
                path.rename(new)
                self.files[new] = self.files.pop(path)

    @rule(numbers=NUMBERS, keep=st.sampled_from([None, None, None, None, 0, 5]))
    def delete(self, numbers: list[int], keep: int | None) -> None:
        for path in self.pick(numbers) if keep is None else sorted(self.files)[keep:]:
            path.unlink()
            del self.files[path]

    # What happens to the collection

    @rule(
        seeds=st.lists(SEEDS, max_size=8),
        nlist=NLIST,
        recall=st.sampled_from([None, None, 0.5, 0.9, 1.0]),
    )
    def index(self, seeds: list[int], nlist: int | None, recall: float | None) -> None:
        self.add(seeds)
        self.collection.index(
            self.tree,
            prune=True,
            nlist=nlist,
            recall=recall,
            policy=POLICY,
            engine=ENGINE,
        )
        self.held = self.wanted()

    @rule(seeds=st.lists(SEEDS, max_size=12), moment=MOMENTS, nlist=NLIST)
    def index_and_be_killed(self, seeds: list[int], moment: Moment, nlist: int | None) -> None:
        self.add(seeds)
        wanted, before = self.wanted(), self.held
        if self.do_and_die(functools.partial(index_all, tree=self.tree, nlist=nlist), moment):
            self.held = self.read_back(wanted)
            assert before.keys() & wanted.keys() <= self.held.keys()
        else:
            self.held = wanted

    @precondition(lambda self: self.held)
    @rule(number=st.integers(0, 10**6))
    def take_out(self, number: int) -> None:
        path = sorted(self.held)[number % len(self.held)]
        assert self.collection.remove(path) == 1
        self.out.add(path)
        del self.held[path]

    @precondition(lambda self: self.held)
    @rule(number=st.integers(0, 10**6), moment=MOMENTS)
    def take_out_and_be_killed(self, number: int, moment: Moment) -> None:
        path = sorted(self.held)[number % len(self.held)]
        killed = self.do_and_die(functools.partial(remove, path=path), moment)
        after = self.read_back(self.held)
        assert after in ([self.held] if killed else []) + [
            {other: seed for other, seed in self.held.items() if other != path}
        ]
        self.out |= self.held.keys() - after.keys()
        self.held = after

    @precondition(lambda self: self.out & self.files.keys())
    @rule()
    def let_in_again(self) -> None:
        paths = sorted(self.out & self.files.keys())
        self.out -= set(paths)
        self.collection.index([self.tree, *paths], prune=True, policy=POLICY, engine=ENGINE)
        self.held = self.wanted()

    @rule()
    def reopen(self) -> None:
        self.collection.close()
        self.collection = Collection.open(self.directory, device="cpu")

    # What is asked after each step

    @invariant()
    def everything_is_found(self) -> None:
        query = embedding_of(len(self.held))
        ways: list[QueryOptions] = [
            {"k": 1000, "exact": True},
            {"k": 1000, "nprobe": 1000},
            {"k": 1000},
        ]
        for way in ways:
            self.agrees(self.collection.query(query, **way), query, 1000)
        assert self.collection.info().images == len(self.held)

    @invariant()
    def the_nearest_are_found(self) -> None:
        chance = self.chance()
        seeds = chance.choices(range(60), k=chance.choice([1, 5, 40]))
        queries = np.stack(list(map(embedding_of, seeds)))
        way = self.sure_way(chance)
        least = chance.choice([-1, -0.3, 0.1, 0.5, 0.9])
        arrays = self.collection.query_many(queries, arrays=True, **way)
        way["min_similarity"] = least
        found = self.collection.query_many(queries, **way)
        assert arrays.ids.shape == (len(seeds), min(way["k"], len(self.held)))
        for row, (query, hits) in enumerate(zip(queries, found, strict=True)):
            self.agrees(hits, query, way["k"], least=least)
            first = slice(len(hits))
            assert arrays.ids[row][first].tolist() == [hit.id for hit in hits]
            distances = [hit.distance for hit in hits]
            np.testing.assert_allclose(arrays.distances[row][first], distances)

    @invariant()
    def what_is_left_out_is_not_found(self) -> None:
        chance = self.chance()
        files = sorted(self.files)
        paths, excluded = ([*chance.sample(files, min(len(files), 3))] for _ in range(2))
        way = self.sure_way(chance)
        way["exclude"] = [excluded] * len(paths)
        found = self.collection.query_many(list[Query](paths), **way)
        for path, hits in zip(paths, found, strict=True):
            query = embedding_of(self.files[path])
            self.agrees(hits, query, way["k"], left_out={path, *excluded})

    @invariant()
    def a_promised_recall_finds_real_images(self) -> None:
        chance = self.chance()
        seed, k = chance.randrange(60), chance.choice([1, 5, 20])
        recall = chance.choice([None, 0.5, 0.99, 1.0])
        query = embedding_of(seed)
        (answer,) = self.collection.answer([query], k=k, recall=recall)
        if answer.search.kind == "ivf":
            self.are_real(answer.hits, query)
            assert len(answer.hits) == min(k, len(self.held))
            if seed in self.held.values():
                assert answer.hits[0].distance < 1e-6
        else:
            self.agrees(answer.hits, query, k)

    # What has to be

    def agrees(
        self,
        hits: Sequence[Hit],
        query: Vectors,
        k: int,
        *,
        left_out: frozenset[Path] | set[Path] = frozenset(),
        least: float = -2,
    ) -> None:
        """Assert that these are the nearest; equally near ones may stand in any order."""
        self.are_real(hits, query)
        assert not {Path(hit.path) for hit in hits} & left_out
        distances = self.distances(query, [path for path in self.held if path not in left_out])
        nearest = np.sort(distances[1 - distances**2 / 2 >= least])[:k]
        np.testing.assert_allclose([hit.distance for hit in hits], nearest, atol=1e-5)

    def are_real(self, hits: Sequence[Hit], query: Vectors) -> None:
        """Assert that these are images of the collection, in order, each once."""
        paths = [Path(hit.path) for hit in hits]
        assert len(set(paths)) == len(paths) == len({hit.id for hit in hits})
        assert set(paths) <= self.held.keys()
        found = [hit.distance for hit in hits]
        assert found == sorted(found)
        np.testing.assert_allclose(found, self.distances(query, paths), atol=1e-5)

    def distances(self, query: Vectors, paths: Sequence[Path]) -> npt.NDArray[np.float64]:
        vectors = [embedding_of(self.held[path]) for path in paths]
        stored = np.array(vectors, np.float64).reshape(-1, DIM)
        distances: npt.NDArray[np.float64] = np.linalg.norm(stored - query, axis=1)
        return distances

    def wanted(self) -> Held:
        """Return what the collection holds once it is in step with the files."""
        return {path: seed for path, seed in self.files.items() if path not in self.out}

    def read_back(self, wanted: Held) -> Held:
        """Return what the collection holds after a kill: what it held, or what it was to hold."""
        seeds = sorted({*self.held.values(), *wanted.values()})
        queries = np.array(list(map(embedding_of, seeds)), np.float32).reshape(-1, DIM)
        answers = self.collection.query_many(queries, k=1000, exact=True)
        found = {
            Path(hit.path): seed
            for seed, hits in zip(seeds, answers, strict=True)
            for hit in hits
            if hit.distance < 1e-6
        }
        for path, seed in found.items():
            assert seed in (self.held.get(path), wanted.get(path))
        return found

    # How it is done

    def do_and_die(self, do: Callable[[Collection], object], moment: Moment) -> bool:
        killed = do_and_die(self.directory, do, moment, before=make_small)
        Searching.kills += killed
        return killed

    def chance(self) -> random.Random:
        return random.Random(len(self.files) + 1000 * len(self.held))

    def sure_way(self, chance: random.Random) -> QueryOptions:
        """Return options of a search that misses nothing."""
        k = chance.choice([1, 3, 10, 1000])
        return {"k": k, "exact": True} if chance.random() < 0.4 else {"k": k, "nprobe": 1000}

    def new_path(self) -> Path:
        return self.tree / f"{next(self.names)}.png"

    def write(self, path: Path, seed: int) -> None:
        path.write_bytes(content_of(seed))
        self.files[path] = seed

    def pick(self, numbers: Sequence[int]) -> list[Path]:
        files = sorted(self.files)
        return sorted({files[number % len(files)] for number in numbers}) if files else []


@pytest.mark.whole("test_any_history_of_files_ends_as_a_collection_made_afresh")
def test_what_is_found_is_what_brute_force_finds_after_any_history(harm: Harm) -> None:
    Searching.histories = Searching.kills = 0
    run_state_machine_as_test(
        Searching,
        settings=settings(max_examples=harm.times(12, 250, fast=2), stateful_step_count=40),
    )
    harm.done("histories", Searching.histories)
    harm.done("kills", Searching.kills)
    assert Searching.kills
