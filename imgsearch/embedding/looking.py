"""The work of a worker process on a single image whose result a caller waits for.

The header is read first, which takes little memory. The image is decoded only if the memory that
it was given is enough, and with no more than that memory.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Any, TypeAlias

import numpy as np

from imgsearch.errors import ImageError, PackageError, SettingError, reason_of
from imgsearch.files.sources import open_source
from imgsearch.images.agreement import CloseUp
from imgsearch.images.crop import Box
from imgsearch.images.decode import decode
from imgsearch.images.exif import exif_of
from imgsearch.images.holdings import Holdings
from imgsearch.images.inspection import Frames, Inspection, frames, inspect
from imgsearch.images.limits import Limits, memory_limited, pillow_allows, seconds_limited
from imgsearch.images.opening import bytes_needed
from imgsearch.images.render import glance, grey, pixels_from, render, size_of

__all__ = ["Look", "frames_of", "inspection_of", "look", "look_of"]

Region: TypeAlias = tuple[float, float, float, float]
Reply: TypeAlias = tuple[dict[str, Any], bytes]

HEADER = 32 << 20  # Bytes that a file takes in addition to its content.
HEADS = ("size", "exif")  # Kinds for which a JPEG need not be decoded.
WHOLE = ("inspection", "frames")  # Kinds that need the image at full scale.


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A request for information about one image.

    Attributes:
        kind: "pixels" for a network, a "thumbnail", a "glance" for comparing it, the picture in
            "grey", its "size" or its "exif"; an "inspection", which is a close look at the whole
            file, or some of its "frames".
        edge: Edge of the result in pixels.
        limits: Maximum pixels of the image, and maximum seconds of computing.
        bytes: Maximum memory for decoding, in bytes.
        crop: The part of the image to use; None for all of it.
        path: Path of the file; None if the content is sent.
        digest: SHA-256 in hexadecimal that the file must have; None to accept any content.
        first: Number of the first frame to return.
        scale: Scale to which a smaller picture in grey is enlarged at most.
    """

    kind: str
    edge: int
    limits: Limits
    bytes: int
    crop: Region | None = None
    path: str | None = None
    digest: str | None = None
    first: int = 0
    scale: float = 1.0

    def fields(self) -> dict[str, Any]:
        """Return the fields of the request for a message."""
        return asdict(self)


def look_of(fields: dict[str, Any]) -> Look:
    """Return the request that a message carries."""
    return Look(**{**fields, "limits": Limits(**fields["limits"])})


class _ChangedError(Exception):
    """The file at a path does not have the expected content."""


class _BeyondError(Exception):
    """Decoding takes more memory than was granted."""

    def __init__(self, needs: int) -> None:
        super().__init__(needs)
        self.needs = needs


def look(wanted: Look, content: bytes) -> Reply:
    """Return the facts of an image and the requested bytes, or the reason for a refusal.

    Args:
        wanted: The request.
        content: Content of the image file; ignored if the request has a path.
    """
    try:
        with pillow_allows(wanted.limits.max_pixels), seconds_limited(wanted.limits.time_limit):
            return _look(wanted, content if wanted.path is None else _content_of(wanted))
    except _BeyondError as beyond:
        return {"needs": beyond.needs}, b""
    except _ChangedError:
        return {"changed": True}, b""
    except ImageError as error:
        return {
            "reason": error.reason,
            "transient": error.transient,
            "limited": error.limited,
            "recognised": error.recognised,
        }, b""


