"""Record commands in a terminal, and write `docs/terminal.md`: a transcript, and pictures.

The terminal is xterm.js in Chromium, which shows sixels as well: `npm install @xterm/xterm
@xterm/addon-image` in some folder, then `python -m demo.terminal FOLDER/node_modules`. The images
are those of `make demo`, which has to have been run. In the transcript, the folder is /home/ana.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import Page, sync_playwright

from demo.__main__ import HERE

DOCS = Path(__file__).parent.parent / "docs"
ROWS = 200  # more than a session has
#: What is shown on both grounds: columns, a terminal, and how it shows pictures.
SHAPES = ((60, "xterm-256color", "half blocks"), (200, "foot", "sixels"))
#: Foreground, background, and the colours that imgsearch uses, as terminals have them.
GROUNDS = {
    "dark": {
        "background": "#1e1e1e",
        "foreground": "#d4d4d4",
        "green": "#4ec96a",
        "cyan": "#4cc2d8",
    },
    "light": {
        "background": "#ffffff",
        "foreground": "#24292e",
        "green": "#1a7f37",
        "cyan": "#0f7b8a",
    },
}
QUERY = ["query", "cat.jpg", "-k", "6"]
SESSION = [
    ["index", "photos"],
    ["info"],
    QUERY,
    ["search", "nothing.jpg"],
    ["list", "-n", "3", "--sort", "date", "--reverse"],
    ["find"],
]
PAGE = """<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="{css}">
<style>
  body {{ margin: 0 }} #terminal {{ width: max-content; padding: 12px; background: {background} }}
  .scrollbar {{ display: none }}
</style>
<div id="terminal"></div><script src="{xterm}"></script><script src="{image}"></script>"""
OPEN = """([columns, rows, theme]) => {
  window.terminal = new Terminal({cols: columns, rows, theme, allowProposedApi: true, fontSize: 14,
    fontFamily: 'DejaVu Sans Mono, monospace', cursorInactiveStyle: 'none'});
  terminal.loadAddon(new ImageAddon.ImageAddon());
  terminal.open(document.getElementById('terminal'));
  const size = () => terminal._core._renderService.dimensions.device.cell;
  terminal.options.fontSize *= Math.round(size().width) / size().width;  // to whole pixels
  return [Math.round(size().width), Math.round(size().height)];
}"""
WRITE = """async bytes => {
  await new Promise(done => terminal.write(new Uint8Array(bytes), done));
  terminal.resize(terminal.cols, terminal.buffer.active.cursorY + 1);
  await new Promise(done => setTimeout(done, 300));
}"""


def main() -> None:
    """Record and draw everything."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "modules", type=Path, help="node_modules, with xterm.js and its image addon"
    )
    modules = parser.parse_args().modules.absolute() / "@xterm"
    if not HERE.is_dir():
        sys.exit("demo.terminal: there is no .demo; run `make demo` first")
    with session_folder() as folder:
        plain = {"TERM": "dumb"}
        transcript = "".join(recorded(folder, SESSION, columns=80, environment=plain))
        transcript = transcript.replace(str(folder), "/home/ana")
        with sync_playwright() as playwright:
            there = shutil.which("chromium") or shutil.which("google-chrome")
            browser = playwright.chromium.launch(executable_path=there, args=["--no-sandbox"])
            for ground, theme in GROUNDS.items():
                for columns, terminal, _ in SHAPES:
                    page = browser.new_page(viewport={"width": 2_400, "height": 4_000})
                    draw(page, modules, folder, columns, terminal, theme)
                    shot = DOCS / f"terminal-{ground}-{columns}.png"
                    page.locator("#terminal").screenshot(path=shot)
                    page.close()
            browser.close()
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]|\x1b\][^\x1b]*\x1b\\|[^\n]*\r(?!\n)", "", transcript)
    page_of(text.replace("\r\n", "\n"))


@contextmanager
def session_folder() -> Iterator[Path]:
    """Make a folder with the photographs and the query of the demonstration."""
    with TemporaryDirectory() as name:
        folder = Path(name) / "ana"
        shutil.copytree(HERE / "photos", folder / "photos")
        shutil.copy(HERE / "crop_of_chelsea.jpg", folder / "cat.jpg")
        yield folder


def draw(
    page: Page, modules: Path, folder: Path, columns: int, terminal: str, theme: dict[str, str]
) -> None:
    """Show a query with thumbnails in a terminal of this width."""
    html = folder.parent / "terminal.html"
    html.write_text(
        PAGE.format(
            css=(modules / "xterm/css/xterm.css").as_uri(),
            xterm=(modules / "xterm/lib/xterm.js").as_uri(),
            image=(modules / "addon-image/lib/addon-image.js").as_uri(),
            background=theme["background"],
        )
    )
    page.goto(html.as_uri())
    cell = page.evaluate(OPEN, [columns, ROWS, theme])
    session = [[*QUERY, "--preview", "auto"]]
    environment = {"TERM": terminal, "FORCE_HYPERLINK": "1", "COLORTERM": "truecolor"}
    shown = "".join(recorded(folder, session, columns, environment, cell))
    page.evaluate(WRITE, list(shown.encode()))


def recorded(
    folder: Path,
    session: Sequence[Sequence[str]],
    columns: int,
    environment: dict[str, str],
    cell: Sequence[float] = (0, 0),
) -> Iterator[str]:
    """Yield what a terminal gets to see of some commands, their lines included."""
    for arguments in session:
        yield f"\x1b[1m$ imgsearch {' '.join(arguments)}\x1b[0m\r\n"
        master, slave = pty.openpty()
        size = ROWS, columns, round(columns * cell[0]), round(ROWS * cell[1])
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", *size))
        process = subprocess.Popen(
            [sys.executable, "-m", "imgsearch", *arguments],
            cwd=folder,
            env={**os.environ, "PWD": str(folder), **environment},
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        with open(master, "rb", buffering=0) as screen:
            try:
                while data := screen.read(65_536):
                    yield data.decode(errors="replace")
            except OSError:  # how Linux says that the other end was closed
                pass
        process.wait()


def page_of(transcript: str) -> None:
    """Write the page."""
    pictures = "\n\n".join(
        f"![{columns} columns of {kind} on a {ground} ground](terminal-{ground}-{columns}.png)"
        for columns, _, kind in SHAPES
        for ground in GROUNDS
    )
    (DOCS / "terminal.md").write_text(
        "# A session in a terminal\n\n"
        "`python -m demo.terminal` recorded this with the photographs of `make demo`, and wrote "
        "this page.\n\n"
        f"```text\n{transcript.rstrip()}\n```\n\n"
        "The same query with `--preview auto`, in 60 columns as half blocks and in 200 as sixels, "
        "on a\ndark and on a light ground:\n\n"
        f"{pictures}\n"
    )


if __name__ == "__main__":
    main()
