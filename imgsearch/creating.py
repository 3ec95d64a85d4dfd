"""Make an empty collection: export its model, make its catalog, declare it."""

from __future__ import annotations

import hashlib

from imgsearch.embedding.models import build, export_onnx, find_network
from imgsearch.embedding.weights import find_weights, read_state
from imgsearch.errors import InputError
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.files import exclusive, write_atomically
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import ModelRecord

__all__ = ["create"]


def create(layout: Layout, *, model: str, weights: str | None, progress: bool) -> None:
    """Make an empty collection; what an interrupted attempt left is made anew.

    Args:
        layout: where.
        model: a name of `imgsearch.embedding.models.MODELS`.
        weights: see `imgsearch.embedding.weights`; None for the model's default.
        progress: show a download of weights on stderr.

    Raises:
        SettingError: there is no such model, or there are no such weights.
        ModelError: the weights cannot be had.
        InputError: there is a collection already, or something else.
        StorageError: the disk cannot be written.
    """
    network = find_network(model)
    if layout.exists():
        raise InputError(f"{layout.directory} is a collection already")
    found = find_weights(network, weights, progress=progress)
    module = build(network, read_state(network, found), source=str(found.path))
    layout.prepare()
    with exclusive(layout.directory):
        if layout.exists():  # made by another process while this one read its weights
            raise InputError(f"{layout.directory} is a collection already")
        onnx = export_onnx(module, network)
        write_atomically(layout.model, lambda sink: sink.write(onnx))
        layout.catalog.unlink(missing_ok=True)
        catalog = Catalog(layout.catalog, create=True)
        catalog.set_model(
            ModelRecord(
                name=network.name,
                dim=network.dim,
                input_size=network.input_size,
                weights=found.name,
                weights_sha256=found.sha256,
                onnx_sha256=hashlib.sha256(onnx).hexdigest(),
            )
        )
        catalog.close()
        layout.write_manifest()
