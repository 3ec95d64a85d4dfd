"""The files of a collection as the catalog records them, and the changes that a run makes.

They are not in `imgsearch.storage.records` because a query, which needs none of them, would have to
wait for their definitions.
"""

from __future__ import annotations

from dataclasses import dataclass

from imgsearch.storage.records import Facts, PrintFile, Shard

__all__ = [
    "Commit",
    "Counts",
    "FileLocation",
    "FileRecord",
    "FolderLocation",
    "Holder",
    "NewFailure",
    "NewImage",
    "Seen",
    "Stamp",
]

_UNKNOWN = Facts()


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file as recorded in the catalog.

    It is an image (`id`), a failure (`reason`), a skipped file (`kind`) or an excluded file
    (`excluded`). `mtime_ns` is None if it was too recent to be trusted; `ctime_ns` and `inode` are
    None if unknown.
    """

    size: int
    mtime_ns: int | None
    id: int | None
    reason: str | None
    excluded: bool
    ctime_ns: int | None = None
    inode: int | None = None
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class Holder:
    """An image with a given digest; `path` is absolute, or None if the image was removed."""

    id: int
    path: bytes | None


@dataclass(frozen=True, slots=True)
class FileLocation:
    """The location of a file: the id of its root, its folder relative to the root, its name."""

    root: int
    folder: bytes
    name: bytes


@dataclass(frozen=True, slots=True)
class FolderLocation:
    """A folder as recorded in the catalog: the id of its root, and its path relative to that."""

    root: int
    folder: bytes

    def location(self, name: bytes) -> FileLocation:
        """Return the location of a file in this folder."""
        return FileLocation(self.root, self.folder, name)


@dataclass(frozen=True, slots=True)
class Stamp:
    """The ctime and inode of the unchanged file of the image `id`; `inode` is None if unknown."""

    id: int
    ctime_ns: int
    inode: int | None


@dataclass(frozen=True, slots=True)
class Seen:
    """The file of the image `id` as it was found: its location, its size in bytes, its times.

    `replaces` is the id of another image that was at the location before. `ctime_ns` and `inode`,
    here and below, are None if unknown.
    """

    id: int
    location: FileLocation
    size: int
    mtime_ns: int | None
    replaces: int | None = None
    ctime_ns: int | None = None
    inode: int | None = None


@dataclass(frozen=True, slots=True)
class NewImage:
    """An image to be committed; `replaces` is the id of the image at its location before."""

    location: FileLocation
    size: int
    mtime_ns: int | None
    digest: bytes
    replaces: int | None
    ctime_ns: int | None = None
    inode: int | None = None
    facts: Facts = _UNKNOWN


@dataclass(frozen=True, slots=True)
class NewFailure:
    """A file to record as failed, or as skipped for its `kind` if `reason` is None."""

    location: FileLocation
    size: int
    mtime_ns: int | None
    reason: str | None
    replaces: int | None
    ctime_ns: int | None = None
    inode: int | None = None
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class Commit:
    """A set of changes that become visible together.

    Attributes:
        shard: Shard of the new images, written and synced; None if there are none.
        prints: Fingerprints of new images, written and synced; None if there are none.
        images: New images, in the order of the shard's rows.
        seen: Known images that have another time or another location now.
        failures: Files that are not images, or not usable ones.
    """

    shard: Shard | None
    images: tuple[NewImage, ...] = ()
    seen: tuple[Seen, ...] = ()
    failures: tuple[NewFailure, ...] = ()
    prints: PrintFile | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """The number of files of each kind in the catalog; `excluded` counts files and folders."""

    images: int
    failed: int
    skipped: int
    excluded: int
