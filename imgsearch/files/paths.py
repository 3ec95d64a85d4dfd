"""Make paths and URLs absolute, compare them and show them as JSON."""

from __future__ import annotations

import json
import os
import re
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
    """Yield an absolute path and then the folders above it, the nearest first."""
    yield path
    while (above := os.path.dirname(path)) != path:
        yield above
        path = above


def relative(path: bytes, folder: bytes) -> bytes:
    """Return an absolute path relative to a folder above it; empty for the folder itself."""
    return path[len(folder.rstrip(b"/")) + 1 :]


def is_at(path: bytes, folder: bytes) -> bool:
    """Tell whether an absolute path is a given folder or lies below it."""
    return path == folder or is_below(path, folder)


def is_below(path: bytes, folder: bytes) -> bool:
    """Tell whether an absolute path lies below a given folder."""
    return path.startswith(folder.rstrip(b"/") + b"/") and path != folder


def real_path(path: str | os.PathLike[str]) -> bytes:
    """Return an absolute path with `~` and links expanded, except a link in the last part."""
    plain = plain_path(path)
    folder, name = os.path.split(plain)
    return plain if is_url(plain) else os.path.join(os.path.realpath(folder), name)


def resolved_path(path: str | os.PathLike[str]) -> bytes:
    """Return an absolute path with `~` and all links expanded."""
    plain = plain_path(path)
    return plain if is_url(plain) else os.path.realpath(plain)


def plain_path(path: str | os.PathLike[str]) -> bytes:
    """Return an absolute path with only `~` expanded, or a URL; raise as `located`."""
    there = located(path)
    return there if is_url(there) else os.path.abspath(there)


def is_url(path: str | bytes | os.PathLike[str]) -> bool:
    """Tell whether a path is a URL, other than one of a local file."""
    raw = os.fsencode(path)
    return _URL.match(raw) is not None and _FILE.match(raw) is None


def located(path: str | bytes | os.PathLike[str]) -> bytes:
    """Return a path that can be opened, with `~` expanded and a `file:` URL resolved, or a URL.

    Raises:
        InputError: If the path is empty, contains a NUL, or is a URL that cannot be used.
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
    """Return the path of a `file:` URL (RFC 8089), or any other path or URL unchanged.

    `file:/a%20b`, `file:///a%20b` and `file://localhost/a%20b` all stand for `/a b`. Such a URL has
    no query and no fragment: `?` and `#` are part of a name.

    Raises:
        InputError: If the URL names a file of another machine, or no file.
    """
    found = _FILE.fullmatch(path)
    if found is None:
        return path
    text = os.fsdecode(path)
    import socket

    host = os.fsdecode(unquote_to_bytes(found[1] or b"")).lower()
    if host not in ("", "localhost", "127.0.0.1", "::1", "[::1]", socket.gethostname().lower()):
        raise InputError(
            f"{text}: names a file on the host {host!r}; the URL of a local file has no host, as "
            f"in file:///home/ana/cat.jpg; give the path at which the file is mounted here"
        )
    name = unquote_to_bytes(found[2] or found[4] or b"")
    if not name or b"\0" in name:
        raise InputError(f"{text}: names no file; give one, as in file:///home/ana/cat.jpg")
    return b"/" + name.lstrip(b"/")  # More leading slashes may have another meaning.


def plain_url(url: bytes) -> bytes:
    """Return a URL as it is indexed: with its scheme in lower case and no trailing slashes.

    Raises:
        InputError: If the URL is a chain of several URLs, names nothing, or has a password.
    """
    text = os.fsdecode(url)
    if "::" in text:
        raise InputError(f"{text}: is a chain of URLs; give a single URL of a folder or a file")
    if not urlsplit(text).netloc + urlsplit(text).path.strip("/"):
        raise InputError(f"{text}: names no folder; give one, as in s3://bucket/photos")
    if urlsplit(text).password is not None:
        raise InputError(
            "the collection would store the password in this URL; leave it out, and give it in "
            "the environment or in the configuration of fsspec"
        )
    scheme, colon, rest = url.partition(b":")
    return (scheme.lower() + colon + rest).rstrip(b"/")


def dump(value: Any) -> str:
    """Return a value as one line of JSON."""
    return json.dumps(value)


def path_fields(path: str, name: str = "path") -> dict[str, str]:
    """Return a path as a JSON field, with a field of its base64 bytes if it is not UTF-8."""
    raw = os.fsencode(path)
    text = raw.decode("utf-8", "replace")
    if text.encode() == raw:
        return {name: text}
    import base64

    return {name: text, f"{name}_bytes": base64.b64encode(raw).decode("ascii")}
