"""What every command prints in the same way: text, JSON, paths, errors and exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from imgsearch.errors import InputError
from imgsearch.files.paths import dump, path_fields

__all__ = [
    "Outcome",
    "complain",
    "counted",
    "dump",
    "libraries_silenced",
    "path_fields",
    "shown",
    "where",
]
NOTHING_FOUND = 1
_STDERR = 2


def where(place: Path | str) -> str:
    """Return the absolute path of a collection, or its URL."""
    return str(place.absolute()) if isinstance(place, Path) else place


def counted(number: int, noun: str) -> str:
    """Return a number of things: "1 image", "2,000 images"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def shown(text: str) -> str:
    """Return text that a terminal can take: control and formatting characters are escaped."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def complain(message: str) -> None:
    """Print an error to stderr."""
    click.echo(f"imgsearch: {shown(message)}", err=True)


class Outcome:
    """What a command ends with; an input that was refused weighs more than nothing found."""

    def __init__(self) -> None:
        self.code = 0

    def refuse(self, error: InputError) -> None:
        """Report an input that cannot be used, while the others are."""
        complain(str(error))
        self.code = error.exit_code

    def miss(self, message: str) -> None:
        """Report that nothing was found."""
        complain(message)
        self.code = self.code or NOTHING_FOUND


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
