"""What is gone since the last run, and whether to believe it: an unplugged drive looks the same."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from imgsearch.roots import Roots, is_at, is_below
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.records import Known, Root
from imgsearch.storage.writer import CatalogWriter
from imgsearch.tops import Tops

__all__ = ["Absence", "is_gone", "may_be_unplugged"]

MOUNTS = Path("/proc/self/mountinfo")  # Linux


@dataclass(frozen=True, slots=True)
class _Gone:
    """What is gone of one folder: ids of images, and names of files that were no images.

    `there` of the images have a file yet: they are indexed by another path now.
    """

    folder: bytes
    id: int
    ids: tuple[int, ...]
    names: tuple[bytes, ...]
    there: int = 0


class Absence:
    """Collects what a run did not find, and drops it in the end."""

    def __init__(self, catalog: CatalogWriter, tops: Tops, *, prune: bool) -> None:
        self._catalog = catalog
        self._tops = tops
        self._prune = prune
        self._roots = Roots.of(catalog)
        self._last = catalog.last_folder()  # those that come later come by this run
        self._seen: set[int] = set()
        self._unreadable: list[bytes] = []
        self._gone: list[_Gone] = []
        self._lost: set[bytes] = set()  # places whose images are kept

    def see(self, folder: bytes, id_: int, missing: dict[bytes, Known]) -> None:
        """Note that a folder was listed, and which of its known files were not there."""
        self._seen.add(id_)
        if missing:
            self._gone.append(_gone(folder, id_, missing))

    def cannot_see(self, path: bytes) -> None:
        """Note that a folder, or what a link leads to, cannot be read: nothing below it is gone."""
        self._unreadable.append(path)

    def settle(self, moved: set[int]) -> tuple[int, list[str]]:
        """Drop what is gone, after the whole run; return how many images, and why others are kept.

        Args:
            moved: ids of images that were found elsewhere.
        """
        gone = [
            replace(part, ids=tuple(id_ for id_ in part.ids if id_ not in moved))
            for part in [*self._gone, *self._unseen()]
        ]
        reasons: list[str] = []
        if not self._prune:
            gone = self._believed(gone, reasons)
        ids = [id_ for part in gone for id_ in part.ids]
        files = [(part.id, name) for part in gone for name in part.names]
        if ids or files:
            self._catalog.forget(ids, files, [part.id for part in gone])
        for root in self._roots.all:
            if self._prune and is_gone(root.path) and self._is_looked_at(root):
                self._drop(root)
        self._remember_mounts()
        return len(ids), reasons

    def _unseen(self) -> Iterator[_Gone]:
        """Yield all that is known of the folders that were not come across."""
        for root, below in self._scope():
            for id_, path in self._catalog.folders_below(root.id, below):
                folder = os.path.join(root.path, path) if path else root.path
                is_old = id_ <= self._last and id_ not in self._seen
                if is_old and not self._is_unreadable(folder):
                    self._seen.add(id_)
                    known = self._catalog.known(id_)
                    yield _gone(folder, id_, known, there=_count_there(folder, known))

    def _scope(self) -> Iterator[tuple[Root, bytes]]:
        """Yield the parts of roots that were looked through: a root, and a folder in it."""
        for top in self._tops.folders:
            for root in self._roots.all:
                if root.path == top or is_below(root.path, top):
                    yield root, b""
                elif root.recursive and is_below(top, root.path):
                    yield root, top[len(root.path.rstrip(b"/")) + 1 :]

    def _is_unreadable(self, folder: bytes) -> bool:
        return any(is_at(folder, path) for path in self._unreadable)

    def _is_looked_at(self, root: Root) -> bool:
        return any(is_at(root.path, folder) for folder in self._tops.folders) or any(
            os.path.dirname(file) == root.path for file in self._tops.files
        )

    def _drop(self, root: Root) -> None:
        """Forget a root that is gone, unless something is known of it that could not be seen."""
        for id_, _ in self._catalog.folders_below(root.id, b""):
            if not all(file.excluded for file in self._catalog.known(id_).values()):
                return
        self._catalog.drop_root(root.id)

    def _believed(self, gone: list[_Gone], reasons: list[str]) -> list[_Gone]:
        """Leave out what may be on an unplugged drive, and say so in `reasons`."""
        for place, how in self._lost_places(gone):
            count = sum(len(part.ids) for part in gone if is_at(part.folder, place))
            if count:
                reasons.append(f"{os.fsdecode(place)} {how}: its {count:,} images are kept")
                gone = [part for part in gone if not is_at(part.folder, place)]
                self._lost.add(place)
        lost = sum(len(part.ids) - part.there for part in gone)
        images = self._catalog.counts().images
        if lost and 2 * lost >= images:
            example = next(part.folder for part in gone if len(part.ids) > part.there)
            reasons.append(
                f"{lost:,} of {images:,} images are gone at once, such as those of "
                f"{os.fsdecode(example)}: they are kept"
            )
            return []
        return gone

    def _lost_places(self, gone: list[_Gone]) -> Iterator[tuple[bytes, str]]:
        folders = {*self._tops.folders, *(os.path.dirname(file) for file in self._tops.files)}
        for folder in sorted(folders):
            if not os.path.isdir(folder):
                yield folder, "is missing"
            elif _is_lost(folder):
                yield folder, "is empty"
        points = _mount_points()
        for root, below in self._scope():
            for mount in self._catalog.mounts(root.id):
                within = os.path.join(root.path, below) if below else root.path
                is_within = is_at(mount, within) or is_below(within, mount)
                if is_within and not _is_mount(mount, points):
                    yield mount, "is no longer mounted"
        links = {_empty_link(part.folder) for part in gone if part.ids}
        for link in sorted(link for link in links if link is not None):
            yield link, "leads to an empty folder"
        for root in self._roots.all:
            places = ((part, self._roots.find(part.folder)) for part in gone)
            parts = [part for part, place in places if place and place.root == root.id]
            count = sum(len(part.ids) - part.there for part in parts)
            if root.path in folders and count and count == self._catalog.count_in(root.id):
                yield root.path, "has none of its images any more"

    def _remember_mounts(self) -> None:
        points = _mount_points()
        for root, below in self._scope():
            top = os.path.join(root.path, below) if below else root.path
            before = {path for path in self._catalog.mounts(root.id) if is_at(path, top)}
            known = {path for _, path in self._catalog.folders_below(root.id, below)}
            above = {part for path in known for part in _ancestors(path)}
            folders = (os.path.join(root.path, path) if path else root.path for path in above)
            mounted = {path for path in folders if is_at(path, top) and _is_mount(path, points)}
            # What may be unplugged is not forgotten: the next run is to keep its images, too.
            mounted |= {path for path in before if any(is_at(path, lost) for lost in self._lost)}
            if mounted != before:
                start = len(root.path.rstrip(b"/")) + 1
                self._catalog.set_mounts(root.id, below, [path[start:] for path in mounted])


def may_be_unplugged(path: bytes, catalog: Catalog) -> bool:
    """Tell whether a file may be missing because the drive of its root, or one in it, is."""
    points = _mount_points()
    return _empty_link(os.path.dirname(path)) is not None or any(
        _is_lost(root.path)
        or any(
            is_below(path, mount) and not _is_mount(mount, points)
            for mount in catalog.mounts(root.id)
        )
        for root in catalog.roots()
        if is_below(path, root.path)
    )


def is_gone(path: bytes) -> bool:
    """Tell whether there is no file at a path, as far as can be seen.

    One that may not be read is there; so is one behind a link, if the folder that it leads to may
    be on an unplugged drive.
    """
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return not os.path.islink(path) or not _is_lost(os.path.dirname(os.path.realpath(path)))
    except OSError:
        pass
    return False


def _empty_link(folder: bytes) -> bytes | None:
    """Return the link above a folder, or the folder itself, that leads to nothing, if one does."""
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    return folder if os.path.islink(folder) and _is_lost(folder) else None


def _is_lost(folder: bytes) -> bool:
    """Tell whether a folder is missing, or empty as where a drive is mounted."""
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False


def _mount_points() -> frozenset[bytes] | None:
    """Return where file systems are mounted; None where only `os.path.ismount` can tell."""
    try:
        lines = MOUNTS.read_bytes().splitlines()
    except OSError:
        return None
    # proc(5): the fifth field, with space, tab, newline and backslash as octal escapes.
    return frozenset(line.split()[4].decode("unicode_escape").encode("latin-1") for line in lines)


def _is_mount(path: bytes, points: frozenset[bytes] | None) -> bool:
    return os.path.ismount(path) if points is None else path in points


def _ancestors(path: bytes) -> Iterable[bytes]:
    """Yield a relative path and all above it, the root of them (an empty path) included."""
    while path:
        yield path
        path = os.path.dirname(path)
    yield b""


def _count_there(folder: bytes, known: dict[bytes, Known]) -> int:
    if not os.path.isdir(folder):
        return 0
    names = [name for name, file in known.items() if file.id is not None]
    return sum(os.path.exists(os.path.join(folder, name)) for name in names)


def _gone(folder: bytes, id_: int, known: dict[bytes, Known], there: int = 0) -> _Gone:
    ids = tuple(file.id for file in known.values() if file.id is not None)
    names = tuple(name for name, file in known.items() if file.id is None and not file.excluded)
    return _Gone(folder, id_, ids, names, there)
