"""What `verify` finds, and what it tells."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from imgsearch.storage.shards import Shard

__all__ = ["Damage", "Oddity", "Part", "Verification"]


class Part(Enum):
    """A part of a collection that may be damaged, and is repaired in a way of its own."""

    MANIFEST = "manifest"
    CATALOG = "catalog"
    SEAL = "seal"
    COPY = "copy"
    MODEL = "model"
    SHARD = "shard"
    IMAGES = "images"  # of which no shard has an embedding
    INDEX = "index"
    REPLACED = "replaced"  # a file that nobody will open any more
    EMBEDDINGS = "embeddings"  # that are not what their images give
    FOREIGN = "foreign"  # a link, say, where imgsearch makes none


@dataclass(frozen=True, slots=True)
class Damage:
    """Something that is not as it should be.

    Attributes:
        part: of the collection.
        file: its name, relative to the collection.
        reason: what is wrong with it.
        shard: if it is one.
        ids: of the images that it is about, where it is about some.
    """

    part: Part
    file: str
    reason: str
    shard: Shard | None = None
    ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Oddity:
    """Something that imgsearch did not make, and that does no harm.

    Attributes:
        file: its name, relative to the collection.
        reason: what is odd about it.
    """

    file: str
    reason: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` did.

    Attributes:
        images: of the collection, as far as its catalog tells.
        files: that were read and compared with their checksums.
        bytes: of those.
        sampled: images that were searched for by their own embedding.
        embedded: those of them that were embedded again and compared.
        sealed: nothing was committed after the last seal: else a run was interrupted.
        leftovers: files of an interrupted run, which the next one deletes.
        damages: what was found.
        changed: paths of images whose files are not what was indexed.
        gone: images whose files are not there.
        repairs: what was done about it, a line each.
        left: what is damaged yet.
        seconds: it took.
        oddities: files that imgsearch does not know, and a lock that is not empty.
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
