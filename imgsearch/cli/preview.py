"""Show thumbnails of hits in a terminal, side by side, below their table.

By the protocol of kitty (which Ghostty has, too) or of iTerm2 (WezTerm), else as half blocks: a
character whose upper and lower half have a colour each. Libraries: see docs/decisions/0017.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from imgsearch.cli.terminal import Terminal
from imgsearch.errors import ImageError

if TYPE_CHECKING:
    from PIL.Image import Image

    from imgsearch.querying.hits import Hit

__all__ = ["previews"]

LEAST, MOST = 22, 32  # columns of a picture, as wide as it takes to fill the line
CELL = 16  # pixels of a column where the terminal has pixels; a row has twice as many
CHUNK = 4096  # bytes of base64 in one command of kitty
OPAQUE = 128
_RESET = "\x1b[0m"
_CUBE = (0, 95, 135, 175, 215, 255)  # the levels of the 6 x 6 x 6 colours among 256


def previews(
    hits: Sequence[Hit], terminal: Terminal, thumbnail: Callable[[str, int], bytes]
) -> Iterator[str]:
    """Yield lines of pictures, each line with the ranks of its hits below it.

    Args:
        hits: The hits.
        terminal: The terminal that shows them.
        thumbnail: Function that returns a JPEG of the image at a path whose longer edge has some
            pixels; raises `ImageError` if there is none, and the place is left empty.
    """
    columns = max(LEAST, terminal.columns)
    each = min(MOST, columns // max(1, columns // LEAST))
    count = max(1, columns // each)
    has_pixels = terminal.pictures in ("kitty", "iterm")
    scale = CELL if has_pixels else 1
    for start in range(0, len(hits), count):
        row = hits[start : start + count]
        sheet = _sheet([hit.path for hit in row], each * scale, scale, thumbnail)
        rows = sheet.height // (2 * scale)
        if terminal.pictures == "kitty":
            yield "".join(_kitty(sheet, each * len(row), rows)) + "\n"
        elif terminal.pictures == "iterm":
            yield _iterm(sheet, each * len(row), rows) + "\n"
        else:
            yield from _blocks(sheet, true_colour=terminal.true_colour)
        yield "".join(f"{hit.rank}".ljust(each) for hit in row).rstrip() + "\n"


def _sheet(
    paths: Sequence[str], edge: int, gap: int, thumbnail: Callable[[str, int], bytes]
) -> Image:
    """Return the pictures side by side, each in a square; the rest is transparent."""
    from PIL import Image

    inner = edge - 2 * gap
    sheet = Image.new("RGBA", (edge * len(paths), edge - edge % (2 * gap)))
    tallest = 0
    for place, path in enumerate(paths):
        try:
            jpeg = thumbnail(path, max(inner, 64))
        except ImageError:
            continue
        with Image.open(io.BytesIO(jpeg)) as opened:
            picture = opened.convert("RGB")
        picture.thumbnail((inner, inner), Image.Resampling.LANCZOS)
        sheet.paste(picture, (place * edge, 0))
        tallest = max(tallest, picture.height)
    step = 2 * gap
    return sheet.crop((0, 0, sheet.width, max(step, -(-tallest // step) * step)))


def _kitty(sheet: Image, columns: int, rows: int) -> Iterator[str]:
    """Yield the commands that draw a picture (terminal graphics protocol of kitty)."""
    data = _png(sheet)
    for start in range(0, len(data), CHUNK):
        more = int(start + CHUNK < len(data))
        keys = f"a=T,f=100,q=2,c={columns},r={rows},m={more}" if not start else f"m={more}"
        yield f"\x1b_G{keys};{data[start : start + CHUNK]}\x1b\\"


def _iterm(sheet: Image, columns: int, rows: int) -> str:
    """Return the command that draws a picture (inline images of iTerm2)."""
    keys = f"inline=1;width={columns};height={rows};preserveAspectRatio=0"
    return f"\x1b]1337;File={keys}:{_png(sheet)}\x07"


def _png(sheet: Image) -> str:
    content = io.BytesIO()
    sheet.save(content, "PNG", compress_level=1)
    return base64.b64encode(content.getvalue()).decode("ascii")


def _blocks(sheet: Image, *, true_colour: bool) -> Iterator[str]:
    """Yield a line of half blocks for each two rows of pixels."""
    colour = _true_colour if true_colour else _one_of_256
    pixels = np.asarray(sheet.convert("RGBA")).tolist()
    for uppers, lowers in zip(pixels[::2], pixels[1::2], strict=True):
        line, last = [], ""
        for upper, lower in zip(uppers, lowers, strict=True):
            there = upper[3] >= OPAQUE, lower[3] >= OPAQUE
            match there:
                case True, True:
                    style, block = f"\x1b[38;{colour(upper)};48;{colour(lower)}m", "▀"
                case True, False:
                    style, block = f"{_RESET}\x1b[38;{colour(upper)}m", "▀"
                case False, True:
                    style, block = f"{_RESET}\x1b[38;{colour(lower)}m", "▄"
                case _:
                    style, block = _RESET, " "
            line.append(block if style == last else style + block)
            last = style
        yield "".join(line) + _RESET + "\n"


def _true_colour(pixel: Sequence[int]) -> str:
    return f"2;{pixel[0]};{pixel[1]};{pixel[2]}"


def _one_of_256(pixel: Sequence[int]) -> str:
    red, green, blue = (
        min(range(6), key=lambda level: abs(_CUBE[level] - value)) for value in pixel[:3]
    )
    return f"5;{16 + 36 * red + 6 * green + blue}"
