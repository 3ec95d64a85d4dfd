"""The files that `bench_files` indexes: as many and as small as can be, a few in each folder."""

from __future__ import annotations

import io
import os
import random
import time
from pathlib import Path

from PIL import Image

__all__ = ["TinyFiles"]

FOLDER = 4  # files
BRANCHES = 50  # folders in a folder
EDGE = 4  # pixels
PAST = 3_600 * 10**9  # ns before now that the files are said to be from, so that this is trusted
SEED = 1234


class TinyFiles:
    """PNGs of random pixels in folders of 4, three folders deep, under `top`."""

    def __init__(self, top: Path, count: int) -> None:
        """Make `count` files."""
        self.top = top
        self.count = count
        self._random = random.Random(SEED)  # noqa: S311 - nothing to be kept secret
        for number in range(count):
            path = self._path(number)
            if number % FOLDER == 0:
                path.parent.mkdir(parents=True)
            self._write(path)

    def change(self, count: int) -> None:
        """Give some files, drawn evenly, another content."""
        for number in range(0, self.count, self.count // count):
            self._write(self._path(number))

    def _path(self, number: int) -> Path:
        folder = number // FOLDER
        above, middle = divmod(folder // BRANCHES, self.count // FOLDER // 20 // BRANCHES)
        names = f"{above:02d}", f"{middle:02d}", f"{folder % BRANCHES:02d}"
        return self.top.joinpath(*names, f"{number:06d}.png")

    def _write(self, path: Path) -> None:
        file = io.BytesIO()
        pixels = self._random.randbytes(EDGE * EDGE * 3)
        Image.frombytes("RGB", (EDGE, EDGE), pixels).save(file, "PNG")
        path.write_bytes(file.getvalue())
        past = time.time_ns() - PAST
        os.utime(path, ns=(past, past))
