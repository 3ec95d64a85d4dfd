"""What a terminal can show beyond plain text: colours, links and pictures."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias
from urllib.parse import quote

from imgsearch.files.paths import is_url

__all__ = ["PLAIN", "Style", "Terminal"]

Style: TypeAlias = Literal["bold", "dim", "green", "cyan"]
#: How a terminal shows pictures: by a protocol of its own, or as blocks in colours.
Pictures: TypeAlias = Literal["kitty", "iterm", "blocks"]

_CODES: dict[Style, str] = {"bold": "1", "dim": "2", "green": "32", "cyan": "36"}
#: Variables that only terminals with links set, and names of such terminals.
_LINKING = ("KITTY_WINDOW_ID", "WT_SESSION", "KONSOLE_VERSION", "DOMTERM")
_LINKING_TERMS = ("xterm-kitty", "xterm-ghostty", "alacritty", "foot", "contour", "wezterm")
_LINKING_PROGRAMS = ("iTerm.app", "WezTerm", "vscode", "ghostty", "Hyper", "Tabby", "rio")
_VTE_WITH_LINKS = 5000
_TMUX_WITH_LINKS = (3, 4)
_COLUMNS = 80  # where the width is not known


@dataclass(frozen=True, slots=True)
class Terminal:
    """What the terminal on stdout can show.

    Attributes:
        colour: Whether to write in colours and bold.
        links: Whether to link paths to their files (OSC 8).
        pictures: How to show pictures; None if it cannot.
        true_colour: Whether there are 24 bits for a colour, instead of 256 colours.
        columns: Width in characters.
    """

    colour: bool = False
    links: bool = False
    pictures: Pictures | None = None
    true_colour: bool = False
    columns: int = _COLUMNS

    @classmethod
    def on_stdout(cls) -> Terminal:
        """Return what stdout can show: nothing but text if it is not a terminal."""
        if not sys.stdout.isatty():
            return cls.of(os.environ, is_terminal=False)
        import shutil

        columns = shutil.get_terminal_size((_COLUMNS, 24)).columns
        return cls.of(os.environ, is_terminal=True, columns=columns)

    @classmethod
    def of(
        cls, environment: Mapping[str, str], *, is_terminal: bool, columns: int = _COLUMNS
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
    return "blocks"
