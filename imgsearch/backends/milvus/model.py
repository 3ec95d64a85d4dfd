"""The model of a collection in Milvus: stored there, and copied once to this machine."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from imgsearch.backends.milvus.store import Store
from imgsearch.errors import DamagedError
from imgsearch.storage.files import make_folder, sha256_of, user_cache, write_atomically
from imgsearch.storage.records import ModelRecord

__all__ = ["cache", "local_model", "write_model"]

_NAME = "model"


def cache() -> Path:
    """Return the folder of copies on this machine; `XDG_CACHE_HOME` moves it."""
    return user_cache("models")


def write_model(store: Store, onnx: bytes) -> None:
    """Store the exported network beside the rows."""
    store.put(_NAME, onnx)


def local_model(store: Store, record: ModelRecord) -> Path:
    """Return the path of the network on this machine, checked against the record.

    Raises:
        DamagedError: If Milvus does not have it, or has another one.
        StorageError: If it cannot be written on this machine.
    """
    folder = Path(os.path.realpath(cache()))  # users may have moved it to another disk
    path = folder / f"{record.onnx_sha256}.onnx"
    if path.exists() and sha256_of(path).hex() == record.onnx_sha256:
        return path
    onnx = store.get(_NAME)
    if onnx is None or hashlib.sha256(onnx).hexdigest() != record.onnx_sha256:
        raise DamagedError(
            f"{store.address.location} lacks its model; run `imgsearch export` again from the "
            f"collection that it was copied from"
        )
    make_folder(folder)
    write_atomically(path, lambda sink: sink.write(onnx))
    return path
