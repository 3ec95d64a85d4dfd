"""Move copies to the trash, delete them, or replace them by links, once somebody confirmed it.

Nothing is touched unless, at that moment, both files are those that were compared and their pixels
agree. A copy is first renamed within its folder to a name that nobody can guess, so that the file
checked is the file removed; if anything is wrong, it gets its name back, unless something new has
that name by then. What goes to the trash gets its name back, too, so that it can be restored from
there. A journal says what was done.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from io import BufferedReader

from imgsearch.embedding.decoder import Stored
from imgsearch.embedding.lanes import Lane, decoders
from imgsearch.errors import ImageError, ModelError, StorageError, reason_of
from imgsearch.files.paths import is_url
from imgsearch.images.agreement import CloseUp
from imgsearch.images.inspection import Frames, Inspection, all_frames, part_judged, why_not
from imgsearch.images.relation import CROPPED
from imgsearch.indexing.report import Failure
from imgsearch.maintenance.aside import (
    discarding_lock,
    put_back,
    remembered,
    rename_back,
    unlink_link,
)
from imgsearch.maintenance.copies import Copy, Discarded, Duplicates
from imgsearch.maintenance.journal import Act, Journal, opened_journal
from imgsearch.maintenance.trash import NoTrashError, check_trash, move_to_trash

__all__ = ["delete_copies", "link_copies", "trash_copies"]

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
LONGEST_NAME = 255  # bytes
CHANGED = "has changed since it was indexed"


class _RefusedError(Exception):
    """The reason why a copy has to stay."""


def trash_copies(
    duplicates: Duplicates,
    *,
    turned: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Discarded:
    """Move all images of every group except the one to keep to the trash of the system.

    A file for whose file system there is no trash stays, and is named in the result. Of the other
    files on the same file system, none is tried after that.

    Args:
        duplicates: The groups.
        turned: Whether to discard mirrored and turned copies, too, as for `delete_copies`.
        progress: Function called with the number of copies dealt with and the total.

    Raises:
        PackageError: If send2trash is not installed.
        StorageError: If the lock on discarding by this user's processes cannot be taken, or the
            journal cannot be written.
    """
    check_trash()
    return _discard(duplicates, Act.TRASH, turned=turned, progress=progress)


def delete_copies(duplicates: Duplicates, *, turned: bool = False) -> Discarded:
    """Delete all images of every group except the one to keep, forever.

    Args:
        duplicates: The groups.
        turned: Whether to delete mirrored and turned copies, too. By default these stay, because
            pixels do not tell which of two is the right way round.

    Raises:
        StorageError: If the lock on discarding by this user's processes cannot be taken, or the
            journal cannot be written.
    """
    return _discard(duplicates, Act.DELETE, turned=turned)


def link_copies(duplicates: Duplicates) -> Discarded:
    """Replace all images of every group except the one to keep by hard links to it.

    Mirrored and turned copies stay, because a link would show the image the other way round.

    Raises:
        StorageError: If the lock on discarding by this user's processes cannot be taken, or the
            journal cannot be written.
    """
    return _discard(duplicates, Act.LINK, turned=False)


def _discard(
    duplicates: Duplicates,
    act: Act,
    *,
    turned: bool,
    progress: Callable[[int, int], None] | None = None,
) -> Discarded:
    run = _Run(act)
    pairs = [(group.keep, copy) for group in duplicates.groups for copy in group.others]
    # Other copies are shown, and not counted as ones to discard.
    wanted = [pair for pair in pairs if _may_go(pair[1], turned=turned)]
    try:
        with (
            discarding_lock() as state,
            opened_journal(state) as run.journal,
            decoders(1) as lane,
        ):
            run.check = _Check(lane)
            run.failures += put_back()
            run.journal.settle()
            for number, (keep, copy) in enumerate(wanted, 1):
                run.try_one(keep, copy)
                if progress is not None:
                    progress(number, len(wanted))
    except KeyboardInterrupt:
        run.interrupted = True  # still report what was done
    except StorageError as error:  # of the journal, on a full disk
        if not run.done:
            raise
        run.stopped = str(error)
    return run.result()


def _may_go(copy: Copy, *, turned: bool) -> bool:
    return (replace(copy, orientation=0) if turned else copy).discardable


@dataclass(slots=True)
class _Run:
    """A run that discards copies, and what has become of them."""

    act: Act
    done: list[Copy] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    untrashed: list[Failure] = field(default_factory=list)
    interrupted: bool = False
    stopped: str = ""
    journal: Journal = field(init=False)
    check: _Check = field(init=False)
    _without_trash: dict[int, str] = field(default_factory=dict)

    def result(self) -> Discarded:
        return Discarded(
            tuple(copy.path for copy in self.done),
            sum(copy.size for copy in self.done),
            tuple(self.failures),
            self.interrupted,
            tuple(self.untrashed),
            self.stopped,
        )

    def try_one(self, keep: Copy, copy: Copy) -> None:
        """Discard a copy, or note why it stays.

        Raises:
            StorageError: If the journal cannot be written.
        """
        device = -1
        try:
            for each in (keep, copy):
                if is_url(each.path):
                    raise _RefusedError(
                        "is at a URL, where nothing is deleted or linked; do that with its own "
                        "tools"
                    )
            device = os.lstat(copy.path).st_dev
            if device in self._without_trash:
                self.untrashed.append(Failure(copy.path, self._without_trash[device]))
                return
            self._discard(keep, copy)
        except NoTrashError as error:
            self.untrashed.append(Failure(copy.path, str(error)))
            if not error.alone:
                self._without_trash[device] = str(error)
        except _RefusedError as refused:
            self.failures.append(Failure(copy.path, str(refused)))
        except ImageError as error:
            self.failures.append(Failure(copy.path, error.reason))
        except OSError as error:
            self.failures.append(Failure(copy.path, reason_of(error)))
        except (ModelError, ValueError) as error:  # no worker, or a path with a NUL
            self.failures.append(Failure(copy.path, f"cannot be compared: {error}"))

    def _discard(self, keep: Copy, copy: Copy) -> None:
        """Discard a copy.

        Raises:
            _RefusedError: If this copy or the image to keep is not the file that was compared.
            NoTrashError: If it cannot be moved to the trash.
            ImageError: If a picture cannot be decoded.
            ModelError: If no worker process can be started to decode it.
            StorageError: If the journal cannot be written.
            OSError: If a file cannot be read, renamed or removed.
        """
        self.check.pixels(keep, copy)
        if _is_same_file(keep.path, copy.path):
            raise _RefusedError(f"is the same file as {keep.path}, which is kept")
        above, name = os.path.split(copy.path)
        folder = os.open(above, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            place = _Place(folder, above, name, keep.path if self.act is Act.LINK else "")
            with self._recorded(place, keep, copy), place.aside():
                _act(self.act, place, keep, copy)
        finally:
            os.close(folder)

    @contextmanager
    def _recorded(self, place: _Place, keep: Copy, copy: Copy) -> Iterator[None]:
        """Record in the journal what is intended, and then what has happened."""
        outcome = self.journal.intend(self.act, keep, copy)
        left, reason = False, ""
        try:
            yield
        except (_RefusedError, NoTrashError) as error:
            left, reason = True, str(error)
            raise
        except BaseException as error:
            # The folder tells, as an interrupt may come just after the last step.
            left, reason = place.still_holds(), reason_of(error)
            raise
        finally:
            if not left:
                self.done.append(copy)
            outcome(*(("left", reason) if left else ("done", "")))


def _is_same_file(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:  # checked and reported later
        return False


@dataclass(slots=True)
class _Place:
    """The place of a copy: its folder, its own name there, and its private name meanwhile.

    Attributes:
        folder: Descriptor of the folder.
        above: Path of the folder.
        name: Own name of the copy.
        keep: Path of the file that a link takes the place of the copy to; empty for no link.
        private: Private name of the copy.
        checked: Status of the copy, once it has been found to be the file that was compared.
    """

    folder: int
    above: str
    name: str
    keep: str
    private: str = ""
    checked: os.stat_result | None = None

    def __post_init__(self) -> None:
        private = f".imgsearch-{secrets.token_hex(16)}~{self.name}"
        self.private = os.fsdecode(os.fsencode(private)[:LONGEST_NAME])

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Rename a copy within its folder to a private name; undo that if something is wrong."""
        with remembered(self.above, self.name, self.private, self.keep):
            os.rename(self.name, self.private, src_dir_fd=self.folder, dst_dir_fd=self.folder)
            try:
                yield
            except BaseException:
                if os.access(self.private, os.F_OK, dir_fd=self.folder, follow_symlinks=False):
                    self._put_back()
                raise

    def _put_back(self) -> None:
        """Restore the name of a copy, in the place of a link to the kept file, but of nothing else.

        Raises:
            _RefusedError: If something else has that name.
            OSError: If it cannot be renamed.
        """
        if self.keep:
            unlink_link(self.folder, self.name, self.keep)
        try:
            rename_back(self.folder, self.private, self.name)
        except FileExistsError:
            there = os.path.join(self.above, self.private)
            raise _RefusedError(
                f"was replaced while it was looked at; what was there is now {there}"
            ) from None

    def still_holds(self) -> bool:
        """Tell whether the copy is still there, under one of its names."""
        if self.checked is None:
            return True
        for name in (self.private, self.name):
            with suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=self.folder, follow_symlinks=False)
                if os.path.samestat(status, self.checked):
                    return True
        return False


