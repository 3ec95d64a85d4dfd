"""What every command prints in the same way: text for terminals, JSON, paths, errors."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import click

__all__ = ["complain", "dump", "path_fields", "shown", "where"]


def where(place: Path | str) -> str:
    """Return the absolute path of a collection, or its URL."""
    return str(place.absolute()) if isinstance(place, Path) else place


def shown(text: str) -> str:
    """Return text that a terminal can take: control and formatting characters are escaped."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def dump(value: Any) -> str:
    """Return one line of JSON."""
    return json.dumps(value)


def path_fields(path: str, name: str = "path") -> dict[str, str]:
    """Return a path as a JSON field; its bytes, base64, beside it where it is not UTF-8."""
    raw = os.fsencode(path)
    text = raw.decode("utf-8", "replace")
    if text.encode() == raw:
        return {name: text}
    return {name: text, f"{name}_bytes": base64.b64encode(raw).decode("ascii")}


def complain(message: str) -> None:
    """Print an error to stderr."""
    click.echo(f"imgsearch: {shown(message)}", err=True)
