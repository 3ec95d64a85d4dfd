"""Collections in directories, as `imgsearch.places` has them."""

from __future__ import annotations

from collections.abc import Callable

from imgsearch.backends.milvus.export import Transfer
from imgsearch.collection import Collection
from imgsearch.errors import SettingError
from imgsearch.evaluation.evaluate import evaluate
from imgsearch.indexing.create import discard_empty
from imgsearch.querying.options import PathLike
from imgsearch.storage.layout import Layout

__all__ = ["create", "discard", "evaluate", "exists", "open_at", "receive"]


def exists(location: PathLike) -> bool:
    """Tell whether there is a collection."""
    return Layout.at(location).exists()


def create(
    location: PathLike, *, model: str, weights: str | None, device: str, progress: bool
) -> Collection:
    """Make an empty collection and open it."""
    return Collection.create(
        location, model=model, weights=weights, device=device, progress=progress
    )


def discard(location: PathLike) -> bool:
    """Remove a collection that was just made and holds nothing; tell whether it is gone."""
    return discard_empty(Layout.at(location))


def open_at(
    location: PathLike, *, device: str, threads: int = 0, trust_model: bool = False
) -> Collection:
    """Open a collection."""
    return Collection.open(location, device=device, threads=threads, trust_model=trust_model)


def receive(
    location: PathLike,
    directory: PathLike,
    *,
    verify: bool,
    progress: Callable[[int, int], None] | None,
) -> Transfer:
    """Refuse: a directory is copied by any means."""
    del directory, verify, progress
    raise SettingError(
        f"{location} is no collection in Milvus; name one as milvus://HOST:PORT/NAME or "
        "milvus:FILE.db, or copy the directory itself"
    )
