"""The processes that a test has started."""

from __future__ import annotations

import psutil

__all__ = ["started_here"]


def started_here() -> list[psutil.Process]:
    """Return the processes below this one that are still there.

    The server of `tests.support.killing`, which stays, is left out.
    """
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            command = process.cmdline()  # empty if it is dead, and nobody has asked how it ended
        except psutil.NoSuchProcess:
            continue
        if not any("multiprocessing" in part for part in command):
            found.append(process)
    return found
