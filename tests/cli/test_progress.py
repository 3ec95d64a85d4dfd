"""Progress: a bar on a terminal, and few lines or none where there is none."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import termios
from pathlib import Path

import pytest

from imgsearch.cli.progress import FIRST_PAUSE, ProgressBar
from imgsearch.indexing.report import Progress
from tests.support.commands import Run, imgsearch_command
from tests.support.pictures import save_pictures

pytestmark = pytest.mark.processes


def test_progress_is_quiet_where_there_is_no_terminal(run: Run, empty: Path, photos: Path) -> None:
    ended = run("-c", empty, "index", photos)
    assert re.fullmatch(r"40 found: 40 indexed, .* in \d+\.\d s\n", ended.err)
    assert ended.out == ""


def test_a_long_run_without_a_terminal_has_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = 0.0
    with ProgressBar(clock=lambda: now) as bar:
        bar(Progress(10, None))
        assert capsys.readouterr().err == ""
        now = FIRST_PAUSE
        bar(Progress(1_000, None))
        bar(Progress(1_001, 7_000))
        rate = 1_000 / FIRST_PAUSE
        assert capsys.readouterr().err == f"indexing: 1,000 files, {rate:.0f} files/s\n"
        now += 2 * FIRST_PAUSE
        bar(Progress(1_500, 1_500 + round(1_500 / now * 120)))
        said = r"indexing: 1,500 of [\d,]+ files, \d+ files/s, 2:00 left\n"
        assert re.fullmatch(said, capsys.readouterr().err)
        now += 4 * FIRST_PAUSE
        bar(Progress(7_000, 7_000, training=True, assigned=5_000))
        assert capsys.readouterr().err == "building the index: 5,000 images in its lists\n"


@pytest.mark.whole("test_a_long_run_without_a_terminal_has_a_line_now_and_then")
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
