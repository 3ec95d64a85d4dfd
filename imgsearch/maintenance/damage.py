"""The findings and the report of `verify`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from imgsearch.storage.records import Shard

__all__ = ["Damage", "Oddity", "Part", "Verification"]


class Part(Enum):
    """A part of a collection that may be damaged, and has a repair of its own."""

    MANIFEST = "manifest"
    CATALOG = "catalog"
    SEAL = "seal"
    COPY = "copy"
    MODEL = "model"
    SHARD = "shard"
    IMAGES = "images"  # without an embedding in any shard
    INDEX = "index"
    RANKING = "ranking"
    FINGERPRINTS = "fingerprints"
    DISTINCT = "not-duplicates"  # what somebody judged not to be copies
    REPLACED = "replaced"  # a file that no reader will open any more
    EMBEDDINGS = "embeddings"  # that differ from those of their images
    FOREIGN = "foreign"  # for example a link, which imgsearch never makes


@dataclass(frozen=True, slots=True)
class Damage:
    """A fault in a collection.

    Attributes:
        part: The damaged part of the collection.
        file: The name of the file, relative to the collection.
        reason: The nature of the fault.
        shard: The damaged shard, if it is one.
        ids: The ids of the images concerned, if there are any.
    """

    part: Part
    file: str
    reason: str
    shard: Shard | None = None
    ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Oddity:
    """A harmless file that imgsearch did not make.

    Attributes:
        file: The name of the file, relative to the collection.
        reason: The nature of the oddity.
    """

    file: str
    reason: str


@dataclass(frozen=True, slots=True)
class Verification:
    """The report of `verify`.

    Attributes:
        images: The number of images in the collection, as far as its catalog tells.
        files: The number of files that were read and compared with their checksums.
        bytes: The size of those files.
        sampled: The number of images that were searched for by their own embedding.
        embedded: The number of those that were embedded again and compared.
        sealed: Whether nothing was committed after the last seal; if not, a run was interrupted.
        leftovers: The files of an interrupted run, which the next run deletes.
        damages: The damage that was found.
        changed: The paths of images whose files have changed since they were indexed.
        gone: The number of images whose files are missing.
        repairs: The repairs made, one line each.
        left: The damage that remains.
        seconds: The duration of the run.
        oddities: The files that imgsearch does not know, and a lock that is not empty.
    """

    images: int
    files: int
    bytes: int
    sampled: int
    embedded: int
    sealed: bool
    leftovers: int
    damages: tuple[Damage, ...]
    repairs: tuple[str, ...]
    left: tuple[Damage, ...]
    seconds: float
    oddities: tuple[Oddity, ...] = ()
    changed: tuple[str, ...] = ()
    gone: int = 0
