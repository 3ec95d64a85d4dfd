"""Show thumbnails of hits in a terminal, side by side, below their table.

By the protocol of kitty (which Ghostty has, too) or of iTerm2 (WezTerm), as sixels (foot, Konsole
and others), or else as half blocks: a character whose upper and lower half have a colour each.
Libraries: see docs/decisions/0017.
"""

from __future__ import annotations

import base64
import io
import re
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
CELL = 16, 32  # pixels of a character, where the terminal scales pictures
BLOCK = 1, 2  # the same, if each half of a character is a pixel
CHUNK = 4096  # bytes of base64 in one command of kitty
PALETTE = 255  # colours of a sixel picture, of the 256 that terminals have
BAND = 6  # rows of pixels that a row of sixels has
REPEATED = re.compile(rb"(.)\1{3,}")  # the runs for which `!` and their length are shorter
OPAQUE = 128
_RESET = "\x1b[0m"
_CUBE = (0, 95, 135, 175, 215, 255)  # the levels of the 6 x 6 x 6 colours among 256


def previews(
    hits: Sequence[Hit], terminal: Terminal, thumbnail: Callable[[str, int], bytes]
) -> Iterator[str]:
    """Yield lines of pictures, each below the ranks of its hits.

    Args:
        hits: The hits.
        terminal: The terminal that shows them.
        thumbnail: Function that returns a JPEG of the image at a path whose longer edge has some
            pixels; raises `ImageError` if there is none, and the place is left empty.
    """
    columns = max(LEAST, terminal.columns)
    each = min(MOST, columns // max(1, columns // LEAST))
    count = max(1, columns // each)
    cell = {"kitty": CELL, "iterm": CELL, "sixel": terminal.cell}.get(
        terminal.pictures or "", BLOCK
    )
    for start in range(0, len(hits), count):
        row = hits[start : start + count]
        sheet = _sheet([hit.path for hit in row], each, cell, thumbnail)
        rows = sheet.height // cell[1]
        yield "\n" + "".join(f"{hit.rank}".ljust(each) for hit in row).rstrip() + "\n"
        match terminal.pictures:
            case "kitty":
                yield "".join(_kitty(sheet, each * len(row), rows)) + "\n"
            case "iterm":
                yield _iterm(sheet, each * len(row), rows) + "\n"
            case "sixel":
                yield _sixels(sheet) + "\n"
            case _:
                yield from _blocks(sheet, true_colour=terminal.true_colour)


def _sheet(
    paths: Sequence[str],
    columns: int,
    cell: tuple[int, int],
    thumbnail: Callable[[str, int], bytes],
) -> Image:
    """Return the pictures side by side, each in a square; the rest is transparent.

    Args:
        paths: The images.
        columns: The characters that each may take, of which two stay free.
        cell: Width and height of a character in pixels; the sheet has whole rows of them.
        thumbnail: See `previews`.
    """
    from PIL import Image

    width, height = cell
    inner = (columns - 2) * width
    sheet = Image.new("RGBA", (len(paths) * columns * width, _up(inner, height)))
    tallest = 0
    for place, path in enumerate(paths):
        try:
            jpeg = thumbnail(path, max(inner, 64))
        except ImageError:
            continue
        with Image.open(io.BytesIO(jpeg)) as opened:
            picture = opened.convert("RGB")
        picture.thumbnail((inner, inner), Image.Resampling.LANCZOS)
        sheet.paste(picture, (place * columns * width, 0))
        tallest = max(tallest, picture.height)
    return sheet.crop((0, 0, sheet.width, _up(max(tallest, 1), height)))


def _up(length: int, step: int) -> int:
    """Round a length up to a multiple of a step."""
    return -(-length // step) * step


def _kitty(sheet: Image, columns: int, rows: int) -> Iterator[str]:
    """Yield the commands that draw a picture (terminal graphics protocol of kitty)."""
    data = _png(sheet)
    for start in range(0, len(data), CHUNK):
        more = int(start + CHUNK < len(data))
        keys = f"a=T,f=100,q=2,c={columns},r={rows},m={more}" if not start else f"m={more}"
        yield f"\x1b_G{keys};{data[start : start + CHUNK]}\x1b\\"


def _iterm(sheet: Image, columns: int, rows: int) -> str:
    """Return the command that draws a picture (inline images of iTerm2)."""
    data = _png(sheet)
    size = len(data) // 4 * 3 - data.count("=")
    keys = f"inline=1;size={size};width={columns};height={rows};preserveAspectRatio=0"
    return f"\x1b]1337;File={keys}:{data}\x07"


def _sixels(sheet: Image) -> str:
    """Return the command that draws a picture, as sixels.

    It draws bands of six rows, each colour by colour: a character says which of the six pixels in
    a column have the colour (VT330/VT340 Programmer Reference Manual, volume 2, chapter 14).
    """
    from PIL import Image

    colours = sheet.convert("RGB").quantize(PALETTE)
    colours = sheet.convert("RGB").quantize(palette=colours, dither=Image.Dither.FLOYDSTEINBERG)
    levels = np.rint(np.array(colours.getpalette()) / 255 * 100).astype(int).reshape(-1, 3)
    parts = [b'\x1bP0;1;0q"1;1;%d;%d' % sheet.size]
    parts += [b"#%d;2;%d;%d;%d" % (number, *level) for number, level in enumerate(levels.tolist())]
    below = -sheet.height % BAND
    numbers = np.pad(np.asarray(colours), ((0, below), (0, 0)))
    there = np.pad(np.asarray(sheet)[..., 3] >= OPAQUE, ((0, below), (0, 0)))
    bits = (1 << np.arange(BAND, dtype=np.uint8))[:, None]
    for top in range(0, len(numbers), BAND):
        band, drawn = numbers[top : top + BAND], there[top : top + BAND]
        for number in np.unique(band[drawn]):
            columns = (bits * ((band == number) & drawn)).sum(axis=0, dtype=np.uint8) + ord("?")
            line = columns.tobytes().rstrip(b"?")
            parts += [b"#%d" % number, REPEATED.sub(_run, line), b"$"]
        parts.append(b"-")
    return b"".join(parts[:-1]).decode("ascii") + "\x1b\\"


def _run(found: re.Match[bytes]) -> bytes:
    return b"!%d%b" % (len(found[0]), found[1])


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
