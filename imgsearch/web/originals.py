"""The files of a collection's images, delivered only if unchanged since they were indexed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

from imgsearch.errors import ImageError, PackageError, SettingError, reason_of
from imgsearch.files.sources import open_source
from imgsearch.images.formats import media_type, recognise
from imgsearch.storage.records import Entry
from imgsearch.web.problems import LostFileError

__all__ = ["Original", "check_original"]

CHUNK = 1 << 18  # bytes


class Original:
    """An open file that has the digest of an image. Close it, or read it to the end.

    Attributes:
        size: Size of the file in bytes.
        media_type: Media type, recognised by the content.
    """

    def __init__(self, entry: Entry) -> None:
        """Open the file of an image.

        Raises:
            LostFileError: If the file is missing, cannot be read, or has changed since it was
                indexed.
        """
        self._path = entry.path
        self._digest = entry.digest
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
            self._version = self._version_now()
            self.size = entry.size
            if self._version[0] != entry.size:
                raise self._changed()
            if hashlib.file_digest(self._file, "sha256").digest() != entry.digest:
                raise self._changed()
            self._file.seek(0)
            self.media_type = media_type(recognise(self._file, self._path))
        except OSError as error:
            raise self._lost(error) from error
        except ImageError as error:  # of a format that an older or newer imgsearch knows
            raise LostFileError(str(error)) from error

    def _version_now(self) -> tuple[int, int, int]:
        """Return a value that changes when the file is written to: size, mtime and ctime."""
        status = os.fstat(self._file.fileno())
        return status.st_size, status.st_mtime_ns, status.st_ctime_ns

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def chunks(self, part: range | None = None) -> Iterator[bytes]:
        """Yield the whole file or a range of its bytes, then close it.

        Raises:
            LostFileError: If the file has changed since it was opened. The last chunks are then
                not yielded.
        """
        part = range(self.size) if part is None else part
        digest = hashlib.sha256()
        with self._file:
            try:
                self._file.seek(part.start)
                for at in range(part.start, part.stop, CHUNK):
                    chunk = self._file.read(min(CHUNK, part.stop - at))
                    digest.update(chunk)
                    # Times can be set back, so the digest is checked, too: when the whole file is
                    # delivered, its last chunk is yielded only if the digest matches.
                    ends_wrong = at + CHUNK >= self.size == len(part) and (
                        digest.digest() != self._digest
                    )
                    if ends_wrong or self._version_now() != self._version:
                        raise self._changed()
                    yield chunk
            except OSError as error:
                raise self._lost(error) from error

    def _changed(self) -> LostFileError:
        return LostFileError(
            f"{self._path} has changed since it was indexed; run `imgsearch index` to update it"
        )

    def _lost(self, error: Exception) -> LostFileError:
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return LostFileError(
                f"{self._path} is gone; run `imgsearch index` to remove it from the collection"
            )
        return LostFileError(f"{self._path} cannot be read: {reason_of(error)}")


def check_original(entry: Entry) -> None:
    """Raise `LostFileError` if the file of an image is missing, or changed after indexing."""
    Original(entry).close()
