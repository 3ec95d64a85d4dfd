"""Make Ctrl-C end slow calls, even in a decoder, at once and without a traceback."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn, ParamSpec, TypeVar

__all__ = ["end_at_once", "is_left_behind", "leave_the_next_to_the_system", "waiting_for"]

P = ParamSpec("P")
T = TypeVar("T")

_NAME = "imgsearch-waited-for"


def waiting_for(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in another thread, so that Ctrl-C can interrupt the main thread.

    Python handles Ctrl-C only in the main thread, and a decoder, being in C, returns only when it
    is done. After Ctrl-C its thread is left running.
    """
    from concurrent.futures import Future

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


def leave_the_next_to_the_system() -> None:
    """Let another Ctrl-C end the process at once.

    Python would raise `KeyboardInterrupt` again: in the middle of a message, or while it shuts
    down, and would print a traceback.
    """
    with suppress(ValueError):  # not in the main thread, which alone gets the signal
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def is_left_behind() -> bool:
    """Tell whether a function that nobody waits for any longer is still running."""
    return any(thread.name == _NAME for thread in threading.enumerate())
