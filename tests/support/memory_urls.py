"""Files at `memory://` URLs, which fsspec keeps in this process."""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from fsspec.implementations.memory import MemoryFileSystem

from tests.support.pictures import picture

__all__ = ["Bucket", "bucket", "image_of"]


class Bucket:
    """A folder at a URL.

    Attributes:
        url: of it.
    """

    def __init__(self) -> None:
        self.url = f"memory://{uuid.uuid4().hex}"
        self._files = MemoryFileSystem()
        self._age = timedelta(days=1)

    def at(self, name: str) -> str:
        """Return the URL of a file."""
        return f"{self.url}/{name}"

    def put(self, name: str, content: bytes | int) -> str:
        """Write a file, or a picture of that seed, older than all before; return its URL."""
        content = image_of(content) if isinstance(content, int) else content
        self._files.pipe_file(self.at(name), content)
        path = self._files._strip_protocol(self.at(name))
        self._age += timedelta(minutes=1)
        self._files.store[path].created = datetime.now(UTC) - self._age
        return self.at(name)

    def drop(self, name: str) -> None:
        """Delete a file, or a folder with all below it."""
        self._files.rm(self.at(name), recursive=True)

    def clear(self) -> None:
        """Delete all, the folder too."""
        if self._files.exists(self.url):
            self._files.rm(self.url, recursive=True)


@contextmanager
def bucket() -> Iterator[Bucket]:
    """Make a folder, and delete it in the end."""
    made = Bucket()
    try:
        yield made
    finally:
        made.clear()


def image_of(seed: int) -> bytes:
    """Return the content of a PNG file."""
    file = io.BytesIO()
    picture(seed).save(file, "png")
    return file.getvalue()
