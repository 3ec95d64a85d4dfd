"""Open an image file for decoding, so that it shows what a viewer of its format would show."""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import BinaryIO

from PIL import ExifTags, Image, UnidentifiedImageError

from imgsearch.errors import ImageError, PackageError, SettingError, reason_of
from imgsearch.files.sources import open_source
from imgsearch.images.claims import claim_of, decoding_bytes
from imgsearch.images.deep import kind_of_tiff, open_deep
from imgsearch.images.formats import RAW, WEAKLY_SIGNED, cannot_decode, open_as, recognise
from imgsearch.images.limits import LIMITS, Limits
from imgsearch.images.raw import NO_PREVIEW, is_raw, previews
from imgsearch.images.streams import prepared

__all__ = ["bytes_needed", "check_raw", "open_image", "opened", "orientation_of", "reading"]

_PREVIEWS = ("JPEG", "PPM")  # what a preview of a raw is

# Of these, later frames are as good as the first: an animation, or pages. The second picture of an
# MPO file is another view or a map of depths, and a HEIC file says which is its main one.
_ANIMATED = {"GIF", "WEBP", "PNG", "AVIF", "TIFF"}
_MOST_FRAMES = 32  # that are looked at
_EVEN = 8  # how far apart the values of a colour are, at most, in a frame that shows nothing


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn what the operating system says about a file into an `ImageError`."""
    try:
        yield
    except (OSError, PackageError, SettingError) as error:
        raise ImageError(path, f"cannot be read: {reason_of(error)}", transient=True) from error


@contextmanager
def open_image(source: str | bytes, limits: Limits = LIMITS) -> Iterator[Image.Image]:
    """Open an image file, given by its path or its content; as a rule nothing is decoded yet.

    Raises:
        ImageError: it cannot be read, it is no image, it or what is in it has more than
            `limits.max_pixels` or takes too much memory, or what was done with it failed.
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
    """Return about how many bytes decoding an image file takes, by its header alone.

    Args:
        content: of the file; of a raw, its largest preview counts.
        edge: of the square that it is decoded for; None for all of its pixels.
        limits: Maximum pixels of the image.

    Raises:
        ImageError: it is no image, or it or what is in it has more than `limits.max_pixels`.
    """
    file = io.BytesIO(content)
    formats = recognise(file, "image")
    if formats[0] in (RAW, "TIFF") and is_raw(file, "image"):
        content = next((each.data for each in previews(file)), b"")
        file = io.BytesIO(content)
    claim = claim_of(file)
    if claim and claim.pixels > limits.max_pixels:
        if WEAKLY_SIGNED.issuperset(
            formats
        ):  # perhaps a text, which is not to be taken at its word
            return 0
        _check_size("image", claim.width, claim.height, limits)
    return len(content) + decoding_bytes(file, edge)


@contextmanager
def opened(file: BinaryIO, path: str, limits: Limits) -> Iterator[Image.Image]:
    """Open an image as `open_image` does; whatever fails while it is open is an `ImageError`.

    Raises:
        ImageError: as for `open_image`.
        OSError: the operating system could not read it.
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
    except Image.DecompressionBombError as error:  # seen by a plug-in: see limits.pillow_allows
        raise _too_large(path, "holds more pixels than is allowed") from error
    except MemoryError as error:
        raise _too_large(path, "takes more memory than there is, or than is allowed") from error
    except UnidentifiedImageError as error:
        kind = kind_of_tiff(file) if formats[0] == "TIFF" else None
        if kind is None:
            raise cannot_decode(path, formats, error) from error
        reason = f"cannot be decoded: this kind of TIFF is not supported: {kind}"
        raise ImageError(path, reason) from error
    except Exception as error:
        # Plug-ins raise whatever a malformed file makes them stumble over: there is no common base.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # EINVAL: the file itself pointed to an offset that no file can have
        raise cannot_decode(path, formats, error) from error


def check_raw(file: BinaryIO, formats: Sequence[str], path: str) -> None:
    """Refuse a raw without a preview, so that it need not be hashed at every run.

    Raises:
        ImageError: it is one; not `recognised`.
    """
    if formats[0] in (RAW, "TIFF") and is_raw(file, path) and next(previews(file), None) is None:
        raise ImageError(path, NO_PREVIEW, recognised=False)


def orientation_of(image: Image.Image) -> int:
    """Return the orientation of an image by EXIF, 1 where it has none.

    It is taken from where viewers take it: the EXIF data of a JPEG (APP1), a WebP (EXIF) or a PNG
    (eXIf). TIFF, AVIF and HEIC files are upright once they are decoded. Neither XMP, nor a comment,
    nor the text that ImageMagick once put EXIF into, turns an image.
    """
    exif = image.info.get("exif")
    if not exif or image.format in ("TIFF", "HEIF", "GIF") or not isinstance(exif, bytes):
        return 1
    parsed = Image.Exif()
    try:
        parsed.load(exif)
        value = parsed.get(ExifTags.Base.Orientation, 1)
    except Exception:
        # Metadata that cannot be parsed says nothing about the picture, which can be decoded.
        return 1
    return value if isinstance(value, int) else 1


def _open(file: BinaryIO, path: str, formats: Sequence[str], limits: Limits) -> Image.Image:
    """Open a file, or what stands for it, once its claims have been found to be bearable."""
    if formats[0] in (RAW, "TIFF") and is_raw(file, path):
        return _open_raw(file, path, limits)
    if not WEAKLY_SIGNED.issuperset(formats):  # or a text is taken for a picture of billions
        _check_claim(file, path, limits)
    return open_deep(formats, prepared(file, formats, path))


def _open_raw(file: BinaryIO, path: str, limits: Limits) -> Image.Image:
    """Open the largest preview of a raw that can be decoded."""
    for preview in previews(file):
        data = io.BytesIO(preview.data)
        _check_claim(data, path, limits)
        if _can_be_decoded(data, path):
            image = open_as(_PREVIEWS, data)
            if preview.orientation is not None:
                exif = Image.Exif()
                exif[ExifTags.Base.Orientation] = preview.orientation
                image.info["exif"] = exif.tobytes()
            return image
    raise ImageError(path, NO_PREVIEW, recognised=False)


def _can_be_decoded(preview: BinaryIO, path: str) -> bool:
    try:
        with open_as(_PREVIEWS, prepared(preview, _PREVIEWS, path)) as image:
            image.draft(None, (1, 1))
            image.load()
    except Exception:  # plug-ins raise whatever a malformed file makes them stumble over
        return False
    return True


def _check_claim(file: BinaryIO, path: str, limits: Limits) -> None:
    """Refuse a file that says that it, or what is in it, is too large."""
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
    """Go to the first frame that is not of one colour; stay at the first if none is found."""
    seen = 0
    for frame in range(_MOST_FRAMES):
        seen += image.width * image.height
        if seen > limits.max_pixels:
            break
        try:
            image.seek(frame)
            if not _is_even(image):
                return
        except Exception:  # plug-ins raise whatever a malformed frame makes them stumble over
            if frame == 0:
                raise
            break
    image.seek(0)


def _is_even(image: Image.Image) -> bool:
    """Tell whether a frame shows one colour, give or take what compression does to it."""
    image.load()
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    extrema = image.getextrema()
    bands = extrema if isinstance(extrema[0], tuple) else (extrema,)
    if image.mode in ("RGBA", "LA") and bands[-1] == (0, 0):
        return True  # all of it is transparent
    return all(high - low <= _EVEN for low, high in bands)
