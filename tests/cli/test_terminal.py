"""Colours, links and pictures, where the terminal can show them."""

from __future__ import annotations

import base64
import io
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from imgsearch.cli.preview import previews
from imgsearch.cli.terminal import PICTURES, PLAIN, Terminal
from imgsearch.errors import ImageError
from imgsearch.querying.hits import Hit

Invoke = Callable[..., Result]
XTERM = {"TERM": "xterm-256color"}
SGR = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.few(12)
@pytest.mark.parametrize(
    ("environment", "is_terminal", "expected"),
    [
        (XTERM, True, (True, False, "blocks")),
        (XTERM, False, (False, False, None)),
        ({}, True, (False, False, None)),
        ({"TERM": "dumb", "VTE_VERSION": "7600"}, True, (False, False, None)),
        ({**XTERM, "NO_COLOR": "1"}, True, (False, False, "blocks")),
        ({**XTERM, "NO_COLOR": ""}, True, (True, False, "blocks")),
        ({**XTERM, "VTE_VERSION": "7600"}, True, (True, True, "blocks")),
        ({**XTERM, "VTE_VERSION": "4205"}, True, (True, False, "blocks")),
        ({"TERM": "xterm-kitty", "KITTY_WINDOW_ID": "1"}, True, (True, True, "kitty")),
        ({**XTERM, "TERM_PROGRAM": "iTerm.app"}, True, (True, True, "iterm")),
        ({**XTERM, "TERM_PROGRAM": "vscode", "TMUX": "/x"}, True, (True, False, "blocks")),
        ({"TERM": "foot-extra"}, True, (True, True, "sixel")),
        ({"TERM": "mlterm-256color"}, True, (True, False, "sixel")),
        ({**XTERM, "TERM_PROGRAM": "mintty"}, True, (True, False, "sixel")),
        ({**XTERM, "KONSOLE_VERSION": "230805"}, True, (True, True, "sixel")),
        ({**XTERM, "KONSOLE_VERSION": "211200"}, True, (True, True, "blocks")),
        ({"TERM": "screen", "STY": "1.x", "MLTERM": "3.9.3"}, True, (True, False, "blocks")),
        (
            {"TERM": "tmux-256color", "TMUX": "/x", "KITTY_WINDOW_ID": "1"}
            | {"TERM_PROGRAM": "tmux", "TERM_PROGRAM_VERSION": "3.5a"},
            True,
            (True, True, "blocks"),
        ),
    ],
)
def test_the_environment_tells_what_a_terminal_can_show(
    environment: dict[str, str], is_terminal: bool, expected: tuple[bool, bool, str | None]
) -> None:
    terminal = Terminal.of(environment, is_terminal=is_terminal)
    assert (terminal.colour, terminal.links, terminal.pictures) == expected


def test_a_link_can_be_forced_and_a_name_cannot_break_out_of_it() -> None:
    path = os.fsdecode("/a b/\x1b]8;;evil\x1b\\\xff.png".encode("latin-1"))
    for forced, there in (("1", True), ("0", False)):
        terminal = Terminal.of({**XTERM, "FORCE_HYPERLINK": forced}, is_terminal=True)
        assert terminal.links == there
    linked = Terminal(links=True).linked("name", path)
    target = re.fullmatch(r"\x1b]8;;file://[^/]*(/[ -~]+)\x1b\\name\x1b]8;;\x1b\\", linked)
    assert target
    assert target[1] == "/a%20b/%1B%5D8%3B%3Bevil%1B%5C%FF.png"
    assert Terminal(links=True).linked("name", "s3://bucket/a.png") == "name"
    assert PLAIN.linked("name", path) == PLAIN.styled("name", "bold") == "name"


# -- pictures -----------------------------------------------------------------------------------


def hits_of(count: int) -> list[Hit]:
    return [Hit(rank, rank, f"/{rank}.png", 0.0, 1.0) for rank in range(1, count + 1)]


