"""Recognise, read and decode one image file."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from imgsearch.errors import ImageError, reason_of

__all__ = ["FORMATS", "Format", "Pixels", "Source", "decode", "pixels_of", "read"]

Pixels: TypeAlias = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Format:
    """A Pillow format: the module that registers it and its usual file name extensions."""

    module: str
    extensions: tuple[str, ...]


#: All that is ever opened. None of them starts another program, as EPS does.
FORMATS = {
    "JPEG": Format("PIL.JpegImagePlugin", (".jpg", ".jpeg", ".jpe", ".jfif")),
    "MPO": Format("PIL.MpoImagePlugin", (".mpo",)),
    "PNG": Format("PIL.PngImagePlugin", (".png", ".apng")),
    "WEBP": Format("PIL.WebPImagePlugin", (".webp",)),
    "AVIF": Format("PIL.AvifImagePlugin", (".avif", ".avifs")),
    "HEIF": Format("pillow_heif", (".heic", ".heif", ".hif", ".heics")),
    "TIFF": Format("PIL.TiffImagePlugin", (".tif", ".tiff")),
    "BMP": Format("PIL.BmpImagePlugin", (".bmp", ".dib")),
    "GIF": Format("PIL.GifImagePlugin", (".gif",)),
    "PPM": Format("PIL.PpmImagePlugin", (".ppm", ".pgm", ".pbm", ".pnm", ".pfm")),
    "ICO": Format("PIL.IcoImagePlugin", (".ico",)),
}
_EXTENSIONS = tuple(extension for row in FORMATS.values() for extension in row.extensions)

# A signature of two letters, "BM" or "P" and another, is the beginning of many a text as well.
_WEAKLY_SIGNED = {"BMP", "PPM"}

# Orientation of EXIF 2.32, table "Orientation": what brings the stored pixels upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True)
class Source:
    """A decoded file: its pixels (uint8 `[size, size, 3]`, RGB), and what identifies its content.

    `digest` is the SHA-256 of the file, `size` in bytes, `mtime_ns` its modification time.
    """

    pixels: Pixels
    digest: bytes
    size: int
    mtime_ns: int


def read(path: str, input_size: int) -> Source:
    """Read and decode the image file at `path` for a network of `input_size`.

    Raises:
        ImageError: it cannot be read (`transient`), it is no image (not `recognised`), or it
            cannot be decoded.
    """
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            before = os.fstat(file.fileno())
            if not stat.S_ISREG(before.st_mode):
                raise ImageError(path, "is not a regular file", recognised=False)
            pixels = decode(file, input_size, path)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").digest()
            after = os.fstat(file.fileno())
    except OSError as error:
        raise ImageError(path, f"cannot be read: {reason_of(error)}", transient=True) from error
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise ImageError(path, "changed while it was read; index again", transient=True)
    return Source(pixels, digest, after.st_size, after.st_mtime_ns)


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # or a pipe would wait for somebody to write to it


def decode(file: BinaryIO, input_size: int, path: str = "image") -> Pixels:
    """Decode an open image file into uint8 `[input_size, input_size, 3]`.

    The first frame, upright by its EXIF orientation; a JPEG at reduced scale.

    Raises:
        ImageError: it is no image of one of `FORMATS`, or it cannot be decoded.
        OSError: the operating system could not read it.
    """
    prefix = file.read(16)
    formats = _formats_of(prefix)
    if not formats:
        raise _unrecognised(path, prefix)
    try:
        with Image.open(file, formats=formats) as image:
            # Twice the size, so that it is the resizing that filters: reduced to the size itself, a
            # photo can differ from its full decoding by a cosine of 0.98 (docs/performance.md).
            image.draft(None, (2 * input_size, 2 * input_size))
            return pixels_of(image, input_size)
    except Exception as error:
        # Plug-ins raise whatever a malformed file makes them stumble over: there is no common base.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # EINVAL: the file itself pointed to an offset that no file can have
        if _WEAKLY_SIGNED.issuperset(formats) and not _is_named_like_an_image(path):
            raise _unrecognised(path, prefix) from error
        raise ImageError(path, f"cannot be decoded: {_explain(error)}") from error


def pixels_of(image: Image.Image, input_size: int) -> Pixels:
    """Squash an image to uint8 `[input_size, input_size, 3]`, upright, RGB, on white.

    The whole image, bilinear with antialiasing (`PIL.Image.Image.resize`).
    """
    image.load()
    orientation = _orientation(image)
    if image.mode in ("I;16", "I;16L", "I;16B", "I;16N", "I", "F"):
        image = _to_8_bit(image)
    elif image.mode in ("1", "P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif "transparency" in image.info:
        image = image.convert("RGBA")  # one colour of an RGB or grey PNG stands for transparent
    image = image.resize((input_size, input_size), Image.Resampling.BILINEAR)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    image = image.convert("RGB")
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
    return np.asarray(image, dtype=np.uint8)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        # Metadata that cannot be parsed says nothing about the picture, which was decoded.
        return 1
    return value if isinstance(value, int) else 1


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey by its full range, wider grey by the range that it uses."""
    values = np.asarray(image)
    if values.dtype.itemsize == 2:
        return Image.fromarray((values >> 8).astype(np.uint8))
    wide = np.float64 if image.mode == "F" else np.float32  # the range of floats may be no float
    finite = np.nan_to_num(values, posinf=0.0, neginf=0.0).astype(wide)
    low, high = float(finite.min()), float(finite.max())
    if image.mode == "I" and low >= 0 and high <= 0xFFFF:  # Pillow's mode for 16-bit PGM
        low, high = 0.0, 255.0 if high <= 255 else 65535.0
    scaled = (finite - low) * (255.0 / (high - low)) if high > low else np.zeros_like(finite)
    return Image.fromarray(scaled.astype(np.uint8))


def _is_named_like_an_image(path: str) -> bool:
    return path.lower().endswith(_EXTENSIONS)


def _unrecognised(path: str, prefix: bytes) -> ImageError:
    if not _is_named_like_an_image(path):
        return ImageError(path, "is not an image of a supported format", recognised=False)
    named = "is empty" if not prefix else "holds no image of a supported format"
    return ImageError(path, f"is named like an image but {named}")


def _explain(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "its header is malformed"
    return reason_of(error)


def _formats_of(prefix: bytes) -> tuple[str, ...]:
    """Return the formats whose signature the first 16 bytes of a file carry."""
    _load_plugins(heif=prefix[4:8] == b"ftyp")
    signatures = ((name, Image.OPEN[name][1]) for name in FORMATS if name in Image.OPEN)
    return tuple(name for name, accept in signatures if accept and accept(prefix) is True)


@cache
def _load_plugins(*, heif: bool) -> None:
    # One by one, because Pillow's own way loads every plug-in that it has.
    for row in FORMATS.values():
        if row.module.startswith("PIL."):
            import_module(row.module)
    if heif:  # a HEIC decoder is 26 MB of libraries: only for who has such files
        import_module("pillow_heif").register_heif_opener(thumbnails=False)
