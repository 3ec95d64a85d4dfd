"""Which root of a collection a path belongs to."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from imgsearch.errors import InputError
from imgsearch.storage.records import Root

__all__ = ["Place", "Roots", "existing", "plain_path", "real_path"]


@dataclass(frozen=True, slots=True)
class Place:
    """A folder as the catalog has it: the id of its root, and its path relative to that."""

    root: int
    folder: bytes


class Roots:
    """The roots of a collection.

    A folder belongs to the longest root above it, so that a path is never in two; a root that is
    not recursive owns the files directly in it only.
    """

    def __init__(self, roots: Iterable[Root]) -> None:
        self._roots = sorted(roots, key=lambda root: len(root.path), reverse=True)

    def find(self, folder: bytes) -> Place | None:
        """Return the place of a folder, given by its absolute path; None if no root owns it."""
        for root in self._roots:
            if folder == root.path:
                return Place(root.id, b"")
            prefix = root.path.rstrip(b"/") + b"/"
            if root.recursive and folder.startswith(prefix):
                return Place(root.id, folder[len(prefix) :])
        return None

    def covers(self, folder: bytes) -> bool:
        """Tell whether a folder and all below it belong to a recursive root."""
        return any(
            root.recursive
            and (folder == root.path or folder.startswith(root.path.rstrip(b"/") + b"/"))
            for root in self._roots
        )


def real_path(path: str | os.PathLike[str]) -> bytes:
    """Return an absolute path without links in its folders, `~` expanded; the last part stays."""
    folder, name = os.path.split(plain_path(path))
    return os.path.join(os.path.realpath(folder), name)


def plain_path(path: str | os.PathLike[str]) -> bytes:
    """Return an absolute path as it is written, `~` expanded."""
    return os.path.abspath(os.fsencode(os.path.expanduser(path)))


def existing(path: str | os.PathLike[str]) -> bytes:
    """Return the path under which a file or folder is indexed.

    Raises:
        InputError: there is none.
    """
    real = real_path(path)
    if os.path.isdir(real):
        return os.path.realpath(real)
    if not os.path.lexists(real):
        raise InputError(f"{os.fsdecode(path)}: there is no such file or folder")
    return real
