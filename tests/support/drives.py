"""Drives that can be plugged in and out: file systems in memory, mounted for a test."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

__all__ = ["Drive", "with_drives"]


class Drive:
    """A file system whose content outlasts that it is unplugged."""

    def __init__(self, mounted_at: Path, kept_at: Path) -> None:
        """Make it; it is to be plugged in at `mounted_at`, and is always there at `kept_at`."""
        self._at, self._kept = mounted_at, kept_at
        mounted_at.mkdir(parents=True, exist_ok=True)
        self._kept.mkdir()
        _run("mount", "-t", "tmpfs", "drive", str(self._kept))

    def plug(self) -> None:
        """Mount it."""
        _run("mount", "--bind", str(self._kept), str(self._at))

    def unplug(self) -> None:
        """Unmount it: what is left is the folder at which it was mounted."""
        _run("umount", str(self._at))

    def tear_out(self) -> None:
        """Unplug it while it is in use; who has a file of it open goes on reading that."""
        _run("umount", "--lazy", str(self._at))


def with_drives(play: Callable[[Path], None], folder: Path) -> None:
    """Call a function of a test module where it may mount drives and nobody else sees them.

    It runs in a process of its own, in a mount namespace of its own.
    """
    unshare = shutil.which("unshare")
    probe = [str(unshare), "-m", "mount", "-t", "tmpfs", "probe", str(folder)]
    if unshare is None or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("drives can be mounted by root only, in a mount namespace")
    code = f"from pathlib import Path; from {play.__module__} import {play.__name__} as play; "
    command = [unshare, "-m", sys.executable, "-c", f"{code} play(Path({str(folder)!r}))"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert ended.returncode == 0, ended.stderr


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "LC_ALL": "C"})
