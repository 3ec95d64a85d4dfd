"""Open the model of a collection: in this process if imgsearch exported it."""

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
    """Open a collection's model on the CPU: in this process if imgsearch exported it.

    Args:
        model: The ONNX file.
        shapes: What the catalog says of it.
        threads: Threads that run one call; 0 for one per core.
        trust: Whether a foreign one may be run, in a process of its own.

    Raises:
        DamagedError: It is missing, is not an ONNX model, or not the one of the catalog.
        StorageError: It cannot be read.
        UntrustedModelError: It is a foreign one.
    """
    try:
        return OnnxRuntime(model, threads=threads, shapes=shapes)
    except UntrustedModelError:
        if not trust:
            raise
    from imgsearch.embedding.confined import ConfinedRuntime  # ours need no process

    return ConfinedRuntime(model, shapes, threads=threads)
