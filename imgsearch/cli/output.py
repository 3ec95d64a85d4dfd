"""What every command prints in the same way: text for terminals, JSON, paths, errors."""

from __future__ import annotations

from pathlib import Path

import click

from imgsearch.files.paths import dump, path_fields

__all__ = ["complain", "counted", "dump", "path_fields", "shown", "where"]


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
