"""The result of `imgsearch.find_duplicates`: groups of images that are copies of one another."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from imgsearch.files.paths import path_fields
from imgsearch.indexing.report import Failure

__all__ = [
    "Against",
    "Copy",
    "Discarded",
    "Duplicates",
    "Group",
    "Owned",
    "RawPhoto",
    "copy_fields",
]


@dataclass(frozen=True, slots=True)
class Copy:
    """An image of a group.

    Attributes:
        id: The id of the image in its collection.
        path: The absolute path, decoded with `os.fsdecode`.
        width: The width of the upright image, in pixels.
        height: The height of the upright image, in pixels.
        size: The size of the file, in bytes.
        mtime: The modification time of the file, in seconds since 1970; None if it is missing.
        digest: The SHA-256 of the file.
        exact: Whether the file has the same content as the image to keep.
        similarity: The cosine similarity of its embedding to that of the image to keep.
        frames: The number of pictures or pages in the file.
        bits: The number of bits per sample.
        raw: Whether it is a camera's raw file.
        lossless: Whether the format keeps every pixel unchanged.
        scale: Its true resolution as a share of its width: below 1 if it was enlarged.
        kind: How the copy was made, one of `imgsearch.images.kinds.KINDS`; empty for the image to
            keep.
        share: The share of the image to keep that the copy shows, 0 to 1.
        orientation: How to turn the copy so that it looks like the image to keep; 0 if it does.
            The bits are: 1 to reverse the columns, 2 to reverse the rows, 4 to transpose after
            that.
        angle: The angle in degrees by which the copy was turned clockwise, if it was turned by any.
        own: What it shows or holds that the image to keep does not, such as "a frame", "a caption",
            "a changed region" or "another angle", which is why it is never discarded; empty if
            nothing.
        region: The part of the copy that was changed or added, if that is known: left, top, right
            and bottom, 0 to 1.
        protected: Whether it lies in a folder to keep, and is never discarded.
    """

    id: int
    path: str
    width: int
    height: int
    size: int
    mtime: float | None
    digest: bytes
    exact: bool
    similarity: float
    frames: int = 1
    bits: int = 8
    raw: bool = False
    lossless: bool = False
    scale: float = 1.0
    kind: str = ""
    share: float = 1.0
    orientation: int = 0
    protected: bool = False
    angle: float = 0.0
    own: str = ""
    region: tuple[float, float, float, float] | None = None

    @property
    def discardable(self) -> bool:
        """Whether to discard it, if it is a copy.

        Images are not if they are turned, have something of their own, or lie in a folder to keep.
        """
        return not (self.orientation or self.own or self.protected)


@dataclass(frozen=True, slots=True)
class Group:
    """The image suggested to be kept, and its copies, each of which agrees with that image.

    `reason` says what the image to keep has more of than its copies.
    """

    keep: Copy
    others: tuple[Copy, ...]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RawPhoto:
    """A camera's raw file and the images of the same name beside it: one photo, all kept."""

    raw: str
    images: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Duplicates:
    """The duplicates that were found.

    Attributes:
        groups: The groups of copies, the one that would free most bytes first.
        images: The number of images examined.
        unreadable: The images whose pixels could not be compared, and why.
        photos: The raw files with their images, which are not copies of one another.
    """

    groups: tuple[Group, ...]
    images: int
    unreadable: tuple[Failure, ...]
    photos: tuple[RawPhoto, ...] = ()

    @property
    def count(self) -> int:
        """The number of images that could be discarded: see `Copy.discardable`."""
        return len(self._discardable())

    @property
    def size(self) -> int:
        """The size of these images, in bytes."""
        return sum(copy.size for copy in self._discardable())

    @property
    def turned(self) -> int:
        """The number of mirrored and turned copies, which stay unless asked for."""
        return sum(bool(copy.orientation) for group in self.groups for copy in group.others)

    @property
    def related(self) -> int:
        """The number of images that have something of their own, and are never discarded."""
        return sum(bool(copy.own) for group in self.groups for copy in group.others)

    def chosen(self, paths: Iterable[str | os.PathLike[str]]) -> tuple[Duplicates, tuple[str, ...]]:
        """Return these groups with only the copies at some paths, and those paths with no copy.

        An image to keep, in a folder to keep, or with something of its own is not a copy here.

        Args:
            paths: The paths, absolute or relative to the current folder.
        """
        copies = {
            copy.path: copy
            for group in self.groups
            for copy in group.others
            if not (copy.protected or copy.own)
        }
        wanted: set[str] = set()
        missing: list[str] = []
        for path in paths:
            plain = os.fsdecode(path)
            forms = plain, os.path.abspath(plain), os.path.realpath(plain)
            there = next((form for form in forms if form in copies), None)
            if there is None:
                missing.append(plain)
            else:
                wanted.add(there)
        groups = [
            replace(group, others=tuple(each for each in group.others if each.path in wanted))
            for group in self.groups
        ]
        left = tuple(group for group in groups if group.others)
        return replace(self, groups=left, photos=()), tuple(missing)

    def _discardable(self) -> list[Copy]:
        return [copy for group in self.groups for copy in group.others if copy.discardable]


