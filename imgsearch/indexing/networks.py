"""Keep exported networks in the user's cache: each is exported once, and later without torch.

A file of the cache is found by the names of the network and of its weights. It holds the SHA-256 of
the weights that it was made with. Where these can be found, they decide whether it is used.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

from imgsearch.embedding import export as exporting
from imgsearch.embedding.export import Exported
from imgsearch.embedding.models import MODELS, Shapes, is_file
from imgsearch.embedding.weights import are_packaged, file_digest
from imgsearch.storage.cached import read_cached, write_cached
from imgsearch.storage.files import user_cache

__all__ = ["export"]

_VERSION = 1  # of what `imgsearch.embedding.export` makes of the same weights
_MOST_BYTES = 5 << 30
_FILES = 8


def export(model: str, weights: str | None, *, progress: bool) -> Exported:
    """Return a network as `imgsearch.embedding.export.export` does, from the cache if possible."""
    if is_file(model) or are_packaged(MODELS.get(model), weights):  # which takes no time
        return exporting.export(model, weights, progress=progress)
    path = _path(model, weights)
    known = _read(path)
    found = exporting.export(model, weights, progress=progress, known=known)
    if found is not known:
        write_cached(path, _written(found), files=_FILES)
    return found


def _path(model: str, weights: str | None) -> Path:
    digest = None
    if weights is not None and os.path.isfile(file := os.path.expanduser(weights)):
        weights, digest = os.path.abspath(file), file_digest(Path(file))
    key = json.dumps([_VERSION, model, weights, digest]).encode()
    return user_cache("networks") / f"{hashlib.sha256(key).hexdigest()[:32]}.network"


def _written(exported: Exported) -> bytes:
    """Return the content of a file of the cache: a line of JSON, and the ONNX files."""
    content = exported.onnx + (exported.words or b"")
    facts = {
        "name": exported.name,
        "shapes": exported.shapes,
        "weights": exported.weights,
        "weights_sha256": exported.weights_sha256,
        "onnx_bytes": len(exported.onnx),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    return json.dumps(facts).encode() + b"\n" + content


def _read(path: Path) -> Exported | None:
    """Return the network in a file of the cache; None if it is missing or damaged."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        line, _, content = read_cached(path, _MOST_BYTES).partition(b"\n")
        facts = json.loads(line)
        if hashlib.sha256(content).hexdigest() == facts["sha256"]:
            size = facts["onnx_bytes"]
            names = facts["name"], Shapes(*facts["shapes"]), facts["weights"]
            rest = facts["weights_sha256"], content[size:] or None
            return Exported(content[:size], *names, *rest)
    return None
