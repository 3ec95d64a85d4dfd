"""How much one image may take: of pixels, of memory, and of the disk by what decoders say of it."""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "MAX_PIXELS",
    "decoding_bytes",
    "limit_log",
    "limit_memory",
    "memory_in_use",
    "memory_limited",
    "memory_of",
    "pillow_allows",
    "seconds_limited",
    "webp_bytes",
]

#: Pixels beyond which an image is refused, unless told otherwise. The largest sensors of phones
#: have 200 million, those of cameras 151 million.
MAX_PIXELS = 250_000_000

#: Bytes that decoding a pixel may take: measured on 36 million of them, 4 for most images, 8 with
#: transparency, 12 for AVIF, 17 for WebP; 25 for a TIFF of floats, which has to be smaller.
BYTES = 17

#: Bytes for all else: running the model, the content of a file, a decoder's library.
ELSE = 256 << 20

LOG = 1 << 20  # bytes

_PLAIN, _CLEAR = 4, 8  # of BYTES, for formats that are not below
_BYTES_OF = {"AVIF": 12, "HEIF": 12, "WEBP": 17}
_FLOATS = 25  # of BYTES
_STARTING = 16 << 20  # bytes that any image takes

# Bytes beyond those of the pixels that a process may use: its libraries, the stacks of threads.
_SLACK = 48 << 20
_THREADS = 256 << 20


def memory_of(max_pixels: int, workers: int) -> int:
    """Return how many bytes a worker may use on its files.

    Enough to decode `max_pixels`; but decoding takes no more than half of the machine's memory, all
    workers together.
    """
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return ELSE + min(BYTES * max_pixels, machine // (2 * workers))


def limit_memory(more: int) -> None:
    """Let this process use so many bytes more than now: beyond that it gets a `MemoryError`.

    Only Linux can do that; a lower limit that somebody set before stays as it is.
    """
    if sys.platform == "linux":
        # Not the limit of the address space (RLIMIT_AS): threads reserve much that they never use.
        _lower(resource.RLIMIT_DATA, _data() + more)


def decoding_bytes(image: Image.Image, edge: int) -> int:
    """Return about how many bytes it takes to decode an image that is open, but not decoded yet.

    Args:
        image: as it was opened.
        edge: pixels of what is to be made of it: a JPEG is decoded at reduced scale.
    """
    pixels = image.width * image.height
    if image.format in ("JPEG", "MPO"):
        # Twice the edge is kept, and libjpeg divides by 8, 4, 2 or 1.
        scale = min(image.width, image.height) // max(1, 2 * edge)
        scale = next((each for each in (8, 4, 2) if each <= scale), 1)
        return _STARTING + _PLAIN * pixels // scale**2 + _coefficients(image)
    if image.mode in ("F", "I"):
        return _STARTING + _FLOATS * pixels
    clear = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
    plain = _CLEAR if clear or image.mode in ("P", "CMYK") else _PLAIN
    return _STARTING + _BYTES_OF.get(image.format or "", plain) * pixels


def webp_bytes(content: bytes) -> int:
    """Return the same of a WebP file, from its first chunk; 0 if it has none."""
    kind, rest = content[12:16], content[20:30].ljust(10, b"\0")
    width, height = (int.from_bytes(rest[at : at + 3], "little") + 1 for at in (4, 7))
    if kind == b"VP8L":
        bits = int.from_bytes(rest[1:5], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = (int.from_bytes(rest[at : at + 2], "little") & 0x3FFF for at in (6, 8))
    elif kind != b"VP8X":
        return 0
    return _STARTING + _BYTES_OF["WEBP"] * width * height


def _coefficients(image: Image.Image) -> int:
    """Return the bytes of the coefficients of a JPEG: a progressive one keeps them all at once."""
    if not (image.info.get("progressive") or image.info.get("progression")):
        return 0
    layers = getattr(image, "layer", None) or [(0, 1, 1, 0)] * 4
    widest, highest = (max(max(1, layer[at]) for layer in layers) for at in (1, 2))
    share = sum(layer[1] * layer[2] for layer in layers) / (widest * highest)
    return int(2 * share * image.width * image.height)


@contextmanager
def memory_limited(more: int, *, threads: bool = False) -> Iterator[None]:
    """Let this process use so many bytes more than now, until the context ends; only on Linux.

    Args:
        more: for the pixels.
        threads: whether the decoder has threads, which reserve memory for their stacks.
    """
    if sys.platform != "linux":
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_DATA)
    _lower(resource.RLIMIT_DATA, _data() + more + (_THREADS if threads else _SLACK))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


@contextmanager
def seconds_limited(seconds: float) -> Iterator[None]:
    """Let this process compute for so long until the context ends; then the kernel kills it.

    What it waits for does not count. The signal is SIGPROF, which no decoder catches.
    """
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def memory_in_use() -> int:
    """Return the bytes of memory that this process has for itself; 0 where that is not told."""
    return _data() if sys.platform == "linux" else 0


def limit_log() -> None:
    """Let this process write only so much to any file: libtiff has a line for each odd tag.

    Beyond that writing fails, which Python reports and C libraries do not look at.
    """
    _lower(resource.RLIMIT_FSIZE, LOG)


def _lower(which: int, limit: int) -> None:
    soft, hard = resource.getrlimit(which)
    if soft == resource.RLIM_INFINITY or limit < soft:
        resource.setrlimit(which, (limit, hard))


def _data() -> int:
    """Return the bytes that the limit counts: the private, writable memory of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith("VmData:"))
    return int(kilobytes) * 1024


@contextmanager
def pillow_allows(max_pixels: int) -> Iterator[None]:
    """Let Pillow itself allow as many pixels: in a process of our own, as it holds for all threads.

    It looks at what is inside of a file, too, such as the images of an icon, and refuses what has
    twice as many.
    """
    from PIL import Image  # not above: `imgsearch --help` names the limit, and needs no Pillow

    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before
