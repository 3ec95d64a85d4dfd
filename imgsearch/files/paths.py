"""Paths and URLs: made absolute, compared, and shown as JSON. Nothing is looked at on a disk."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from imgsearch.errors import InputError, reason_of

__all__ = [
    "dump",
    "is_at",
    "is_below",
    "is_url",
    "located",
    "path_fields",
    "plain_path",
    "plain_url",
    "real_path",
    "relative",
    "resolved_path",
    "upwards",
]


_URL = re.compile(rb"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_FILE = re.compile(rb"(?:file|local)://([^/]*)(.*)|file:(?=/)()(.*)", re.DOTALL | re.IGNORECASE)


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


def is_url(path: str | bytes | os.PathLike[str]) -> bool:
    """Tell whether a path is a URL of something that is elsewhere."""
    raw = os.fsencode(path)
    return _URL.match(raw) is not None and _FILE.match(raw) is None


def located(path: str | bytes | os.PathLike[str]) -> bytes:
    """Return a path as it can be opened, `~` expanded and a `file:` URL resolved, or a URL.

    Raises:
        InputError: it is empty, holds a NUL, or is a URL that cannot be used.
    """
    try:
        raw = os.fsencode(path)
    except (TypeError, UnicodeEncodeError) as error:
        raise InputError(f"{path!r} is not a path: {reason_of(error)}") from error
    if is_url(raw):
        return plain_url(raw)
    if not raw or b"\0" in raw:
        raise InputError(f"{os.fsdecode(raw)!r} is not a path: it is empty, or holds a NUL")
    local = local_path(raw)
    return os.path.expanduser(raw) if local is raw else local


def local_path(path: bytes) -> bytes:
    """Return the path that a `file:` URL stands for (RFC 8089), any other path or URL as it is.

    `file:/a%20b`, `file:///a%20b` and `file://localhost/a%20b` are `/a b`; such a URL has no query
    and no fragment: `?` and `#` are part of a name.

    Raises:
        InputError: it names a file of another machine, or none.
    """
    found = _FILE.fullmatch(path)
    if found is None:
        return path
    text = os.fsdecode(path)
    host = os.fsdecode(unquote_to_bytes(found[1] or b"")).lower()
    if host not in ("", "localhost", "127.0.0.1", "::1", "[::1]", socket.gethostname().lower()):
        raise InputError(
            f"{text}: names a file of the host {host!r}; a local one has no host, as in "
            "file:///home/ana/cat.jpg: give its path as it is mounted here"
        )
    name = unquote_to_bytes(found[2] or found[4] or b"")
    if not name or b"\0" in name:
        raise InputError(f"{text}: names no file; give one, as in file:///home/ana/cat.jpg")
    return b"/" + name.lstrip(b"/")  # more slashes at the beginning may mean something else


def plain_url(url: bytes) -> bytes:
    """Return a URL as it is indexed: its scheme in lower case, without slashes at its end.

    Raises:
        InputError: it is several URLs in one, names nothing, or has a password.
    """
    text = os.fsdecode(url)
    if "::" in text:
        raise InputError(f"{text}: is a chain of URLs; name a folder or a file by a single one")
    if not urlsplit(text).netloc + urlsplit(text).path.strip("/"):
        raise InputError(f"{text}: names no folder; give one, as in s3://bucket/photos")
    if urlsplit(text).password is not None:
        raise InputError(
            "a URL with a password would be kept with it in the collection; leave it out, and give "
            "it in the environment or in the configuration of fsspec"
        )
    scheme, colon, rest = url.partition(b":")
    return (scheme.lower() + colon + rest).rstrip(b"/")


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
