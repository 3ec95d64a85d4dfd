"""Paths: made absolute, compared, and shown as JSON."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from typing import Any

from imgsearch.errors import InputError, reason_of
from imgsearch.files.sources import is_url, located, status_of

__all__ = [
    "dump",
    "existing",
    "is_at",
    "is_below",
    "path_fields",
    "plain_path",
    "real_path",
    "relative",
    "resolved_path",
    "upwards",
]


def upwards(path: bytes) -> Iterator[bytes]:
    """Yield an absolute path and the folders above it, the nearest first."""
    yield path
    while (above := os.path.dirname(path)) != path:
        yield above
        path = above


def relative(path: bytes, folder: bytes) -> bytes:
    """Return an absolute path relative to a folder that it leads through; empty for that itself."""
    return path[len(folder.rstrip(b"/")) + 1 :]


def is_at(path: bytes, folder: bytes) -> bool:
    """Tell whether an absolute path is a folder, or leads through it."""
    return path == folder or is_below(path, folder)


def is_below(path: bytes, folder: bytes) -> bool:
    """Tell whether an absolute path leads through a folder, which it is not itself."""
    return path.startswith(folder.rstrip(b"/") + b"/") and path != folder


def real_path(path: str | os.PathLike[str]) -> bytes:
    """Return an absolute path without links in its folders, `~` expanded; the last part stays."""
    plain = plain_path(path)
    folder, name = os.path.split(plain)
    return plain if is_url(plain) else os.path.join(os.path.realpath(folder), name)


def resolved_path(path: str | os.PathLike[str]) -> bytes:
    """Return an absolute path without any links, `~` expanded."""
    plain = plain_path(path)
    return plain if is_url(plain) else os.path.realpath(plain)


def plain_path(path: str | os.PathLike[str]) -> bytes:
    """Return an absolute path as it is written, `~` expanded, or a URL; raises as `located`."""
    there = located(path)
    return there if is_url(there) else os.path.abspath(there)


def existing(path: str | os.PathLike[str]) -> bytes:
    """Return the path under which a file or folder is indexed.

    Raises:
        InputError: there is none, or it cannot be reached.
        PackageError: it is a URL, and a package for its kind is not installed.
        SettingError: it is a URL of no kind that is known.
    """
    real = real_path(path)
    if is_url(real):
        return _at_url(real)
    if os.path.isdir(real):
        return os.path.realpath(real)
    if not os.path.lexists(real):
        raise InputError(f"{os.fsdecode(path)}: there is no such file or folder")
    return real


def _at_url(url: bytes) -> bytes:
    text = os.fsdecode(url)
    try:
        status_of(text)
    except FileNotFoundError as error:
        raise InputError(f"{text}: there is no such file or folder") from error
    except OSError as error:
        raise InputError(f"{text}: cannot be reached: {reason_of(error)}") from error
    return url


def dump(value: Any) -> str:
    """Return one line of JSON."""
    return json.dumps(value)


def path_fields(path: str, name: str = "path") -> dict[str, str]:
    """Return a path as a JSON field; its bytes, base64, beside it where it is not UTF-8."""
    raw = os.fsencode(path)
    text = raw.decode("utf-8", "replace")
    if text.encode() == raw:
        return {name: text}
    return {name: text, f"{name}_bytes": base64.b64encode(raw).decode("ascii")}
