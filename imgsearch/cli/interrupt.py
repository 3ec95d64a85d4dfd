"""Wait for functions that may spend long in a decoder, so that Ctrl-C ends the wait at once."""

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
    """Call a function in another thread, so that Ctrl-C can interrupt the main thread.

    Python handles Ctrl-C only in the main thread, and a decoder, being in C, returns only when it
    is done. After Ctrl-C its thread is left running.
    """
    future: Future[T] = Future()

    def call() -> None:
        try:
            future.set_result(function(*args, **kwargs))
        except BaseException as error:  # raised again in the waiting thread
            future.set_exception(error)

    threading.Thread(target=call, name=_NAME, daemon=True).start()
    return future.result()


def end_at_once(code: int) -> NoReturn:
    """End the process, whatever its other threads are doing."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def is_left_behind() -> bool:
    """Tell whether a function that nobody waits for any longer is still running."""
    return any(thread.name == _NAME for thread in threading.enumerate())
