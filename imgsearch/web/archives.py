"""Deliver files of the collection as a ZIP archive, which is made while it is sent."""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Sequence
from contextlib import closing
from datetime import datetime
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from imgsearch.errors import NoImageError
from imgsearch.storage.records import Entry
from imgsearch.web.originals import Original
from imgsearch.web.problems import LostFileError

__all__ = ["LEFT_OUT", "archive"]

LEFT_OUT = "Left out.txt"
LONGEST = 200  # bytes of a name

_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f/\\:*?"<>|\u200e\u200f\u202a-\u202e\u2066-\u2069]')
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # names in Windows


def archive(ids: Sequence[int], entries: dict[int, Entry]) -> Generator[bytes, None, None]:
    """Yield a ZIP archive of the files of images, as they are: nothing is compressed again.

    No more than a piece of a file is in memory. Files that are missing or have changed since they
    were indexed are left out, and `LEFT_OUT` in the archive says why.

    Raises:
        LostFileError: If a file changes while it is read; the archive is then incomplete.
    """
    sink, lost = _Sink(), list[str]()
    names = _Names()
    with ZipFile(sink, "w", ZIP_STORED) as made:
        for id_ in dict.fromkeys(ids):
            try:
                if id_ not in entries:
                    raise NoImageError(id_)
                original = Original(entries[id_])
            except (LostFileError, NoImageError) as error:
                lost.append(str(error))
                continue
            with closing(original):
                info = ZipInfo(names.new(entries[id_].path), _time(entries[id_]))
                info.external_attr = 0o644 << 16
                large = original.size >= 1 << 31
                with made.open(info, "w", force_zip64=large) as member:
                    for chunk in original.chunks():
                        member.write(chunk)
                        yield sink.taken()
        if lost:
            text = "\n".join(["These images are not in this archive:", "", *lost, ""])
            made.writestr(LEFT_OUT, text.encode("utf-8", "replace"))
    yield sink.taken()


class _Sink:
    """What has been written since it was last taken."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, part: bytes, /) -> int:
        """Take bytes."""
        self._parts.append(bytes(part))
        return len(part)

    def flush(self) -> None:
        """Do nothing: there is nothing behind this."""

    close = flush

    def taken(self) -> bytes:
        """Return the bytes, and forget them."""
        parts, self._parts = self._parts, []
        return b"".join(parts)


class _Names:
    """Names of files in one folder, each of which any system can create."""

    def __init__(self) -> None:
        self._used = {LEFT_OUT.casefold()}

    def new(self, path: str) -> str:
        """Return a name that is like that of a file, and that no other file has."""
        raw = os.fsencode(os.path.basename(path)).decode("utf-8", "replace")
        name = _UNSAFE.sub("_", raw).strip(" .") or "image"
        if _DEVICE.match(name):
            name = f"_{name}"
        stem, extension = os.path.splitext(name)
        extension = _cut(extension, LONGEST // 4)
        stem = _cut(stem, LONGEST - len(extension.encode()))
        name, number = stem + extension, 1
        while name.casefold() in self._used:
            number += 1
            name = f"{stem} ({number}){extension}"
        self._used.add(name.casefold())
        return name


def _cut(text: str, most: int) -> str:
    """Return the beginning of a text that has at most so many bytes in UTF-8."""
    return text.encode()[:most].decode("utf-8", "ignore")


def _time(entry: Entry) -> tuple[int, int, int, int, int, int]:
    """Return the local time of a file as a ZIP archive holds it: from 1980 to 2107."""
    try:
        time = datetime.fromtimestamp((entry.mtime_ns or 0) // 10**9)
    except (OverflowError, ValueError, OSError):
        return (1980, 1, 1, 0, 0, 0)
    if not 1980 <= time.year <= 2107:
        return (1980, 1, 1, 0, 0, 0)
    return (time.year, time.month, time.day, time.hour, time.minute, time.second)
