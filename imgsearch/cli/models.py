"""`imgsearch models`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from imgsearch.cli import options
from imgsearch.cli.output import complain, shown
from imgsearch.cli.progress import CountBar
from imgsearch.embedding.models import DEFAULT_MODEL
from imgsearch.errors import is_installed
from imgsearch.files.paths import dump, is_url

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imgsearch.embedding.choices import Choice

__all__ = ["models"]


@click.command()
@click.argument("beginning", metavar="[NAME]", default="")
@options.speed_option
@options.json_option
def models(beginning: str, speed: bool, as_json: bool) -> None:
    """List the networks that a collection can be made with.

    Each line shows the number of values in an embedding, the edge of the input in pixels, and the
    default weights: their size, whether they are here, and their licence. With NAME, only networks
    whose names begin with it are listed; those of timm are listed only that way, as by timm:resnet.
    """
    from imgsearch.embedding.choices import choices, timed

    found = list(choices(beginning))
    if speed:
        with CountBar("timing", " networks") as bar:
            for number, choice in enumerate(found, 1):
                found[number - 1] = timed(choice)
                bar(number, len(found))
    click.echo(_as_json(found) if as_json else _as_text(found, speed=speed))
    if not is_installed("torchvision"):
        complain("torchvision, which has 80 more networks, is not installed")


def _as_json(found: Sequence[Choice]) -> str:
    """Return the networks as a line of JSON."""
    return dump({"models": [asdict(choice) for choice in found]})


def _as_text(found: Sequence[Choice], *, speed: bool) -> str:
    """Return the networks as a table, one per line."""
    heads = ["model", "values", "input", "images/s here", "weights", "licence of the weights"]
    rows = [heads, *map(_cells, found)]
    if not speed:
        rows = [row[:3] + row[4:] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths[-1] = 0  # without spaces at the end
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )


def _cells(choice: Choice) -> list[str]:
    name = f"{choice.name} (default)" if choice.name == DEFAULT_MODEL else choice.name
    rate = choice.images_per_second
    told = "" if rate is None else f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"
    source = choice.source
    size = f"{source.bytes / 1e6:,.0f} MB, " if source.bytes else ""
    place = urlsplit(source.place).hostname if is_url(source.place) else source.place
    weights = f"{size}{'in' if source.is_here else 'from'} {shown(place or source.place)}"
    return [name, str(choice.dim), str(choice.input_size), told, weights, source.licence]
