"""What `imgsearch.find_duplicates` returns: groups of images that are copies of one another."""

from __future__ import annotations

from dataclasses import dataclass

from imgsearch.indexing.report import Failure

__all__ = ["Copy", "Discarded", "Duplicates", "Group", "RawPhoto"]


@dataclass(frozen=True, slots=True)
class Copy:
    """An image of a group.

    Attributes:
        id: of the image in its collection.
        path: absolute; decoded with `os.fsdecode`.
        width: of the upright image, in pixels.
        height: of the upright image, in pixels.
        size: of the file, in bytes.
        mtime: of the file, in seconds since 1970; None if it is gone.
        digest: SHA-256 of the file.
        exact: whether the file has the same content as the one to be kept.
        similarity: cosine of its embedding and that of the one to be kept.
        frames: pictures or pages in the file.
        bits: of a sample.
        raw: whether it is a camera's raw file.
        lossless: whether the format keeps every pixel as it was.
        scale: the share of its width that its true resolution is: below 1 if it was enlarged.
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


@dataclass(frozen=True, slots=True)
class Group:
    """The image to be kept, by suggestion, and its copies: each agrees with that one itself.

    `reason` says what the image to be kept has more of than its copies.
    """

    keep: Copy
    others: tuple[Copy, ...]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RawPhoto:
    """A camera's raw file and the images of the same name beside it: one photo, all to be kept."""

    raw: str
    images: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Duplicates:
    """What was found.

    Attributes:
        groups: the one with the most bytes to be had first.
        images: that were looked at.
        unreadable: images whose pixels could not be compared, and why.
        photos: raws with their images, which are no copies of one another.
    """

    groups: tuple[Group, ...]
    images: int
    unreadable: tuple[Failure, ...]
    photos: tuple[RawPhoto, ...] = ()

    @property
    def count(self) -> int:
        """The number of images that could go."""
        return sum(len(group.others) for group in self.groups)

    @property
    def size(self) -> int:
        """The bytes that these take."""
        return sum(copy.size for group in self.groups for copy in group.others)


@dataclass(frozen=True, slots=True)
class Discarded:
    """What was done to copies.

    Attributes:
        done: the paths of those that went.
        size: the bytes that they took.
        failures: of the others, and why.
        interrupted: whether it ended before all copies were looked at.
    """

    done: tuple[str, ...]
    size: int
    failures: tuple[Failure, ...]
    interrupted: bool = False
