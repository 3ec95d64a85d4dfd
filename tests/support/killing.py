"""Run a command on a collection in a process that kills itself on the way, at a step of choice.

The processes are forked from a server that has imported all they need, so that each costs little.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import strategies as st

from imgsearch.collection import Collection
from imgsearch.storage.database import Database
from imgsearch.storage.files import Sink

__all__ = ["MOMENTS", "Moment", "do_and_die", "moments_of", "preload"]

# What a writer does to the disk, and what to patch to die before it.
_STEPS: dict[str, tuple[Any, str]] = {
    "write": (Sink, "write"),
    "sync": (os, "fsync"),
    "rename": (os, "replace"),
    "link": (os, "link"),
    "delete": (os, "unlink"),
    "statement": (Database, "run"),
}

_SERVER = multiprocessing.get_context("forkserver")
_modules = ["onnxruntime"]


@dataclass(frozen=True, slots=True)
class Moment:
    """The moment before the `number`th step of a kind."""

    step: str
    number: int


MOMENTS = st.one_of(
    st.builds(Moment, st.sampled_from(sorted(_STEPS)), st.integers(1, 5)),
    st.builds(Moment, st.just("statement"), st.integers(1, 60)),
)


def preload(module: str) -> None:
    """Let the server import a module whose functions the processes run, before it starts."""
    _modules.append(module)
    _SERVER.set_forkserver_preload(_modules)


def moments_of(do: Callable[[], object], each: int) -> list[Moment]:
    """Run something, and return the moments before up to `each` of its steps of each kind."""
    counts: dict[str, int] = dict.fromkeys(_STEPS, 0)

    def counted(step: str, call: Any) -> Any:
        def count(*arguments: Any, **options: Any) -> Any:
            counts[step] += 1
            return call(*arguments, **options)

        return count

    with ExitStack() as patched:
        for step, (owner, name) in _STEPS.items():
            patch = mock.patch.object(owner, name, counted(step, getattr(owner, name)))
            patched.enter_context(patch)
        do()
    return [
        Moment(step, 1 + (count - 1) * place // max(1, each - 1))
        for step, count in counts.items()
        for place in range(min(each, count))
    ]


def do_and_die(
    directory: Path,
    do: Callable[[Collection], object],
    moment: Moment,
    *,
    before: Callable[[], None] | None = None,
) -> bool:
    """Run `do` on the collection in another process; tell whether it was killed, or came to an end.

    `do` and `before`, which runs first there, are pickled: functions of a module, or partials.
    """
    process = _SERVER.Process(target=_do, args=(directory, do, moment, before))
    process.start()
    process.join()
    code = process.exitcode
    process.close()
    assert code in (0, -signal.SIGKILL)
    return code != 0


def _do(
    directory: Path,
    do: Callable[[Collection], object],
    moment: Moment,
    before: Callable[[], None] | None,
) -> None:
    if before:
        before()
    with Collection.open(directory, device="cpu") as collection:
        owner, name = _STEPS[moment.step]
        step, count = getattr(owner, name), itertools.count(1)

        def die_or_step(*arguments: Any, **options: Any) -> Any:
            if next(count) == moment.number:
                os.kill(os.getpid(), signal.SIGKILL)
            return step(*arguments, **options)

        setattr(owner, name, die_or_step)
        do(collection)
