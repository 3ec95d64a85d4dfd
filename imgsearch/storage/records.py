"""The records of the catalog, as values. Paths are bytes, as from `os.fsencode`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from imgsearch.storage.shards import Shard

#: The content of the lists of an index.
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
    """The model that made a collection; `weights` is a name from `imgsearch.embedding.weights`.

    `decoder` is the version of the code that turned the files into pixels: 1 up to format 4, and
    later the `imgsearch.images.decode.DECODER` of the time.
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
    """An image; `mtime_ns` is None if the time was too recent to reveal a later change.

    `path` is absolute and decoded with `os.fsdecode`; `digest` is the SHA-256 of the embedded file,
    `size` its size in bytes.
    """

    id: int
    path: str
    size: int
    mtime_ns: int | None
    digest: bytes


@dataclass(frozen=True, slots=True)
class Root:
    """A folder that was indexed; `recursive` unless only files in it were given by name."""

    id: int
    path: bytes
    recursive: bool


@dataclass(frozen=True, slots=True)
class Segment:
    """The file `segments/NUMBER.faiss`: an IVF index of `count` images with ids up to `last_id`.

    `size` is the size of the file in bytes.
    """

    number: int
    first_id: int
    last_id: int
    count: int
    sha256: bytes
    size: int


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a collection.

    Attributes:
        nlist: Number of centroids; None to derive it from the number of images.
        recall: Recall@10 to promise.
        storage: Content of the lists: "flat" for the embeddings, or "compact" for one byte per
            value that remains after PCA.
        pca: Number of values that remain after PCA, if the lists are compact.
        exclude: Patterns of files to leave out, in addition to the default patterns.
        include: Default patterns that are not in force.
    """

    nlist: int | None
    recall: float
    storage: Storage = "flat"
    pca: int = 256
    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CurveStep:
    """Recall@10 at one `nprobe`, for queries up to the squared distance `up_to` from a centroid.

    `recall_bound` is the one-sided lower 95 % confidence bound of the recall, `milliseconds` the
    time of one query.
    """

    up_to: float
    nprobe: int
    recall: float
    recall_bound: float
    milliseconds: float


@dataclass(frozen=True, slots=True)
class IvfRecord:
    """How the centroids of the segments were trained, and the recall measured with them.

    Attributes:
        nlist: Number of centroids.
        requested_nlist: Number of centroids in the settings at training; None if it was derived
            from `trained`.
        trained: Number of images in the collection at training.
        held_out: Number of images for measuring recall that the centroids were not trained on.
        strangers: Number of out-of-distribution queries for measuring recall: images for which all
            similar images were left out.
        added: Number of images assigned to lists since training.
        far: Number of images in `added` that are beyond the last band of the curve.
        curve: Recall by `nprobe`, ordered by band and `nprobe`.
        pca: Number of values that remain after PCA, one byte each in the lists; None if the lists
            hold embeddings.
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
    """The state of a collection at one moment, as a reader needs it to open the files.

    `removed` has all ids that must not be found; `stale` has those that a segment may hold.
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
    """A file as recorded in the catalog.

    It is an image (`id`), a failure (`reason`), a skipped file (`kind`) or an excluded file
    (`excluded`). `mtime_ns` is None if it was too recent to be trusted; `ctime_ns` and `inode` are
    None if unknown.
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
    """An image with a given digest; `path` is absolute, or None if the image was removed."""

    id: int
    path: bytes | None


@dataclass(frozen=True, slots=True)
class Spot:
    """The location of a file: the id of its root, its folder relative to the root, its name."""

    root: int
    folder: bytes
    name: bytes


@dataclass(frozen=True, slots=True)
class Seen:
    """The file of the image `id` as it was found: its location, its size in bytes, its times.

    `replaces` is the id of another image that was at the location before. `ctime_ns` and `inode`,
    here and below, are None if unknown.
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
    """An image to be committed; `replaces` is the id of the image at its location before."""

    spot: Spot
    size: int
    mtime_ns: int | None
    digest: bytes
    replaces: int | None
    ctime_ns: int | None = None
    inode: int | None = None


@dataclass(frozen=True, slots=True)
class NewFailure:
    """A file to record as failed, or as skipped for its `kind` if `reason` is None."""

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
    """A set of changes that become visible together.

    Attributes:
        shard: Shard of the new images, written and synced; None if there are none.
        images: New images, in the order of the shard's rows.
        seen: Known images that have another time or another location now.
        failures: Files that are not images, or not usable ones.
    """

    shard: Shard | None
    images: tuple[NewImage, ...] = ()
    seen: tuple[Seen, ...] = ()
    failures: tuple[NewFailure, ...] = ()


@dataclass(frozen=True, slots=True)
class Counts:
    """The number of files of each kind in the catalog; `excluded` counts files and folders."""

    images: int
    failed: int
    skipped: int
    excluded: int
