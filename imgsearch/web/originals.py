"""The files of a collection's images, delivered only if they are what was indexed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

from imgsearch.embedding.formats import media_type, recognise
from imgsearch.embedding.sources import open_source
from imgsearch.errors import ImageError, PackageError, SettingError, reason_of
from imgsearch.storage.records import Entry
from imgsearch.web.problems import LostFileError

__all__ = ["Original", "check_original"]

CHUNK = 1 << 18  # bytes


class Original:
    """An open file that has the digest of an image. Close it, or read it to its end.

    Attributes:
        size: in bytes.
        media_type: by its content.
    """

    def __init__(self, entry: Entry) -> None:
        """Open the file of an image.

        Raises:
            LostFileError: it is gone, cannot be read, or is not what was indexed.
        """
        self._path = entry.path
        try:
            self._file = open_source(entry.path)
        except (OSError, PackageError, SettingError) as error:
            raise self._lost(error) from error
        except ImageError as error:
            raise self._changed() from error
        try:
            self._check(entry)
        except BaseException:
            self._file.close()
            raise

    def _check(self, entry: Entry) -> None:
        try:
            status = os.fstat(self._file.fileno())
            same = status.st_size == entry.size
            if not same or hashlib.file_digest(self._file, "sha256").digest() != entry.digest:
                raise self._changed()
            self._file.seek(0)
            self.media_type = media_type(recognise(self._file, self._path))
            self._file.seek(0)
        except OSError as error:
            raise self._lost(error) from error
        except ImageError as error:  # of a format that an older or newer imgsearch knows
            raise LostFileError(str(error)) from error
        self.size = status.st_size

    def close(self) -> None:
        """Close it."""
        self._file.close()

    def read(self) -> bytes:
        """Return all of it, and close it."""
        with self._file:
            return self._file.read(self.size)

    def chunks(self) -> Iterator[bytes]:
        """Yield all of it, and close it."""
        with self._file:
            while chunk := self._file.read(CHUNK):
                yield chunk

    def _changed(self) -> LostFileError:
        return LostFileError(
            f"{self._path} has changed since it was indexed; `imgsearch index` takes it in"
        )

    def _lost(self, error: Exception) -> LostFileError:
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return LostFileError(f"{self._path} is gone; `imgsearch index` takes note of it")
        return LostFileError(f"{self._path} cannot be read: {reason_of(error)}")


def check_original(entry: Entry) -> None:
    """Raise `LostFileError` if the file of an image is gone, or is not what was indexed."""
    Original(entry).close()
