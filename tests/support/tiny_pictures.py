"""Pictures of 4 x 4 pixels, which the small network takes as they are, and their embeddings."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image

from imgsearch.ann.vectors import Vectors
from imgsearch.images.decode import Pixels
from tests.support.small_network import INPUT_SIZE

__all__ = ["content_of", "embedding_of", "pixels_of"]


@lru_cache(maxsize=500)
def content_of(seed: int) -> bytes:
    """Return the content of a PNG file; all have the same size in bytes."""
    file = io.BytesIO()
    Image.fromarray(pixels_of(seed)).save(file, "png", compress_level=0)
    return file.getvalue()


@lru_cache(maxsize=500)
def embedding_of(seed: int) -> Vectors:
    """Return the embedding that the small network gives the picture, float32 `[dim]`."""
    values = pixels_of(seed).reshape(-1).astype(np.float32) - np.float32(127.5)
    return np.asarray(values / np.linalg.norm(values), np.float32)


def pixels_of(seed: int) -> Pixels:
    """Return the pixels, uint8 `[4, 4, 3]`; pictures whose seeds differ by 8 are alike."""
    kind = np.random.default_rng(seed % 8).integers(0, 256, (INPUT_SIZE, INPUT_SIZE, 3))
    own = np.random.default_rng(8 + seed).integers(-60, 60, kind.shape)
    pixels: Pixels = np.clip(kind + own, 0, 255).astype(np.uint8)
    return pixels
