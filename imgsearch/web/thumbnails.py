"""A bounded cache of thumbnails in the user's cache folder, which may be deleted at any time."""

from __future__ import annotations

import os
import struct
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

from imgsearch.images.render import Thumbnail

__all__ = ["Thumbnails"]

_SIZE = struct.Struct(">II")  # size of the image, appended to the JPEG
_BEGINNING, _END = b"\xff\xd8", b"\xff\xd9"  # first and last bytes of every JPEG


class Thumbnails:
    """A folder of thumbnails by digest; the least recently used are deleted.

    Several processes may share it. Disk errors are not raised: a thumbnail that cannot be kept is
    made again when it is next needed.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        """Keep up to `limit` bytes in a folder, which need not exist yet."""
        self._folder = folder
        self._limit = limit
        self._lock = threading.Lock()
        self._added = limit  # bytes added since the folder was last scanned; forces a first scan

    def get(self, digest: bytes, size: int) -> Thumbnail | None:
        """Return the thumbnail of an image at a given size; None if it is not cached."""
        path = self._path(digest, size)
        try:
            content = path.read_bytes()
            os.utime(path)  # the modification time records the last use
        except OSError:
            return None
        jpeg, facts = content[: -_SIZE.size], content[-_SIZE.size :]
        if not (jpeg.startswith(_BEGINNING) and jpeg.endswith(_END)):  # cut off by a power failure
            return None
        return Thumbnail(jpeg, *_SIZE.unpack(facts))

    def put(self, digest: bytes, size: int, thumbnail: Thumbnail) -> None:
        """Add a thumbnail to the cache."""
        content = thumbnail.jpeg + _SIZE.pack(thumbnail.width, thumbnail.height)
        path = self._path(digest, size)
        with suppress(OSError):  # the disk is full, or not writable
            path.parent.mkdir(parents=True, exist_ok=True)
            # A unique name, as two servers may write the same thumbnail at once.
            descriptor, temporary = tempfile.mkstemp(".tmp", dir=path.parent)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(content)
                Path(temporary).replace(path)
            except OSError:
                Path(temporary).unlink()
                raise
            self._trim(len(content))

    def _path(self, digest: bytes, size: int) -> Path:
        name = digest.hex()
        return self._folder / name[:2] / f"{name}-{size}"

    def _trim(self, added: int) -> None:
        """Scan the folder each time 5% of the limit was added; if too large, trim it to 90%."""
        with self._lock:
            self._added += added
            if self._added < self._limit // 20:
                return
            self._added = 0
            files = sorted(self._files())
            size = sum(each for _, each, _ in files)
            for _, each, path in files if size > self._limit else []:
                if size <= self._limit * 9 // 10:
                    break
                with suppress(OSError):
                    os.unlink(path)
                size -= each

    def _files(self) -> list[tuple[int, int, str]]:
        """Return the time of last use (ns), size and path of each file."""
        found = []
        with os.scandir(self._folder) as folders:
            below = [folder.path for folder in folders if folder.is_dir(follow_symlinks=False)]
        for folder in below:
            with suppress(OSError), os.scandir(folder) as files:
                for file in files:
                    status = file.stat(follow_symlinks=False)
                    found.append((status.st_mtime_ns, status.st_size, file.path))
        return found
