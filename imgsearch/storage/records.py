"""What the catalog holds, as values. Paths are bytes, as `os.fsencode` makes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from imgsearch.storage.shards import Shard

#: What the lists of an index hold.
Storage: TypeAlias = Literal["flat", "compact"]

__all__ = [
    "Commit",
    "Counts",
    "CurveStep",
    "Entry",
    "Holder",
    "IvfRecord",
    "Known",
    "ModelRecord",
    "NewFailure",
    "NewImage",
    "Root",
    "Seen",
    "Segment",
    "Settings",
    "Snapshot",
    "Spot",
    "Storage",
]


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """The model that made a collection; `weights` as `imgsearch.embedding.weights` names them.

    `decoder` is the version of what turned the files into pixels: 1 up to format 4, and then the
    `imgsearch.images.decode.DECODER` of the time.
    """

    name: str
    dim: int
    input_size: int
    weights: str
    weights_sha256: str
    onnx_sha256: str
    decoder: int = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """An image; `mtime_ns` is None where the time was too recent to tell a later change.

    `path` is absolute, decoded with `os.fsdecode`; `digest` is the SHA-256 of the file that was
    embedded, of `size` bytes.
    """

    id: int
    path: str
    size: int
    mtime_ns: int | None
    digest: bytes


@dataclass(frozen=True, slots=True)
class Root:
    """A folder that was indexed; `recursive` unless only files of it were given by name."""

    id: int
    path: bytes
    recursive: bool


@dataclass(frozen=True, slots=True)
class Segment:
    """`segments/NUMBER.faiss`: an IVF index over the `count` images with ids up to `last_id`.

    `size` is that of the file, in bytes.
    """

    number: int
    first_id: int
    last_id: int
    count: int
    sha256: bytes
    size: int


@dataclass(frozen=True, slots=True)
class Settings:
    """What was asked for.

    Attributes:
        nlist: number of centroids; None by the number of images.
        recall: recall@10 to promise.
        storage: what the lists hold: "flat", the embeddings, or "compact", a byte for each value
            that PCA leaves of them.
        pca: values that PCA is to leave, if they are compact.
        exclude: patterns whose files are left out, beyond those that are left out by default.
        include: those of the default patterns that are not in force.
    """

    nlist: int | None
    recall: float
    storage: Storage = "flat"
    pca: int = 256
    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CurveStep:
    """Recall@10 at one `nprobe`, of queries up to the squared distance `up_to` from a centroid.

    `recall_bound` is its one-sided lower 95 % confidence bound, `milliseconds` the time of one
    query.
    """

    up_to: float
    nprobe: int
    recall: float
    recall_bound: float
    milliseconds: float


@dataclass(frozen=True, slots=True)
class IvfRecord:
    """How the segments' centroids were made, and what they were measured to keep.

    Attributes:
        nlist: number of centroids.
        requested_nlist: as it was asked for then; None where it followed from `trained`.
        trained: images that there were then.
        held_out: images that recall was measured with, none of which the centroids had seen.
        strangers: images that it was measured with while all images like them were left out.
        added: images filed since then.
        far: those of them farther from their centroid than the last band of the curve reaches.
        curve: recall by `nprobe`, ordered by band and `nprobe`.
        pca: values that PCA leaves, a byte each in the lists; None where they hold embeddings.
    """

    nlist: int
    requested_nlist: int | None
    trained: int
    held_out: int
    strangers: int
    added: int
    far: int
    curve: tuple[CurveStep, ...]
    pca: int | None = None


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
    settings: Settings


@dataclass(frozen=True, slots=True)
class Known:
    """A file as the catalog has it.

    An image (`id`), or a failure (`reason`) or a skipped file (`kind`), or one that was taken out
    (`excluded`). `mtime_ns` is None where it was too recent to be trusted; `ctime_ns` and `inode`
    are None where they are not known.
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
    """An image whose content has a certain digest; `path` is absolute, None once it is removed."""

    id: int
    path: bytes | None


@dataclass(frozen=True, slots=True)
class Spot:
    """The place of a file: the id of its root, its folder relative to that, its name."""

    root: int
    folder: bytes
    name: bytes


@dataclass(frozen=True, slots=True)
class Seen:
    """An image's file as it was found: `spot`, size in bytes and times, under the image's `id`.

    `replaces` is the id of another image that the spot had before. `ctime_ns` and `inode`, here and
    below, are None where they are not known.
    """

    id: int
    spot: Spot
    size: int
    mtime_ns: int | None
    replaces: int | None = None
    ctime_ns: int | None = None
    inode: int | None = None


@dataclass(frozen=True, slots=True)
class NewImage:
    """An image to be committed; `replaces` is the id that its spot had before."""

    spot: Spot
    size: int
    mtime_ns: int | None
    digest: bytes
    replaces: int | None
    ctime_ns: int | None = None
    inode: int | None = None


@dataclass(frozen=True, slots=True)
class NewFailure:
    """A file to be remembered as failed, or as skipped where `reason` is None: as its `kind`."""

    spot: Spot
    size: int
    mtime_ns: int | None
    reason: str | None
    replaces: int | None
    ctime_ns: int | None = None
    inode: int | None = None
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class Commit:
    """What becomes visible at once.

    Attributes:
        shard: of the new images, written and synced; None if there are none.
        images: new ones, in the order of the shard's rows.
        seen: images that are there already, with another time, or at another spot now.
        failures: files that are not images, or not ones that can be used.
    """

    shard: Shard | None
    images: tuple[NewImage, ...] = ()
    seen: tuple[Seen, ...] = ()
    failures: tuple[NewFailure, ...] = ()


@dataclass(frozen=True, slots=True)
class Counts:
    """How many files of each kind the catalog holds; `excluded` counts files and folders."""

    images: int
    failed: int
    skipped: int
    excluded: int
