"""Synthetic pictures with many local features, all different."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

__all__ = ["texture"]


def texture(seed: int, *, width: int = 320, height: int = 240) -> Image.Image:
    """Return overlapping shapes of many sizes and colours, slightly blurred as by a lens."""
    random = np.random.default_rng(seed)
    picture = Image.new("RGB", (width, height), tuple(random.integers(0, 256, 3).tolist()))
    draw = ImageDraw.Draw(picture)
    for size in np.geomspace(width / 3, 6, 160).tolist():
        x, y = (random.random(2) * (width, height)).tolist()
        wide, high = (size * random.uniform(0.4, 1, 2)).tolist()
        shape = draw.rectangle if random.random() < 0.5 else draw.ellipse
        colour = tuple(random.integers(0, 256, 3).tolist())
        shape((x - wide / 2, y - high / 2, x + wide / 2, y + high / 2), fill=colour)
    return picture.filter(ImageFilter.GaussianBlur(0.7))
