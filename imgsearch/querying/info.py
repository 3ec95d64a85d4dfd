"""What a collection holds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from imgsearch.files.paths import path_fields
from imgsearch.storage.records import IvfRecord, ModelRecord, Settings

__all__ = ["Info", "info_fields"]


@dataclass(frozen=True, slots=True)
class Info:
    """What a collection holds.

    Attributes:
        directory: where it is.
        images: that can be found.
        failed: files that could not be used.
        skipped: files that are plainly no images.
        excluded: files and folders that were taken out.
        roots: folders that were indexed.
        left_out: patterns whose files and folders are left out, the default ones first.
        model: that made the embeddings: name, length of an embedding, weights and their SHA-256.
        settings: what the index is to be like: nlist, and the recall@10 that is promised.
        ivf: the index, and the recall it was measured to keep; None while every search is exact.
        nprobe: lists that a query probes to keep the promise, the farther it is from a centroid the
            more; beyond the last, and where this is 0, it is compared with every image.
        outgrown: the images have changed so much since the centroids were trained that the promise
            may not hold; the next run trains them again.
        segments: files that the index is divided into.
        list_sizes: images in each inverted list.
        index_bytes: all those files together.
        tail: images that are searched exactly because no inverted list holds them yet.
        bytes: all files together.
        device: that this collection was opened for.
        faiss: which Faiss searches, and where.
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


def info_fields(info: Info) -> dict[str, Any]:
    """Return what a collection holds."""
    return asdict(info) | {"roots": [path_fields(root) for root in info.roots]}
