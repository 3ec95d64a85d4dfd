"""Replace the network of a collection, and all embeddings, in one transaction of its catalog.

The *successor* is the folder `next` of a collection: the same images, embedded by another network,
with an index of their own. It is itself a collection, except that its catalog knows only the ids
and digests of the images, and not where they are. Its files get names of the collection first. Then
one transaction makes them count, and those of the old network not. What is left to do after that is
done by `settle`, which every writer calls: until then, readers take the network from `next`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from imgsearch.errors import StorageError, reason_of
from imgsearch.files.opening import check_folder, is_there
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.files import (
    copy_file,
    link_file,
    move_file,
    remove_folder,
    sha256_of,
)
from imgsearch.storage.fingerprints import prints_name
from imgsearch.storage.layers import layer_name
from imgsearch.storage.layout import MAX_MODEL, Layout, segment_name
from imgsearch.storage.records import ModelRecord, Snapshot
from imgsearch.storage.shards import shard_files
from imgsearch.storage.writer import CatalogWriter

__all__ = ["drop_successor", "keep_copy", "settle", "succeed"]


class _File(NamedTuple):
    """A file that a catalog names: its path in the directory of the collection, and its SHA-256."""

    name: str
    sha256: bytes


def succeed(layout: Layout, catalog: CatalogWriter, successor: Catalog) -> None:
    """Let the successor take the place of a collection. Only the writer of both may call this.

    Images that the successor has no embedding of are forgotten.

    Raises:
        FileNotFoundError: If a file of the successor is missing.
        DamagedError: If one is damaged.
        StorageError: If the disk is full, or cannot be written.
    """
    snapshot = successor.snapshot()
    renumbered = _renumbered(catalog, snapshot)
    for old, new in zip(_files_of(snapshot), _files_of(renumbered), strict=True):
        link_file(layout.next.directory / old.name, layout.directory / new.name, new.sha256)
    lost = set(catalog.image_ids()).difference(successor.image_ids())
    catalog.succeed(renumbered, successor.removed_digests(), sorted(lost))


def _renumbered(catalog: CatalogWriter, new: Snapshot) -> Snapshot:
    """Return a snapshot whose files have numbers that the catalog has not used yet."""
    shard, segment, layer = catalog.next_shard()[0], catalog.next_segment(), catalog.next_layer()
    return replace(
        new,
        shards=tuple(replace(each, number=n) for n, each in enumerate(new.shards, shard)),
        segments=tuple(replace(each, number=n) for n, each in enumerate(new.segments, segment)),
        layers=tuple(replace(each, number=n) for n, each in enumerate(new.layers, layer)),
    )


def _files_of(snapshot: Snapshot) -> Iterator[_File]:
    """Yield each numbered file that a snapshot names."""
    for shard in snapshot.shards:
        for name, sha256 in shard_files(shard).items():
            yield _File(f"vectors/{name}", sha256)
    for segment in snapshot.segments:
        yield _File(f"segments/{segment_name(segment.number)}", segment.sha256)
    for layer in snapshot.layers:
        yield _File(f"layers/{layer_name(layer.number)}", layer.sha256)


def settle(layout: Layout, model: ModelRecord) -> None:
    """Finish what a switch has left to do, if it was committed; otherwise change nothing.

    Args:
        layout: The layout of the collection.
        model: The record of its network.

    Raises:
        DamagedError: If something is not a file or folder, as it should be.
        StorageError: If the disk cannot be read or written.
    """
    new = layout.next
    if not is_there(new.directory):
        return
    check_folder(new.directory)
    if is_there(new.model):
        if sha256_of(new.model, MAX_MODEL).hex() != model.onnx_sha256:
            return
        if model.words_sha256 is None:
            _remove(layout.words)
        else:
            move_file(new.words, layout.words)
        move_file(new.model, layout.model)
    remove_folder(new.directory)


def drop_successor(layout: Layout) -> None:
    """Delete the successor, if there is one; it counts as deleted once its network is.

    Raises:
        DamagedError: If it is a link.
        StorageError: If it cannot be deleted.
    """
    check_folder(layout.next.directory)
    _remove(layout.next.model)
    remove_folder(layout.next.directory)


def _remove(path: Path) -> None:
    try:
        with suppress(FileNotFoundError):
            path.unlink()
    except OSError as error:
        raise StorageError(f"cannot remove {path}: {reason_of(error)}") from error


def keep_copy(layout: Layout, catalog: Catalog, target: Path) -> None:
    """Copy a sealed collection, by links as far as that is possible.

    Args:
        layout: The layout of the collection, which no writer changes meanwhile.
        catalog: Its catalog.
        target: A path at which there is nothing. The copy appears there at once.

    Raises:
        StorageError: If the disk is full, or cannot be written.
    """
    made = Layout(target.with_name(f"{target.name}.unfinished"))
    remove_folder(made.directory)
    made.make_folders()
    snapshot = catalog.snapshot()
    model, words = snapshot.model.onnx_sha256, snapshot.model.words_sha256
    files = [*_files_of(snapshot), _File(layout.model.name, bytes.fromhex(model))]
    files += [_File(f"fingerprints/{prints_name(p.number)}", p.sha256) for p in catalog.prints()]
    if words is not None:
        files.append(_File(layout.words.name, bytes.fromhex(words)))
    for file in files:
        link_file(layout.directory / file.name, made.directory / file.name, file.sha256)
    copy_file(layout.copy, made.catalog)
    for source in (layout.copy, layout.seal, layout.distinct):
        if is_there(source):
            copy_file(source, made.directory / source.name)
    made.write_manifest()
    move_file(made.directory, target)
