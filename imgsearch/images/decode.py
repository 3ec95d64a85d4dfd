"""Read and decode one image file."""

from __future__ import annotations

import hashlib
import os
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, BinaryIO, Self, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from imgsearch.errors import ImageError
from imgsearch.files.sources import open_timed
from imgsearch.files.stamps import bounded_size, trusted_time
from imgsearch.images.crop import TURNED, WHOLE, Region, pixel_box, stored_part
from imgsearch.images.formats import DEEP, recognise
from imgsearch.images.ifds import directory_of
from imgsearch.images.jpeg import reduce
from imgsearch.images.limits import LIMITS, Limits
from imgsearch.images.opening import check_raw, open_image, opened, reading

if TYPE_CHECKING:
    from imgsearch.images.fingerprint import Fingerprint

__all__ = [
    "DecodedFile",
    "ImageFile",
    "Pixels",
    "decode",
    "described",
    "open_image",
    "orientation_of",
    "picture_of",
    "pixels_of",
    "read",
]

Pixels: TypeAlias = npt.NDArray[np.uint8]


# Per value of EXIF 2.32, table "Orientation": the operation that turns the pixels upright.
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
class DecodedFile:
    """The pixels of a decoded file (uint8 `[size, size, 3]`, RGB), and its identity.

    `digest`, `size` and `mtime_ns` are those of `ImageFile`.
    """

    pixels: Pixels
    digest: bytes
    size: int
    mtime_ns: int | None


