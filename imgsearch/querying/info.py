"""Describe a collection: its images, model, settings and index."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from imgsearch.files.paths import path_fields
from imgsearch.querying.ranking import Rank
from imgsearch.storage.records import IvfRecord, ModelRecord, Settings

__all__ = ["Info", "info_fields"]


@dataclass(frozen=True, slots=True)
class Info:
    """A description of a collection and its content.

    Attributes:
        directory: Directory of the collection.
        images: Number of images that can be found.
        failed: Number of files that could not be used.
        skipped: Number of files that are clearly not images.
        excluded: Number of files and folders that were excluded.
        roots: Folders that were indexed.
        left_out: Patterns of files and folders to leave out, the default patterns first.
        model: Model that made the embeddings: name, length of an embedding, weights and their
            SHA-256.
        settings: Settings of the index: nlist, and the promised recall@10.
        ivf: Record of the index and its measured recall; None while every search is exact.
        nprobe: Number of lists that a query probes to keep the promise, one number per band; it
            grows with the distance from the nearest centroid. Beyond the last band, and where the
            number is 0, a query is compared with every image, or with all codes of a compact index
            if the embeddings exceed the memory.
        outgrown: Whether the images have changed so much since the centroids were trained that the
            promise may not hold; the next run trains them again.
        segments: Number of files that the index is divided into.
        list_sizes: Number of images in each inverted list.
        index_bytes: Total size in bytes of the segment files.
        tail: Number of images that are searched exactly because no inverted list holds them yet.
        bytes: Total size in bytes of all files.
        device: Device that the collection was opened for.
        faiss: Faiss version that searches, and where it runs.
        rank: What queries rank by unless told otherwise: "collection" if the collection knows
            enough of its images, otherwise "cosine".
        ranking_bytes: Total size in bytes of the files for this ranking, and for z.
        unranked: Number of images that these files do not hold yet.
    """

    directory: str
    images: int
    failed: int
    skipped: int
    excluded: int
    roots: tuple[str, ...]
    left_out: tuple[str, ...]
    model: ModelRecord
    settings: Settings
    ivf: IvfRecord | None
    nprobe: tuple[int, ...]
    outgrown: bool
    segments: int
    list_sizes: tuple[int, ...]
    index_bytes: int
    tail: int
    bytes: int
    device: str
    faiss: str
    rank: Rank = "cosine"
    ranking_bytes: int = 0
    unranked: int = 0


def info_fields(info: Info) -> dict[str, Any]:
    """Return the fields of a collection's description."""
    return asdict(info) | {"roots": [path_fields(root) for root in info.roots]}
