"""The scope of an indexing run: the given paths, or all roots."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from imgsearch.errors import SettingError
from imgsearch.files.exclusions import BY_DEFAULT, Exclusions, changed_patterns
from imgsearch.files.listing import Listing, Unreadable, list_files, list_one, list_urls
from imgsearch.files.paths import is_url, plain_path, relative, upwards
from imgsearch.files.sources import existing, is_folder
from imgsearch.files.walk import Names, walk
from imgsearch.storage.changes import FileLocation
from imgsearch.storage.records import Root
from imgsearch.storage.roots import Roots
from imgsearch.storage.writer import CatalogWriter

__all__ = [
    "Scope",
    "change_exclusions",
    "count_scope",
    "find_scope",
    "list_scope",
    "scope_of",
    "scope_within",
]


@dataclass(frozen=True, slots=True)
class Scope:
    """The scope of a run: folders, with everything below them, and single files.

    `skipped` holds folders that were removed from the collection: the scan passes over them, and
    over everything that `exclusions` leave out.
    """

    folders: Sequence[bytes]
    files: Sequence[bytes]
    skipped: frozenset[bytes]
    exclusions: Exclusions = BY_DEFAULT


def change_exclusions(
    catalog: CatalogWriter, exclude: Sequence[str], include: Sequence[str]
) -> int:
    """Change which files a collection leaves out; return how many images that removes.

    Args:
        catalog: The catalog of the collection, which is locked for writing.
        exclude: The patterns to leave out from now on.
        include: The patterns to drop.

    Raises:
        SettingError: If a pattern is empty, or one to drop is not in force.
    """
    settings = catalog.snapshot().settings
    kept = settings.exclude, settings.include
    changed = changed_patterns(kept, exclude, include)
    if changed == kept:
        return 0
    catalog.change_patterns(*changed)
    exclusions = Exclusions.of(*changed)
    before = catalog.counts().images
    for root in catalog.roots():
        if not root.recursive:  # its files were named one by one
            continue
        for id_, path in catalog.folders_below(root.id, b""):
            folder = os.path.join(root.path, path) if path else root.path
            is_out = exclusions.covers(folder, root.path)
            known = catalog.known(id_)
            out = {
                name: file
                for name, file in known.items()
                if not file.excluded and (is_out or exclusions.has_file(folder, name))
            }
            ids = [file.id for file in out.values() if file.id is not None]
            if out:
                catalog.forget(ids, [(id_, name) for name in out], [id_])
    return before - catalog.counts().images


def find_scope(catalog: CatalogWriter, paths: Sequence[str | os.PathLike[str]]) -> Scope:
    """Return the files and folders to scan, and make roots of those that belong to none.

    Removed files and folders that are named now are admitted again.

    Raises:
        InputError: If a path does not exist.
        SettingError: If no path is given and there is no root.
    """
    folders, files = _given(catalog, paths)
    if paths:
        _let_in(catalog, folders, files)
        _add_roots(catalog, folders, files)
    roots = Roots.of(catalog)
    if not roots.all:
        raise SettingError(
            "there is nothing to index yet; name a folder, as in `imgsearch index FOLDER`"
        )
    # A root below a scanned folder may be in a removed part of it.
    given = frozenset(folders)
    below = {
        root.id
        for root in roots.all
        if not paths or not given.isdisjoint(upwards(os.path.dirname(root.path)))
    }
    return _with(scope_of(catalog, below), folders, files)


def scope_within(catalog: CatalogWriter, folders: Iterable[bytes]) -> Scope:
    """Return the scope of a run that looks through some folders of the roots only.

    Of a folder that is gone, the nearest one above it that is there is looked through. What was
    removed from the collection stays out, and no folder becomes a root.

    Args:
        catalog: The catalog of the collection, which is locked for writing.
        folders: Absolute paths of folders; those outside of the roots are left out.
    """
    roots = Roots.of(catalog)
    tops = {root.path for root in roots.all}
    wanted: set[bytes] = set()
    for folder in folders:
        there = (path for path in upwards(folder) if path in tops or is_folder(path))
        wanted.add(next(there, folder))
    inside = {folder for folder in wanted if roots.covers(folder)}
    outermost = [
        folder
        for folder in sorted(inside)
        if inside.isdisjoint(above for above in upwards(os.path.dirname(folder)))
    ]
    given = frozenset(outermost)
    below = {
        root.id
        for root in roots.all
        if root.path in wanted or not given.isdisjoint(upwards(os.path.dirname(root.path)))
    }
    return _with(scope_of(catalog, below), outermost, [])


def _with(scope: Scope, folders: Sequence[bytes], files: Sequence[bytes]) -> Scope:
    """Return a scope with more folders and files, which come first."""
    return Scope(
        list(dict.fromkeys([*folders, *scope.folders])),
        list(dict.fromkeys([*files, *scope.files])),
        scope.skipped,
        scope.exclusions,
    )


def scope_of(catalog: CatalogWriter, ids: Container[int]) -> Scope:
    """Return the folders and files of the roots with these ids."""
    roots = Roots.of(catalog)
    chosen = sorted((root for root in roots.all if root.id in ids), key=lambda root: root.id)
    folders = [root.path for root in chosen if root.recursive]
    single = [root for root in chosen if not root.recursive and not roots.covers(root.path)]
    files = [file for root in single for file in catalog.files_of(root.id)]
    return Scope(folders, files, roots.excluded, roots.exclusions)


def list_scope(scope: Scope, collection: Path) -> Iterator[Listing | Unreadable]:
    """Yield the files at and below `scope`, each once, except those of the collection itself."""
    seen = _own(collection)
    yield from list_files(scope.folders, seen, scope.skipped, scope.exclusions)
    for file in scope.files:
        if not _is_one_of(os.path.dirname(file), seen):
            yield list_one(file)


def count_scope(scope: Scope, collection: Path) -> Iterator[int]:
    """Yield the number of files that `list_scope` lists in each folder, at less expense."""
    seen = _own(collection)
    out = scope.skipped, scope.exclusions
    for found in walk([top for top in scope.folders if not is_url(top)], seen, *out):
        if isinstance(found, Names):
            yield len(found.names)
    for listing in list_urls([top for top in scope.folders if is_url(top)], *out):
        if isinstance(listing, Listing):
            yield len(listing.files)
    for file in scope.files:
        if not _is_one_of(os.path.dirname(file), seen):
            yield 1


def _own(collection: Path) -> set[tuple[int, int]]:
    status = collection.stat()
    return {(status.st_dev, status.st_ino)}


def _is_one_of(folder: bytes, seen: set[tuple[int, int]]) -> bool:
    try:
        status = os.stat(folder)
    except OSError:
        return False
    return (status.st_dev, status.st_ino) in seen


def _given(
    catalog: CatalogWriter, paths: Sequence[str | os.PathLike[str]]
) -> tuple[list[bytes], list[bytes]]:
    """Return the given folders and files, by the paths under which they are indexed."""
    before = Roots.of(catalog)
    scope: dict[bool, dict[bytes, None]] = {True: {}, False: {}}
    for path in paths:
        plain = plain_path(path)
        if not os.path.lexists(plain):
            again = fnmatch.filter(catalog.excluded_files(), plain)
            if again:  # the pattern by which they were removed
                scope[False] |= dict.fromkeys(again)
                continue
        top = existing(path)
        has_files = is_folder(top)
        if not has_files and before.covers(os.path.dirname(plain)):
            top = plain  # below a linked folder, which is listed under its own name
        scope[has_files][top] = None
    return list(scope[True]), list(scope[False])


def _let_in(catalog: CatalogWriter, folders: list[bytes], files: list[bytes]) -> None:
    roots = Roots.of(catalog)
    for path in files:
        folder, name = os.path.split(path)
        place = roots.find(folder)
        if place is not None:
            catalog.include(place.location(name))
    for path in folders:
        for root in roots.above(path):  # it may have been removed before it was a root itself
            if root.recursive or root.path == path:
                catalog.include(FileLocation(root.id, relative(path, root.path), b""))


def _add_roots(catalog: CatalogWriter, folders: list[bytes], files: list[bytes]) -> None:
    before, added = Roots.of(catalog), set[bytes]()
    for folder in folders:
        above = [Root(0, path, recursive=True) for path in upwards(folder) if path in added]
        new = Roots(above, before.excluded, before.exclusions)
        if not before.covers(folder) and not new.covers(folder):
            catalog.add_root(folder, recursive=True)
            added.add(folder)
    after = Roots.of(catalog)
    for folder in dict.fromkeys(os.path.dirname(file) for file in files):
        if not after.covers(folder):
            catalog.add_root(folder, recursive=False)
