"""Find the root of a collection that a path belongs to."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from imgsearch.files.exclusions import BY_DEFAULT, Exclusions
from imgsearch.files.paths import relative, upwards
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.changes import FolderLocation
from imgsearch.storage.records import Root

__all__ = ["Roots"]


class Roots:
    """The roots of a collection.

    A folder belongs to the root with the longest path at or above it, so that nothing is in two
    roots; a root that is not recursive owns only the files directly in it.
    """

    def __init__(
        self,
        roots: Iterable[Root],
        excluded: Iterable[bytes] = (),
        exclusions: Exclusions = BY_DEFAULT,
    ) -> None:
        """Store the roots, the absolute paths of their excluded folders, and the exclusions."""
        self.all = sorted(roots, key=lambda root: len(root.path), reverse=True)
        self.excluded = frozenset(excluded)
        self.exclusions = exclusions
        self._at = {root.path: root for root in self.all}

    @classmethod
    def of(cls, catalog: Catalog) -> Roots:
        """Return the current roots of a collection."""
        settings = catalog.settings()
        out = Exclusions.of(settings.exclude, settings.include) if settings else BY_DEFAULT
        return cls(catalog.roots(), catalog.excluded_folders(), out)

    def above(self, path: bytes) -> Iterator[Root]:
        """Yield the roots at and above an absolute path, nearest first."""
        return (self._at[folder] for folder in upwards(path) if folder in self._at)

    def find(self, folder: bytes) -> FolderLocation | None:
        """Return the place of the folder at an absolute path, or None if no root owns it."""
        for root in self.above(folder):
            if root.recursive or root.path == folder:
                return FolderLocation(root.id, relative(folder, root.path))
        return None

    def covers(self, folder: bytes) -> bool:
        """Tell whether a recursive root covers a folder and everything below it."""
        for root in self.above(folder):
            if root.recursive:
                within = itertools.takewhile(root.path.__ne__, upwards(folder))
                is_out = self.exclusions.covers(folder, root.path)
                return not is_out and self.excluded.isdisjoint(within)
        return False