def _content_of(wanted: Look) -> bytes:
    """Return the content of the file at the requested path, if its digest is right."""
    path = wanted.path or ""
    try:
        with open_source(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > wanted.bytes:
                raise _BeyondError(size + HEADER)
            content = file.read(size)
    except (OSError, PackageError, SettingError) as error:
        raise ImageError(path, f"cannot be read: {reason_of(error)}", transient=True) from error
    if wanted.digest is not None and hashlib.sha256(content).hexdigest() != wanted.digest:
        raise _ChangedError
    return content


def _look(wanted: Look, content: bytes) -> Reply:
    needs = _bytes_for(wanted, content)
    if needs > wanted.bytes:
        raise _BeyondError(needs)
    crop = None if wanted.crop is None else Box(*wanted.crop)
    with memory_limited(wanted.bytes, threads=content[4:8] == b"ftyp"):
        return _KINDS[wanted.kind](content, wanted, crop)


def _bytes_for(wanted: Look, content: bytes) -> int:
    """Estimate the bytes needed to decode an image from its header, without opening it."""
    if wanted.kind in HEADS and content.startswith(b"\xff\xd8"):
        return 0  # The header states it.
    whole = wanted.crop is not None or wanted.kind in WHOLE
    return bytes_needed(content, None if whole else wanted.edge, wanted.limits)


def _pixels(content: bytes, wanted: Look, crop: Box | None) -> Reply:
    if crop is None:  # The same way as for the index.
        return {}, decode(BytesIO(content), wanted.edge, limits=wanted.limits).tobytes()
    return {}, pixels_from(content, wanted.edge, crop, wanted.limits).tobytes()


def _thumbnail(content: bytes, wanted: Look, _: Box | None) -> Reply:
    made = render(content, wanted.edge, limits=wanted.limits)
    return {"width": made.width, "height": made.height}, made.jpeg


def _glance(content: bytes, wanted: Look, _: Box | None) -> Reply:
    seen = glance(content, wanted.edge, wanted.limits)
    return {"width": seen.width, "height": seen.height}, seen.pixels.tobytes()


def _grey(content: bytes, wanted: Look, crop: Box | None) -> Reply:
    picture = grey(content, wanted.edge, crop, wanted.limits, most_scale=wanted.scale)
    return {"height": picture.shape[0], "width": picture.shape[1]}, picture.tobytes()


def _size(content: bytes, wanted: Look, _: Box | None) -> Reply:
    width, height = size_of(content, wanted.limits)
    return {"width": width, "height": height}, b""


def _exif(content: bytes, wanted: Look, _: Box | None) -> Reply:
    return asdict(exif_of(content, wanted.limits)), b""


def _inspection(content: bytes, wanted: Look, _: Box | None) -> Reply:
    seen = inspect(content, wanted.path or "image", wanted.limits)
    shapes, data = _packed([seen.close])
    return {"held": asdict(seen.held), "shapes": shapes}, data


def inspection_of(facts: dict[str, Any], data: bytes) -> Inspection:
    """Return the inspection that a message carries."""
    (close,) = _unpacked(facts["shapes"], data)
    return Inspection(close, Holdings(**facts["held"]))


def _frames(content: bytes, wanted: Look, _: Box | None) -> Reply:
    found = frames(content, wanted.first, wanted.limits)
    shapes, data = _packed(found.close)
    return {"count": found.count, "shapes": shapes}, data


def frames_of(facts: dict[str, Any], data: bytes) -> Frames:
    """Return the frames that a message carries."""
    return Frames(tuple(_unpacked(facts["shapes"], data)), facts["count"])


def _packed(pictures: Sequence[CloseUp]) -> tuple[list[tuple[int, int, bool]], bytes]:
    """Return the bytes of pictures, and the height, width and transparency of each."""
    shapes = [(*each.pixels.shape[:2], each.alpha is not None) for each in pictures]
    arrays = [array for each in pictures for array in (each.pixels, each.alpha)]
    return shapes, b"".join(array.tobytes() for array in arrays if array is not None)


def _unpacked(shapes: Sequence[tuple[int, int, bool]], data: bytes) -> list[CloseUp]:
    found, at = [], 0
    for height, width, clear in shapes:
        size = height * width
        pixels = np.frombuffer(data, np.uint8, 3 * size, at).reshape(height, width, 3)
        at += 3 * size
        alpha = np.frombuffer(data, np.uint8, size, at).reshape(height, width) if clear else None
        at += size if clear else 0
        found.append(CloseUp(pixels, alpha))
    return found


_KINDS: dict[str, Callable[[bytes, Look, Box | None], Reply]] = {
    "pixels": _pixels,
    "thumbnail": _thumbnail,
    "glance": _glance,
    "grey": _grey,
    "size": _size,
    "exif": _exif,
    "inspection": _inspection,
    "frames": _frames,
}
