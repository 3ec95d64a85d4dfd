"""Which root of a collection a path belongs to."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from imgsearch.files.exclusions import BY_DEFAULT, Exclusions
from imgsearch.files.paths import relative, upwards
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.records import Root, Spot

__all__ = ["Place", "Roots"]


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
