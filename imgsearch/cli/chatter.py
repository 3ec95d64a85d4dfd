"""Keep off the terminal what C libraries write to stderr, such as libtiff about odd files."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["libraries_silenced"]

_STDERR = 2


@contextmanager
def libraries_silenced() -> Iterator[None]:
    """Send what is written to file descriptor 2 nowhere; what Python writes still arrives."""
    python = sys.stderr
    if python is None:  # closed by whoever started us
        yield
        return
    python.flush()
    ours, nowhere = os.dup(_STDERR), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, _STDERR)
    os.close(nowhere)
    with os.fdopen(ours, "w", errors="backslashreplace") as stderr:
        if python is sys.__stderr__:  # else somebody collects it elsewhere
            sys.stderr = stderr
        try:
            yield
        finally:
            stderr.flush()
            sys.stderr = python
            os.dup2(ours, _STDERR)
