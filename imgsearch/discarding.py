"""Delete copies, or put links in their place, once somebody has confirmed it.

Nothing is touched unless, at that moment, both the copy and the image that is kept are what was
compared.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterator

from imgsearch.copies import Copy, Discarded, Duplicates
from imgsearch.embedding.sources import is_url
from imgsearch.errors import reason_of
from imgsearch.reports import Failure

__all__ = ["delete_copies", "link_copies"]


def delete_copies(duplicates: Duplicates) -> Discarded:
    """Delete all images of all groups but the one to be kept of each."""
    return _discard(duplicates, lambda _, path: os.unlink(path))


def link_copies(duplicates: Duplicates) -> Discarded:
    """Replace all images of all groups but the one to be kept by hard links to that."""
    return _discard(duplicates, _link)


def _discard(duplicates: Duplicates, act: Callable[[str, str], None]) -> Discarded:
    done, failures, size = [], [], 0
    for group in duplicates.groups:
        for copy in group.others:
            if reason := _why_not(group.keep, copy):
                failures.append(Failure(copy.path, reason))
                continue
            try:
                act(group.keep.path, copy.path)
            except OSError as error:
                failures.append(Failure(copy.path, reason_of(error)))
            else:
                done.append(copy.path)
                size += copy.size
    return Discarded(tuple(done), size, tuple(failures))


def _why_not(keep: Copy, copy: Copy) -> str:
    """Return why a copy is not to be touched; nothing if it may."""
    for each in (keep, copy):
        reason = _changed(each)
        if reason:
            return reason if each is copy else f"{keep.path}, which was to be kept, {reason}"
    if os.path.samefile(keep.path, copy.path):
        return f"is the same file as {keep.path}, which is kept"
    return ""


def _changed(copy: Copy) -> str:
    if is_url(copy.path):
        return "is at a URL, where nothing is deleted or linked; do that with its own tools"
    try:
        if not stat.S_ISREG(os.lstat(copy.path).st_mode):
            return "is a link"
        with open(copy.path, "rb") as file:
            same = hashlib.file_digest(file, "sha256").digest() == copy.digest
    except OSError as error:
        return f"cannot be read: {reason_of(error)}"
    return "" if same else "has changed since it was indexed"


def _link(keep: str, path: str) -> None:
    """Put a hard link in the place of a file: one or the other is there at any moment."""
    for temporary in _names_beside(path):
        try:
            os.link(keep, temporary)
        except FileExistsError:
            continue
        try:
            os.replace(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise
        return


def _names_beside(path: str) -> Iterator[str]:
    folder = os.path.dirname(path)
    while True:
        yield tempfile.mktemp(".tmp", ".imgsearch-", folder)  # noqa: S306 - link() refuses a file
