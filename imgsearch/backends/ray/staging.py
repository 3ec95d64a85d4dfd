"""Staged shards: outcomes of a cluster that the collection has not committed yet.

A staged shard is two objects in a folder that all machines can reach, a path or any URL that fsspec
knows. First comes `NAME.npy`, float32 `[n, dim]`, followed by `n` fingerprints
(`imgsearch.images.fingerprint.FINGERPRINT`). Then comes `NAME.json`, its manifest, which makes it
valid: it holds the outcome of each file and the SHA-256 of the `.npy`. Names are never reused and
nothing is renamed or changed, which not every storage supports; an upload that was cut off has no
manifest, or one that is not JSON.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

from imgsearch.embedding.pipeline import Embedded, Outcome, Refused
from imgsearch.errors import SettingError, StorageError, reason_of, url_package_error
from imgsearch.images.fingerprint import FINGERPRINT, Fingerprint

__all__ = ["StagedFile", "Staging"]

_FORMAT = {"format": "imgsearch staged shard", "version": 3}
_OURS = re.compile(r"[0-9a-f]{32}\.(npy|json)|[0-9a-f]{64}\.onnx")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StagedFile:
    """The position of a file's outcome: its shard, and its place in that.

    `size` and `mtime_ns` are those of the file when it was embedded, as in `Embedded`; `ctime_ns`
    is from just before, None at URLs.
    """

    shard: str
    place: int
    size: int
    mtime_ns: int | None
    ctime_ns: int | None


class Staging:
    """The folder of staged shards of one collection."""

    def __init__(self, url: str) -> None:
        """Name a folder, which need not exist.

        Args:
            url: A path, or a URL such as `s3://bucket/folder`.

        Raises:
            PackageError: If the package for this kind of URL is not installed.
            SettingError: If there is no such kind of URL.
        """
        try:
            from fsspec.core import url_to_fs

            self._files, self._root = url_to_fs(url)
        except ImportError as error:
            raise url_package_error(url, error) from error
        except ValueError as error:
            raise SettingError(f"cannot use {url} for staging: {reason_of(error)}") from error
        self.url = url

    def add(
        self,
        model: str,
        outcomes: Sequence[tuple[str, Outcome]],
        ctimes: Mapping[str, int | None] = MappingProxyType({}),
    ) -> str:
        """Write the outcomes of some files as a shard; return its name.

        Args:
            model: The SHA-256 (hex) of the ONNX file that embedded them.
            outcomes: The paths with their outcomes, either `Embedded` or `Refused`.
            ctimes: The ctime of each path, as in `StagedFile`.

        Raises:
            StorageError: If it cannot be written.
        """
        name = uuid.uuid4().hex
        embedded = [each for _, each in outcomes if isinstance(each, Embedded)]
        rows = [each.embedding for each in embedded]
        data = io.BytesIO()
        np.save(data, np.stack(rows) if rows else np.empty((0, 0), np.float32), allow_pickle=False)
        data.write(b"".join(each.fingerprint.row for each in embedded if each.fingerprint))
        manifest = {
            **_FORMAT,
            "model": model,
            "sha256": hashlib.sha256(data.getvalue()).hexdigest(),
            "files": [_entry(path, outcome, ctimes.get(path)) for path, outcome in outcomes],
        }
        self._write(f"{name}.npy", data.getvalue())
        self._write(f"{name}.json", json.dumps(manifest).encode("ascii"))
        return name

    def read(self, name: str) -> list[Outcome]:
        """Return the outcome of each file of a shard, in their original order.

        Raises:
            StorageError: If it is missing, cut off, damaged or unreadable.
        """
        manifest, data = self._manifest(name), self._read(f"{name}.npy")
        if manifest is None or hashlib.sha256(data).hexdigest() != manifest["sha256"]:
            raise StorageError(f"the staged shard {name} in {self.url} is damaged; index again")
        content = io.BytesIO(data)
        rows = iter(np.load(content, allow_pickle=False))
        prints = iter(np.frombuffer(content.read(), FINGERPRINT))
        return [_outcome(entry, rows, prints) for entry in manifest["files"]]

    def find(self, model: str) -> dict[str, StagedFile]:
        """Return the files that an earlier run embedded with `model`; drop all other shards.

        Raises:
            StorageError: If the folder cannot be read.
        """
        found: dict[str, StagedFile] = {}
        names = self._names()
        shards = {name.removesuffix(".json") for name in names if name.endswith(".json")}
        whole = set()
        for name in sorted(shards):
            manifest = self._manifest(name)
            if manifest is None or manifest["model"] != model or f"{name}.npy" not in names:
                continue
            whole.add(name)
            for place, entry in enumerate(manifest["files"]):
                if "digest" in entry:
                    times = entry["mtime_ns"], entry["ctime_ns"]
                    found[entry["path"]] = StagedFile(name, place, entry["size"], *times)
        self._drop(name for name in names if name.partition(".")[0] not in whole)
        return found

    def write_model(self, sha256: str, onnx: bytes) -> None:
        """Write the model, for all machines to read."""
        self._write(f"{sha256}.onnx", onnx)

    def read_model(self, sha256: str) -> bytes:
        """Return the model.

        Raises:
            StorageError: If it is missing, damaged or unreadable.
        """
        onnx = self._read(f"{sha256}.onnx")
        if hashlib.sha256(onnx).hexdigest() != sha256:
            raise StorageError(f"the model in {self.url} is damaged; index again")
        return onnx

    def discard(self, shards: Iterable[str]) -> None:
        """Remove shards, manifests first."""
        self._drop(f"{name}.{kind}" for name in shards for kind in ("json", "npy"))

    def clear(self) -> None:
        """Remove everything that this class writes, and the folder if nothing else is in it."""
        self._drop(self._names())
        if self._try(lambda: self._files.exists(self._root) and not self._files.ls(self._root)):
            self._try(lambda: self._files.rmdir(self._root))

    def _manifest(self, name: str) -> dict[str, Any] | None:
        """Return a manifest; None if it was cut off or has another version."""
        try:
            manifest: dict[str, Any] = json.loads(self._read(f"{name}.json"))
        except ValueError:
            return None
        return manifest if manifest.items() >= _FORMAT.items() else None

    def _names(self) -> list[str]:
        """Return our names in the folder, manifests first."""
        if not self._try(lambda: self._files.exists(self._root)):
            return []
        paths = self._try(lambda: self._files.ls(self._root, detail=False))
        names = sorted(path.rstrip("/").rpartition("/")[2] for path in paths)
        return sorted((name for name in names if _OURS.fullmatch(name)), key=_manifests_first)

    def _write(self, name: str, content: bytes) -> None:
        self._try(lambda: self._files.makedirs(self._root, exist_ok=True))
        self._try(lambda: self._files.pipe_file(f"{self._root}/{name}", content))

    def _read(self, name: str) -> bytes:
        content: bytes = self._try(lambda: self._files.cat_file(f"{self._root}/{name}"))
        return content

    def _drop(self, names: Iterable[str]) -> None:
        for name in names:
            self._try(partial(self._files.rm_file, f"{self._root}/{name}"))

    def _try(self, work: Callable[[], T]) -> T:
        """Run an operation on the storage.

        Raises:
            StorageError: If it fails.
        """
        try:
            return work()
        except Exception as error:  # each kind of storage raises its own library's errors
            reason = reason_of(error)
            raise StorageError(f"cannot use {self.url} for staging: {reason}") from error


def _manifests_first(name: str) -> tuple[bool, str]:
    return not name.endswith(".json"), name


def _entry(path: str, outcome: Outcome, ctime_ns: int | None) -> dict[str, Any]:
    if isinstance(outcome, Refused):
        return {
            "path": path,
            "reason": outcome.reason,
            "recognised": outcome.recognised,
            "transient": outcome.transient,
            "limited": outcome.limited,
        }
    shot = None
    if isinstance(outcome, Embedded) and outcome.fingerprint is not None:
        shot = [outcome.fingerprint.taken, outcome.fingerprint.camera]
    return {
        "path": path,
        "digest": outcome.digest.hex(),
        "size": outcome.size,
        "mtime_ns": outcome.mtime_ns,
        "ctime_ns": ctime_ns,
        "shot": shot,
    }


def _outcome(entry: dict[str, Any], rows: Iterator[Any], prints: Iterator[Any]) -> Outcome:
    if "reason" in entry:
        return Refused(
            entry["reason"], entry["recognised"], entry["transient"], limited=entry["limited"]
        )
    fingerprint = None
    if entry["shot"] is not None:
        fingerprint = Fingerprint(next(prints).tobytes(), *entry["shot"])
    digest = bytes.fromhex(entry["digest"])
    return Embedded(next(rows), digest, entry["size"], entry["mtime_ns"], fingerprint)
