"""Draw pictures that share most of what they show, and are no copies of one another.

Each function draws a family: one layout or photo, and what a person would call different pictures
of it. The seed decides on fonts, sizes, places and texts.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFilter, ImageFont

__all__ = ["FAMILIES", "cross_fade", "photos"]

_FONTS = ("DejaVu Sans", "DejaVu Serif", "DejaVu Sans Mono")
_NAMES = ("A. Smith", "B. Lindqvist", "C. Wu", "D. Okafor", "E. Marin", "F. Novak", "G. Rossi")
_WORDS = ("the", "of", "and", "to", "in", "is", "that", "it", "was", "for", "on", "are", "with")
_COLOURS = ("#143c78", "#7a1f3d", "#226644", "#444444", "#b5651d", "#5b3a8c")

_Floats = npt.NDArray[np.float64]
Family = Callable[[random.Random], Iterator[Image.Image]]


def _font(draw: random.Random, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_manager.findfont(draw.choice(_FONTS)), size)


def _number(draw: random.Random) -> str:
    return f"{draw.randint(1, 9_999):,}.{draw.randint(0, 99):02}"


def _with_one_digit_changed(text: str, draw: random.Random) -> str:
    at = draw.choice([number for number, letter in enumerate(text) if letter.isdigit()])
    other = draw.choice([digit for digit in "0123456789" if digit != text[at]])
    return text[:at] + other + text[at + 1 :]


def _sentence(draw: random.Random, words: int) -> str:
    return " ".join(draw.choice(_WORDS) for _ in range(words))


def forms(draw: random.Random) -> Iterator[Image.Image]:
    """Draw a form that was filled in for three people, and once more with another digit."""
    font, title = _font(draw, draw.randint(13, 18)), _font(draw, 40)
    colour, step = draw.choice(_COLOURS), draw.randint(50, 70)
    labels = ("Name", "Street", "City", "Date", "Number", "Item", "Amount", "Tax", "Total")

    def form(values: list[str]) -> Image.Image:
        image = Image.new("RGB", (620, 877), "white")
        on = ImageDraw.Draw(image)
        on.rectangle((0, 0, 620, 110), fill=colour)
        on.text((30, 30), "INVOICE", font=title, fill="white")
        for row, (label, value) in enumerate(zip(labels, values, strict=True)):
            top = 180 + row * step
            on.rectangle((30, top, 590, top + step - 10), outline="black")
            on.text((40, top + 12), label, font=font, fill="black")
            on.text((200, top + 12), value, font=font, fill=(10, 10, 90))
        return image

    amount, values = "", [""]
    for name in draw.sample(_NAMES, 3):
        amount = _number(draw)
        street, date = f"Street {draw.randint(1, 99)}", f"2024-{draw.randint(10, 12)}-11"
        values = [name, street, "City", date, str(draw.randint(1_000, 99_999)), "Item"]
        yield form([*values, amount, amount, amount])
    changed = _with_one_digit_changed(amount, draw)
    yield form([*values, amount, amount, changed])


def receipts(draw: random.Random) -> Iterator[Image.Image]:
    """Draw receipts of one shop, of one day and the next."""
    font = _font(draw, draw.randint(14, 20))
    rows = [(_sentence(draw, 2), _number(draw)) for _ in range(draw.randint(8, 14))]

    def receipt(date: str, rows: list[tuple[str, str]]) -> Image.Image:
        image = Image.new("RGB", (400, 700), (250, 250, 245))
        on = ImageDraw.Draw(image)
        on.text((120, 20), "CORNER SHOP", font=font, fill="black")
        on.text((40, 60), date, font=font, fill="black")
        for number, (name, price) in enumerate(rows):
            on.text((40, 110 + 32 * number), name, font=font, fill="black")
            on.text((260, 110 + 32 * number), price, font=font, fill="black")
        return image

    yield receipt("2024-03-11 10:42", rows)
    yield receipt("2024-03-12 10:42", rows)
    yield receipt("2024-03-11 10:42", [*rows[:-1], (rows[-1][0], _number(draw))])


def tables(draw: random.Random) -> Iterator[Image.Image]:
    """Draw a table of numbers, and the same with one digit changed."""
    font = _font(draw, draw.randint(12, 18))
    rows, columns = draw.randint(10, 18), draw.randint(4, 6)
    cells = [[_number(draw) for _ in range(columns)] for _ in range(rows)]

    def table(cells: list[list[str]]) -> Image.Image:
        image = Image.new("RGB", (120 * columns + 40, 36 * rows + 40), "white")
        on = ImageDraw.Draw(image)
        for row, values in enumerate(cells):
            for column, value in enumerate(values):
                left, top = 20 + 120 * column, 20 + 36 * row
                on.rectangle((left, top, left + 120, top + 36), outline=(180, 180, 180))
                on.text((left + 8, top + 8), value, font=font, fill="black")
        return image

    yield table(cells)
    for _ in range(2):
        other = [list(row) for row in cells]
        row, column = draw.randrange(rows), draw.randrange(columns)
        other[row][column] = _with_one_digit_changed(cells[row][column], draw)
        yield table(other)


def cards(draw: random.Random) -> Iterator[Image.Image]:
    """Draw membership cards: other names, another number, another colour, another face."""
    font, large = _font(draw, draw.randint(20, 26)), _font(draw, 38)
    faces = draw.sample(photos(), 2)

    def card(name: str, number: str, colour: str, face: Image.Image) -> Image.Image:
        image = Image.new("RGB", (680, 430), colour)
        on = ImageDraw.Draw(image)
        on.rounded_rectangle((20, 20, 660, 410), 20, fill=(245, 245, 240), outline="white", width=4)
        on.text((40, 40), "LIBRARY", font=large, fill=colour)
        image.paste(face.resize((140, 180)), (480, 120))
        on.text((40, 180), name, font=font, fill="black")
        on.text((40, 240), number, font=font, fill="black")
        on.text((40, 340), "Valid for one year", font=font, fill=(90, 90, 90))
        return image

    names, colours = draw.sample(_NAMES, 2), draw.sample(_COLOURS, 2)
    number = f"{draw.randint(10**9, 10**10)}"
    yield card(names[0], number, colours[0], faces[0])
    yield card(names[1], number, colours[0], faces[0])
    yield card(names[0], _with_one_digit_changed(number, draw), colours[0], faces[0])
    yield card(names[0], number, colours[1], faces[0])
    yield card(names[0], number, colours[0], faces[1])


def chats(draw: random.Random) -> Iterator[Image.Image]:
    """Draw screenshots of a chat: another word, another time, one message more."""
    font, small = _font(draw, draw.randint(17, 22)), _font(draw, 13)
    said = [(_sentence(draw, draw.randint(2, 5)), draw.random() < 0.5) for _ in range(8)]

    def chat(said: list[tuple[str, bool]], time: str) -> Image.Image:
        image = Image.new("RGB", (480, 800), (229, 221, 213))
        on = ImageDraw.Draw(image)
        on.rectangle((0, 0, 480, 70), fill=(7, 94, 84))
        on.text((420, 8), time, font=small, fill="white")
        on.text((20, 28), "Family", font=font, fill="white")
        for number, (text, mine) in enumerate(said):
            left, top = (110 if mine else 20), 90 + 80 * number
            on.rounded_rectangle(
                (left, top, left + 350, top + 60), 12, fill=(220, 248, 198) if mine else "white"
            )
            on.text((left + 12, top + 16), text, font=font, fill="black")
        return image

    yield chat(said, "10:41")
    yield chat(said, "10:47")
    yield chat([*said[:-1], (_sentence(draw, 4), said[-1][1])], "10:41")
    yield chat(said[:-1], "10:41")


def screenshots(draw: random.Random) -> Iterator[Image.Image]:
    """Draw windows full of text: another line, a ticked box, another tab."""
    font, small = _font(draw, draw.randint(13, 16)), _font(draw, 12)
    lines = [_sentence(draw, 12) for _ in range(20)]
    ticked = [draw.random() < 0.5 for _ in range(6)]

    def window(lines: list[str], ticked: list[bool], tab: int) -> Image.Image:
        image = Image.new("RGB", (1_000, 640), (240, 240, 242))
        on = ImageDraw.Draw(image)
        for number in range(5):
            fill = "white" if number == tab else (215, 215, 222)
            on.rectangle((10 + 130 * number, 10, 130 + 130 * number, 44), fill=fill)
            on.text((22 + 130 * number, 20), f"Tab {number}", font=small, fill="black")
        on.rectangle((10, 44, 800, 630), fill="white")
        for number, line in enumerate(lines):
            on.text((24, 60 + 28 * number), line, font=font, fill=(30, 30, 30))
        for number, tick in enumerate(ticked):
            top = 80 + 40 * number
            on.rectangle((830, top, 846, top + 16), outline="black")
            on.text((856, top), f"Option {number}", font=small, fill="black")
            if tick:
                on.line((832, top + 8, 837, top + 14, 845, top + 2), fill="black", width=2)
        return image

    yield window(lines, ticked, 0)
    yield window(lines, [not ticked[0], *ticked[1:]], 0)
    yield window(lines, ticked, 1)
    yield window([*lines[:9], _sentence(draw, 12), *lines[10:]], ticked, 0)


def plots(draw: random.Random) -> Iterator[Image.Image]:
    """Draw a curve in axes, the same with a few points moved, and in another colour."""
    font = _font(draw, 12)
    noise = np.random.default_rng(draw.randrange(2**32))
    curve = np.cumsum(noise.normal(size=400)) * 4 + 160
    moved = curve.copy()
    at = draw.randint(60, 300)
    moved[at : at + 40] += draw.choice((-1, 1)) * 25 * np.hanning(40)

    def plot(curve: _Floats, colour: str, title: str) -> Image.Image:
        image = Image.new("RGB", (480, 340), "white")
        on = ImageDraw.Draw(image)
        on.rectangle((50, 30, 460, 300), outline="black")
        for tick in range(6):
            on.text((12, 292 - 52 * tick), str(20 * tick), font=font, fill="black")
        on.text((180, 8), title, font=font, fill="black")
        points = [(55 + x, float(np.clip(y, 32, 298))) for x, y in enumerate(curve.tolist())]
        on.line(points, fill=colour, width=2)
        return image

    yield plot(curve, "#1f77b4", "Run 1, seed 7")
    yield plot(moved, "#1f77b4", "Run 1, seed 7")
    yield plot(curve, "#d62728", "Run 1, seed 7")
    yield plot(curve, "#1f77b4", "Run 1, seed 8")


def retouched(draw: random.Random) -> Iterator[Image.Image]:
    """Draw a photo, and the same with a part blurred, covered, swapped, recoloured, captioned."""
    photo = draw.choice(photos()).copy()
    photo.thumbnail((640, 640))
    width, height = photo.size
    edge = round(min(photo.size) * draw.uniform(0.12, 0.2))
    left, top = _busiest(photo, edge, draw)
    box = (left, top, left + edge, top + edge)
    patch = photo.crop(box)
    yield photo
    yield _pasted(photo, patch.filter(ImageFilter.GaussianBlur(edge / 8)), box)
    away = (left + width // 2) % (width - edge), (top + height // 3) % (height - edge)
    yield _pasted(photo, photo.crop((*away, away[0] + edge, away[1] + edge)), box)
    yield _pasted(photo, patch.transpose(Image.Transpose.FLIP_LEFT_RIGHT), box)
    red, green, blue = patch.split()
    yield _pasted(photo, Image.merge("RGB", (blue, red, green)), box)
    captioned = photo.copy()
    ImageDraw.Draw(captioned).text(
        (width // 20, height - 40), f"Summer {draw.randint(1980, 2024)}", fill="white",
        font=_font(draw, draw.randint(14, 24)), stroke_width=1, stroke_fill="black",
    )  # fmt: skip
    yield captioned


def _busiest(photo: Image.Image, edge: int, draw: random.Random) -> tuple[int, int]:
    """Return where the most varied of some boxes is: a change of flat ground shows nothing."""
    grey = np.asarray(photo.convert("L"), np.float32)
    places = [
        (draw.randrange(photo.width - edge), draw.randrange(photo.height - edge)) for _ in range(12)
    ]
    return max(places, key=lambda at: grey[at[1] : at[1] + edge, at[0] : at[0] + edge].std())


def _pasted(photo: Image.Image, patch: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    changed = photo.copy()
    changed.paste(patch, box)
    return changed


def photos() -> list[Image.Image]:
    """Return the photos that scikit-image carries."""
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    names = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png")
    found = [folder / name for name in names if (folder / name).is_file()]
    return [Image.open(path).convert("RGB") for path in found]


def cross_fade(draw: random.Random, steps: int) -> Iterator[Image.Image]:
    """Draw one photo that turns into another step by step."""
    one, other = (photo.resize((480, 360)) for photo in draw.sample(photos(), 2))
    for step in range(steps + 1):
        yield Image.blend(one, other, step / steps)


#: All pairs within a family are hard negatives.
FAMILIES: dict[str, Family] = {
    "forms": forms,
    "receipts": receipts,
    "tables": tables,
    "cards": cards,
    "chats": chats,
    "screenshots": screenshots,
    "plots": plots,
    "retouched": retouched,
}
