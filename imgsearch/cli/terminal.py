"""What a terminal can show beyond plain text: colours, links and pictures."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args
from urllib.parse import quote

from imgsearch.files.paths import is_url

__all__ = ["PICTURES", "PLAIN", "Pictures", "Style", "Terminal"]

Style: TypeAlias = Literal["bold", "dim", "green", "cyan"]
#: How a terminal shows pictures: by a protocol, or as blocks in colours.
Pictures: TypeAlias = Literal["kitty", "iterm", "sixel", "blocks"]
PICTURES: tuple[Pictures, ...] = get_args(Pictures)

_CODES: dict[Style, str] = {"bold": "1", "dim": "2", "green": "32", "cyan": "36"}
#: Variables that only terminals with links set, and names of such terminals.
_LINKING = ("KITTY_WINDOW_ID", "WT_SESSION", "KONSOLE_VERSION", "DOMTERM")
_LINKING_TERMS = ("xterm-kitty", "xterm-ghostty", "alacritty", "foot", "contour", "wezterm")
_LINKING_PROGRAMS = ("iTerm.app", "WezTerm", "vscode", "ghostty", "Hyper", "Tabby", "rio")
#: Terminals with sixel, by `TERM` and by `TERM_PROGRAM`.
_SIXEL_TERMS = ("foot", "contour", "mlterm", "yaft")
_SIXEL_PROGRAMS = ("mintty", "rio")
_KONSOLE_WITH_SIXEL = 220400
_VTE_WITH_LINKS = 5000
_TMUX_WITH_LINKS = (3, 4)
_COLUMNS = 80  # where the width is not known
_CELL = 10, 20  # where the size of a character is not known: that of a VT340


@dataclass(frozen=True, slots=True)
class Terminal:
    """What the terminal on stdout can show.

    Attributes:
        colour: Whether to write in colours and bold.
        links: Whether to link paths to their files (OSC 8).
        pictures: How to show pictures; None if it cannot.
        true_colour: Whether there are 24 bits for a colour, instead of 256 colours.
        columns: Width in characters.
        cell: Width and height of a character in pixels.
    """

    colour: bool = False
    links: bool = False
    pictures: Pictures | None = None
    true_colour: bool = False
    columns: int = _COLUMNS
    cell: tuple[int, int] = _CELL

    @classmethod
    def on_stdout(cls) -> Terminal:
        """Return what stdout can show: nothing but text if it is not a terminal."""
        if not sys.stdout.isatty():
            return cls.of(os.environ, is_terminal=False)
        import shutil

        columns = shutil.get_terminal_size((_COLUMNS, 24)).columns
        return cls.of(os.environ, is_terminal=True, columns=columns, cell=_cell())

    @classmethod
    def of(
        cls,
        environment: Mapping[str, str],
        *,
        is_terminal: bool,
        columns: int = _COLUMNS,
        cell: tuple[int, int] = _CELL,
    ) -> Terminal:
        """Return what a terminal can show, as far as the environment tells.

        It is never asked: its answer would arrive on stdin, and an old one gives none.
        """
        able = is_terminal and environment.get("TERM", "") not in ("", "dumb")
        return cls(
            colour=able and not environment.get("NO_COLOR"),
            links=able and _has_links(environment),
            pictures=_pictures(environment) if able else None,
            true_colour=environment.get("COLORTERM", "") in ("truecolor", "24bit"),
            columns=columns,
            cell=cell,
        )

    def styled(self, text: str, style: Style | None) -> str:
        """Return text in a style, if there are colours."""
        if not self.colour or style is None:
            return text
        return f"\x1b[{_CODES[style]}m{text}\x1b[0m"

    def linked(self, text: str, path: str) -> str:
        """Return text that is linked to the file at an absolute path, if there are links."""
        if not self.links:
            return text
        if is_url(path):
            if not path.startswith(("http://", "https://")):
                return text
            address = quote(path, safe=":/?&=%")
        else:
            import socket

            address = f"file://{quote(socket.gethostname())}{quote(os.fsencode(path))}"
        return f"\x1b]8;;{address}\x1b\\{text}\x1b]8;;\x1b\\"


PLAIN = Terminal()


def _cell() -> tuple[int, int]:
    """Return the size of a character, as the driver of the terminal on stdout knows it."""
    import fcntl
    import struct
    import termios

    try:
        size = fcntl.ioctl(sys.stdout.fileno(), termios.TIOCGWINSZ, bytes(8))
    except OSError:
        return _CELL
    rows, columns, width, height = struct.unpack("4H", size)
    if not (rows and columns and width >= columns and height >= rows):
        return _CELL
    return width // columns, height // rows


def _has_links(environment: Mapping[str, str]) -> bool:
    forced = environment.get("FORCE_HYPERLINK")
    if forced:
        return forced != "0"
    program = environment.get("TERM_PROGRAM", "")
    if environment.get("TMUX") or environment.get("STY"):  # others see what these pass on
        parts = environment.get("TERM_PROGRAM_VERSION", "").rstrip("abcdefgh").split(".")
        version = tuple(int(part) for part in parts[:2] if part.isdecimal())
        return program == "tmux" and version >= _TMUX_WITH_LINKS
    vte = environment.get("VTE_VERSION", "")
    return (
        program in _LINKING_PROGRAMS
        or environment.get("TERM", "").startswith(_LINKING_TERMS)
        or any(environment.get(name) for name in _LINKING)
        or (vte.isdecimal() and int(vte) >= _VTE_WITH_LINKS)
    )


def _pictures(environment: Mapping[str, str]) -> Pictures:
    if environment.get("TMUX") or environment.get("STY"):
        return "blocks"  # which pass through
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if environment.get("KITTY_WINDOW_ID") or term in ("xterm-kitty", "xterm-ghostty"):
        return "kitty"
    if program in ("iTerm.app", "WezTerm") or environment.get("LC_TERMINAL") == "iTerm2":
        return "iterm"
    konsole = environment.get("KONSOLE_VERSION", "")
    if (
        term.startswith(_SIXEL_TERMS)
        or program in _SIXEL_PROGRAMS
        or environment.get("MLTERM")
        or (konsole.isdecimal() and int(konsole) >= _KONSOLE_WITH_SIXEL)
    ):
        return "sixel"
    return "blocks"
