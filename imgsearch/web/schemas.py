"""The JSON responses of the server, for the OpenAPI document.

`path_bytes` is given if the path is not valid UTF-8, and holds its bytes (base64).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

__all__ = [
    "Discarded",
    "Duplicates",
    "Edge",
    "Exif",
    "Explained",
    "Facets",
    "Folders",
    "Found",
    "Group",
    "Groups",
    "Health",
    "Hit",
    "ImageFacts",
    "Images",
    "Indexing",
    "Information",
    "Judged",
    "LayingOut",
    "Layout",
    "Map",
    "Problem",
    "Removed",
    "Timeline",
]


class Edge(StrEnum):
    """The longer edge of a thumbnail in pixels; the largest shows formats that browsers cannot."""

    SMALL = "256"
    LARGE = "512"
    DENSE = "768"
    WHOLE = "2048"


@dataclass(frozen=True, slots=True)
class Copy:
    """Another version of the picture that a hit shows."""

    id: int
    path: str
    similarity: float
    path_bytes: str | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """A similar image; width and height (pixels, upright) are null until they are known.

    `score`, `z` and `band` are null where the collection knows too little of its images. `copies`
    are there if the hits were folded, and `inliers` if they were verified: the number of local
    features that agree with those of the query.
    """

    rank: int
    id: int
    path: str
    distance: float
    similarity: float
    width: int | None
    height: int | None
    score: float | None
    z: float | None
    band: Literal["same thing", "similar", "weak"] | None
    path_bytes: str | None = None
    inliers: int | None = None
    copies: list[Copy] | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """The hits of a query, best first, and how they were searched for.

    `query` is the name of the uploaded file; `embedding` is a name by which later queries can
    refer to the upload.
    """

    query: str | None
    search: Literal["ivf", "wide", "exact"]
    nprobe: int
    recall: float | None
    hits: list[Hit]
    embedding: str | None


@dataclass(frozen=True, slots=True)
class Explained:
    """Where the similarity of a query and a hit comes from.

    The maps have a number for each cell of either image, row by row from the top left; each map
    sums to `centred`, the similarity after subtracting the mean of the collection.
    """

    id: int
    path: str
    similarity: float
    centred: float
    z: float | None
    band: Literal["same thing", "similar", "weak"] | None
    query_map: list[list[float]]
    hit_map: list[list[float]]
    path_bytes: str | None = None


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """An image of the collection as it was indexed.

    `size` is in bytes; `mtime` is in seconds since 1970, null if the time cannot be trusted;
    `digest` is the SHA-256 of the file; `width` and `height` are those of the upright image, null
    until they are known, and if the file is missing; `taken` (ISO 8601, by the camera's clock) and
    `camera` are null if the file does not tell.
    """

    id: int
    path: str
    size: int
    mtime: float | None
    digest: str
    width: int | None
    height: int | None
    taken: str | None
    camera: str | None
    path_bytes: str | None = None


@dataclass(frozen=True, slots=True)
class Exif:
    """How a picture was taken, as its file tells; null for what it does not tell.

    `exposure` is in seconds, `focal_length` in millimetres. `located` tells whether the file also
    tells where; `latitude` and `longitude`, in degrees, are null unless the location was asked for.
    """

    exposure: float | None
    aperture: float | None
    iso: int | None
    focal_length: float | None
    lens: str | None
    located: bool
    latitude: float | None
    longitude: float | None


@dataclass(frozen=True, slots=True)
class Images:
    """Images in the order of the listing, or in that of the ids that were asked for."""

    images: list[ImageFacts]


@dataclass(frozen=True, slots=True)
class Layout:
    """What a page needs to lay out a listing: ids, and sizes in pixels, upright.

    `total` is the number of images in the whole listing. A size is null until it is known.
    """

    total: int
    ids: list[int]
    widths: list[int | None]
    heights: list[int | None]


@dataclass(frozen=True, slots=True)
class Month:
    """A month, as "2024-05", with its number of images; "" for those without a date."""

    month: str
    images: int


@dataclass(frozen=True, slots=True)
class Timeline:
    """The months of a listing by date, in its order."""

    months: list[Month]


@dataclass(frozen=True, slots=True)
class Cluster:
    """Images that are near each other on the map.

    `id` is the image in its middle, `folder` the one of at least half of its images, if there is.
    """

    id: int
    images: int
    folder: str | None


@dataclass(frozen=True, slots=True)
class Map:
    """The map of the collection: a column each for the images on it, and its clusters.

    `x` and `y` are from 0 to 65,535; `of` is the place of the image's cluster in `clusters`, of
    which the largest is the first. `missing` is the number of images that are not on the map yet.
    """

    ids: list[int]
    x: list[int]
    y: list[int]
    of: list[int]
    clusters: list[Cluster]
    missing: int


@dataclass(frozen=True, slots=True)
class LayingOut:
    """How far the making of the map is: `done` of `total` steps; 0 until that is known.

    `failure` says why the latest failed.
    """

    running: bool
    done: int
    total: int
    failure: str | None


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder with its number of images, without those of the folders below it."""

    path: str
    images: int
    path_bytes: str | None = None


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera, by its make and model, with its number of images."""

    camera: str
    images: int


@dataclass(frozen=True, slots=True)
class Facets:
    """What a filter can choose from."""

    folders: list[Folder]
    cameras: list[Camera]


@dataclass(frozen=True, slots=True)
class Removed:
    """How many images were taken out of the collection."""

    removed: int


@dataclass(frozen=True, slots=True)
class Left:
    """A copy that was not discarded, and why."""

    path: str
    reason: str
    path_bytes: str | None = None


@dataclass(frozen=True, slots=True)
class Discarded:
    """What became of the copies that were to be discarded.

    `count` and `size` (bytes) are those of the copies that went to the trash. `left` is the number
    of the others, the first 100 of which `failures` names. `stopped` says why it ended early.
    """

    count: int
    size: int
    left: int
    failures: list[Left]
    stopped: str | None


@dataclass(frozen=True, slots=True)
class Result:
    """What a search has found, less what was discarded and judged since.

    `copies` is the number of copies that `imgsearch duplicates` would suggest to discard, `size`
    theirs in bytes; `turned` is the number of mirrored and turned ones, `related` that of images
    with something of their own. `photos` is the number of raw files with an image of the same name,
    which are not copies.
    """

    found: str
    groups: int
    copies: int
    size: int
    turned: int
    related: int
    images: int
    unreadable: int
    photos: int


@dataclass(frozen=True, slots=True)
class Duplicates:
    """How far a search for duplicates is, or the discarding of copies, and what was found.

    `done` of `total` images have been dealt with; both are 0 until that is known. `failure` says
    why the latest job failed. `discarded` is the outcome of the latest one that discarded copies.
    """

    running: Literal["find", "discard"] | None
    done: int
    total: int
    failure: str | None
    discarded: Discarded | None
    result: Result | None


@dataclass(frozen=True, slots=True)
class Keep:
    """An image of a group, with the fields of `imgsearch duplicates --json`."""

    id: int
    path: str
    width: int
    height: int
    size: int
    mtime: float | None
    digest: str
    exact: bool
    similarity: float
    frames: int
    bits: int
    raw: bool
    lossless: bool
    scale: float
    kind: str
    share: float
    orientation: int
    angle: float
    own: str
    region: list[float] | None
    protected: bool
    path_bytes: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Other(Keep):
    """A copy; whether it is `discardable` if it is asked for."""

    discardable: bool


@dataclass(frozen=True, slots=True)
class Group:
    """The image to keep, for the `reason` given, and its copies."""

    number: int
    reason: str
    keep: Keep
    others: list[Other]


@dataclass(frozen=True, slots=True)
class Groups:
    """Groups of copies, in the order of the bytes that discarding would free; see `Result`."""

    found: str
    groups: list[Group]


@dataclass(frozen=True, slots=True)
class Judged:
    """How many images were judged."""

    judged: int


@dataclass(frozen=True, slots=True)
class Folders:
    """The names of the folders in a folder.

    `parent` is null for the home folder, which may not be indexed as a whole. `images` is the
    number of files right in the folder that have the name of an image.
    """

    path: str
    parent: str | None
    may_index: bool
    images: int
    folders: list[str]


@dataclass(frozen=True, slots=True)
class Counts:
    """How many files of a run are images, failed, and are no images."""

    images: int
    failed: int
    skipped: int


@dataclass(frozen=True, slots=True)
class Indexing:
    """How far a run is that the server has begun, or how the latest one ended.

    `done` of `total` files have been dealt with; `total` is 0 until it is known. `failure` says why
    the latest run failed; `indexed` is null if it was cancelled, too.
    """

    running: bool
    folder: str | None
    done: int
    total: int
    seconds: float
    failure: str | None
    indexed: Counts | None


@dataclass(frozen=True, slots=True)
class Information:
    """The output of `imgsearch info --json`, and whether the collection is being indexed.

    If `read_only`, clients cannot take images out of the collection. If `may_fill`, they may choose
    a folder to index while there are no images.
    """

    directory: str
    images: int
    indexing: bool
    read_only: bool
    may_fill: bool
    failed: int
    skipped: int
    excluded: int
    roots: list[dict[str, str]]
    model: dict[str, Any]
    settings: dict[str, Any]
    ivf: dict[str, Any] | None
    nprobe: list[int]
    outgrown: bool
    segments: int
    list_sizes: list[int]
    index_bytes: int
    tail: int
    bytes: int
    device: str
    faiss: str
    rank: Literal["collection", "cosine"]
    ranking_bytes: int
    unranked: int


@dataclass(frozen=True, slots=True)
class Health:
    """The status of the server."""

    status: Literal["ok"]
    version: str


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem (RFC 9457), explained in `detail`."""

    type: str
    title: str
    status: int
    detail: str
