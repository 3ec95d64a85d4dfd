"""The records of the catalog as values, and the values that are possible.

Paths are bytes, as from `os.fsencode`. Somebody else may have made a catalog, so every value is
checked as it is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeAlias, TypeVar, get_args, get_origin, get_type_hints

#: The content of the lists of an index.
Storage: TypeAlias = Literal["flat", "compact"]

__all__ = [
    "CurveStep",
    "Entry",
    "Facts",
    "IvfRecord",
    "Layer",
    "ModelRecord",
    "PrintFile",
    "RankingRecord",
    "Root",
    "Segment",
    "Settings",
    "Shard",
    "Snapshot",
    "Storage",
    "records_of",
    "settings_of",
    "snapshot_of",
    "text_of",
]

MOST_DIM = 1 << 16  # values of an embedding
MOST_EDGE = 1 << 13  # pixels along the edge of a model's input
MOST_REFERENCES = 1 << 12
LEAST_ROW = 16  # bytes of a catalog that each image takes, present or removed

_Record = TypeVar("_Record")


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """The model that made a collection; `weights` is a name from `imgsearch.embedding.weights`.

    `decoder` is the version of the code that turned the files into pixels: 1 up to format 4, and
    later the `imgsearch.images.DECODER` of the time. `words_sha256` is that of the text tower, None
    unless there is one.
    """

    name: str
    dim: int
    input_size: int
    weights: str
    weights_sha256: str
    onnx_sha256: str
    decoder: int = 1
    words_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What an image file states; see `imgsearch.images.fingerprint.Stated`. None if unknown."""

    width: int | None = None
    height: int | None = None
    taken: int | None = None
    camera: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """An image; `mtime_ns` is None if the time was too recent to reveal a later change.

    `path` is absolute and decoded with `os.fsdecode`; `digest` is the SHA-256 of the embedded file,
    `size` its size in bytes, `facts` what it states of its picture.
    """

    id: int
    path: str
    size: int
    mtime_ns: int | None
    digest: bytes
    facts: Facts = Facts()


@dataclass(frozen=True, slots=True)
class Root:
    """A folder that was indexed; `recursive` unless only files in it were given by name."""

    id: int
    path: bytes
    recursive: bool


@dataclass(frozen=True, slots=True)
class Shard:
    """The file `vectors/NUMBER.npy`: one row per image, ordered by id.

    The ids run from `first_id` to `last_id` without a gap, unless `ids_sha256` is set: then they
    are listed in `vectors/NUMBER.ids.npy`.
    """

    number: int
    first_id: int
    last_id: int
    count: int
    sha256: bytes
    ids_sha256: bytes | None = None


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
class Layer:
    """The file `layers/NUMBER.layer`, of `count` rows and `size` bytes."""

    number: int
    count: int
    sha256: bytes
    size: int


@dataclass(frozen=True, slots=True)
class PrintFile:
    """The file `fingerprints/NUMBER.prints`, of `count` fingerprints and `size` bytes."""

    number: int
    count: int
    sha256: bytes
    size: int


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a collection.

    Attributes:
        nlist: Number of centroids; None to derive it from the number of images.
        recall: Recall@10 to promise.
        storage: Content of the lists: "flat" for the embeddings, or "compact" for one bit per
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
        pca: Number of values that remain after PCA, one bit each in the lists; None if
            the lists hold embeddings.
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
class RankingRecord:
    """What the layers were made with; frozen until the number of images has doubled or halved.

    Attributes:
        trained: Number of images at the time.
        mean: Mean of their embeddings, float32 `[dim]`, little-endian.
        compared: Ids of the references, int64, little-endian: the images that every image is
            compared with for its mean and deviation.
    """

    trained: int
    mean: bytes
    compared: bytes


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
    layers: tuple[Layer, ...] = ()
    ranking: RankingRecord | None = None

    @property
    def pca(self) -> int | None:
        """The number of values that PCA should keep of an embedding; None for a flat index."""
        settings = self.settings
        return min(settings.pca, self.model.dim) if settings.storage == "compact" else None


def records_of(kind: type[_Record], rows: Iterable[Sequence[object]]) -> list[_Record]:
    """Return a record for each row; the values of a row are in the order of the fields.

    Raises:
        TypeError: If a value does not have the type of its field: a catalog that was cut short
            returns NULL even where its schema does not allow it.
    """
    hints = _hints(kind).items()  # type: ignore[arg-type]  # a class is hashable
    rows = list(rows)
    for row in rows:
        for value, (field, hint) in zip(row, hints, strict=False):
            if not _fits(value, hint):
                raise TypeError(f"{kind.__name__}.{field} is {value!r}")
    return [kind(*row) for row in rows]


def settings_of(row: Sequence[object]) -> Settings:
    """Return the settings of a row.

    Raises:
        TypeError: As `records_of`.
        ValueError: If a number is impossible.
    """
    *facts, exclude, include = row
    (settings,) = records_of(Settings, [(*facts, _patterns_of(exclude), _patterns_of(include))])
    nlist, recall, pca = settings.nlist, settings.recall, settings.pca
    if (nlist is not None and nlist < 1) or not 0 < recall <= 1 or pca < 1:
        raise ValueError(f"settings of nlist {nlist}, recall {recall} and pca {pca}")
    return settings


