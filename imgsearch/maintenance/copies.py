"""The result of `imgsearch.find_duplicates`: groups of images that are copies of one another."""

from __future__ import annotations

from dataclasses import dataclass

from imgsearch.indexing.report import Failure

__all__ = ["Copy", "Discarded", "Duplicates", "Group", "RawPhoto"]


@dataclass(frozen=True, slots=True)
class Copy:
    """An image of a group.

    Attributes:
        id: the id of the image in its collection.
        path: the absolute path, decoded with `os.fsdecode`.
        width: the width of the upright image, in pixels.
        height: the height of the upright image, in pixels.
        size: the size of the file, in bytes.
        mtime: the modification time of the file, in seconds since 1970; None if it is missing.
        digest: the SHA-256 of the file.
        exact: whether the file has the same content as the image to keep.
        similarity: the cosine similarity of its embedding to that of the image to keep.
        frames: the number of pictures or pages in the file.
        bits: the number of bits per sample.
        raw: whether it is a camera's raw file.
        lossless: whether the format keeps every pixel unchanged.
        scale: its true resolution as a share of its width: below 1 if it was enlarged.
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
        groups: the groups of copies, the one that would free most bytes first.
        images: the number of images examined.
        unreadable: the images whose pixels could not be compared, and why.
        photos: the raw files with their images, which are not copies of one another.
    """

    groups: tuple[Group, ...]
    images: int
    unreadable: tuple[Failure, ...]
    photos: tuple[RawPhoto, ...] = ()

    @property
    def count(self) -> int:
        """The number of images that could be discarded."""
        return sum(len(group.others) for group in self.groups)

    @property
    def size(self) -> int:
        """The size of these images, in bytes."""
        return sum(copy.size for group in self.groups for copy in group.others)


@dataclass(frozen=True, slots=True)
class Discarded:
    """The outcome of discarding copies.

    Attributes:
        done: the paths of the discarded copies.
        size: their size, in bytes.
        failures: the other copies, and why they were kept.
        interrupted: whether the run ended before it had reached all copies.
    """

    done: tuple[str, ...]
    size: int
    failures: tuple[Failure, ...]
    interrupted: bool = False
