"""Keep the fingerprints in step with the images: make those that are missing, and merge files.

A worker that embeds an image makes its fingerprint as well. Images that an
older version indexed have none, so the next run decodes these once more, without embedding them.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import numpy as np

from imgsearch.ann.vectors import Ids, rows_of
from imgsearch.embedding.pipeline import Fingerprinted, Refused, cores, fingerprint_files
from imgsearch.files.paths import is_url
from imgsearch.images.fingerprint import FINGERPRINT, Fingerprint
from imgsearch.images.limits import LIMITS, Limits
from imgsearch.indexing.policy import POLICY, FoldPolicy
from imgsearch.storage.files import check_room, check_sha256
from imgsearch.storage.fingerprints import (
    PRINT_BYTES,
    Prints,
    prints_name,
    rows_of_bytes,
    write_prints,
)
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import Facts, PrintFile
from imgsearch.storage.writer import CatalogWriter

__all__ = ["facts_of", "last_to_merge", "make_missing", "merge_prints", "without_prints"]

COMMITTED = 4_096  # fingerprints written together at most
COMMIT_SECONDS = 5.0
SMALLER = 4  # times the rows of a small shard, as many as a small file of fingerprints has
ASKED = 1_024  # entries of the catalog
NONE = bytes(FINGERPRINT.itemsize)  # of a file that cannot be decoded: its width is 0


def facts_of(fingerprint: Fingerprint) -> Facts:
    """Return what a file states, as the catalog keeps it."""
    width, height = fingerprint.size
    if not width:
        return Facts()
    return Facts(width, height, fingerprint.taken, fingerprint.camera)


def without_prints(layout: Layout, catalog: CatalogWriter) -> Ids:
    """Return the ids of the images that have no fingerprint, ascending."""
    ids = np.array(catalog.image_ids(), np.int64)
    prints = Prints.open(layout.fingerprints, catalog.prints())
    return ids[~prints.places(ids).there]


def make_missing(
    layout: Layout,
    catalog: CatalogWriter,
    *,
    workers: int | None = None,
    limits: Limits = LIMITS,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Make the fingerprints of images that have none; return how many. Only for the writer.

    What was made before an interruption is kept. Files that are missing, cannot be read, or have
    changed are left to a later run; files that cannot be decoded are recorded as such.

    Args:
        layout: The layout of the collection.
        catalog: The catalog of the collection.
        workers: Number of processes that decode; None for one per core.
        limits: Limits for each file.
        progress: Function called with the number of files done, and the total.

    Raises:
        DamagedError: If a file of fingerprints is missing or damaged.
        StorageError: If the disk is full, or cannot be written.
        ModelError: If a worker cannot start.
    """
    ids = without_prints(layout, catalog)
    if not ids.size:
        return 0
    check_room(layout.fingerprints, PRINT_BYTES * len(ids))
    waiting: deque[tuple[int, str]] = deque()
    digests: dict[str, bytes] = {}

    def paths() -> Iterator[str]:
        for start in range(0, len(ids), ASKED):
            for entry in catalog.entries_of(ids[start : start + ASKED].tolist()):
                if not (is_url(entry.path) or os.path.exists(entry.path)):
                    continue  # else workers would start in each run
                digests[entry.path] = entry.digest
                waiting.append((entry.id, entry.path))
                yield entry.path

    found: dict[int, Fingerprint] = {}
    made = done = 0
    written = time.monotonic()
    outcomes = fingerprint_files(
        paths(),
        wanted=lambda path, digest: digests.get(path) == digest,
        input_size=catalog.snapshot().model.input_size,
        workers=workers or cores(),
        limits=limits,
    )
    try:
        with closing(outcomes):
            for outcome in outcomes:
                id_, path = waiting.popleft()
                digests.pop(path, None)
                done += 1
                if isinstance(outcome, Fingerprinted):
                    found[id_] = outcome.fingerprint
                elif isinstance(outcome, Refused) and not (outcome.transient or outcome.limited):
                    found[id_] = Fingerprint(NONE)
                if progress is not None:
                    progress(done, len(ids))
                late = time.monotonic() - written > COMMIT_SECONDS
                if len(found) >= COMMITTED or (found and late):
                    taken, found = found, {}
                    made += _write(layout, catalog, taken)
                    written = time.monotonic()
    finally:
        made += _write(layout, catalog, found)
    return made


def _write(layout: Layout, catalog: CatalogWriter, found: dict[int, Fingerprint]) -> int:
    """Write and commit fingerprints; return how many are of files that could be decoded."""
    if not found:
        return 0
    ids = np.array(sorted(found), np.int64)
    rows = rows_of_bytes([found[id_].row for id_ in ids.tolist()])
    file = write_prints(layout.fingerprints, catalog.next_prints(), ids, rows)
    catalog.add_prints(file, {id_: facts_of(each) for id_, each in found.items()})
    return int(np.count_nonzero(rows["width"]))


def merge_prints(
    layout: Layout, catalog: CatalogWriter, live: Ids, policy: FoldPolicy = POLICY
) -> None:
    """Merge small files of fingerprints, and drop those of removed images. Only for the writer.

    Args:
        layout: The layout of the collection.
        catalog: The catalog of the collection.
        live: The ids of all images, ascending.
        policy: The thresholds.

    Raises:
        DamagedError: If a file to merge is missing or damaged.
        StorageError: If there is not enough room on the disk.
    """
    files = catalog.prints()
    taken = last_to_merge([file.count for file in files], SMALLER * policy.small_shard)
    groups = [files[len(files) - taken :]] if taken else []
    prints = Prints.open(layout.fingerprints, files)
    for number, file in enumerate(files[: len(files) - taken]):
        dead = file.count - int(rows_of(prints.ids_in(number), live).sum())
        if dead and dead >= policy.shard_dead * file.count:
            groups.append([file])
    for group in groups:
        _rewrite(layout, catalog, group, live)


def _rewrite(layout: Layout, catalog: CatalogWriter, group: Sequence[PrintFile], live: Ids) -> None:
    """Rewrite files as one, without the fingerprints of removed images."""
    check_room(layout.fingerprints, sum(file.size for file in group))
    for file in group:
        check_sha256(layout.fingerprints / prints_name(file.number), file.sha256)
    prints = Prints.open(layout.fingerprints, group)
    ids = prints.ids()
    ids = ids[rows_of(ids, live)]
    new = None
    if ids.size:
        rows = prints.rows(ids)
        new = write_prints(layout.fingerprints, catalog.next_prints(), ids, rows)
    catalog.replace_prints(group, new)


def last_to_merge(counts: Sequence[int], small: int) -> int:
    """Return how many of the last files to merge, like the digits of a binary number.

    Args:
        counts: The number of rows of each file.
        small: The number of rows from which on a file is not merged.
    """
    taken = total = 0
    for reach, count in enumerate(reversed(counts), 1):
        if count >= small:
            break
        if count <= total:
            taken = reach
        total += count
    return taken
