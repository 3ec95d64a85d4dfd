"""Delete copies, or replace them by links, once somebody has confirmed it.

Nothing is touched unless, at that moment, both files are those that were compared and their pixels
agree. A copy is first renamed within its folder to a name that nobody can guess, so that the file
checked is the file removed; if anything is wrong, it gets its name back, unless something new has
that name by then.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader

from imgsearch.embedding.decoder import Stored
from imgsearch.embedding.lanes import Lane, decoders
from imgsearch.errors import ImageError, ModelError, reason_of
from imgsearch.files.paths import is_url
from imgsearch.images.agreement import CloseUp
from imgsearch.images.inspection import Frames, Inspection, all_frames, why_not
from imgsearch.indexing.report import Failure
from imgsearch.maintenance.aside import discarding_lock, put_back, remembered, rename_back
from imgsearch.maintenance.copies import Copy, Discarded, Duplicates

__all__ = ["delete_copies", "link_copies"]

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
LONGEST_NAME = 255  # bytes
CHANGED = "has changed since it was indexed"


class _RefusedError(Exception):
    """The reason why a copy has to stay."""


def delete_copies(duplicates: Duplicates) -> Discarded:
    """Delete all images of every group except the one to keep.

    Raises:
        StorageError: If the lock on discarding by this user's processes cannot be taken.
    """
    return _discard(duplicates, link=False)


def link_copies(duplicates: Duplicates) -> Discarded:
    """Replace all images of every group except the one to keep by hard links to it.

    Raises:
        StorageError: If the lock on discarding by this user's processes cannot be taken.
    """
    return _discard(duplicates, link=True)


def _discard(duplicates: Duplicates, *, link: bool) -> Discarded:
    done: list[Copy] = []
    failures: list[Failure] = []
    interrupted = False
    try:
        with discarding_lock(), decoders(1) as lane:
            check = _Check(lane)
            failures += put_back()
            for group in duplicates.groups:
                for copy in group.others:
                    try:
                        _discard_one(group.keep, copy, check, link=link)
                    except _RefusedError as refused:
                        failures.append(Failure(copy.path, str(refused)))
                    except ImageError as error:
                        failures.append(Failure(copy.path, error.reason))
                    except OSError as error:
                        failures.append(Failure(copy.path, reason_of(error)))
                    except (ModelError, ValueError) as error:  # no worker, or a path with a NUL
                        failures.append(Failure(copy.path, f"cannot be compared: {error}"))
                    else:
                        done.append(copy)
    except KeyboardInterrupt:
        interrupted = True  # still report what was done
    paths = tuple(copy.path for copy in done)
    return Discarded(paths, sum(copy.size for copy in done), tuple(failures), interrupted)


def _discard_one(keep: Copy, copy: Copy, check: _Check, *, link: bool) -> None:
    """Discard a copy.

    Raises:
        _RefusedError: If this copy or the image to keep is not the file that was compared.
        ImageError: If a picture cannot be decoded.
        ModelError: If no worker process can be started to decode it.
        OSError: If a file cannot be read, renamed or removed.
    """
    for each in (keep, copy):
        if is_url(each.path):
            raise _RefusedError(
                "is at a URL, where nothing is deleted or linked; do that with its own tools"
            )
    check.pixels(keep, copy)
    folder = os.open(os.path.dirname(copy.path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with _aside(folder, copy) as aside, _opened(aside, folder) as file:
            before = os.fstat(file.fileno())
            _check_digest(file, copy.digest)
            kept = _check_kept(keep)
            if os.path.samestat(before, kept):
                raise _RefusedError(f"is the same file as {keep.path}, which is kept")
            if link:
                _link(keep, kept, folder, os.path.basename(copy.path))
            if _version(before) != _version(os.fstat(file.fileno())):
                raise _RefusedError(CHANGED)
            os.unlink(aside, dir_fd=folder)
    finally:
        os.close(folder)


@contextmanager
def _aside(folder: int, copy: Copy) -> Iterator[str]:
    """Rename a copy within its folder to a private name; undo that if something is wrong."""
    above, name = os.path.split(copy.path)
    aside = f".imgsearch-{secrets.token_hex(16)}~{name}"
    aside = os.fsdecode(os.fsencode(aside)[:LONGEST_NAME])
    with remembered(above, name, aside):
        os.rename(name, aside, src_dir_fd=folder, dst_dir_fd=folder)
        try:
            yield aside
        except BaseException:
            try:
                rename_back(folder, aside, name)
            except FileExistsError:
                there = os.path.join(above, aside)
                raise _RefusedError(
                    f"was replaced while it was looked at; what was there is now {there}"
                ) from None
            raise


def _link(keep: Copy, kept: os.stat_result, folder: int, name: str) -> None:
    """Make a hard link to the kept file in the place of the copy."""
    os.link(keep.path, name, dst_dir_fd=folder, follow_symlinks=False)
    if not os.path.samestat(os.stat(name, dir_fd=folder, follow_symlinks=False), kept):
        os.unlink(name, dir_fd=folder)
        raise _RefusedError(f"{keep.path}, which was to be kept, {CHANGED}")


def _check_kept(keep: Copy) -> os.stat_result:
    """Return the status of the kept file, after verifying its name and its content."""
    try:
        with _opened(keep.path) as file:
            status = os.fstat(file.fileno())
            _check_digest(file, keep.digest)
            if not os.path.samestat(os.lstat(keep.path), status):
                raise _RefusedError(CHANGED)
            return status
    except _RefusedError as refused:
        raise _RefusedError(f"{keep.path}, which was to be kept, {refused}") from None
    except OSError as error:
        reason = f"cannot be read: {reason_of(error)}"
        raise _RefusedError(f"{keep.path}, which was to be kept, {reason}") from error


@contextmanager
def _opened(path: str, folder: int | None = None) -> Iterator[BufferedReader]:
    """Open a regular file that is not a link."""
    try:
        descriptor = os.open(path, _READ, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _RefusedError("is a link") from error
        raise
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _RefusedError("is not a regular file")
        yield file


def _check_digest(file: BufferedReader, digest: bytes) -> None:
    if hashlib.file_digest(file, "sha256").digest() != digest:
        raise _RefusedError(CHANGED)


def _version(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


@dataclass(slots=True)
class _Check:
    """A comparison of the pixels of two files, decoded by a worker; caches the last kept file."""

    _lane: Lane
    _digest: bytes = b""
    _seen: Inspection | None = None

    def pixels(self, keep: Copy, copy: Copy) -> None:
        """Refuse a copy unless both files are unchanged and their pixels agree.

        Raises:
            _RefusedError: If they have changed or do not agree.
            ImageError: If a picture cannot be decoded.
            ModelError: If no worker process can be started to decode it.
            OSError: If the copy cannot be read.
        """
        _check_content(copy)
        if self._digest != keep.digest:
            try:
                _check_content(keep)
            except _RefusedError as refused:
                raise _RefusedError(f"{keep.path}, which was to be kept, {refused}") from None
            except OSError as error:
                reason = f"cannot be read: {reason_of(error)}"
                raise _RefusedError(f"{keep.path}, which was to be kept, {reason}") from error
            self._digest, self._seen = keep.digest, None
        if copy.digest == keep.digest:
            return
        self._seen = self._seen or self._inspection(keep)
        sequences = self._frames(keep), self._frames(copy)
        if reason := why_not(self._seen, self._inspection(copy), sequences):
            raise _RefusedError(f"is not a copy of {keep.path}: {reason}")

    def _inspection(self, copy: Copy) -> Inspection:
        with self._lane.decoder() as decoder:
            return decoder.inspection(Stored(copy.path, copy.digest))

    def _frames(self, copy: Copy) -> Iterator[CloseUp | None]:
        def some(first: int) -> Frames:
            with self._lane.decoder() as decoder:
                return decoder.frames(Stored(copy.path, copy.digest), first)

        return all_frames(some)


def _check_content(copy: Copy) -> None:
    with _opened(copy.path) as file:
        _check_digest(file, copy.digest)
