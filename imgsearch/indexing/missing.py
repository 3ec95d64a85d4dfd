"""Find files missing since the last run, and tell deletions from an unplugged drive."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from imgsearch.files.mounts import Mounts, device_of, empty_link, is_gone, is_lost, unanswered
from imgsearch.files.paths import is_at, is_below, relative, upwards
from imgsearch.files.sources import exists, is_folder
from imgsearch.indexing.scope import Scope
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.changes import FileRecord
from imgsearch.storage.records import Root
from imgsearch.storage.roots import Roots
from imgsearch.storage.writer import CatalogWriter

__all__ = ["Absence", "may_be_unplugged"]


@dataclass(frozen=True, slots=True)
class _Gone:
    """The missing files of one folder: ids of images, and names of files that were not images.

    `there` counts the images whose file still exists: it is indexed under another path now.
    """

    folder: bytes
    id: int
    ids: tuple[int, ...]
    names: tuple[bytes, ...]
    there: int = 0


class Absence:
    """The files that a run did not find, which are dropped at its end."""

    def __init__(self, catalog: CatalogWriter, scope: Scope, *, prune: bool) -> None:
        self._catalog = catalog
        self._prune = prune
        self._roots = Roots.of(catalog)
        self._last = catalog.last_folder()  # folders with later ids are added by this run
        self._scope = frozenset(scope.folders)
        self._folders = self._scope.union(os.path.dirname(file) for file in scope.files)
        self._devices = {folder: device_of(folder) for folder in self._folders}
        self._mounts = Mounts()
        self._seen: set[int] = set()
        self._unreadable: set[bytes] = set()
        self._gone: list[_Gone] = []
        self._left_out: list[_Gone] = []
        self.left_out = 0
        self._lost: set[bytes] = set()  # locations whose images are kept

    def see(self, folder: bytes, id_: int, missing: dict[bytes, FileRecord]) -> None:
        """Note that a folder was listed, and which of its known files were missing."""
        self._seen.add(id_)
        if missing:
            self._gone.append(_gone(folder, id_, missing))

    def leave_out(self, folder: bytes, id_: int, known: dict[bytes, FileRecord]) -> None:
        """Note files of a folder that patterns leave out now, whether they exist or not."""
        if known:
            self._left_out.append(_gone(folder, id_, known))

    def cannot_see(self, path: bytes) -> None:
        """Note that a folder or link target cannot be read: nothing below it counts as missing."""
        self._unreadable.add(path)

    def gone_away(self, failed: Iterable[bytes]) -> list[bytes]:
        """Return the drives that were present when the run began and are no longer.

        Args:
            failed: The files and folders that could not be read.
        """
        away = {folder for folder, device in self._devices.items() if device != device_of(folder)}
        now = Mounts()
        for folder in self._folders:
            away |= {mount for mount in self._mounts.at(folder) if not now.has(mount)}
        links = map(empty_link, {os.path.dirname(path) for path in failed})
        away |= {link for link in links if link is not None}
        self._lost |= away
        return sorted(path for path in away if away.isdisjoint(upwards(os.path.dirname(path))))

    def settle(self, moved: set[int]) -> tuple[int, list[str]]:
        """Drop missing images after the run; return their number, and the reasons to keep others.

        Args:
            moved: The ids of images that were found elsewhere.
        """
        gone = [
            replace(part, ids=tuple(id_ for id_ in part.ids if id_ not in moved))
            for part in [*self._gone, *self._unseen()]
            if self._lost.isdisjoint(upwards(part.folder))  # it existed a moment ago
        ]
        self._forget(self._left_out)
        self.left_out = sum(len(part.ids) for part in self._left_out)
        reasons = unanswered(self._scope & self._unreadable)
        if not self._prune:
            gone = self._believed(gone, reasons)
        self._forget(gone)
        for root in self._roots.all:
            if self._prune and is_gone(root.path) and self._is_looked_at(root):
                self._drop(root)
        self._remember_mounts()
        return sum(len(part.ids) for part in gone), reasons

    def _forget(self, parts: list[_Gone]) -> None:
        ids = [id_ for part in parts for id_ in part.ids]
        files = [(part.id, name) for part in parts for name in part.names]
        if ids or files:
            self._catalog.forget(ids, files, [part.id for part in parts])

    def _unseen(self) -> Iterator[_Gone]:
        """Yield all known files of the folders that the run did not reach."""
        for root, below in self._scanned_parts():
            for id_, path in self._catalog.folders_below(root.id, below):
                if id_ > self._last or id_ in self._seen:
                    continue
                folder = os.path.join(root.path, path) if path else root.path
                if self._roots.exclusions.covers(folder, root.path):
                    self._seen.add(id_)
                    self.leave_out(folder, id_, self._catalog.known(id_))
                elif self._unreadable.isdisjoint(upwards(folder)):
                    self._seen.add(id_)
                    known = self._catalog.known(id_)
                    yield _gone(folder, id_, known, there=_count_there(folder, known))

    def _scanned_parts(self) -> Iterator[tuple[Root, bytes]]:
        """Yield the scanned parts of roots: a root, and a folder in it."""
        for root in self._roots.all:
            if not self._scope.isdisjoint(upwards(root.path)):
                yield root, b""
        for top in self._scope:
            for root in self._roots.above(os.path.dirname(top)):
                if root.recursive and self._scope.isdisjoint(upwards(root.path)):
                    yield root, relative(top, root.path)

    def _is_looked_at(self, root: Root) -> bool:
        return root.path in self._folders or not self._scope.isdisjoint(upwards(root.path))

    def _drop(self, root: Root) -> None:
        """Forget a missing root, unless it has known files that could not be checked."""
        for id_, _ in self._catalog.folders_below(root.id, b""):
            if not all(file.excluded for file in self._catalog.known(id_).values()):
                return
        self._catalog.drop_root(root.id)

    def _believed(self, gone: list[_Gone], reasons: list[str]) -> list[_Gone]:
        """Leave out files that may be on an unplugged drive, and say so in `reasons`."""
        places: dict[bytes, str] = {}
        for path, how in self._lost_places(gone):
            places.setdefault(path, how)
        order = {path: number for number, path in enumerate(places)}
        counts: Counter[bytes] = Counter()
        for part in gone:
            above = [path for path in upwards(part.folder) if path in places]
            if part.ids and above:
                counts[min(above, key=order.__getitem__)] += len(part.ids)
        for path, how in places.items():
            if path in counts:
                reasons.append(f"{os.fsdecode(path)} {how}: its {counts[path]:,} images are kept")
        gone = [part for part in gone if counts.keys().isdisjoint(upwards(part.folder))]
        self._lost |= counts.keys()
        lost = sum(len(part.ids) - part.there for part in gone)
        images = self._catalog.counts().images
        if lost and 2 * lost >= images:
            example = next(part.folder for part in gone if len(part.ids) > part.there)
            reasons.append(
                f"{lost:,} of {images:,} images disappeared at once, such as those in "
                f"{os.fsdecode(example)}: they are kept"
            )
            return []
        return gone

    def _lost_places(self, gone: list[_Gone]) -> Iterator[tuple[bytes, str]]:
        for folder in sorted(self._folders):
            if not is_folder(folder):
                yield folder, "is missing"
            elif is_lost(folder):
                yield folder, "is empty"
        mounts = Mounts()
        for root, below in self._scanned_parts():
            for mount in self._catalog.mounts(root.id):
                within = os.path.join(root.path, below) if below else root.path
                is_within = is_at(mount, within) or is_below(within, mount)
                if is_within and not mounts.has(mount):
                    yield mount, "is no longer mounted"
        links = {empty_link(part.folder) for part in gone if part.ids}
        for link in sorted(link for link in links if link is not None):
            yield link, "leads to an empty folder"
        counts: Counter[int] = Counter()
        for part in gone:
            place = self._roots.find(part.folder)
            if place is not None:
                counts[place.root] += len(part.ids) - part.there
        for root in self._roots.all:
            count = counts[root.id]
            if count and root.path in self._folders and count == self._catalog.count_in(root.id):
                yield root.path, "no longer holds any of its images"

    def _remember_mounts(self) -> None:
        mounts = Mounts()
        for root, below in self._scanned_parts():
            top = os.path.join(root.path, below) if below else root.path
            before = {path for path in self._catalog.mounts(root.id) if is_at(path, top)}
            mounted = mounts.among(self._known_folders(root, below), top)
            # A drive that may be unplugged stays known: the next run must keep its images, too.
            mounted |= {
                path
                for path in before | self._mounts.at(top)
                if not self._lost.isdisjoint(upwards(path))
            }
            if mounted != before:
                paths = [relative(path, root.path) for path in mounted]
                self._catalog.set_mounts(root.id, below, paths)

    def _known_folders(self, root: Root, below: bytes) -> Iterator[bytes]:
        for _, path in self._catalog.folders_below(root.id, below):
            yield os.path.join(root.path, path) if path else root.path


def _count_there(folder: bytes, known: dict[bytes, FileRecord]) -> int:
    if not is_folder(folder):
        return 0
    names = [name for name, file in known.items() if file.id is not None]
    return sum(exists(os.path.join(folder, name)) for name in names)


def _gone(folder: bytes, id_: int, known: dict[bytes, FileRecord], there: int = 0) -> _Gone:
    ids = tuple(file.id for file in known.values() if file.id is not None)
    names = tuple(name for name, file in known.items() if file.id is None and not file.excluded)
    return _Gone(folder, id_, ids, names, there)


def may_be_unplugged(path: bytes, roots: Roots, catalog: Catalog) -> bool:
    """Tell whether a file may be missing because a drive, its root's or one in it, is unplugged."""
    if empty_link(os.path.dirname(path)) is not None:
        return True
    above = list(roots.above(os.path.dirname(path)))
    if any(is_lost(root.path) for root in above):
        return True
    remembered = [mount for root in above for mount in catalog.mounts(root.id)]
    within = [mount for mount in remembered if is_below(path, mount)]
    return bool(within) and not all(map(Mounts().has, within))
