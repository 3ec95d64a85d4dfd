"""The files that `bench_update` indexes: small JPEGs, all different, and what happens to them."""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path

from PIL import Image

from benchmarks.common import Photos

__all__ = ["SmallFiles"]

FOLDER = 100  # files
EDGE = 96  # pixels
PAST = 3_600 * 10**9  # ns before now that the files are said to be from
SEED = 1234


class SmallFiles:
    """Image files in folders of 100, which can be changed; each call changes other files.

    Pieces of photographs, each followed by bytes of its own, at which decoders stop, so that no two
    are the same.
    """

    def __init__(self, photos: Photos, folder: Path, count: int) -> None:
        """Make `count` files under a folder."""
        self._folder = folder
        self._random = random.Random(SEED)  # noqa: S311 - nothing to be kept secret
        self._photos = [_opened(path) for path in photos.paths]
        self._made = 0
        self.paths: list[Path] = []
        for number in range(count):
            self.paths.append(self._place() / f"{number:06d}.jpg")
            self._write(self.paths[-1])
        self._random.shuffle(self.paths)

    def change(self, count: int) -> None:
        """Give some files another content."""
        for path in self._draw(count):
            self._write(path)

    def touch(self, count: int) -> None:
        """Give some files another time."""
        for path in self._draw(count):
            _set_past(path)

    def rename(self, count: int) -> None:
        """Move some files to another folder, under another name."""
        for path in self._draw(count):
            path.rename(self._other_folder(path) / f"moved-{path.name}")

    def copy(self, count: int) -> None:
        """Copy some files to another folder."""
        for path in self._draw(count):
            target = self._other_folder(path) / f"copy-{path.name}"
            shutil.copyfile(path, target)
            _set_past(target)

    def delete(self, count: int) -> None:
        """Delete some files."""
        for path in self._draw(count):
            path.unlink()

    def add(self, folder: Path, count: int) -> None:
        """Write new files to a folder of their own."""
        folder.mkdir()
        for number in range(count):
            self._write(folder / f"{number:06d}.jpg")

    def _draw(self, count: int) -> list[Path]:
        """Return files that nothing has happened to yet."""
        drawn, self.paths = self.paths[:count], self.paths[count:]
        return drawn

    def _place(self) -> Path:
        folder = self._folder / f"{self._made // FOLDER:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _other_folder(self, path: Path) -> Path:
        return self._random.choice([self.paths[0].parent, self.paths[-1].parent, path.parent])

    def _write(self, path: Path) -> None:
        photo = self._random.choice(self._photos)
        left = self._random.randrange(photo.width - EDGE)
        upper = self._random.randrange(photo.height - EDGE)
        photo.crop((left, upper, left + EDGE, upper + EDGE)).save(path, "JPEG", quality=90)
        with path.open("ab") as file:
            file.write(self._made.to_bytes(8, "little"))
        self._made += 1
        _set_past(path)


def _opened(path: Path) -> Image.Image:
    with Image.open(path) as file:
        photo = file.convert("RGB")
        return photo if min(photo.size) > EDGE else photo.resize((2 * EDGE, 2 * EDGE))


def _set_past(path: Path) -> None:
    """Give a file a time that is trusted, and that it did not have."""
    past = time.time_ns() - PAST
    os.utime(path, ns=(past, past))
