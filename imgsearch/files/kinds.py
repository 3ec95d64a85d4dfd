"""Describe a skipped file in a word or two, so that people see what was skipped."""

from __future__ import annotations

import os
import re

__all__ = ["APPLE_DOUBLE", "LEFT_OUT", "NO_IMAGE", "OTHER", "SPECIAL", "kind_of"]

APPLE_DOUBLE = "AppleDouble"
LEFT_OUT = "excluded"
SPECIAL = "special"  # A pipe, a socket or a device.
NO_IMAGE = "is not an image of a supported format"  # Says no more than the file's name.
OTHER = "other"

_FAMILIES = {
    "text": "txt text md rst log csv tsv json xml yaml yml toml ini cfg conf htm html css js ts py "
    "sh c h cpp java rs go tex srt nfo",
    "video": "mp4 m4v mov avi mkv webm mpg mpeg mts m2ts wmv flv 3gp 3g2 ogv vob",
    "audio": "mp3 m4a wav flac ogg opus aac wma aif aiff mid",
    "archive": "zip tar gz tgz bz2 xz zst 7z rar iso dmg",
    "document": "doc docx odt rtf xls xlsx ods ppt pptx odp pages numbers key epub mobi",
}
_FAMILY_OF = {ext: family for family, row in _FAMILIES.items() for ext in row.split()}
_EXTENSION = re.compile(r"[A-Za-z0-9]{1,5}")


def kind_of(name: bytes, reason: str = NO_IMAGE) -> str:
    """Return a file's kind by its name, such as "text", "PSD" or "other", and why it is skipped.

    Args:
        name: Name of the file.
        reason: Reason for skipping it, omitted from the result if it is `NO_IMAGE`.
    """
    if reason == APPLE_DOUBLE or name.startswith(b"._"):
        return APPLE_DOUBLE
    kind = _named(name)
    return kind if reason == NO_IMAGE else f"{kind} ({reason})"


def _named(name: bytes) -> str:
    extension = os.path.splitext(os.fsdecode(name))[1][1:]
    if not _EXTENSION.fullmatch(extension) or extension.isdigit():
        return OTHER
    return _FAMILY_OF.get(extension.lower(), extension.upper())
