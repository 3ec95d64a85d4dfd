"""Synthetic pictures: seeded, small, all different."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["picture", "save_pictures"]


def picture(seed: int, *, width: int = 48, height: int = 40) -> Image.Image:
    """Return soft blobs of colour: like a photograph, it keeps its look when it is scaled."""
    blobs = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(blobs).resize((width, height), Image.Resampling.BICUBIC)


def save_pictures(folder: Path, count: int, *, first: int = 0) -> list[Path]:
    """Save `count` pictures, seeds from `first` on, by turns JPEG and PNG; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [
        folder / f"{seed:04}.{'png' if seed % 2 else 'jpg'}" for seed in range(first, first + count)
    ]
    for seed, path in enumerate(paths, first):
        picture(seed).save(path)
    return paths
