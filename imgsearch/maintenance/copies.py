"""The result of `imgsearch.find_duplicates`: groups of images that are copies of one another."""

from __future__ import annotations

from dataclasses import dataclass

from imgsearch.indexing.report import Failure

__all__ = ["Copy", "Discarded", "Duplicates", "Group", "RawPhoto"]


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
        done: The paths of the discarded copies.
        size: Their size, in bytes.
        failures: The other copies, and why they were kept.
        interrupted: Whether the run ended before it had reached all copies.
    """

    done: tuple[str, ...]
    size: int
    failures: tuple[Failure, ...]
    interrupted: bool = False
