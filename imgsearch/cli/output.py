"""The output common to all commands: text, JSON, paths, errors and exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from imgsearch.errors import InputError
from imgsearch.files.paths import dump, path_fields

__all__ = [
    "ExitStatus",
    "complain",
    "counted",
    "dump",
    "libraries_silenced",
    "path_fields",
    "shortened",
    "shown",
    "where",
]
NOTHING_FOUND = 1
_STDERR = 2


def where(place: Path | str) -> str:
    """Return the absolute path of a collection, or its URL."""
    return str(place.absolute()) if isinstance(place, Path) else place


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: "1 image", "2,000 images"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def shown(text: str) -> str:
    """Return text that is safe to print, with control and formatting characters escaped."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def shortened(*, absolute: bool) -> Callable[[str], str]:
    """Return a function that makes paths below the current folder relative to it.

    A relative path that would look like an option begins with `./`.

    Args:
        absolute: Whether to leave all paths as they are.
    """
    heres = [] if absolute else [f"{here.rstrip('/')}/" for here in _current_folders()]

    def short(path: str) -> str:
        for here in heres:
            if path.startswith(here) and path != here:
                below = path[len(here) :]
                return f"./{below}" if below.startswith("-") else below
        return path

    return short


def _current_folders() -> Iterator[str]:
    """Yield the path of the current folder, and the shell's path of it, which may hold links."""
    try:
        yield os.getcwd()
        as_typed = os.environ.get("PWD", "")
        if os.path.isabs(as_typed) and os.path.samefile(as_typed, "."):
            yield as_typed
    except OSError:  # it was deleted
        return


def complain(message: str) -> None:
    """Print an error to stderr."""
    click.echo(f"imgsearch: {shown(message)}", err=True)


class ExitStatus:
    """The exit code of a command; a refused input outranks an empty result."""

    def __init__(self) -> None:
        self.code = 0

    def refuse(self, error: InputError) -> None:
        """Report an input that cannot be used, and go on with the others."""
        complain(str(error))
        self.code = error.exit_code

    def miss(self, message: str) -> None:
        """Report that nothing was found."""
        complain(message)
        self.code = self.code or NOTHING_FOUND


@contextmanager
def libraries_silenced() -> Iterator[None]:
    """Discard what libraries write to file descriptor 2, but not what Python writes to stderr."""
    python = sys.stderr
    if python is None:  # closed by the parent process
        yield
        return
    python.flush()
    ours, nowhere = os.dup(_STDERR), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, _STDERR)
    os.close(nowhere)
    with os.fdopen(ours, "w", errors="backslashreplace") as stderr:
        if python is sys.__stderr__:  # otherwise stderr is already redirected
            sys.stderr = stderr
        try:
            yield
        finally:
            stderr.flush()
            sys.stderr = python
            os.dup2(ours, _STDERR)
