"""Read and decode one image file."""

from __future__ import annotations

import errno
import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, Self, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from imgsearch.embedding.cropping import TURNED, WHOLE, Part, pixel_box, stored_part
from imgsearch.embedding.formats import RAW, cannot_decode, open_as, recognise
from imgsearch.embedding.limits import MAX_PIXELS
from imgsearch.embedding.raw import NO_PREVIEW, is_raw, previews
from imgsearch.embedding.sources import open_source, open_timed
from imgsearch.embedding.stamps import bounded_size, trusted_time
from imgsearch.errors import ImageError, PackageError, SettingError, reason_of

__all__ = [
    "DECODER",
    "ImageFile",
    "Pixels",
    "Source",
    "decode",
    "open_image",
    "orientation_of",
    "picture_of",
    "pixels_of",
    "read",
]

Pixels: TypeAlias = npt.NDArray[np.uint8]

#: Version of what pixels an image file becomes; a collection records that of its embeddings.
#:
#: 1 (to 0.3): samples of 16 bits by their full range, colours as stored, the first frame.
#: 2: samples by the range they use, colours as their ICC profile means them, the first frame that
#: shows something, a raw's preview. Other files become the same pixels by both.
DECODER = 2

_PREVIEWS = ("JPEG", "PPM")  # what a preview of a raw is

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

    `digest`, `size` and `mtime_ns` are those of `ImageFile`.
    """

    pixels: Pixels
    digest: bytes
    size: int
    mtime_ns: int | None


class ImageFile:
    """An open image file whose content is known, but not decoded yet; a context manager.

    Attributes:
        digest: SHA-256 of the file, 32 bytes.
        size: in bytes.
        mtime_ns: its modification time, None where `trusted_time` does not trust it.
    """

    def __init__(self, path: str) -> None:
        """Open and hash the file at `path`, unless its first bytes are those of no image.

        Raises:
            ImageError: it cannot be read (`transient`), or it is no image (not `recognised`).
        """
        self._path = path
        with _reading(path), ExitStack() as opened:
            found = open_timed(path, partial(recognise, path=path))
            self._file = opened.enter_context(found.file)
            self._status = os.fstat(self._file.fileno())
            _check_raw(self._file, recognise(self._file, path), path)
            self._file.seek(0)
            self.digest = hashlib.file_digest(self._file, "sha256").digest()
            self._check_unchanged()
            opened.pop_all()  # it stays open, for decode
        self.size = bounded_size(self._status.st_size)
        time_ns = found.mtime_ns
        self.mtime_ns = None if time_ns is None else trusted_time(time_ns, found.asked_ns)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def decode(self, input_size: int, max_pixels: int = MAX_PIXELS) -> Pixels:
        """Decode it into uint8 `[input_size, input_size, 3]`, as the function `decode` does.

        Raises:
            ImageError: it cannot be read or has changed (`transient`), it is too large (`limited`),
                it cannot be decoded, or it is no image (not `recognised`).
        """
        with _reading(self._path):
            self._file.seek(0)
            pixels = decode(self._file, input_size, self._path, max_pixels)
            self._check_unchanged()
        return pixels

    def _check_unchanged(self) -> None:
        before, after = self._status, os.fstat(self._file.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            reason = "changed while it was read; index again"
            raise ImageError(self._path, reason, transient=True)


def read(path: str, input_size: int) -> Source:
    """Read and decode the image file at `path` for a network of `input_size`.

    Raises:
        ImageError: it cannot be read (`transient`), it is no image (not `recognised`), or it
            cannot be decoded.
    """
    with ImageFile(path) as file:
        return Source(file.decode(input_size), file.digest, file.size, file.mtime_ns)


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Turn what the operating system says about a file into an `ImageError`."""
    try:
        yield
    except (OSError, PackageError, SettingError) as error:
        raise ImageError(path, f"cannot be read: {reason_of(error)}", transient=True) from error


def decode(
    file: BinaryIO, input_size: int, path: str = "image", max_pixels: int = MAX_PIXELS
) -> Pixels:
    """Decode an open image file into uint8 `[input_size, input_size, 3]`.

    The first frame, upright by its EXIF orientation; a JPEG at reduced scale.

    Raises:
        ImageError: it is no image of one of `FORMATS`, it has more than `max_pixels`, or it cannot
            be decoded.
        OSError: the operating system could not read it.
    """
    reduced = False
    try:
        with _opened(file, path, max_pixels) as image:
            whole = image.size
            # Twice the size, so that it is the resizing that filters: reduced to the size itself, a
            # photo can differ from its full decoding by a cosine of 0.98 (docs/performance.md).
            image.draft(None, (2 * input_size, 2 * input_size))
            reduced = image.size != whole
            return pixels_of(image, input_size)
    except ImageError:
        if not reduced:
            raise
    file.seek(0)
    with _opened(
        file, path, max_pixels
    ) as image:  # a lossless JPEG cannot be decoded at reduced scale
        return pixels_of(image, input_size)


