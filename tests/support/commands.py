"""Run `python -m imgsearch`: in a process of its own as a user does, or in this one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from click.testing import CliRunner

from imgsearch.cli import main

__all__ = ["Ended", "Run", "imgsearch_command", "run_here", "run_python"]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended: its exit code and what it wrote; bytes that are not UTF-8 escaped."""

    code: int
    out: str
    err: str


class Run(Protocol):
    """Runs `python -m imgsearch ARGUMENTS` to its end."""

    def __call__(
        self,
        *arguments: str | Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        before: Callable[[], None] | None = None,
    ) -> Ended:
        """Return how it ended; `before` runs in the new process first."""
        ...


def imgsearch_command(*arguments: str | Path) -> list[str]:
    """Return the command line that starts imgsearch."""
    return [sys.executable, "-m", "imgsearch", *map(str, arguments)]


def run_here(*arguments: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> Ended:
    """Run the command in this process, which saves the time that a new one takes to start."""
    before = Path.cwd()
    os.chdir(cwd)
    try:
        ended = CliRunner().invoke(
            main,
            [os.fspath(argument) for argument in arguments],
            env=env,
            prog_name="imgsearch",
            catch_exceptions=False,
        )
    finally:
        os.chdir(before)
    return Ended(
        ended.exit_code,
        ended.stdout_bytes.decode(errors="surrogateescape"),
        ended.stderr_bytes.decode(errors="surrogateescape"),
    )


def run_python(
    command: list[str],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    before: Callable[[], None] | None = None,
) -> Ended:
    """Run a command to its end, at most two minutes."""
    ended = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | dict(env or {}),
        preexec_fn=before,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
        check=False,
    )
    return Ended(
        ended.returncode,
        ended.stdout.decode(errors="surrogateescape"),
        ended.stderr.decode(errors="surrogateescape"),
    )
