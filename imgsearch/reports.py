"""What a collection tells about itself and about an indexing run."""

from __future__ import annotations

from dataclasses import dataclass

from imgsearch.storage.records import IvfRecord, ModelRecord, Settings

__all__ = ["Failure", "IndexReport", "Info", "Progress", "Transfer"]


@dataclass(frozen=True, slots=True)
class Failure:
    """A file (or folder) that could not be used, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What an indexing run did.

    `found = indexed + copied + moved + unchanged + failed + skipped + excluded`.

    Attributes:
        found: files listed.
        indexed: images embedded in this run.
        copied: images whose content had been embedded before, at another path.
        moved: images that were at another path before, where there is no file any more.
        unchanged: images that were there already, with the same content.
        failed: files that are or should be images and could not be used; see `failures`.
        skipped: files that are plainly no images, and those that a pattern leaves out.
        skipped_kinds: of what kinds these are, and how many of each, most first.
        excluded: files that were taken out, and are kept out.
        removed: images that left the collection because their files are gone.
        left_out: images that left the collection because a pattern leaves them out now.
        failures: the failed files, those of earlier runs that have not changed included.
        unreadable: folders that could not be listed.
        seconds: the run took.
    """

    found: int
    indexed: int
    copied: int
    moved: int
    unchanged: int
    failed: int
    skipped: int
    skipped_kinds: tuple[tuple[str, int], ...]
    excluded: int
    removed: int
    left_out: int
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


@dataclass(frozen=True, slots=True)
class Transfer:
    """What a copy of a collection has in common with it.

    Attributes:
        images: of the collection that is copied.
        there: of them that the copy had already.
        sent: that were added to the copy.
        removed: images of the copy that the collection had, and has no more.
        others: images of the copy that are none of the collection's.
        compared: embeddings that were compared, value by value, with those of the copy.
        different: of them that are not the same.
    """

    images: int
    there: int
    sent: int
    removed: int
    others: int
    compared: int
    different: int