def _act(act: Act, place: _Place, keep: Copy, copy: Copy) -> None:
    """Check a copy under its private name, and the kept file after that; then discard the copy.

    Raises:
        _RefusedError: If this copy or the image to keep is not the file that was compared.
        NoTrashError: If it cannot be moved to the trash.
        OSError: If a file cannot be read, renamed or removed.
    """
    with _opened(place.private, place.folder) as file:
        before = os.fstat(file.fileno())
        _check_digest(file, copy.digest)
        place.checked = before
        kept = _check_kept(keep)
        if os.path.samestat(before, kept):
            raise _RefusedError(f"is the same file as {keep.path}, which is kept")
        if act is Act.LINK:
            _link(keep, kept, place.folder, place.name)
        if _version(before) != _version(os.fstat(file.fileno())):
            raise _RefusedError(CHANGED)
        if act is Act.TRASH:
            rename_back(place.folder, place.private, place.name)
            if not os.path.samestat(os.lstat(copy.path), before):
                raise _RefusedError(CHANGED)
            move_to_trash(copy.path)
        else:
            os.unlink(place.private, dir_fd=place.folder)


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
        seen = self._inspection(copy)
        reason = why_not(self._seen, seen, sequences, copy.orientation)
        if reason and copy.kind == CROPPED and not copy.orientation:
            reason = part_judged(self._seen, seen).reason
        if reason:
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