@contextmanager
def open_image(source: str | bytes, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """Open an image file, given by its path or its content; nothing is decoded yet.

    Raises:
        ImageError: it cannot be read, it is no image, it has more than `max_pixels`, or what was
            done with it failed.
    """
    if isinstance(source, bytes):
        with _opened(io.BytesIO(source), "image", max_pixels) as image:
            yield image
        return
    with (
        _reading(source),
        open_source(source, partial(recognise, path=source)) as file,
        _opened(file, source, max_pixels) as image,
    ):
        yield image


@contextmanager
def _opened(file: BinaryIO, path: str, max_pixels: int) -> Iterator[Image.Image]:
    """Open an image; whatever fails while it is open becomes an `ImageError`."""
    formats = recognise(file, path)
    try:
        with (
            _open_raw(file, path, max_pixels)
            if is_raw(file, path)
            else open_as(formats, file) as image
        ):
            _check_pixels(path, image.width, image.height, max_pixels)
            yield image
    except ImageError:
        raise
    except Image.DecompressionBombError as error:  # seen by a plug-in: see limits.pillow_allows
        raise _too_large(path, "holds more pixels than is allowed") from error
    except MemoryError as error:
        raise _too_large(path, "takes more memory than there is, or than is allowed") from error
    except Exception as error:
        # Plug-ins raise whatever a malformed file makes them stumble over: there is no common base.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # EINVAL: the file itself pointed to an offset that no file can have
        raise cannot_decode(path, formats, error) from error


def _check_raw(file: BinaryIO, formats: tuple[str, ...], path: str) -> None:
    """Refuse a raw without a preview, so that it need not be hashed at every run."""
    if formats[0] in (RAW, "TIFF") and is_raw(file, path) and next(previews(file), None) is None:
        raise ImageError(path, NO_PREVIEW, recognised=False)


def _open_raw(file: BinaryIO, path: str, max_pixels: int) -> Image.Image:
    """Open the largest preview of a raw that can be decoded."""
    for preview in previews(file):
        _check_pixels(path, preview.width, preview.height, max_pixels)
        if _can_be_decoded(preview.data):
            image = open_as(_PREVIEWS, io.BytesIO(preview.data))
            if preview.orientation is not None:
                image.getexif()[ExifTags.Base.Orientation] = preview.orientation
            return image
    raise ImageError(path, NO_PREVIEW, recognised=False)


def _can_be_decoded(preview: bytes) -> bool:
    try:
        with open_as(_PREVIEWS, io.BytesIO(preview)) as image:
            image.draft(None, (1, 1))
            image.load()
    except Exception:  # plug-ins raise whatever a malformed file makes them stumble over
        return False
    return True


def _check_pixels(path: str, width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        size = f"{width:,} x {height:,} pixels"
        raise _too_large(path, f"has {size}, and the limit is {max_pixels:,}")


def _too_large(path: str, reason: str) -> ImageError:
    return ImageError(path, f"{reason}: make it smaller, or raise --max-pixels", limited=True)


def pixels_of(image: Image.Image, input_size: int, part: Part = WHOLE) -> Pixels:
    """Squash an image, or part of it, to uint8 `[input_size, input_size, 3]`; see `picture_of`."""
    return np.asarray(picture_of(image, (input_size, input_size), part), dtype=np.uint8)


def picture_of(image: Image.Image, size: tuple[int, int], part: Part = WHOLE) -> Image.Image:
    """Squash an image, or part of it, to `size` (width, height): upright, RGB, on white.

    Bilinear with antialiasing (`PIL.Image.Image.resize`).
    """
    image.load()
    orientation = orientation_of(image)
    if part != WHOLE:
        image = image.crop(pixel_box(stored_part(part, orientation), *image.size))
    if image.mode in ("I;16", "I;16L", "I;16B", "I;16N", "I", "F"):
        image = _to_8_bit(image)
    elif image.mode in ("1", "P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif "transparency" in image.info:
        image = image.convert("RGBA")  # one colour of an RGB or grey PNG stands for transparent
    stored_size = size[::-1] if orientation in TURNED else size
    image = image.resize(stored_size, Image.Resampling.BILINEAR)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    image = image.convert("RGB")
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
    return image


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation of an image, 1 where it has none."""
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
