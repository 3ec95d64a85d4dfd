"""Which root of a collection a path belongs to."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from imgsearch.embedding.exclusions import BY_DEFAULT, Exclusions
from imgsearch.embedding.sources import is_url, located, status_of
from imgsearch.errors import InputError, reason_of
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.records import Root, Spot

__all__ = [
    "Place",
    "Roots",
    "existing",
    "is_at",
    "is_below",
    "plain_path",
    "real_path",
    "relative",
    "resolved_path",
    "upwards",
]


@dataclass(frozen=True, slots=True)
class Place:
    """A folder as the catalog has it: the id of its root, and its path relative to that."""

    root: int
    folder: bytes

    def spot(self, name: bytes) -> Spot:
        """Return the spot of a file in this folder."""
        return Spot(self.root, self.folder, name)


class Roots:
    """The roots of a collection.

    A folder belongs to the longest root above it, so that a path is never in two; a root that is
    not recursive owns the files directly in it only.
    """

    def __init__(
        self,
        roots: Iterable[Root],
        excluded: Iterable[bytes] = (),
        exclusions: Exclusions = BY_DEFAULT,
    ) -> None:
        """Take the roots, the absolute paths of folders taken out of them, and what is left out."""
        self.all = sorted(roots, key=lambda root: len(root.path), reverse=True)
        self.excluded = frozenset(excluded)
        self.exclusions = exclusions
        self._at = {root.path: root for root in self.all}

    @classmethod
    def of(cls, catalog: Catalog) -> Roots:
        """Return the roots of a collection as they are now."""
        settings = catalog.settings()
        out = Exclusions.of(settings.exclude, settings.include) if settings else BY_DEFAULT
        return cls(catalog.roots(), catalog.excluded_folders(), out)

    def above(self, path: bytes) -> Iterator[Root]:
        """Yield the roots at and above an absolute path, the nearest first."""
        return (self._at[folder] for folder in upwards(path) if folder in self._at)

    def find(self, folder: bytes) -> Place | None:
        """Return the place of a folder, given by its absolute path; None if no root owns it."""
        for root in self.above(folder):
            if root.recursive or root.path == folder:
                return Place(root.id, relative(folder, root.path))
        return None

    def covers(self, folder: bytes) -> bool:
        """Tell whether a recursive root has a folder and all below it looked through."""
        for root in self.above(folder):
            if root.recursive:
                within = itertools.takewhile(root.path.__ne__, upwards(folder))
                is_out = self.exclusions.covers(folder, root.path)
                return not is_out and self.excluded.isdisjoint(within)
        return False


def upwards(path: bytes) -> Iterator[bytes]:
    """Yield an absolute path and the folders above it, the nearest first."""
    yield path
    while (above := os.path.dirname(path)) != path:
        yield above
        path = above


def relative(path: bytes, folder: bytes) -> bytes:
    """Return an absolute path relative to a folder that it leads through; empty for that itself."""
    return path[len(folder.rstrip(b"/")) + 1 :]


def is_at(path: bytes, folder: bytes) -> bool:
    """Tell whether an absolute path is a folder, or leads through it."""
    return path == folder or is_below(path, folder)


def is_below(path: bytes, folder: bytes) -> bool:
    """Tell whether an absolute path leads through a folder, which it is not itself."""
    return path.startswith(folder.rstrip(b"/") + b"/") and path != folder


def real_path(path: str | os.PathLike[str]) -> bytes:
    """Return an absolute path without links in its folders, `~` expanded; the last part stays."""
    plain = plain_path(path)
    folder, name = os.path.split(plain)
    return plain if is_url(plain) else os.path.join(os.path.realpath(folder), name)


def resolved_path(path: str | os.PathLike[str]) -> bytes:
    """Return an absolute path without any links, `~` expanded."""
    plain = plain_path(path)
    return plain if is_url(plain) else os.path.realpath(plain)


def plain_path(path: str | os.PathLike[str]) -> bytes:
    """Return an absolute path as it is written, `~` expanded, or a URL; raises as `located`."""
    there = located(path)
    return there if is_url(there) else os.path.abspath(there)


def existing(path: str | os.PathLike[str]) -> bytes:
    """Return the path under which a file or folder is indexed.

    Raises:
        InputError: there is none, or it cannot be reached.
        PackageError: it is a URL, and a package for its kind is not installed.
        SettingError: it is a URL of no kind that is known.
    """
    real = real_path(path)
    if is_url(real):
        return _at_url(real)
    if os.path.isdir(real):
        return os.path.realpath(real)
    if not os.path.lexists(real):
        raise InputError(f"{os.fsdecode(path)}: there is no such file or folder")
    return real


def _at_url(url: bytes) -> bytes:
    text = os.fsdecode(url)
    try:
        status_of(text)
    except FileNotFoundError as error:
        raise InputError(f"{text}: there is no such file or folder") from error
    except OSError as error:
        raise InputError(f"{text}: cannot be reached: {reason_of(error)}") from error
    return url
