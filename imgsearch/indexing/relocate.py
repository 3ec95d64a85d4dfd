"""Point the collection to the new location of a folder of images."""

from __future__ import annotations

import hashlib
import os

from imgsearch.errors import ImageError, InputError
from imgsearch.files.paths import is_at, plain_path, relative, resolved_path
from imgsearch.files.sources import existing, is_folder, open_source
from imgsearch.storage.records import Root
from imgsearch.storage.roots import Roots
from imgsearch.storage.writer import CatalogWriter

__all__ = ["move_roots"]

COMPARED = 30  # images per root that are compared by their digest
SAME_SHARE = 0.5  # share that must be there: others may have been changed or deleted since


def move_roots(
    catalog: CatalogWriter, old: str | os.PathLike[str], new: str | os.PathLike[str]
) -> set[int]:
    """Move the root at `old`, and those below it, to `new`; return their ids.

    Raises:
        InputError: If there is no such root, or `new` holds something else or is a root.
    """
    before = plain_path(old)
    resolved = resolved_path(old)
    roots = catalog.roots()
    moving = [root for root in roots if is_at(root.path, before) or is_at(root.path, resolved)]
    if not moving:
        known = ", ".join(os.fsdecode(root.path) for root in roots) or "none"
        raise InputError(
            f"{os.fsdecode(before)} is not a root of this collection; its roots: {known}"
        )
    after = existing(new)
    if not is_folder(after):
        raise InputError(f"{os.fsdecode(after)} is not a folder; give the new location of {old}")
    moved = {root.id for root in moving}
    staying = Roots(root for root in roots if root.id not in moved)
    taken = {root.path for root in staying.all}
    paths = []
    for root in moving:
        top = before if is_at(root.path, before) else resolved
        below = relative(root.path, top)
        path = os.path.join(after, below) if below else after
        if path in taken:
            raise InputError(f"{os.fsdecode(path)} is already a root of this collection")
        _compare(catalog, root, path)
        paths.append((root.id, path))
    _make_way(catalog, staying, paths)
    catalog.move_roots(paths)
    for id_, _ in paths:
        catalog.set_mounts(id_, b"", [])  # what was mounted at the old place
    return moved


def _make_way(catalog: CatalogWriter, staying: Roots, paths: list[tuple[int, bytes]]) -> None:
    """Forget other roots' records of the destination folders: a path belongs to one root only."""
    folders: list[int] = []
    for _, path in paths:
        place = staying.find(path)
        if place is not None:
            folders += [id_ for id_, _ in catalog.folders_below(place.root, place.folder)]
    known = {(id_, name): file for id_ in folders for name, file in catalog.known(id_).items()}
    ids = [file.id for file in known.values() if file.id is not None]
    catalog.forget(ids, list(known), folders)


def _compare(catalog: CatalogWriter, root: Root, path: bytes) -> None:
    """Check that a sample of a root's images exists below `path`."""
    sample = list(catalog.digests(root.id, COMPARED))
    same = sum(
        _digest(os.path.join(path, location.folder, location.name)) == digest
        for location, digest in sample
    )
    if same < SAME_SHARE * len(sample):
        raise InputError(
            f"{os.fsdecode(path)} does not hold the images of {os.fsdecode(root.path)}: of "
            f"{len(sample)} that were looked for, {same} are there unchanged; nothing was moved"
        )


def _digest(path: bytes) -> bytes | None:
    try:
        with open_source(os.fsdecode(path)) as file:
            return hashlib.file_digest(file, "sha256").digest()
    except (OSError, ImageError):
        return None