def snapshot_of(tables: Sequence[Sequence[tuple[Any, ...]]], size: int) -> Snapshot:
    """Return the snapshot that the rows of a catalog form.

    Args:
        tables: Rows of nine tables: model; shards and segments, ordered by id; the id of each
            removed image, and whether segments may still hold it; ivf; curve; settings; layers,
            ordered by number; ranking.
        size: Size of the catalog's file in bytes, which bounds the number of its images.

    Raises:
        TypeError: If a value does not have the type of its field.
        ValueError: If a number is impossible.
    """
    model, shards, segments, removed, ivf, curve, settings, layers, ranking = tables
    index = None
    if ivf:
        *facts, pca = ivf[0]
        (index,) = records_of(IvfRecord, [(*facts, tuple(records_of(CurveStep, curve)), pca)])
    snapshot = Snapshot(
        records_of(ModelRecord, model)[0],
        tuple(records_of(Shard, shards)),
        tuple(records_of(Segment, segments)),
        removed=tuple(id_ for id_, _ in removed),
        stale=tuple(id_ for id_, stale in removed if stale),
        ivf=index,
        settings=settings_of(settings[0]),
        layers=tuple(records_of(Layer, layers)),
        ranking=next(iter(records_of(RankingRecord, ranking)), None),
    )
    if wrong := _wrong_number(snapshot, size):
        raise ValueError(wrong)
    return snapshot


@cache
def _hints(kind: type[object]) -> dict[str, Any]:
    """Return the types of the fields of a record, which take longer to find than a row to read."""
    return get_type_hints(kind)


def _fits(value: object, hint: Any) -> bool:
    origin = get_origin(hint)
    if origin is Literal:
        return value in get_args(hint)
    return isinstance(value, origin if origin is tuple else hint)


def text_of(patterns: Sequence[str]) -> str:
    """Return a list of patterns as stored, in ASCII: a pattern may not be valid UTF-8."""
    return json.dumps(list(patterns))


def _patterns_of(value: object) -> object:
    """Return the patterns of a stored value as a tuple, or the value itself if it is damaged."""
    try:
        texts = json.loads(value) if isinstance(value, str) else None
    except ValueError:
        return value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        return value
    return tuple(texts)


def _wrong_number(snapshot: Snapshot, size: int) -> str | None:
    """Return a description of an impossible number in a snapshot, or None if there is none.

    Args:
        snapshot: Snapshot of a catalog.
        size: Size of that catalog's file in bytes, which bounds the number of its images.
    """
    model = snapshot.model
    if not (1 <= model.dim <= MOST_DIM and 1 <= model.input_size <= MOST_EDGE):
        return f"a model of {model.dim} values, for images of {model.input_size} pixels"
    most = size // LEAST_ROW
    if (images := sum(shard.count for shard in snapshot.shards)) > most:
        return f"{images:,} images in shards"
    if shard := _wrong_shard(snapshot.shards):
        return (
            f"shard {shard.number}: {shard.count:,} images from {shard.first_id} to {shard.last_id}"
        )
    for segment in snapshot.segments:
        span = segment.last_id - segment.first_id + 1
        if segment.first_id < 1 or not 0 <= segment.count <= min(span, most):
            return (
                f"segment {segment.number}: {segment.count:,} images from {segment.first_id} "
                f"to {segment.last_id}"
            )
    if wrong := _wrong_ranking(snapshot, most):
        return wrong
    return None if snapshot.ivf is None else _wrong_curve(snapshot.ivf)


def _wrong_ranking(snapshot: Snapshot, most: int) -> str | None:
    ranking = snapshot.ranking
    if (ranking is None) != (not snapshot.layers):
        return "layers without the record of their ranking, or the record without layers"
    for layer in snapshot.layers:
        if layer.number < 1 or not 1 <= layer.count <= most:
            return f"layer {layer.number}: {layer.count:,} images"
    if ranking is None:
        return None
    compared, odd = divmod(len(ranking.compared), 8)
    if len(ranking.mean) != 4 * snapshot.model.dim or odd or compared > MOST_REFERENCES:
        return f"a ranking of {len(ranking.mean) // 4} values and {compared:,} references"
    return None


def _wrong_shard(shards: Sequence[Shard]) -> Shard | None:
    """Return the first shard with impossible numbers; the shards are ordered by id."""
    last = 0
    for shard in shards:
        span = shard.last_id - shard.first_id + 1
        least = span if shard.ids_sha256 is None else 1
        if shard.number < 1 or shard.first_id <= last or not least <= shard.count <= span:
            return shard
        last = shard.last_id
    return None


def _wrong_curve(ivf: IvfRecord) -> str | None:
    if ivf.nlist < 1 or (ivf.pca is not None and not 1 <= ivf.pca <= MOST_DIM):
        return f"an index of {ivf.nlist} lists"
    for step in ivf.curve:
        if not (1 <= step.nprobe <= ivf.nlist and 0 <= step.recall <= 1):
            return f"recall {step.recall} of {step.nprobe} lists"
    return None
