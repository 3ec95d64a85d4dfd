"""Gather the photographs that scikit-image and scikit-learn ship, and variants of them."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, ImageEnhance, ImageFilter, ImageOps

__all__ = ["find_photographs", "variants"]

#: Images of scikit-image that are drawings, patterns or masks.
_NO_PHOTOGRAPHS = {
    "chessboard_GRAY.png",
    "chessboard_RGB.png",
    "color.png",
    "horse.png",
    "logo.png",
    "phantom.png",
}


def find_photographs() -> list[Path]:
    """Return the photographs that come with the two packages, sorted by name."""
    skimage_folder = _folder_of("skimage") / "data"
    sklearn_folder = _folder_of("sklearn") / "datasets" / "images"
    files = [*skimage_folder.iterdir(), *sklearn_folder.iterdir()]
    return sorted(
        (
            path
            for path in files
            if path.suffix in (".jpg", ".png") and path.name not in _NO_PHOTOGRAPHS
        ),
        key=lambda path: path.name,
    )


def _folder_of(package: str) -> Path:
    """Return the folder of an installed package, which need not be imported."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{package} is not installed: run `make venv`", name=package)
    return Path(spec.origin).parent


def variants(photograph: Image.Image) -> Iterator[tuple[str, Image.Image]]:
    """Yield what people do to photographs: a word for it, and the image (RGB)."""
    width, height = photograph.size
    yield "mirrored", ImageOps.mirror(photograph)
    yield "turned", photograph.rotate(8, Image.Resampling.BICUBIC, expand=False)
    yield "small", photograph.resize((max(64, width // 3), max(64, height // 3)))
    yield "grey", photograph.convert("L").convert("RGB")
    yield "bright", ImageEnhance.Brightness(photograph).enhance(1.4)
    yield "dark", ImageEnhance.Brightness(photograph).enhance(0.6)
    yield "pale", ImageEnhance.Color(photograph).enhance(0.4)
    yield "blurred", photograph.filter(ImageFilter.GaussianBlur(3))
    yield "framed", ImageOps.expand(photograph, border=width // 12, fill="white")
    yield "left", photograph.crop((0, 0, width * 3 // 4, height))
    yield "right", photograph.crop((width // 4, 0, width, height))
    yield "top", photograph.crop((0, 0, width, height * 3 // 4))
