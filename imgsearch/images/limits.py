"""Limits of one image: its pixels, its memory and time, and the log output of decoders."""

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
    "machine_memory",
    "memory_in_use",
    "memory_limited",
    "pillow_allows",
    "seconds_limited",
]

#: Default maximum pixels of an image. The largest sensors of phones have 200 million, those of
#: cameras 151 million.
MAX_PIXELS = 250_000_000

#: Default maximum seconds for one file.
TIME_LIMIT = 60.0

#: Bytes for decoding one pixel. Measured on 36 million pixels: 4 for most images, 8 with
#: transparency, 12 for AVIF, 17 for WebP; 25 for a TIFF of floats, which must thus be smaller.
BYTES = 17

#: Bytes for everything else: running the model, the content of a file, a decoder's library.
ELSE = 256 << 20

LOG = 1 << 20  # Bytes.

# Bytes that a process may use in addition to the pixels: for libraries, and for thread stacks.
_SLACK = 48 << 20
_THREADS = 256 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits beyond which an image is refused.

    Attributes:
        max_pixels: Maximum number of pixels of an image.
        time_limit: Maximum seconds to spend on one file.
    """

    max_pixels: int = MAX_PIXELS
    time_limit: float = TIME_LIMIT

    def memory(self, workers: int) -> int:
        """Return the maximum bytes of memory that one of several workers may use for its files.

        This is enough to decode `max_pixels`, except that all workers together may use at most half
        of the machine's memory for that.
        """
        return ELSE + min(BYTES * self.max_pixels, machine_memory() // (2 * workers))


LIMITS = Limits()  # The defaults.


def machine_memory() -> int:
    """Return the bytes of memory that this machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def limit_memory(more: int) -> None:
    """Let this process use `more` bytes more than now; beyond that, it gets a `MemoryError`.

    Only Linux supports this; a lower limit that was set earlier remains.
    """
    if sys.platform == "linux":
        # Not RLIMIT_AS, the limit of the address space: threads reserve much that they never use.
        _lower(resource.RLIMIT_DATA, _data() + more)


@contextmanager
def memory_limited(more: int, *, threads: bool = False) -> Iterator[None]:
    """Let this process use `more` bytes more than now within the context; only on Linux.

    Args:
        more: Number of bytes for the pixels.
        threads: Whether the decoder has threads, which reserve memory for their stacks.
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
    """Have the kernel kill this process if it computes for longer than this in the context.

    Time spent waiting does not count. The signal is SIGPROF, which no decoder catches.
    """
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def memory_in_use() -> int:
    """Return the bytes of this process's private memory; 0 if the system does not tell."""
    return _data() if sys.platform == "linux" else 0


def limit_log() -> None:
    """Limit the size of any file that this process writes, as libtiff logs each odd tag.

    Beyond that, writing fails, which Python reports and C libraries ignore.
    """
    _lower(resource.RLIMIT_FSIZE, LOG)


def _lower(which: int, limit: int) -> None:
    soft, hard = resource.getrlimit(which)
    if soft == resource.RLIM_INFINITY or limit < soft:
        resource.setrlimit(which, (limit, hard))


def _data() -> int:
    """Estimate the bytes that the limit counts: this process's private, writable memory."""
    pages = Path("/proc/self/statm").read_bytes().split()[5]  # Includes the main stack.
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def pillow_allows(max_pixels: int) -> Iterator[None]:
    """Set Pillow's own limit of pixels; only for our own processes, as it is global.

    Pillow also checks images inside a file, such as those of an icon, and refuses images with more
    than twice as many pixels.
    """
    from PIL import Image  # Here, as `imgsearch --help` uses the limit but needs no Pillow.

    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before
