"""`imgsearch models`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from imgsearch.cli import options
from imgsearch.cli.output import complain, shown
from imgsearch.embedding.models import DEFAULT_MODEL
from imgsearch.errors import is_installed
from imgsearch.files.paths import dump

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imgsearch.embedding.choices import Choice

__all__ = ["models"]


@click.command()
@options.json_option
def models(as_json: bool) -> None:
    """List the networks that a collection can be made with.

    Each line shows the number of values in an embedding, the edge of the input in pixels, and the
    default weights: their size, whether they are here, and their licence.
    """
    from imgsearch.embedding.choices import choices

    found = list(choices())
    click.echo(_as_json(found) if as_json else _as_text(found))
    if not is_installed("torchvision"):
        complain("torchvision, which has 80 more networks, is not installed")


def _as_json(found: Sequence[Choice]) -> str:
    """Return the networks as a line of JSON."""
    return dump({"models": [asdict(choice) for choice in found]})


def _as_text(found: Sequence[Choice]) -> str:
    """Return the networks as a table, one per line."""
    rows = [("model", "values", "input", "weights", "licence of the weights")]
    rows += [
        (
            f"{choice.name} (default)" if choice.name == DEFAULT_MODEL else choice.name,
            str(choice.dim),
            str(choice.input_size),
            _weights(choice),
            choice.source.licence,
        )
        for choice in found
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]])
        for row in rows
    )


def _weights(choice: Choice) -> str:
    source = choice.source
    size = f"{source.bytes / 1e6:,.0f} MB, " if source.bytes else ""
    return f"{size}{'in' if source.is_here else 'from'} {shown(source.place)}"
