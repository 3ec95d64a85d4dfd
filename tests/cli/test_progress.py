"""Progress: a bar on a terminal, and nothing where there is none."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import termios
from pathlib import Path

from tests.pictures import save_pictures
from tests.running import Run, imgsearch_command


def test_progress_is_quiet_where_there_is_no_terminal(run: Run, empty: Path, photos: Path) -> None:
    ended = run("-c", empty, "index", photos)
    assert re.fullmatch(r"40 found: 40 indexed, .* in \d+\.\d s\n", ended.err)
    assert ended.out == ""


def test_progress_on_a_terminal_has_count_rate_and_time_left(empty: Path, tmp_path: Path) -> None:
    save_pictures(tmp_path / "many", 600)
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    command = imgsearch_command("-c", empty, "index", tmp_path / "many")
    shown = b""
    with subprocess.Popen(command, stderr=theirs) as process:
        os.close(theirs)
        while select.select([ours], [], [], 60)[0]:
            try:
                shown += os.read(ours, 4096)
            except OSError:  # the other side is closed
                break
    os.close(ours)
    assert process.returncode == 0
    text = shown.decode()
    assert re.search(r"indexing: +\d+%.*\d+/600 \[.*<.*files/s\]", text)
    assert text.rstrip().splitlines()[-1].endswith(" s")
    assert "600 found: 600 indexed" in text
