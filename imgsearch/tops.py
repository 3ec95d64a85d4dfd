"""Where an indexing run looks: the paths that it was given, or all roots."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from imgsearch.errors import SettingError
from imgsearch.roots import Roots, existing, plain_path
from imgsearch.storage.catalog import Catalog

__all__ = ["Tops", "find_tops"]


@dataclass(frozen=True, slots=True)
class Tops:
    """Where to look: in folders, with all that is below them, and at single files."""

    folders: Sequence[bytes]
    files: Sequence[bytes]


def find_tops(catalog: Catalog, paths: Sequence[str | os.PathLike[str]]) -> Tops:
    """Return the files and folders to look at, and make roots of those that belong to none."""
    if not paths:
        roots = catalog.roots()
        if not roots:
            raise SettingError(
                "nothing to index yet: name a folder, as in `imgsearch index FOLDER`"
            )
        single = (catalog.files_of(root.id) for root in roots if not root.recursive)
        return Tops([root.path for root in roots if root.recursive], [*chain(*single)])
    before = Roots(catalog.roots())
    tops: dict[bool, dict[bytes, None]] = {True: {}, False: {}}
    for path in paths:
        top, plain = existing(path), plain_path(path)
        is_folder = os.path.isdir(top)
        if not is_folder and before.covers(os.path.dirname(plain)):
            top = plain  # below a linked folder, which is listed under its own name
        tops[is_folder][top] = None
    folders, files = list(tops[True]), list(tops[False])
    for folder in folders:
        if not Roots(catalog.roots()).covers(folder):
            catalog.add_root(folder, recursive=True)
    after = Roots(catalog.roots())
    for folder in dict.fromkeys(os.path.dirname(file) for file in files):
        if not after.covers(folder):
            catalog.add_root(folder, recursive=False)
    return Tops(folders, files)
