"""Open the model of a collection, in this process if imgsearch exported it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from imgsearch.embedding.onnx.check import Shapes
from imgsearch.embedding.runtime import OnnxRuntime
from imgsearch.errors import UntrustedModelError

if TYPE_CHECKING:
    from imgsearch.embedding.confined import ConfinedRuntime

__all__ = ["open_model"]


def open_model(
    model: Path, shapes: Shapes, *, threads: int = 0, trust: bool = False
) -> OnnxRuntime | ConfinedRuntime:
    """Open a collection's model on the CPU, in this process if imgsearch exported it.

    Args:
        model: The ONNX file.
        shapes: Shapes of the model according to the catalog.
        threads: Number of threads for one call; 0 for one per core.
        trust: Whether a foreign model may be run, in its own process.

    Raises:
        DamagedError: If the file is missing, not an ONNX model, or not the model that the catalog
            describes.
        StorageError: If the file cannot be read.
        UntrustedModelError: If the model is foreign and `trust` is false.
    """
    try:
        return OnnxRuntime(model, threads=threads, shapes=shapes)
    except UntrustedModelError:
        if not trust:
            raise
    from imgsearch.embedding.confined import ConfinedRuntime  # Our own models need no process.

    return ConfinedRuntime(model, shapes, threads=threads)
