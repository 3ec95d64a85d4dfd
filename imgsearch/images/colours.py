"""Convert the colours of an image to sRGB by its ICC profile."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from PIL.ImageCms import ImageCmsProfile, ImageCmsTransform

__all__ = ["MOST_PROFILE", "to_srgb"]

#: Maximum bytes of a profile; those of printers have up to 3 million.
MOST_PROFILE = 4 << 20

_SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}

# A profile that moves no colour farther than this is one of the many variants of sRGB.
_NEARLY = 2
_STEPS = 9  # Steps per channel when colours are tried out.


def to_srgb(image: Image.Image, profile: object) -> Image.Image:
    """Convert an image of mode "RGB", "L", "CMYK", "RGBA" or "LA" to sRGB.

    The same image is returned if the profile is sRGB already, is missing or malformed, or is for
    another kind of image.

    Args:
        image: Image of any mode; other modes than those above are returned unchanged.
        profile: ICC profile as stored in a file.
    """
    if not isinstance(profile, bytes) or not 128 <= len(profile) <= MOST_PROFILE:
        return image
    mode = {"RGBA": "RGB", "LA": "L"}.get(image.mode, image.mode)
    if mode not in _SPACES:
        return image
    transform = _transform(profile, mode)
    if transform is None:
        return image
    if mode == image.mode:
        return transform.apply(image)
    colours = transform.apply(image.convert(mode))
    colours.putalpha(image.getchannel("A"))
    return colours


@lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str) -> ImageCmsTransform | None:
    """Return a transform to sRGB; None if there is none, or if the colours are sRGB already."""
    from PIL import ImageCms  # Here, as most files have no profile and need no LittleCMS.

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space != _SPACES[mode]:
            return None
        transform = ImageCms.ImageCmsTransform(
            source,
            _srgb(),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        same = mode != "CMYK" and _changes_nothing(transform, mode)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, MemoryError):
        return None
    return None if same else transform


@lru_cache(maxsize=1)
def _srgb() -> ImageCmsProfile:
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _changes_nothing(transform: ImageCmsTransform, mode: str) -> bool:
    steps = np.linspace(0, 255, _STEPS).round().astype(np.uint8)
    if mode == "L":
        colours = np.arange(256, dtype=np.uint8)[None]
    else:
        colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(_STEPS, -1, 3)
    image = Image.fromarray(colours)
    after = np.asarray(transform.apply(image)).astype(int)
    return bool(np.abs(after - np.asarray(image.convert("RGB"))).max() <= _NEARLY)
