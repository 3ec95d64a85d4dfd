"""Play in processes of their own, each forked from one that has loaded all and used nothing yet.

A thousand deaths cost one start of Python. (The threads of OpenMP do not outlive a fork, so that
the process of the tests itself cannot be forked.)
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

__all__ = ["Fate", "play_apart"]

ROOT = Path(__file__).parents[2]
TIME_LIMIT = 60  # seconds


@dataclass(frozen=True, slots=True)
class Fate:
    """How a process ended: its exit status, or minus the number of the signal; what it told."""

    status: int
    said: str


def play_apart(play: Callable[[str], str], parts: Iterable[str]) -> list[Fate]:
    """Call a function of a test module with each part; the status is 1 where it raises.

    What it tells is what it returns, and what it and its libraries print.
    """
    code = (
        f"from tests.support.forked import _serve; _serve({play.__module__!r}, {play.__name__!r})"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        input="\n".join(parts),
        capture_output=True,
        text=True,
        check=True,
    )
    fates = [told.partition("\n") for told in ended.stdout.split("\0")[:-1]]
    return [Fate(int(status), said) for status, _, said in fates]


def _serve(module: str, name: str) -> None:
    play = getattr(import_module(module), name)
    for part in sys.stdin.read().splitlines():
        reading, writing = os.pipe()
        process = os.fork()
        if not process:
            os.close(reading)
            _play(play, part, writing)
        os.close(writing)
        with os.fdopen(reading, errors="replace") as said:
            told = said.read()
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        sys.stdout.write(f"{status}\n{told}\0")
        sys.stdout.flush()


def _play(play: Callable[[str], str], part: str, writing: int) -> None:
    signal.alarm(TIME_LIMIT)
    os.dup2(writing, 1)
    os.dup2(writing, 2)
    status = 0
    try:
        told = play(part)
    except BaseException:
        status, told = 1, traceback.format_exc()
    os.write(writing, told.encode(errors="replace"))
    os._exit(status)
