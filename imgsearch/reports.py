"""What a collection tells about itself and about an indexing run."""

from __future__ import annotations

from dataclasses import dataclass

from imgsearch.storage.records import IvfRecord, ModelRecord

__all__ = ["Failure", "IndexReport", "Info", "Progress"]


@dataclass(frozen=True, slots=True)
class Failure:
    """A file (or folder) that could not be used, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What an indexing run did: `found = indexed + unchanged + failed + skipped`.

    Attributes:
        found: files listed.
        indexed: images embedded in this run.
        unchanged: images that were there already, with the same size and time.
        failed: files that are or should be images and could not be used; see `failures`.
        skipped: files that are plainly no images.
        failures: the failed files, those of earlier runs that have not changed included.
        unreadable: folders that could not be listed.
        seconds: the run took.
    """

    found: int
    indexed: int
    unchanged: int
    failed: int
    skipped: int
    failures: tuple[Failure, ...]
    unreadable: tuple[Failure, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: files `done` of `total`, which is None while they are being counted.

    `training` once all are done and the index is made.
    """

    done: int
    total: int | None
    training: bool = False


@dataclass(frozen=True, slots=True)
class Info:
    """What a collection holds.

    Attributes:
        directory: where it is.
        images: that can be found.
        failed: files that could not be used.
        skipped: files that are plainly no images.
        roots: folders that were indexed.
        model: that made the embeddings: name, length of an embedding, weights and their SHA-256.
        ivf: the index; None while every search is exact.
        list_sizes: images in each inverted list.
        tail: images that are searched exactly because no inverted list holds them yet.
        bytes: all files together.
        device: that this collection was opened for.
        faiss: which Faiss searches, and where.
    """

    directory: str
    images: int
    failed: int
    skipped: int
    roots: tuple[str, ...]
    model: ModelRecord
    ivf: IvfRecord | None
    list_sizes: tuple[int, ...]
    tail: int
    bytes: int
    device: str
    faiss: str
