"""What `imgsearch.find_duplicates` returns: groups of images that are copies of one another."""

from __future__ import annotations

from dataclasses import dataclass

from imgsearch.reports import Failure

__all__ = ["Copy", "Discarded", "Duplicates", "Group"]


@dataclass(frozen=True, slots=True)
class Copy:
    """An image of a group.

    Attributes:
        id: of the image in its collection.
        path: absolute; decoded with `os.fsdecode`.
        width: of the upright image, in pixels.
        height: likewise.
        size: of the file, in bytes.
        mtime: of the file, in seconds since 1970; None if it is gone.
        digest: SHA-256 of the file.
        exact: whether the file has the same content as the one to be kept.
        similarity: cosine of its embedding and that of the one to be kept.
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


@dataclass(frozen=True, slots=True)
class Group:
    """Images that are copies of one another: the one to be kept, by suggestion, and the others."""

    keep: Copy
    others: tuple[Copy, ...]


@dataclass(frozen=True, slots=True)
class Duplicates:
    """What was found.

    Attributes:
        groups: the one with the most bytes to be had first.
        images: that were looked at.
        unreadable: images whose pixels could not be compared, and why.
    """

    groups: tuple[Group, ...]
    images: int
    unreadable: tuple[Failure, ...]

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
    """What was done to copies: the paths of those that went, and of the others, and why."""

    done: tuple[str, ...]
    size: int
    failures: tuple[Failure, ...]
