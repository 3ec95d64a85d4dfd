"""Remove images from a collection, and keep them out until they are named again."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from imgsearch.errors import InputError
from imgsearch.files.paths import is_at, plain_path, real_path, relative, resolved_path
from imgsearch.storage.changes import FileLocation, FolderLocation
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import Root
from imgsearch.storage.roots import Roots
from imgsearch.storage.seal import writing
from imgsearch.storage.writer import CatalogWriter

__all__ = ["remove", "remove_ids"]


@dataclass(slots=True)
class _Chosen:
    """What to remove: files, folders with everything below them, and whole roots."""

    locations: list[FileLocation] = field(default_factory=list)
    places: list[FolderLocation] = field(default_factory=list)
    roots: list[Root] = field(default_factory=list)


def remove(layout: Layout, catalog: CatalogWriter, paths: Sequence[str | os.PathLike[str]]) -> int:
    """Remove the images at `paths`, all or nothing; return how many.

    Args:
        layout: The layout of the collection.
        catalog: The catalog of the collection.
        paths: Files, folders (with everything in them, now or later), or `fnmatch` patterns, whose
            `*` stands for any characters, including `/`.

    Raises:
        InputError: If the collection has nothing at one of them.
        BusyError: If another process is writing to the collection.
    """
    with writing(layout):
        chosen = _Chosen()
        roots = Roots.of(catalog)
        for path in paths:
            if not _choose(catalog, roots, path, chosen):
                raise InputError(
                    f"{os.fsdecode(path)}: the collection has no image there; nothing was removed"
                )
        before = catalog.counts().images
        catalog.exclude(chosen.locations, chosen.places, [root.id for root in chosen.roots])
        return before - catalog.counts().images


def remove_ids(layout: Layout, catalog: CatalogWriter, ids: Sequence[int]) -> int:
    """Remove those images that are in the collection, and nothing else; return how many.

    Raises:
        BusyError: If another process is writing to the collection.
    """
    with writing(layout):
        locations = catalog.locations_of(ids)
        catalog.exclude(locations, [])
        return len(locations)


def _choose(
    catalog: CatalogWriter, roots: Roots, path: str | os.PathLike[str], chosen: _Chosen
) -> bool:
    """Add the files at `path` to the selection; tell whether there are any."""
    for absolute in dict.fromkeys((plain_path(path), real_path(path), resolved_path(path))):
        folder, name = os.path.split(absolute)
        place = roots.find(folder)
        if place is not None and name and _is_known(catalog, place, name):
            chosen.locations.append(place.location(name))
            return True
        dropped = [root for root in roots.all if is_at(root.path, absolute)]
        # A root above would have the folder scanned again, so it has to exclude it.
        above = (root for root in roots.above(folder) if root.recursive)
        place = next(
            (FolderLocation(root.id, relative(absolute, root.path)) for root in above), None
        )
        is_known = place is not None and catalog.folders_below(place.root, place.folder)
        if dropped or is_known:
            chosen.roots += dropped
            chosen.places += [place] if place is not None else []
            return True
    locations = list(_matching(catalog, plain_path(path)))
    chosen.locations += locations
    return bool(locations)


def _is_known(catalog: CatalogWriter, place: FolderLocation, name: bytes) -> bool:
    folder = catalog.folder(place.root, place.folder)
    if folder is None:
        return False
    known = catalog.known(folder, name, name).get(name)
    return known is not None and not known.excluded


def _matching(catalog: CatalogWriter, pattern: bytes) -> Iterator[FileLocation]:
    """Yield the known files whose absolute path matches."""
    for root in catalog.roots():
        for id_, path in catalog.folders_below(root.id, b""):
            folder = os.path.join(root.path, path) if path else root.path
            for name, known in catalog.known(id_).items():
                if not known.excluded and fnmatch.fnmatchcase(os.path.join(folder, name), pattern):
                    yield FileLocation(root.id, path, name)
