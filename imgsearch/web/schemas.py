"""The JSON responses of the server, for the OpenAPI document.

`path_bytes` is given if the path is not valid UTF-8, and holds its bytes (base64).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

__all__ = [
    "Edge",
    "Explained",
    "Facets",
    "Found",
    "Health",
    "Hit",
    "ImageFacts",
    "Images",
    "Information",
    "Layout",
    "Problem",
    "Removed",
]


class Edge(StrEnum):
    """The longer edge of a thumbnail in pixels; the largest shows formats that browsers cannot."""

    SMALL = "256"
    LARGE = "512"
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
    are there if the hits were folded.
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
class Information:
    """The output of `imgsearch info --json`, and whether the collection is being indexed.

    If `read_only`, clients cannot take images out of the collection.
    """

    directory: str
    images: int
    indexing: bool
    read_only: bool
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
