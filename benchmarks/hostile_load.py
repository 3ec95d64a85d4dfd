"""The worst image files that were found, clients that send them, and the memory of a server."""

from __future__ import annotations

import http.client
import io
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from itertools import cycle
from types import TracebackType
from typing import Self

import numpy as np
import psutil
from PIL import Image

from tests.support.hostile_files import png, scan_bomb, tiff

__all__ = ["Attackers", "Memory", "worst_files"]

TILE = 46_336  # pixels: a tile of 2 GB
EVERY = 0.1  # seconds between two looks at the memory


def worst_files(scale: float = 1.0) -> list[bytes]:
    """Return files that take much memory or time to decode, or seem to.

    Args:
        scale: Share of their usual pixels and bytes, for a short run.
    """
    edge, large = int(9_999 * scale), int(30_000_000 * scale)
    rows = zlib.compress(bytes(edge * (edge + 1)))
    icon = png(edge, edge, rows)
    entry = struct.pack("<3H4B2H2I", 0, 1, 1, 0, 0, 0, 0, 1, 32, len(icon), 22)
    black = Image.new("RGBA", (int(16_383 * scale), int(6_103 * scale)), (1, 2, 3, 4))
    floats = Image.fromarray(np.zeros((edge, edge), np.float32))
    return [
        scan_bomb(int(3_000 * scale), 90),
        png(edge, edge, rows),
        png(100_000, 100_000, rows),
        entry + icon,
        _one_tile(),
        _encoded(black, "WEBP", lossless=True, method=0),
        _encoded(black, "AVIF", speed=10, quality=1),
        _encoded(black.convert("P"), "GIF"),
        _encoded(floats, "TIFF", compression="tiff_deflate"),
        b"P2\n4000 3900\n255\n" + b"#\n" * large,
        b"P3\n4000 3900\n255\n" + b"1 " * large,
    ]


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _one_tile() -> bytes:
    """Return a TIFF of 16 x 16 pixels in one tile of 2 GB, deflated."""
    packer = zlib.compressobj(1, wbits=-15)
    rows = packer.compress(bytes(TILE * 512)) + packer.flush(zlib.Z_FULL_FLUSH)
    many, rest = divmod(TILE, 512)
    last = packer.compress(bytes(TILE * rest)) + packer.flush()
    checksum = struct.pack(">HH", TILE * TILE % 65_521, 1)  # Adler-32 of as many zeros
    data = b"\x78\x01" + rows * many + last + checksum
    tags = ((322, 4, 1, TILE), (323, 4, 1, TILE), (324, 4, 1, 8), (325, 4, 1, len(data)))
    header = tiff(16, 16, *tags)
    return header[:4] + struct.pack("<I", 8 + len(data)) + data + header[8:]


class Attackers:
    """Clients that send one bad file after another, each over a new connection, until the end.

    Attributes:
        answers: How often each status was answered; 0 stands for a connection that broke.
    """

    def __init__(self, port: int, bodies: list[tuple[bytes, str]], clients: int) -> None:
        """Send nothing yet; `bodies` are forms and their boundaries."""
        self.answers: Counter[int] = Counter()
        self._port = port
        self._next = cycle(bodies)
        self._lock = threading.Lock()
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        while not self._ends.is_set():
            with self._lock:
                body, boundary = next(self._next)
            client = http.client.HTTPConnection("127.0.0.1", self._port, timeout=90)
            kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
            try:
                client.request("POST", "/api/v1/query", body, kind)
                status = client.getresponse().status
            except (OSError, http.client.HTTPException):
                status = 0
            client.close()
            with self._lock:
                self.answers[status] += 1


class Memory:
    """The most memory that a process and those below it had at one time; a context manager.

    Attributes:
        peak: In bytes, what they share counted once for each of them.
    """

    def __init__(self, process: int) -> None:
        """Look at nothing yet."""
        self.peak = 0
        self._process = psutil.Process(process)
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ends.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ends.wait(EVERY):
            self.peak = max(self.peak, sum(self._sizes()))

    def _sizes(self) -> Iterator[int]:
        for process in (self._process, *self._process.children(recursive=True)):
            try:
                yield process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
