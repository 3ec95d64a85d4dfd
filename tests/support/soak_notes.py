"""The notes of a writer in a soak test, by which a reader knows what it must find, and may.

The writer notes each state of the files before it brings the collection to it, and that it has.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from imgsearch.ann.vectors import Vectors
from imgsearch.querying.hits import Hit
from tests.support.tiny_pictures import content_of, embedding_of

__all__ = ["STABLE", "Found", "Place", "State", "States"]

STABLE = 40  # images that are never touched, with the seeds from 0 on

State: TypeAlias = dict[str, int]  # the seed of the picture of each file, by its name


@dataclass(frozen=True, slots=True)
class Place:
    """Where the collection, its files and the notes are."""

    top: Path

    @property
    def collection(self) -> Path:
        return self.top / "collection"

    @property
    def tree(self) -> Path:
        return self.top / "tree"

    @property
    def notes(self) -> Path:
        return self.top / "notes"

    @property
    def stop(self) -> Path:
        return self.top / "stop"

    @property
    def stop_writing(self) -> Path:
        """A file that ends the writer once it is there: readers are to see what it did last."""
        return self.top / "stop writing"

    def write(self, name: str, seed: int) -> None:
        path = self.tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content_of(seed))

    def note(self, value: State | str) -> None:
        with self.notes.open("a") as file:
            file.write(json.dumps(value) + "\n")


@dataclass(frozen=True, slots=True)
class Found:
    """What a query must find, and what else it may: seeds by name."""

    must: State
    may: dict[str, set[int]]

    def check(self, hits: Sequence[Hit], query: Vectors, tree: Path, *, whole: bool) -> None:
        """Assert that these are hits of `query`; `whole` that none is missing."""
        names = [str(Path(hit.path).relative_to(tree)) for hit in hits]
        assert len(set(names)) == len(names), "an image is listed twice"
        assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
        if all(hit.score is None for hit in hits):  # else they are in an order of their own
            assert [hit.distance for hit in hits] == sorted(hit.distance for hit in hits)
        distances = {name: hit.distance for name, hit in zip(names, hits, strict=True)}
        for name, distance in distances.items():
            real = [_distance(query, seed) for seed in self.may.get(name, ())]
            assert any(abs(distance - each) < 1e-4 for each in real), (name, distance, real)
        if whole:
            assert self.must.keys() <= distances.keys(), self.must.keys() - distances.keys()
            for name, seed in self.must.items():
                assert abs(distances[name] - _distance(query, seed)) < 1e-4, name


class States:
    """The states that the writer has noted, as far as they still count."""

    def __init__(self, place: Place) -> None:
        self._path = place.notes
        self._offset = 0
        self._done = 0
        self._states: list[State] = []
        self.begin()

    @property
    def last(self) -> State:
        """The state that was noted last."""
        return self._states[-1]

    def begin(self) -> None:
        """Note that a query begins: earlier states do not count any more."""
        self._read()
        del self._states[: self._done]
        self._done = 0

    def end(self) -> Found:
        """Return what a query that ends now must find, and may."""
        self._read()
        may: dict[str, set[int]] = {}
        for state in self._states:
            for name, seed in state.items():
                may.setdefault(name, set()).add(seed)
        common = set.intersection(*(set(state.items()) for state in self._states))
        return Found(dict(common), may)

    def _read(self) -> None:
        with self._path.open("rb") as file:
            file.seek(self._offset)
            *lines, _ = file.read().split(b"\n")
        self._offset += sum(len(line) + 1 for line in lines)
        for line in lines:
            with suppress(ValueError):  # cut off when the writer was killed
                value = json.loads(line)
                if value == "done":
                    self._done = len(self._states) - 1
                else:
                    self._states.append(value)


def _distance(query: Vectors, seed: int) -> float:
    return float(np.linalg.norm(query.astype(np.float64) - embedding_of(seed)))
