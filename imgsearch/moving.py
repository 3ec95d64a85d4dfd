"""Point the collection to where a folder of images has moved to."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from imgsearch.errors import InputError
from imgsearch.roots import existing, is_below, plain_path
from imgsearch.storage.records import Root
from imgsearch.storage.writer import CatalogWriter

__all__ = ["move_root"]

SAMPLE = 30  # images a root that are compared by their digest
ENOUGH = 0.5  # share of them that has to be there: others may have been changed or deleted since


def move_root(
    catalog: CatalogWriter, old: str | os.PathLike[str], new: str | os.PathLike[str]
) -> Path:
    """Give the root at `old`, and those below it, the path `new`; return that.

    Raises:
        InputError: there is no such root, there is something else at `new`, or it is a root.
    """
    before = plain_path(old)
    resolved = os.path.realpath(before)
    roots = catalog.roots()
    moving = [root for root in roots if _is_at(root, before) or _is_at(root, resolved)]
    if not moving:
        known = ", ".join(os.fsdecode(root.path) for root in roots) or "none"
        raise InputError(f"{os.fsdecode(before)} is no root of this collection; its roots: {known}")
    after = existing(new)
    if not os.path.isdir(after):
        raise InputError(f"{os.fsdecode(after)} is no folder; name the one that {old} has become")
    paths = []
    for root in moving:
        top = before if _is_at(root, before) else resolved
        path = os.path.normpath(os.path.join(after, os.path.relpath(root.path, top)))
        if any(other.path == path for other in roots if other not in moving):
            raise InputError(f"{os.fsdecode(path)} is a root of this collection already")
        _compare(catalog, root, path)
        paths.append((root.id, path))
    catalog.move_roots(paths)
    return Path(os.fsdecode(after))


def _is_at(root: Root, path: bytes) -> bool:
    return root.path == path or is_below(root.path, path)


def _compare(catalog: CatalogWriter, root: Root, path: bytes) -> None:
    """Check on a sample of a root's images that they are below `path`."""
    sample = list(catalog.digests(root.id, SAMPLE))
    same = sum(
        _digest(os.path.join(path, spot.folder, spot.name)) == digest for spot, digest in sample
    )
    if same < ENOUGH * len(sample):
        raise InputError(
            f"{os.fsdecode(path)} does not hold the images of {os.fsdecode(root.path)}: of "
            f"{len(sample)} that were looked for, {same} are there unchanged; nothing was moved"
        )


def _digest(path: bytes) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return None
