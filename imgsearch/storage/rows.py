"""Check what the rows of a catalog say before anything is made of it: paths, ids and counts."""

from __future__ import annotations

import re
from collections.abc import Sequence

from imgsearch.storage.records import IvfRecord, Snapshot
from imgsearch.storage.shards import Shard

__all__ = ["is_folder", "is_name", "is_root", "wrong_number"]

MOST_DIM = 1 << 16  # of an embedding
MOST_EDGE = 1 << 13  # pixels, of what a model takes
LEAST_ROW = 16  # bytes of a catalog that an image takes, or a removed one

_URL = re.compile(rb"[a-z][a-z0-9+.-]*://", re.DOTALL)
_ODD = frozenset({b"", b".", b".."})


def is_root(path: object) -> bool:
    """Tell whether this is the path of a root: absolute, as it is written, or a URL."""
    if not isinstance(path, bytes) or b"\0" in path:
        return False
    if _URL.match(path):
        return True
    return path == b"/" or (path[:1] == b"/" and _ODD.isdisjoint(path[1:].split(b"/")))


def is_folder(path: object, root: bytes) -> bool:
    """Tell whether this is a path relative to a root: it leads nowhere but down."""
    if not isinstance(path, bytes) or b"\0" in path or path[:1] == b"/":
        return False
    return not path or _URL.match(root) is not None or _ODD.isdisjoint(path.split(b"/"))


def is_name(name: object) -> bool:
    """Tell whether this is the name of a file in its folder."""
    return isinstance(name, bytes) and name not in _ODD and b"/" not in name and b"\0" not in name


def wrong_number(snapshot: Snapshot, size: int) -> str | None:
    """Return which number of a snapshot cannot be, None if all can.

    Args:
        snapshot: of a catalog.
        size: of the file of that catalog, in bytes, which bounds the number of its images.
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
    return None if snapshot.ivf is None else _wrong_curve(snapshot.ivf)


def _wrong_shard(shards: Sequence[Shard]) -> Shard | None:
    """Return the first shard whose numbers cannot be; they are ordered by id."""
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
