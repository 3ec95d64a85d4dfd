"""Let permissions bind, also where the tests run as root, as in a container."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["give_away", "ordinary_folder", "ordinary_user"]

_NOBODY = 65534


@contextmanager
def ordinary_folder() -> Iterator[Path]:
    """Make a folder that an ordinary user can reach: those of pytest belong to root alone."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Give up the privileges of root for a while, if there are any."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


def give_away(folder: Path) -> None:
    """Let the ordinary user own a folder and all that is in it."""
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, _NOBODY, -1)
