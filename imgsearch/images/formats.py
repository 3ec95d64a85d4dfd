"""Recognise image files by their content, among the formats that may be opened."""

from __future__ import annotations

import logging
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from imgsearch.errors import ImageError, reason_of
from imgsearch.files.kinds import APPLE_DOUBLE, NO_IMAGE

__all__ = [
    "DEEP",
    "FORMATS",
    "RAW",
    "SIGNIFICANT_BITS",
    "WEAKLY_SIGNED",
    "Format",
    "cannot_decode",
    "is_named_like_an_image",
    "media_type",
    "open_as",
    "recognise",
    "signed_raw",
]


@dataclass(frozen=True, slots=True)
class Format:
    """A Pillow format: the module that registers it and its usual file name extensions."""

    module: str
    extensions: tuple[str, ...]


#: All formats that are ever opened. None of them starts another program, as EPS does.
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

#: Stands for the formats of camera raws, which are never opened themselves: see `raw`.
RAW = "RAW"

# Makers' own magic numbers, which TIFF readers do not accept.
_SIGNATURES = (
    b"FUJIFILMCCD-RAW",  # RAF
    *(b"IIRO", b"IIRS", b"MMOR"),  # ORF
    b"IIU\0",  # RW2, RWL
    b"FOVb",  # X3F
    b"\0MRM",  # MRW
)

_EXTENSIONS = tuple(extension for row in FORMATS.values() for extension in row.extensions)

_APPLE_DOUBLE = b"\x00\x05\x16\x07"  # RFC 1740, appendix B

#: Pillow's modes with more than 8 bits.
DEEP = frozenset({"I;16", "I;16L", "I;16B", "I;16N", "I", "F"})

#: Key of `Image.info` for the number of bits per sample in use, by the sBIT chunk of a PNG.
SIGNIFICANT_BITS = "significant bits"

#: Formats with a signature of two characters ("BM", or "P" and another), as many texts have, too.
WEAKLY_SIGNED = {"BMP", "PPM"}


def recognise(file: BinaryIO, path: str) -> tuple[str, ...]:
    """Return the formats whose signature a file begins with, or `RAW` alone for a camera raw.

    `raw.is_raw` recognises a raw that begins like a TIFF file.

    Raises:
        ImageError: If there are none; not `recognised`, unless the file is named like an image.
    """
    prefix = file.read(16)
    if prefix.startswith(_APPLE_DOUBLE):  # Whatever its name.
        raise ImageError(path, APPLE_DOUBLE, recognised=False)
    if signed_raw(prefix):
        return (RAW,)
    formats = _formats_of(prefix)
    if not formats:
        raise _unrecognised(path, empty=not prefix)
    return formats


def signed_raw(prefix: bytes) -> bool:
    """Tell whether a file's first 16 bytes are those of a raw that is not a TIFF file."""
    return prefix.startswith(_SIGNATURES) or prefix[4:12] == b"ftypcrx "


def media_type(formats: Sequence[str]) -> str:
    """Return the media type (RFC 6838) of the first of the formats."""
    return Image.MIME.get(formats[0], "application/octet-stream")


def open_as(formats: Sequence[str], file: BinaryIO) -> ImageFile:
    """Open a file as the first of `formats` that fits.

    This works like `PIL.Image.open`, but without its limit of pixels, which applies to the whole
    process.

    Raises:
        UnidentifiedImageError: If no format fits; but plug-ins may raise any exception.
    """
    for name in formats:
        file.seek(0)
        try:
            return Image.OPEN[name][0](file, "")
        except (SyntaxError, IndexError, TypeError, struct.error):  # The plug-in rejects it.
            continue
    raise UnidentifiedImageError


def cannot_decode(path: str, formats: Sequence[str], error: Exception) -> ImageError:
    """Return the error for a file with the signature of `formats` that cannot be decoded."""
    if WEAKLY_SIGNED.issuperset(formats) and not is_named_like_an_image(path):
        return _unrecognised(path)
    malformed = isinstance(error, UnidentifiedImageError)
    reason = "its header is malformed" if malformed else reason_of(error)
    return ImageError(path, f"cannot be decoded: {reason}")


def is_named_like_an_image(path: str) -> bool:
    """Tell whether a path ends as those of images do."""
    return path.lower().endswith(_EXTENSIONS)


def _unrecognised(path: str, *, empty: bool = False) -> ImageError:
    if not is_named_like_an_image(path):
        return ImageError(path, NO_IMAGE, recognised=False)
    named = "is empty" if empty else "holds no image of a supported format"
    return ImageError(path, f"is named like an image but {named}")


def _formats_of(prefix: bytes) -> tuple[str, ...]:
    """Return the formats whose signature the first 16 bytes of a file carry."""
    _load_plugins(heif=prefix[4:8] == b"ftyp")
    signatures = ((name, Image.OPEN[name][1]) for name in FORMATS if name in Image.OPEN)
    return tuple(name for name, accept in signatures if accept and accept(prefix) is True)


@cache
def _load_plugins(*, heif: bool) -> None:
    logging.getLogger("PIL").addHandler(logging.NullHandler())  # The exceptions say what is wrong.
    # One by one, because Pillow's own functions load every plug-in.
    for row in FORMATS.values():
        if row.module.startswith("PIL."):
            import_module(row.module)
    if heif:  # The HEIC decoder has 26 MB of libraries: load it only for such files.
        import_module("pillow_heif").register_heif_opener(thumbnails=False)
