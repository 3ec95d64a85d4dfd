"""What every command prints in the same way: text for terminals, JSON, paths, errors."""

from __future__ import annotations

from pathlib import Path

import click

from imgsearch.forms import dump, path_fields

__all__ = ["complain", "dump", "path_fields", "shown", "where"]


def where(place: Path | str) -> str:
    """Return the absolute path of a collection, or its URL."""
    return str(place.absolute()) if isinstance(place, Path) else place


def shown(text: str) -> str:
    """Return text that a terminal can take: control and formatting characters are escaped."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def complain(message: str) -> None:
    """Print an error to stderr."""
    click.echo(f"imgsearch: {shown(message)}", err=True)