class ImageFile:
    """An open image file that is hashed but not decoded yet; a context manager.

    Attributes:
        digest: SHA-256 of the file, 32 bytes.
        size: Size of the file in bytes.
        mtime_ns: Modification time; None if `trusted_time` does not trust it.
    """

    def __init__(self, path: str) -> None:
        """Open and hash the file at `path`, unless its first bytes show that it is not an image.

        Raises:
            ImageError: If the file cannot be read (`transient`) or is not an image (not
                `recognised`).
        """
        self._path = path
        with reading(path), ExitStack() as opened:
            found = open_timed(path, partial(recognise, path=path))
            self._file = opened.enter_context(found.file)
            self._status = os.fstat(self._file.fileno())
            check_raw(self._file, recognise(self._file, path), path)
            self._file.seek(0)
            self.digest = hashlib.file_digest(self._file, "sha256").digest()
            self._check_unchanged()
            opened.pop_all()  # It stays open for decode().
        self.size = bounded_size(self._status.st_size)
        time_ns = found.mtime_ns
        self.mtime_ns = None if time_ns is None else trusted_time(time_ns, found.asked_ns)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def decode(self, input_size: int, limits: Limits = LIMITS) -> Pixels:
        """Decode the file into uint8 `[input_size, input_size, 3]`, as the function `decode` does.

        Raises:
            ImageError: If the file cannot be read or has changed (`transient`), is too large
                (`limited`), cannot be decoded, or is not an image (not `recognised`).
        """
        with reading(self._path):
            self._file.seek(0)
            pixels = decode(self._file, input_size, self._path, limits)
            self._check_unchanged()
        return pixels

    def described(self, input_size: int, limits: Limits = LIMITS) -> tuple[Pixels, Fingerprint]:
        """Decode the file as `decode` does, and return its fingerprint, too.

        Raises:
            ImageError: As for `decode`.
        """
        with reading(self._path):
            self._file.seek(0)
            found = described(self._file, input_size, self._path, limits)
            self._check_unchanged()
        return found

    def _check_unchanged(self) -> None:
        before, after = self._status, os.fstat(self._file.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            reason = "changed while it was read; index again"
            raise ImageError(self._path, reason, transient=True)


def read(path: str, input_size: int) -> DecodedFile:
    """Read and decode the image file at `path` for a network with this input size.

    Raises:
        ImageError: If the file cannot be read (`transient`), is not an image (not `recognised`),
            or cannot be decoded.
    """
    with ImageFile(path) as file:
        return DecodedFile(file.decode(input_size), file.digest, file.size, file.mtime_ns)


def decode(file: BinaryIO, input_size: int, path: str = "image", limits: Limits = LIMITS) -> Pixels:
    """Decode an open image file into uint8 `[input_size, input_size, 3]`.

    The result shows the first frame, turned upright by its EXIF orientation. A JPEG is decoded at
    reduced scale.

    Raises:
        ImageError: If the file is not an image of one of `FORMATS`, has more than
            `limits.max_pixels`, or cannot be decoded.
        OSError: If the operating system cannot read the file.
    """
    with opened(file, path, limits) as image:
        return np.asarray(_square(image, input_size), np.uint8)


def described(
    file: BinaryIO, input_size: int, path: str = "image", limits: Limits = LIMITS
) -> tuple[Pixels, Fingerprint]:
    """Decode an open image file as `decode` does, and return its fingerprint, too.

    For a network with a very small input, the file is decoded twice.

    Raises:
        ImageError: As for `decode`.
        OSError: As for `decode`.
    """
    # Imported here, as a query needs none of it.
    from imgsearch.images.fingerprint import LEAST_EDGE, fingerprint_of, stated

    with opened(file, path, limits) as image:
        turned = orientation_of(image) in TURNED
        facts = stated(image, image.size[::-1] if turned else image.size, file)
        decoded = picture = _square(image, input_size)
    if input_size < LEAST_EDGE:
        file.seek(0)
        with opened(file, path, limits) as image:
            picture = _square(image, LEAST_EDGE)
    return np.asarray(decoded, np.uint8), fingerprint_of(picture, facts)


def _square(image: Image.Image, edge: int) -> Image.Image:
    """Decode an image that was just opened, and resize it to a square."""
    # Twice the size, so that resizing does the filtering: reduced to the size itself, a photo can
    # differ from its full decoding by a cosine of 0.98 (docs/performance.md).
    reduce(image, (2 * edge, 2 * edge))
    return picture_of(image, (edge, edge))


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation of an image; 1 if it has none.

    It is read from the same place as by viewers: the EXIF data of a JPEG (APP1), a WebP (EXIF) or a
    PNG (eXIf). TIFF, AVIF and HEIC files are upright once they are decoded. XMP, comments, and the
    text in which ImageMagick once stored EXIF do not turn an image.
    """
    exif = image.info.get("exif")
    if not exif or image.format in ("TIFF", "HEIF", "GIF") or not isinstance(exif, bytes):
        return 1
    return _orientation_in(exif)


@lru_cache(maxsize=4)  # Asked for several times while a file is decoded.
def _orientation_in(exif: bytes) -> int:
    found = directory_of(exif)  # None if it cannot be parsed: that says nothing about the picture.
    values = found.integers(ExifTags.Base.Orientation) if found else ()
    return values[0] if len(values) == 1 else 1


def pixels_of(image: Image.Image, input_size: int, part: Region = WHOLE) -> Pixels:
    """Squash an image, or part of it, to uint8 `[input_size, input_size, 3]`; see `picture_of`."""
    return np.asarray(picture_of(image, (input_size, input_size), part), dtype=np.uint8)


def picture_of(image: Image.Image, size: tuple[int, int], part: Region = WHOLE) -> Image.Image:
    """Squash an image, or part of it, to `size` (width, height): upright, sRGB, on white.

    Resizing is bilinear with antialiasing (`PIL.Image.Image.resize`).
    """
    image.load()
    orientation, profile = orientation_of(image), image.info.get("icc_profile")
    if image.mode in DEEP:
        from imgsearch.images.tones import samples_of, to_8_bit

        image = to_8_bit(image, samples_of(image))  # All of it: a part has the tones of the whole.
    if part != WHOLE:
        image = image.crop(pixel_box(stored_part(part, orientation), *image.size))
    if image.mode in ("1", "P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif "transparency" in image.info:
        image = image.convert("RGBA")  # One colour of an RGB or grey PNG means transparent.
    stored_size = size[::-1] if orientation in TURNED else size
    image = image.resize(stored_size, Image.Resampling.BILINEAR)
    if profile is not None:
        from imgsearch.images.colours import to_srgb

        image = to_srgb(image, profile)  # Here, where it has the fewest pixels.
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    image = image.convert("RGB")
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
    return image
