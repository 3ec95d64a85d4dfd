"""Seeded pictures, and image files made of them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
from PIL import Image

#: Formats that give back each pixel, with `encode`'s options.
LOSSLESS = ("PNG", "TIFF", "BMP", "PPM", "ICO")
LOSSY = ("JPEG", "MPO", "WEBP", "AVIF", "HEIF", "GIF")
ALL = LOSSLESS + LOSSY


def photo(width: int, height: int, *, seed: int = 0) -> Image.Image:
    """Return a smooth picture, every part of which differs from the others, as photographs do."""
    random = np.random.default_rng(seed)
    blobs = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    return blobs.resize((width, height), Image.Resampling.BICUBIC)


def encode(image: Image.Image, format: str, **options: Any) -> bytes:  # noqa: A002 - as Pillow calls it
    """Return the bytes of `image` as a file of a format."""
    buffer = io.BytesIO()
    if format == "HEIF":
        # Not through Image.save: that would register the decoder, which the product has to do.
        file = pillow_heif.from_pillow(image)
        if exif := options.pop("exif", None):
            file.info["exif"] = exif.tobytes()  # from an image's own, it would turn the pixels
        file.save(buffer, quality=95)
        return buffer.getvalue()
    extra: dict[str, Callable[[], dict[str, Any]]] = {
        "JPEG": lambda: {"quality": 95},
        "WEBP": lambda: {"quality": 95},
        "AVIF": lambda: {"quality": 95},
        "ICO": lambda: {"sizes": [image.size]},
        "MPO": lambda: {
            "quality": 95,
            "save_all": True,
            "append_images": [image.transpose(Image.Transpose.ROTATE_180)],
        },
    }
    image.save(buffer, format, **{**extra.get(format, dict)(), **options})
    return buffer.getvalue()


def write(path: Path, image: Image.Image, format: str, **options: Any) -> str:  # noqa: A002 - as Pillow calls it
    """Write `image` to a file and return its path as the pipeline takes it."""
    path.write_bytes(encode(image, format, **options))
    return str(path)


def photos(folder: Path, *names: str) -> list[str]:
    """Write a picture of its own under each name, as PNG, and return their paths."""
    return [
        write(folder / name, photo(20 + seed, 30, seed=seed), "PNG")
        for seed, name in enumerate(names)
    ]
