"""Find files that have changed since they were indexed."""

from __future__ import annotations

import os
from collections.abc import Iterator

from imgsearch.errors import ImageError
from imgsearch.files.listing import Kind, look_at
from imgsearch.files.paths import is_url
from imgsearch.images.decode import ImageFile
from imgsearch.indexing.scan import Changes
from imgsearch.storage.catalog import Catalog

__all__ = ["Originals"]


class Originals:
    """A comparison of image files with the catalog's records; counts files that are `gone`."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self.gone = 0

    def changed(self) -> Iterator[str]:
        """Yield the paths of files whose content has changed; skip those at URLs.

        Only files whose size, times or inode differ are read.
        """
        for root in self._catalog.roots():
            if is_url(root.path):
                continue
            for id_, path in self._catalog.folders_below(root.id, b""):
                folder = os.path.join(root.path, path) if path else root.path
                yield from self._changed_in(folder, id_)

    def _changed_in(self, folder: bytes, id_: int) -> Iterator[str]:
        known = {name: file for name, file in self._catalog.known(id_).items() if file.id}
        files = look_at(folder, known)
        changes = Changes(files, known, rehash=False)
        for file in files:
            old = known[file.name]
            if file.kind is Kind.BROKEN:
                self.gone += 1
            elif changes.are_possible(file, old) and old.id is not None:
                path = os.fsdecode(os.path.join(folder, file.name))
                if self._differs(path, old.id):
                    yield path

    def _differs(self, path: str, id_: int) -> bool:
        try:
            with ImageFile(path) as file:
                return file.digest != self._catalog.digest_of(id_)
        except ImageError as error:
            return not error.transient  # no longer an image; if it cannot be read, nobody can tell