@dataclass(frozen=True, slots=True)
class Discarded:
    """The outcome of discarding copies.

    Attributes:
        done: The paths of the discarded copies.
        size: Their size, in bytes.
        failures: The other copies, and why they were kept.
        interrupted: Whether the run ended before it had reached all copies.
        untrashed: The copies that could not be moved to the trash, and why; they were kept.
        stopped: The reason why the run stopped early, such as a full disk; empty if it did not.
    """

    done: tuple[str, ...]
    size: int
    failures: tuple[Failure, ...]
    interrupted: bool = False
    untrashed: tuple[Failure, ...] = ()
    stopped: str = ""


@dataclass(frozen=True, slots=True)
class Owned:
    """A file outside of a collection, and the image of the collection that shows the same.

    Attributes:
        path: The absolute path of the file, decoded with `os.fsdecode`.
        size: The size of the file, in bytes.
        digest: The SHA-256 of the file.
        image: The path of the image; empty if the collection has none that shows the same.
        id: The id of the image; 0 if there is none.
        kind: What the file is compared with the image, one of `imgsearch.images.kinds.KINDS`.
        share: The share of the image that the file shows, 0 to 1.
        orientation: How to turn the file so that it looks like the image; see `Copy`.
        lacks: What the image lacks that the file holds, such as "resolution"; empty if nothing.
    """

    path: str
    size: int
    digest: bytes
    image: str = ""
    id: int = 0
    kind: str = ""
    share: float = 1.0
    orientation: int = 0
    lacks: str = ""

    @property
    def state(self) -> str:
        """Whether the collection has it: "have", "less" (it holds more than the image), "new"."""
        if not self.image:
            return "new"
        return "less" if self.lacks else "have"


@dataclass(frozen=True, slots=True)
class Against:
    """Which of some files a collection has.

    Attributes:
        files: The files that are images.
        images: The number of images in the collection.
        unreadable: The files that could not be compared, and why.
    """

    files: tuple[Owned, ...]
    images: int
    unreadable: tuple[Failure, ...]

    def count(self, state: str) -> int:
        """Return the number of files in a state: "have", "less" or "new"."""
        return sum(file.state == state for file in self.files)


def copy_fields(copy: Copy) -> dict[str, Any]:
    """Return the fields of an image of a group, as JSON has them."""
    return {
        "id": copy.id,
        **path_fields(copy.path),
        "width": copy.width,
        "height": copy.height,
        "size": copy.size,
        "mtime": copy.mtime,
        "digest": copy.digest.hex(),
        "exact": copy.exact,
        "similarity": round(copy.similarity, 6),
        "frames": copy.frames,
        "bits": copy.bits,
        "raw": copy.raw,
        "lossless": copy.lossless,
        "scale": copy.scale,
        "kind": copy.kind,
        "share": round(copy.share, 3),
        "orientation": copy.orientation,
        "angle": copy.angle,
        "own": copy.own,
        "region": None if copy.region is None else [round(each, 4) for each in copy.region],
        "protected": copy.protected,
    }
