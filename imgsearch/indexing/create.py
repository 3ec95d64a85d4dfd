"""Create an empty collection: export its model, create its catalog, declare it."""

from __future__ import annotations

import hashlib
from contextlib import suppress

from imgsearch.embedding.models import check_name
from imgsearch.errors import BusyError, InputError, StorageError, reason_of
from imgsearch.images import DECODER
from imgsearch.indexing.networks import export
from imgsearch.storage.files import exclusive, write_atomically
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import ModelRecord, Settings
from imgsearch.storage.seal import seal
from imgsearch.storage.writer import CatalogWriter

__all__ = ["begin", "create", "discard_empty", "make_model"]

RECALL = 0.95  # recall@10 promised by default


def create(layout: Layout, *, model: str, weights: str | None, progress: bool) -> None:
    """Create an empty collection; replace whatever an interrupted attempt left.

    Args:
        layout: The layout of the new collection.
        model: A name of a network: see `imgsearch.embedding.models`.
        weights: The weights, see `imgsearch.embedding.weights`; None for the model's default.
        progress: Whether to show the progress of downloading weights on stderr.

    Raises:
        ModelError: If there is no such model, or the weights cannot be obtained.
        InputError: If a collection, or something else, is already there.
        StorageError: If the disk cannot be written.
    """
    check_name(model)
    if layout.exists():
        raise InputError(f"{layout.directory} is already a collection")
    layout.check_free()
    begin(layout, *make_model(model, weights, progress=progress))


def make_model(
    model: str, weights: str | None, *, progress: bool
) -> tuple[ModelRecord, bytes, bytes | None]:
    """Export a model; return its record, its ONNX file, and that of its text tower, if it has one.

    Raises the errors of `create`.
    """
    exported = export(model, weights, progress=progress)
    words = exported.words
    record = ModelRecord(
        name=exported.name,
        dim=exported.shapes.dim,
        input_size=exported.shapes.input_size,
        weights=exported.weights,
        weights_sha256=exported.weights_sha256,
        onnx_sha256=hashlib.sha256(exported.onnx).hexdigest(),
        decoder=DECODER,
        words_sha256=None if words is None else hashlib.sha256(words).hexdigest(),
    )
    return record, exported.onnx, words


def begin(layout: Layout, model: ModelRecord, onnx: bytes, words: bytes | None = None) -> None:
    """Write the files of an empty collection, the manifest last.

    Raises:
        BusyError: If another process has just done so.
        StorageError: If the disk cannot be written.
    """
    layout.make_folders()
    with exclusive(layout.directory):
        if layout.exists():
            raise BusyError(f"another imgsearch has just created {layout.directory}; try again")
        write_atomically(layout.model, lambda sink: sink.write(onnx))
        if words is None:
            layout.words.unlink(missing_ok=True)
        else:
            write_atomically(layout.words, lambda sink: sink.write(words))
        layout.catalog.unlink(missing_ok=True)
        catalog = CatalogWriter(layout.catalog, create=True)
        catalog.begin(model, Settings(nlist=None, recall=RECALL))
        catalog.close()
        seal(layout)
        layout.write_manifest()


def discard_empty(layout: Layout) -> bool:
    """Remove a collection that never had an image; return whether it was removed.

    The folders above it stay, and so does anything in it that does not belong to it.

    Raises:
        BusyError: If another process is writing to it.
        StorageError: If the disk cannot be written.
    """
    with exclusive(layout.directory):
        catalog = CatalogWriter(layout.catalog)
        number, _ = catalog.next_shard()
        catalog.close()
        if number > 1:
            return False
        try:
            layout.manifest.unlink()  # first: the rest is then no collection, and may be replaced
            for file in (layout.seal, layout.copy, layout.catalog, layout.model, layout.words):
                file.unlink(missing_ok=True)
            for folder in layout.folders:
                with suppress(FileNotFoundError):  # an older version made fewer
                    folder.rmdir()
        except OSError as error:
            raise StorageError(f"cannot remove {layout.directory}: {reason_of(error)}") from error
    with suppress(OSError):  # there is something else in it
        (layout.directory / "lock").unlink(missing_ok=True)
        layout.directory.rmdir()
    return True
