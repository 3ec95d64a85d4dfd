"""The row of an image in Milvus, and the address of a collection."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

from imgsearch.errors import SettingError

__all__ = ["Address", "Row", "quoted"]

_SERVER = re.compile(r"milvus://([^/]+:\d+)/([A-Za-z_][A-Za-z0-9_]{0,200})")
_FILE = re.compile(r"milvus:(?!//)(.+\.db)")
_LITE = "images"


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a collection: as given, as a URI for pymilvus, and its name there."""

    location: str
    uri: str
    name: str

    @classmethod
    def of(cls, location: str | os.PathLike[str]) -> Address:
        """Read `milvus://HOST:PORT/NAME` or `milvus:FILE.db`, or raise `SettingError`."""
        text = str(location)
        if server := _SERVER.fullmatch(text):
            return cls(text, f"http://{server[1]}", server[2])
        if file := _FILE.fullmatch(text):
            path = os.path.abspath(os.path.expanduser(file[1]))
            return cls(f"milvus:{path}", path, _LITE)
        raise SettingError(
            f"{text} is not a collection in Milvus; name one as milvus://HOST:PORT/NAME (letters, "
            "digits and _), or milvus:FILE.db for Milvus Lite"
        )


@dataclass(frozen=True, slots=True)
class Row:
    """An image: its absolute path, and the SHA-256, size and trusted time of its file.

    The id is derived from path and content, so that adding a row again changes nothing, and no id
    ever stands for another content.
    """

    id: int
    path: bytes
    digest: bytes
    size: int
    mtime_ns: int | None

    @classmethod
    def of(cls, path: bytes, digest: bytes, size: int, mtime_ns: int | None) -> Row:
        """Return the row of an image; its id is the first 63 bits of a SHA-256."""
        sha256 = hashlib.sha256(path + b"\0" + digest).digest()
        return cls(int.from_bytes(sha256[:8], "big") >> 1, path, digest, size, mtime_ns)

    @classmethod
    def read(cls, fields: dict[str, Any]) -> Row:
        """Return the row from its fields in Milvus."""
        mtime_ns = fields["mtime_ns"]
        return cls(
            int(fields["id"]),
            unquote_to_bytes(fields["path"]),
            bytes.fromhex(fields["digest"]),
            int(fields["size"]),
            int(mtime_ns) if mtime_ns != _UNTRUSTED else None,
        )

    def written(self) -> dict[str, Any]:
        """Return the row in the form for Milvus, without the embedding."""
        return {
            "id": self.id,
            "path": quoted(self.path),
            "digest": self.digest.hex(),
            "size": self.size,
            "mtime_ns": _UNTRUSTED if self.mtime_ns is None else self.mtime_ns,
        }


_UNTRUSTED = -(2**63)  # no file has this time


def quoted(path: bytes) -> str:
    """Return a path in ASCII, as it may not be UTF-8, without characters special in a filter."""
    return quote_from_bytes(path, safe="/")
