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
    REPLACED = "replaced"  # a file that no reader will open any more
    EMBEDDINGS = "embeddings"  # that differ from those of their images
    FOREIGN = "foreign"  # for example a link, which imgsearch never makes


@dataclass(frozen=True, slots=True)
class Damage:
    """A fault in a collection.

    Attributes:
        part: the damaged part of the collection.
        file: the name of the file, relative to the collection.
        reason: the nature of the fault.
        shard: the damaged shard, if it is one.
        ids: the ids of the images concerned, if there are any.
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
        file: the name of the file, relative to the collection.
        reason: the nature of the oddity.
    """

    file: str
    reason: str


@dataclass(frozen=True, slots=True)
class Verification:
    """The report of `verify`.

    Attributes:
        images: the number of images in the collection, as far as its catalog tells.
        files: the number of files that were read and compared with their checksums.
        bytes: the size of those files.
        sampled: the number of images that were searched for by their own embedding.
        embedded: the number of those that were embedded again and compared.
        sealed: whether nothing was committed after the last seal; if not, a run was interrupted.
        leftovers: the files of an interrupted run, which the next run deletes.
        damages: the damage that was found.
        changed: the paths of images whose files have changed since they were indexed.
        gone: the number of images whose files are missing.
        repairs: the repairs made, one line each.
        left: the damage that remains.
        seconds: the duration of the run.
        oddities: the files that imgsearch does not know, and a lock that is not empty.
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
