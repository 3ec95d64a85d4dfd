"""What the catalog holds, as values. Paths are bytes, as `os.fsencode` makes them."""

from __future__ import annotations

from dataclasses import dataclass

from imgsearch.storage.shards import Shard

__all__ = [
    "Counts",
    "IvfRecord",
    "Known",
    "ModelRecord",
    "NewFailure",
    "NewImage",
    "Root",
    "Segment",
    "Snapshot",
]


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """The model that made a collection; `weights` as `imgsearch.embedding.weights` names them."""

    name: str
    dim: int
    input_size: int
    weights: str
    weights_sha256: str
    onnx_sha256: str


@dataclass(frozen=True, slots=True)
class Root:
    """A folder that was indexed; `recursive` unless only files of it were given by name."""

    id: int
    path: bytes
    recursive: bool


@dataclass(frozen=True, slots=True)
class Segment:
    """`segments/NUMBER.faiss`: an IVF index over the `count` images with ids up to `last_id`."""

    number: int
    first_id: int
    last_id: int
    count: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class IvfRecord:
    """How the segments were made, and how they are searched.

    `requested_nlist` is None where `nlist` follows from the number of images. `recall` is the
    recall@10 measured at `nprobe`, `recall_bound` its lower 95 % bound.
    """

    nlist: int
    requested_nlist: int | None
    nprobe: int
    recall: float
    recall_bound: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a reader needs to open, as of one moment.

    `removed` are all ids that are not to be found; `stale` those of them that a segment may hold.
    """

    model: ModelRecord
    shards: tuple[Shard, ...]
    segments: tuple[Segment, ...]
    removed: tuple[int, ...]
    stale: tuple[int, ...]
    ivf: IvfRecord | None


@dataclass(frozen=True, slots=True)
class Known:
    """A file as the catalog has it: an image (`id`), or a failure (`reason`) or a skipped file."""

    size: int
    mtime_ns: int
    id: int | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class NewImage:
    """An image to be committed; `replaces` is the id that its path had before."""

    root: int
    folder: bytes
    name: bytes
    size: int
    mtime_ns: int
    digest: bytes
    replaces: int | None


@dataclass(frozen=True, slots=True)
class NewFailure:
    """A file to be remembered as failed, or as skipped where `reason` is None."""

    root: int
    folder: bytes
    name: bytes
    size: int
    mtime_ns: int
    reason: str | None
    replaces: int | None


@dataclass(frozen=True, slots=True)
class Counts:
    """How many files of each kind the catalog holds."""

    images: int
    failed: int
    skipped: int
