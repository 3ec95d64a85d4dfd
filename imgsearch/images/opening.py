"""Open image files for decoding, so that they show what a viewer of the format would show."""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from PIL import ExifTags, Image, UnidentifiedImageError

from imgsearch.errors import ImageError, PackageError, SettingError, reason_of
from imgsearch.files.sources import open_source
from imgsearch.images.claims import claim_of, decoding_bytes
from imgsearch.images.deep import kind_of_tiff, open_deep
from imgsearch.images.formats import RAW, WEAKLY_SIGNED, cannot_decode, open_as, recognise
from imgsearch.images.jpeg import reduce
from imgsearch.images.limits import LIMITS, Limits
from imgsearch.images.streams import prepared

if TYPE_CHECKING:
    from imgsearch.images.raw import Preview

__all__ = ["bytes_needed", "check_raw", "open_image", "opened", "reading"]

_PREVIEWS = ("JPEG", "PPM")  # Formats of the previews of a raw.

# In these formats, later frames are as good as the first: they form an animation, or are pages. The
# second picture of an MPO file is another view or a depth map, and a HEIC file names its main one.
_ANIMATED = {"GIF", "WEBP", "PNG", "AVIF", "TIFF"}
_MOST_FRAMES = 32  # Maximum frames examined.
_EVEN = 8  # Maximum range of a channel in a frame that shows nothing.


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn errors in reading a file into an `ImageError`."""
    try:
        yield
    except (OSError, PackageError, SettingError) as error:
        raise ImageError(path, f"cannot be read: {reason_of(error)}", transient=True) from error


@contextmanager
def open_image(source: str | bytes, limits: Limits = LIMITS) -> Iterator[Image.Image]:
    """Open an image file, given by its path or content; usually nothing is decoded yet.

    Raises:
        ImageError: If the file cannot be read, is not an image, has or contains more than
            `limits.max_pixels`, takes too much memory, or fails while it is in use.
    """
    if isinstance(source, bytes):
        with opened(io.BytesIO(source), "image", limits) as image:
            yield image
        return
    with (
        reading(source),
        open_source(source, partial(recognise, path=source)) as file,
        opened(file, source, limits) as image,
    ):
        yield image


def bytes_needed(content: bytes, edge: int | None, limits: Limits = LIMITS) -> int:
    """Estimate the bytes needed to decode an image file from its header alone.

    Args:
        content: Content of the file; for a raw, the largest preview counts.
        edge: Edge of the square for which it is decoded; None for all of its pixels.
        limits: Maximum pixels of the image.

    Raises:
        ImageError: If the file is not an image, or has or contains more than `limits.max_pixels`.
    """
    file = io.BytesIO(content)
    formats = recognise(file, "image")
    previews = _previews(file, formats, "image")
    if previews is not None:
        content = next((each.data for each in previews), b"")
        file = io.BytesIO(content)
    claim = claim_of(file)
    if claim and claim.pixels > limits.max_pixels:
        if WEAKLY_SIGNED.issuperset(formats):  # It may be a text, whose claim is not reliable.
            return 0
        _check_size("image", claim.width, claim.height, limits)
    return len(content) + decoding_bytes(file, edge)


@contextmanager
def opened(file: BinaryIO, path: str, limits: Limits) -> Iterator[Image.Image]:
    """Open an image as `open_image` does, and turn failures in using it into `ImageError`.

    Raises:
        ImageError: As for `open_image`.
        OSError: If the operating system cannot read the file.
    """
    formats = recognise(file, path)
    try:
        with _open(file, path, formats, limits) as image:
            _check_size(path, image.width, image.height, limits)
            if image.format in _ANIMATED and getattr(image, "is_animated", False):
                _seek_content(image, limits)
            yield image
    except ImageError:
        raise
    except Image.DecompressionBombError as error:  # Raised by a plug-in: see limits.pillow_allows.
        raise _too_large(path, "holds more pixels than are allowed") from error
    except MemoryError as error:
        raise _too_large(path, "takes more memory than there is, or than is allowed") from error
    except UnidentifiedImageError as error:
        kind = kind_of_tiff(file) if formats[0] == "TIFF" else None
        if kind is None:
            raise cannot_decode(path, formats, error) from error
        reason = f"cannot be decoded: this kind of TIFF is not supported: {kind}"
        raise ImageError(path, reason) from error
    except Exception as error:
        # The exceptions of plug-ins for malformed files have no common base.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # Except EINVAL: the file itself pointed to an impossible offset.
        raise cannot_decode(path, formats, error) from error


def check_raw(file: BinaryIO, formats: Sequence[str], path: str) -> None:
    """Refuse a raw without a preview, so that it need not be hashed in every run.

    Raises:
        ImageError: If the file is such a raw; not `recognised`.
    """
    previews = _previews(file, formats, path)
    if previews is not None and next(previews, None) is None:
        raise _no_preview(path)


def _open(file: BinaryIO, path: str, formats: Sequence[str], limits: Limits) -> Image.Image:
    """Open a file, or the preview of a raw, after checking its claims against the limits."""
    previews = _previews(file, formats, path)
    if previews is not None:
        return _open_raw(previews, path, limits)
    if not WEAKLY_SIGNED.issuperset(formats):  # A text could claim billions of pixels.
        _check_claim(file, path, limits)
    return open_deep(formats, prepared(file, formats, path))


def _previews(file: BinaryIO, formats: Sequence[str], path: str) -> Iterator[Preview] | None:
    """Return the previews of a camera raw, the largest first; None for any other file."""
    if formats[0] not in (RAW, "TIFF"):
        return None
    from imgsearch.images.raw import is_raw, previews

    return previews(file) if is_raw(file, path) else None


def _no_preview(path: str) -> ImageError:
    return ImageError(path, "raw file without a readable preview", recognised=False)


def _open_raw(previews: Iterator[Preview], path: str, limits: Limits) -> Image.Image:
    """Open the largest preview of a raw that can be decoded."""
    for preview in previews:
        data = io.BytesIO(preview.data)
        _check_claim(data, path, limits)
        if _can_be_decoded(data, path):
            image = open_as(_PREVIEWS, data)
            if preview.orientation is not None:
                exif = Image.Exif()
                exif[ExifTags.Base.Orientation] = preview.orientation
                image.info["exif"] = exif.tobytes()
            return image
    raise _no_preview(path)


def _can_be_decoded(preview: BinaryIO, path: str) -> bool:
    try:
        with open_as(_PREVIEWS, prepared(preview, _PREVIEWS, path)) as image:
            reduce(image, (1, 1))
            image.load()
    except Exception:  # Plug-ins' exceptions for malformed files have no common base.
        return False
    return True


def _check_claim(file: BinaryIO, path: str, limits: Limits) -> None:
    """Refuse a file that claims to be, or to contain, a picture that is too large."""
    claim = claim_of(file)
    if claim is None:
        return
    _check_size(path, claim.width, claim.height, limits)
    if claim.bytes() > limits.memory(workers=1):
        needed = f"{claim.bytes() / 1e9:.1f} GB"
        raise _too_large(path, f"takes {needed} of memory, more than is allowed")


def _check_size(path: str, width: int, height: int, limits: Limits) -> None:
    if width * height > limits.max_pixels:
        size = f"{width:,} x {height:,} pixels"
        raise _too_large(path, f"has {size}, and the limit is {limits.max_pixels:,}")


def _too_large(path: str, reason: str) -> ImageError:
    return ImageError(path, f"{reason}: make it smaller, or raise --max-pixels", limited=True)


def _seek_content(image: Image.Image, limits: Limits) -> None:
    """Go to the first frame with more than one colour; stay at the first if there is none."""
    seen = 0
    for frame in range(_MOST_FRAMES):
        seen += image.width * image.height
        if seen > limits.max_pixels:
            break
        try:
            image.seek(frame)
            if not _is_even(image):
                return
        except Exception:  # Plug-ins' exceptions for malformed frames have no common base.
            if frame == 0:
                raise
            break
    image.seek(0)


def _is_even(image: Image.Image) -> bool:
    """Tell whether a frame shows a single colour, apart from compression artefacts."""
    image.load()
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    extrema = image.getextrema()
    bands = extrema if isinstance(extrema[0], tuple) else (extrema,)
    if image.mode in ("RGBA", "LA") and bands[-1] == (0, 0):
        return True  # All of it is transparent.
    return all(high - low <= _EVEN for low, high in bands)
