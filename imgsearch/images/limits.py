"""How much one image may take: of pixels, of memory, and of the disk by what decoders say of it."""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "LIMITS",
    "MAX_PIXELS",
    "TIME_LIMIT",
    "Limits",
    "limit_log",
    "limit_memory",
    "memory_in_use",
    "memory_limited",
    "pillow_allows",
    "seconds_limited",
]

#: Pixels beyond which an image is refused, unless told otherwise. The largest sensors of phones
#: have 200 million, those of cameras 151 million.
MAX_PIXELS = 250_000_000

#: Seconds after which a file is given up, unless told otherwise.
TIME_LIMIT = 60.0

#: Bytes that decoding a pixel may take: measured on 36 million of them, 4 for most images, 8 with
#: transparency, 12 for AVIF, 17 for WebP; 25 for a TIFF of floats, which has to be smaller.
BYTES = 17

#: Bytes for all else: running the model, the content of a file, a decoder's library.
ELSE = 256 << 20

LOG = 1 << 20  # bytes

# Bytes beyond those of the pixels that a process may use: its libraries, the stacks of threads.
_SLACK = 48 << 20
_THREADS = 256 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What one image may take before it is refused.

    Attributes:
        max_pixels: Maximum number of pixels of an image.
        time_limit: Maximum seconds to spend on one file.
    """

    max_pixels: int = MAX_PIXELS
    time_limit: float = TIME_LIMIT

    def memory(self, workers: int) -> int:
        """Return how many bytes one of several workers may use on its files.

        Enough to decode `max_pixels`, but all workers together take no more than half of the
        machine's memory for that.
        """
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return ELSE + min(BYTES * self.max_pixels, machine // (2 * workers))


LIMITS = Limits()  # unless told otherwise


def limit_memory(more: int) -> None:
    """Let this process use so many bytes more than now: beyond that it gets a `MemoryError`.

    Only Linux can do that; a lower limit that somebody set before stays as it is.
    """
    if sys.platform == "linux":
        # Not the limit of the address space (RLIMIT_AS): threads reserve much that they never use.
        _lower(resource.RLIMIT_DATA, _data() + more)


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
    """Return about the bytes that the limit counts: this process's private, writable memory."""
    pages = Path("/proc/self/statm").read_bytes().split()[5]  # that of its main stack included
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


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
