"""A writer that changes files at random, and brings their collection in step with them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from imgsearch.collection import Collection
from imgsearch.errors import BusyError
from tests.support.soak_notes import Place, State, States
from tests.support.tiny_pictures import content_of

__all__ = ["Writer"]

FEWEST, MOST = 60, 180  # images that there are, or about so


class Writer:
    """Changes files at random, and brings the collection in step with them."""

    def __init__(self, place: Place, seed: int) -> None:
        """Go on where a writer was killed."""
        self.place = place
        self.random = random.Random(seed)
        with place.notes.open("a") as file:
            file.write("\n")  # the last line may have been cut off
        self.state = States(place).last
        self.out: set[str] = set()  # files that are taken out of the collection
        self.fresh = 1 + max(self.state.values()) + 1_000 * (1 + seed)
        self.collection = Collection.open(place.collection, device="cpu")

    def resume(self) -> None:
        """Bring files and collection to the state that was noted last."""
        there = {str(path.relative_to(self.place.tree)) for path in self.place.tree.rglob("*.png")}

        def change() -> None:
            for name in there - self.state.keys():
                (self.place.tree / name).unlink()
            for name, seed in self.state.items():
                path = self.place.tree / name
                if not path.exists() or path.read_bytes() != content_of(seed):
                    self.place.write(name, seed)

        # By their names, for they may have been taken out.
        paths = [self.place.tree, *(self.place.tree / name for name in self.state)]
        self.bring(self.state, change, lambda: self.collection.index(paths, prune=True))

    def step(self) -> None:
        """Do one thing."""
        few, many = len(self.state) < FEWEST, len(self.state) > MOST
        steps: list[Callable[[], None]] = [self.alter, self.move, self.copy, self.train, self.take]
        steps += [self.add] * (0 if many else 3) + [self.delete] * (0 if few else 1)
        steps += [self.let_in] * bool(self.out)
        (self.delete_most if many else self.random.choice(steps))()

    def add(self) -> None:
        new = {self.name(): self.seed() for _ in range(self.random.randint(1, 12))}
        self.index(self.state | new, lambda: self.put(new))

    def alter(self) -> None:
        new = {name: self.seed() for name in self.some(3)}
        self.index(self.state | new, lambda: self.put(new))

    def copy(self) -> None:
        new = {self.name(): self.state[name] for name in self.some(3)}
        self.index(self.state | new, lambda: self.put(new))

    def delete(self) -> None:
        self.drop(self.some(6))

    def delete_most(self) -> None:
        self.drop(self.some(MOST - FEWEST))

    def move(self) -> None:
        names = {name: self.name() for name in self.some(3)}
        state = {names.get(name, name): seed for name, seed in self.state.items()}

        def change() -> None:
            for old, new in names.items():
                (self.place.tree / new).parent.mkdir(parents=True, exist_ok=True)
                (self.place.tree / old).rename(self.place.tree / new)

        self.index(state, change)

    def train(self) -> None:
        nlist, recall = self.random.randint(2, 9), self.random.choice([0.5, 0.9, 0.95])
        self.bring(
            *(self.state, lambda: None, lambda: self.collection.index(nlist=nlist, recall=recall))
        )

    def take(self) -> None:
        names = self.some(2)
        self.out |= set(names)
        paths = [self.place.tree / name for name in names]
        if paths:
            self.bring(self.without(names), lambda: None, lambda: self.collection.remove(paths))

    def let_in(self) -> None:
        new = {name: self.seed() for name in self.out}
        paths = [self.place.tree, *(self.place.tree / name for name in new)]
        self.out.clear()
        self.bring(
            *(self.state | new, lambda: self.put(new)),
            lambda: self.collection.index(paths, prune=True),
        )

    def drop(self, names: Sequence[str]) -> None:
        def change() -> None:
            for name in names:
                (self.place.tree / name).unlink()

        self.index(self.without(names), change)

    def put(self, new: State) -> None:
        for name, seed in new.items():
            self.place.write(name, seed)

    def index(self, state: State, change: Callable[[], None]) -> None:
        self.bring(state, change, lambda: self.collection.index(prune=True))

    def bring(self, state: State, change: Callable[[], None], run: Callable[[], object]) -> None:
        """Change the files, and bring the collection to `state` by `run`."""
        self.place.note(state)
        change()
        while True:
            with suppress(BusyError):  # the test starts other writers
                run()
                break
            time.sleep(0.01)
        self.place.note("done")
        self.state = state

    def some(self, most: int) -> list[str]:
        names = sorted(name for name in self.state if not name.startswith("stable"))
        return self.random.sample(names, min(len(names), self.random.randint(1, most)))

    def without(self, names: Sequence[str]) -> State:
        return {name: seed for name, seed in self.state.items() if name not in names}

    def seed(self) -> int:
        self.fresh += 1
        return self.fresh

    def name(self) -> str:
        return f"{self.random.choice(['a', 'b', 'a/c'])}/{self.seed()}.png"
