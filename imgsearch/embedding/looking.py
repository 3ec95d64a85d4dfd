"""What a worker process does with a single image that somebody waits for.

Its header is read first, with little memory; only if the image can be decoded within what it was
given is it decoded, with exactly that much.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from imgsearch.embedding.cropping import Box
from imgsearch.embedding.images import ImageFile, Readable, open_image
from imgsearch.embedding.limits import (
    decoding_bytes,
    memory_limited,
    pillow_allows,
    seconds_limited,
)
from imgsearch.embedding.pictures import JPEG, glance, pixels_from, render, size_of
from imgsearch.errors import ImageError, InputError

__all__ = ["Look", "look", "look_of"]

Side: TypeAlias = tuple[float, float, float, float]
Found: TypeAlias = tuple[dict[str, Any], bytes]

HEADER = 32 << 20  # bytes that reading a header may take


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is wanted of an image.

    Attributes:
        kind: "pixels" for a network, a "thumbnail", a "glance" to compare it, or its "size".
        edge: in pixels, of what is made of the image.
        max_pixels: an image of more is refused.
        bytes: that decoding it may take.
        seconds: of computing that it may take.
        crop: the part of the image that is meant; None for all of it.
        path: of the file; None if the content is sent.
        digest: in hexadecimal: a file of another content is refused; None for any.
    """

    kind: str
    edge: int
    max_pixels: int
    bytes: int
    seconds: float
    crop: Side | None = None
    path: str | None = None
    digest: str | None = None

    def fields(self) -> dict[str, Any]:
        """Return it for a message."""
        return asdict(self)


def look_of(fields: dict[str, Any]) -> Look:
    """Return what a message asks for."""
    return Look(**fields)


class _BeyondError(Exception):
    """Decoding takes more memory than was given."""

    def __init__(self, needs: int) -> None:
        super().__init__(needs)
        self.needs = needs


def look(wanted: Look, content: bytes) -> Found:
    """Return the facts of an image, and the bytes that were asked for; or why there are none.

    Args:
        wanted: what is asked.
        content: of the image file, unless there is a path.
    """
    try:
        with pillow_allows(wanted.max_pixels), seconds_limited(wanted.seconds):
            if wanted.path is None:
                return _look(wanted, content)
            with memory_limited(HEADER):
                file = ImageFile(wanted.path)
            with file:
                if wanted.digest not in (None, file.digest.hex()):
                    return {"changed": True}, b""
                return _look(wanted, file)
    except _BeyondError as beyond:
        return {"needs": beyond.needs}, b""
    except InputError as error:
        reason = error.reason if isinstance(error, ImageError) else str(error)
        refusal = {"reason": reason, "transient": False, "limited": False, "recognised": True}
        if isinstance(error, ImageError):
            refusal |= {
                "transient": error.transient,
                "limited": error.limited,
                "recognised": error.recognised,
            }
        return refusal, b""


def _look(wanted: Look, source: Readable) -> Found:
    with memory_limited(HEADER), open_image(source, wanted.max_pixels) as image:
        edge = wanted.edge if wanted.crop is None else max(image.size)
        needs, format_ = decoding_bytes(image, edge), image.format
        if wanted.kind == "size" and format_ in JPEG:
            needs = 0  # its header tells it
    if needs > wanted.bytes:
        raise _BeyondError(needs)
    crop = None if wanted.crop is None else Box(*wanted.crop)
    with memory_limited(wanted.bytes, format_):
        return _KINDS[wanted.kind](source, wanted, crop)


def _pixels(source: Readable, wanted: Look, crop: Box | None) -> Found:
    return {}, pixels_from(source, wanted.edge, crop, wanted.max_pixels).tobytes()


def _thumbnail(source: Readable, wanted: Look, crop: Box | None) -> Found:
    made = render(source, wanted.edge, crop, wanted.max_pixels)
    return {"width": made.width, "height": made.height}, made.jpeg


def _glance(source: Readable, wanted: Look, _: Box | None) -> Found:
    seen = glance(source, wanted.edge, wanted.max_pixels)
    return {"width": seen.width, "height": seen.height}, seen.pixels.tobytes()


def _size(source: Readable, wanted: Look, _: Box | None) -> Found:
    width, height = size_of(source, wanted.max_pixels)
    return {"width": width, "height": height}, b""


_KINDS: dict[str, Callable[[Readable, Look, Box | None], Found]] = {
    "pixels": _pixels,
    "thumbnail": _thumbnail,
    "glance": _glance,
    "size": _size,
}