def red_or_lost(path: str, edge: int) -> bytes:
    """Return a red picture, twice as wide as it is high; the third file is lost."""
    if path == "/3.png":
        raise ImageError(path, "is missing")
    content = io.BytesIO()
    Image.new("RGB", (edge, edge // 2), (255, 0, 0)).save(content, "PNG")
    return content.getvalue()


@pytest.mark.parametrize("columns", [10, 60, 80, 200])
@pytest.mark.parametrize("true_colour", [True, False])
def test_blocks_show_pictures_side_by_side(columns: int, true_colour: bool) -> None:
    terminal = Terminal(pictures="blocks", columns=columns, true_colour=true_colour)
    lines = list(previews(hits_of(5), terminal, red_or_lost))
    plain = [SGR.sub("", line).rstrip("\n") for line in lines]
    labels = [line for line in plain if line.strip() and "▀" not in line]
    assert [rank for line in labels for rank in line.split()] == list("12345")
    assert max(map(len, plain)) <= max(columns, 22)
    assert len(labels) == {10: 5, 60: 3, 80: 2, 200: 1}[columns]
    colours = set(re.findall(r"38;([0-9;]+?);48", "".join(lines)))
    assert colours == ({"2;255;0;0"} if true_colour else {"5;196"})
    assert all(line.endswith("\x1b[0m\n") for line in lines if "▀" in line)


def test_terminals_with_pixels_get_a_picture_of_each_line_of_hits() -> None:
    kitty = "".join(previews(hits_of(5), Terminal(pictures="kitty"), red_or_lost))
    commands = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", kitty)
    assert all(len(data) <= 4096 for _, data in commands)
    pictures = "".join(f"\n{data}" if "a=T" in keys else data for keys, data in commands).split()
    iterm = "".join(previews(hits_of(5), Terminal(pictures="iterm"), red_or_lost))
    assert re.findall(r"1337;File=[^:]*:([^\x07]*)\x07", iterm) == pictures
    assert len(pictures) == 2
    with Image.open(io.BytesIO(base64.b64decode(pictures[0]))) as sheet:
        assert sheet.width == 78 * 16
        assert sheet.getpixel((10, 10)) == (255, 0, 0, 255)
        assert sheet.getpixel((2 * 26 * 16 + 10, 10)) == (0, 0, 0, 0)  # of the lost file


def test_sixels_draw_the_pictures_pixel_by_pixel() -> None:
    shown = "".join(previews(hits_of(5), Terminal(pictures="sixel", cell=(9, 17)), red_or_lost))
    pictures = re.findall(r"\x1bP[^\x1b]*\x1b\\", shown)
    assert len(pictures) == 2
    pixels = drawn(pictures[0])
    inner = (26 - 2) * 9
    assert pixels.shape == (-(-inner // 2 // 17) * 17, 3 * 26 * 9, 4)  # of whole characters
    expected = np.zeros_like(pixels)
    for place in (0, 1):  # the third is lost
        expected[: inner // 2, place * 26 * 9 :][:, :inner] = 255, 0, 0, 255
    np.testing.assert_array_equal(pixels, expected)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_sixels_draw_every_picture_as_it_is(width: int, height: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    colours = random.integers(0, 6, (8, 3)) * 51  # which percents can express
    alike = np.repeat(random.integers(0, 8, (height, width)), random.integers(1, 9), axis=1)
    image = colours[alike[:, :100]].astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG")
    terminal = Terminal(pictures="sixel", cell=(5, 11), columns=24)
    rank, shown = previews(hits_of(1), terminal, lambda _path, _edge: content.getvalue())
    assert rank == "\n1\n"
    pixels = drawn(shown.removesuffix("\n"))
    assert pixels.shape == (-(-height // 11) * 11, 24 * 5, 4)
    expected = np.zeros_like(pixels)
    expected[:height, : image.shape[1]] = np.insert(image, 3, 255, axis=2)
    np.testing.assert_array_equal(pixels, expected)


def drawn(command: str) -> npt.NDArray[np.uint8]:
    """Return what a terminal draws, RGBA `[height, width, 4]`, by its own reading of sixels."""
    parts = re.fullmatch(r'\x1bP0;1;0q"1;1;(\d+);(\d+)([^\x1b]*)\x1b\\', command)
    assert parts
    width, height, column, band, colour = int(parts[1]), int(parts[2]), 0, 0, 0
    canvas = np.zeros((height + 6, width, 4), np.uint8)
    palette: dict[int, list[int]] = {}
    tokens = r"#(\d+)(?:;2;(\d+);(\d+);(\d+))?|([$-])|(?:!(\d+))?([?-~])"
    end = 0
    for token in re.finditer(tokens, parts[3]):
        assert token.start() == end
        end = token.end()
        number, red, green, blue, move, run, sixel = token.groups()
        if number:
            colour = int(number)
            if red:
                palette[colour] = [round(int(each) * 2.55) for each in (red, green, blue)]
        elif move:
            column, band = 0, band + 6 * (move == "-")
        else:
            for bit in range(6):
                if (ord(sixel) - 63) >> bit & 1:
                    canvas[band + bit, column : column + int(run or 1)] = *palette[colour], 255
            column += int(run or 1)
    assert end == len(parts[3])
    assert not canvas[height:].any()
    return canvas[:height]


# -- the command --------------------------------------------------------------------------------


@pytest.fixture
def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands believe that stdout is a terminal that can show everything."""
    terminal = Terminal(colour=True, links=True, pictures="blocks", columns=60)
    monkeypatch.setattr(Terminal, "on_stdout", lambda: terminal)


@pytest.mark.usefixtures("on_a_terminal")
def test_hits_are_shown_in_colour_linked_and_as_pictures(
    invoke: Invoke, indexed: Path, photos: Path
) -> None:
    query = ("query", "-c", indexed, photos / "0003.png", "-k", "2")
    plain = invoke(*query).stdout
    assert f"\x1b[1m{photos}/0003.png\x1b[0m\n" in plain
    assert plain.count("\x1b]8;;file://") == 2
    assert "▀" not in plain
    shown = invoke(*query, "--preview", "auto").stdout
    assert shown.startswith(plain)
    assert SGR.sub("", shown).removeprefix(SGR.sub("", plain)).split()[:2] == ["1", "2"]
    assert "\x1b" not in invoke(*query, "--json", "--preview", "always").stdout
    assert "\x1b" not in invoke(*query, "--paths").stdout


def test_pictures_are_shown_where_they_are_asked_for_only(
    invoke: Invoke, indexed: Path, photos: Path
) -> None:
    query = ("query", "-c", indexed, photos / "0003.png", "-k", "2", "--preview")
    assert "\x1b" not in invoke(*query, "auto").stdout  # for stdout is a file
    assert "▀" in invoke(*query, "always").stdout
    for protocol, begin in zip(PICTURES, ("\x1b_G", "\x1b]1337;", "\x1bP", "▀"), strict=True):
        assert begin in invoke(*query, protocol).stdout


def test_the_hits_are_opened_in_a_browser(
    invoke: Invoke, indexed: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(click, "launch", opened.append)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    query = ("query", "-c", indexed, photos / "0003.png", "--open")
    assert invoke(*query).exit_code == 0
    page = tmp_path / "cache" / "imgsearch" / "pages" / "hits.html"
    assert opened == [page.as_uri()]
    assert stat.S_IMODE(page.parent.stat().st_mode) & 0o077 == 0
    assert invoke(*query, "--html", "own.html").exit_code == 0
    assert opened[1:] == [(tmp_path / "own.html").as_uri()]
    assert invoke(*query, "--json").exit_code == 2
