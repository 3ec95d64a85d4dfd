"""Wait for what may be in a decoder for long, so that Ctrl-C ends it at once."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import NoReturn, ParamSpec, TypeVar

__all__ = ["end_at_once", "is_left_behind", "waiting_for"]

P = ParamSpec("P")
T = TypeVar("T")

_NAME = "imgsearch-waited-for"


def waiting_for(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in another thread: Python hears of Ctrl-C only in the main one.

    A decoder is in C, and returns when it is done: after Ctrl-C it is left behind.
    """
    future: Future[T] = Future()

    def call() -> None:
        try:
            future.set_result(function(*args, **kwargs))
        except BaseException as error:  # it belongs to who waits
            future.set_exception(error)

    threading.Thread(target=call, name=_NAME, daemon=True).start()
    return future.result()


def end_at_once(code: int) -> NoReturn:
    """End the process whatever its other threads are at."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def is_left_behind() -> bool:
    """Tell whether a function is still running that nobody waits for any more."""
    return any(thread.name == _NAME for thread in threading.enumerate())
