"""Where a collection is, the paths of its files, and the format version that they follow."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from imgsearch.errors import (
    REPAIR_IT,
    UPDATE,
    DamagedError,
    InputError,
    NoCollectionError,
    StorageError,
    missing,
    reason_of,
)
from imgsearch.files.opening import check_folder, check_regular, is_there, kind_of
from imgsearch.files.paths import is_url, located
from imgsearch.storage.files import make_folder, read_file, sha256_of, write_atomically

__all__ = [
    "BACKENDS",
    "FORMAT_VERSION",
    "MAX_MANIFEST",
    "MAX_MODEL",
    "OLDEST",
    "Layout",
    "Location",
    "backend_of",
    "is_elsewhere",
    "manifest_of",
    "segment_name",
]

#: A directory, or the URL of a collection elsewhere, such as `milvus://HOST:PORT/NAME`.
Location: TypeAlias = "str | os.PathLike[str]"

#: The class of collections elsewhere, by the scheme of their URL: one line registers a backend.
#: The values are names, like the entry points of a package, because backends build on all lower
#: layers and are imported only when a collection is opened.
BACKENDS = {"milvus": "imgsearch.backends.milvus.collection.MilvusCollection"}

FORMAT_VERSION = 8
OLDEST = 2  # oldest format version that `imgsearch.storage.migrations` can bring up to date
MAX_MANIFEST = 4_096  # bytes of a manifest or a seal
MAX_MODEL = (2 << 30) - 1  # bytes of a model: a protocol buffer cannot be larger
_FORMAT = "imgsearch collection"

# The names that imgsearch itself uses in a collection: files, unfinished files, and folders.
_NUMBERED = re.compile(
    r"[0-9]{8,}(\.ids\.npy|\.npy|\.faiss|\.layer|\.prints)(\.[0-9a-f]{16}\.tmp|\.tmp)?"
)
_OURS = re.compile(
    r"(collection\.json|catalog\.(sqlite|seal|copy)|(model|words)\.onnx)(\.[0-9a-f]{16}\.tmp|\.tmp)?"
    r"|not-duplicates(\.[0-9a-f]{16}\.tmp)?"
    r"|catalog\.sqlite-journal|lock|vectors|segments|layers|fingerprints|staging|next"
)


def backend_of(location: object) -> str | None:
    """Return the name of the class for the collection at a location, or None for a directory."""
    scheme, colon, _ = location.partition(":") if isinstance(location, str) else ("", "", "")
    return BACKENDS.get(scheme) if colon else None


def is_elsewhere(location: object) -> bool:
    """Tell whether a location is the URL of a collection rather than a directory."""
    return backend_of(location) is not None


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of a collection's files."""

    directory: Path

    @classmethod
    def at(cls, directory: str | os.PathLike[str]) -> Layout:
        """Return the layout of a collection at a path or a `file:` URL, made absolute.

        The directory itself may be a link, which is followed here and nowhere else.

        Raises:
            InputError: If the path is not on this machine, or Faiss cannot open files there.
        """
        if is_elsewhere(directory):
            raise InputError(
                f"{os.fsdecode(directory)} is not a directory, and this works only on a collection "
                "in a directory; the methods of `imgsearch.Collection` work on both"
            )
        found = located(directory)
        if is_url(found):
            raise InputError(
                f"{os.fsdecode(found)}: a collection is a directory of this machine, or "
                "milvus://HOST:PORT/NAME"
            )
        path = os.path.abspath(os.fsdecode(found))
        if os.path.islink(path):
            path = os.path.realpath(path)
        try:
            path.encode()
        except UnicodeEncodeError:
            raise InputError(
                f"{path}: the path of a collection must be UTF-8, or Faiss cannot open its index"
            ) from None
        return cls(Path(path))

    @property
    def manifest(self) -> Path:
        """The file with the format version, written last: without it there is no collection yet."""
        return self.directory / "collection.json"

    @property
    def catalog(self) -> Path:
        """The database of `imgsearch.storage.catalog`."""
        return self.directory / "catalog.sqlite"

    @property
    def journal(self) -> Path:
        """The journal from which SQLite rolls back a transaction that is open or was killed."""
        return self.directory / "catalog.sqlite-journal"

    @property
    def seal(self) -> Path:
        """The checksum of the catalog: see `imgsearch.storage.seal`."""
        return self.directory / "catalog.seal"

    @property
    def copy(self) -> Path:
        """A copy of the catalog as it was when sealed."""
        return self.directory / "catalog.copy"

    @property
    def model(self) -> Path:
        """The exported network."""
        return self.directory / "model.onnx"

    @property
    def words(self) -> Path:
        """The exported text tower; missing unless the network has one."""
        return self.directory / "words.onnx"

    @property
    def distinct(self) -> Path:
        """The judgements of `imgsearch.storage.distinct`; missing until there is one."""
        return self.directory / "not-duplicates"

    @property
    def vectors(self) -> Path:
        """The folder of the shards."""
        return self.directory / "vectors"

    @property
    def segments(self) -> Path:
        """The folder of the segments."""
        return self.directory / "segments"

    @property
    def layers(self) -> Path:
        """The folder of the layers; missing in a collection that an older version wrote."""
        return self.directory / "layers"

    @property
    def fingerprints(self) -> Path:
        """The folder of the fingerprints; missing in a collection that an older version wrote."""
        return self.directory / "fingerprints"

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders of all files with a number."""
        return self.vectors, self.segments, self.layers, self.fingerprints

    @property
    def staging(self) -> Path:
        """The folder of uncommitted embeddings from the machines of a cluster; usually missing."""
        return self.directory / "staging"

    @property
    def lock(self) -> Path:
        """The lock file, held by the one writer."""
        return self.directory / "lock"

    @property
    def next(self) -> Layout:
        """The successor (see `imgsearch.storage.succession`), which is usually missing."""
        return Layout(self.directory / "next")

    def segment(self, number: int) -> Path:
        """Return the path of a segment's file."""
        return self.segments / segment_name(number)

    def exists(self) -> bool:
        """Tell whether there is a collection, even one that will be refused.

        Raises:
            StorageError: If a missing permission prevents an answer.
        """
        try:
            return is_there(self.manifest)
        except PermissionError as error:
            raise StorageError(f"cannot read {self.manifest}: {reason_of(error)}") from error
        except (OSError, ValueError):  # a name that no file can have
            return False

    def size(self) -> int:
        """Return the total size of all files in bytes."""
        return sum(_size_of(path) for path in self.directory.rglob("*"))

    def check_free(self) -> None:
        """Check that the directory is missing, empty, or left by an unfinished creation.

        Raises:
            InputError: If there is something else.
            DamagedError: If there is a collection whose manifest was lost.
            StorageError: If the directory cannot be read.
        """
        self._check_lost()
        try:
            there = {path.name for path in self.directory.iterdir()}
        except FileNotFoundError:
            there = set()
        except NotADirectoryError:
            raise InputError(f"{self.directory} is a file; a collection is a directory") from None
        except OSError as error:
            raise StorageError(f"cannot read {self.directory}: {reason_of(error)}") from error
        foreign = sorted(name for name in there if not _OURS.fullmatch(name))
        if foreign:
            raise InputError(
                f"{self.directory} is not a collection and holds other files, such as {foreign[0]}"
                "; choose an empty directory or a new name"
            )

    def check_model(self, sha256: str) -> Path:
        """Check that the model is as it was written, and return its path.

        A damaged model may still run, and produce wrong embeddings.

        Raises:
            DamagedError: If the model has changed or is missing.
            StorageError: If the model cannot be read.
        """
        return self._checked(self.model, sha256)

    def check_words(self, sha256: str) -> Path:
        """Check that the text tower is as it was written; see `check_model`."""
        return self._checked(self.words, sha256)

    def held(self, model: Path, sha256: str) -> Path:
        """Return where the file `model` is: in the successor if its switch was just committed.

        Raises:
            DamagedError: If a file is not a regular one.
            StorageError: If a file cannot be read.
        """
        successor = self.next.directory / model.name
        if is_there(successor) and not _has(model, sha256) and _has(successor, sha256):
            return successor
        return model

    def _checked(self, model: Path, sha256: str) -> Path:
        try:
            found = self.held(model, sha256)
            if sha256_of(found, MAX_MODEL).hex() == sha256:
                return found
        except FileNotFoundError as error:
            raise missing(error) from error
        raise DamagedError(f"{model} has changed since it was written; {REPAIR_IT}")

    def check_parts(self) -> None:
        """Check that every existing part is a file or folder, as it should be, and not a link.

        Raises:
            DamagedError: If a part is something else.
            StorageError: If a part cannot be read.
        """
        for _, error in self.wrong_parts():
            raise error

    def wrong_parts(self) -> Iterator[tuple[Path, DamagedError]]:
        """Yield each part that is not a file or folder, as it should be, with an error about it.

        Raises:
            StorageError: If a part cannot be read.
        """
        single = [self.manifest, self.catalog, self.seal, self.copy, self.model, self.lock]
        single += [self.words, self.distinct]
        staging = self.staging
        try:
            for folder in (*self.folders, staging, self.next.directory):
                try:
                    check_folder(folder)
                except DamagedError as error:
                    yield folder, error
            if staging.is_dir():  # exists only during a run on a cluster
                single += staging.iterdir()
            for path in single:
                try:
                    check_regular(path)
                except DamagedError as error:
                    yield path, error
        except OSError as error:
            raise StorageError(f"cannot read {self.directory}: {reason_of(error)}") from error

    def foreign_files(self) -> Iterator[tuple[str, str]]:
        """Yield the name and kind of each file that does not belong to imgsearch.

        A regular file or a folder does no harm. A file with one of the names that imgsearch uses
        beside the catalog is included only if it is not a regular file. Links are not followed.

        Raises:
            StorageError: If the directory cannot be read.
        """
        parts = {path.name for path in (*self.folders, self.staging, self.next.directory)}
        try:
            for entry in sorted(os.scandir(self.directory), key=lambda entry: entry.name):
                if entry.name not in parts and not _is_ours(entry, _OURS):
                    yield entry.name, kind_of(entry.stat(follow_symlinks=False))
            for folder in self.folders:
                if not folder.is_dir():
                    continue
                for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
                    if not _NUMBERED.fullmatch(entry.name):
                        name = f"{folder.name}/{entry.name}"
                        yield name, kind_of(entry.stat(follow_symlinks=False))
        except OSError as error:
            raise StorageError(f"cannot read {self.directory}: {reason_of(error)}") from error

    def _check_lost(self) -> None:
        """Raise `DamagedError` if there is a collection whose manifest was lost."""
        try:
            lost = any(self.vectors.glob("*.npy"))
        except OSError as error:
            raise StorageError(f"cannot read {self.vectors}: {reason_of(error)}") from error
        if lost:
            raise DamagedError(f"{self.manifest} is missing; {REPAIR_IT}")

    def make_folders(self) -> None:
        """Create missing folders: private to their owner, or with the directory's permissions.

        Raises:
            DamagedError: If a folder is a link.
            StorageError: If a folder cannot be created.
        """
        make_folder(self.directory, mode=0o700)
        mode = stat.S_IMODE(self.directory.stat().st_mode)
        for folder in self.folders:
            make_folder(folder, mode=mode)

    def write_manifest(self) -> None:
        """Write the manifest, which is the last step of creating or migrating a collection."""
        write_atomically(self.manifest, lambda sink: sink.write(manifest_of(FORMAT_VERSION)))

    def version(self) -> int:
        """Return the format version, from `OLDEST` to `FORMAT_VERSION`.

        Raises:
            NoCollectionError: If there is no collection.
            DamagedError: If the collection has another version, or its manifest cannot be read.
        """
        try:
            manifest = json.loads(read_file(self.manifest, MAX_MANIFEST))
            version = manifest["version"] if manifest["format"] == _FORMAT else None
        except (FileNotFoundError, NotADirectoryError):
            self._check_lost()
            raise NoCollectionError(
                f"there is no collection at {self.directory}; create it with "
                "`imgsearch index FOLDER`, or name another with -c DIR or "
                "IMGSEARCH_COLLECTION"
            ) from None
        except (ValueError, KeyError, TypeError, RecursionError):
            version = None
        if type(version) is not int or version < 1:
            raise DamagedError(f"{self.manifest} is damaged; {REPAIR_IT}")
        if version < OLDEST:
            raise DamagedError(
                f"{self.directory} has format version {version}, written by imgsearch 0.1, but "
                f"this imgsearch reads {FORMAT_VERSION}; index its folders into a new collection "
                f"with -c"
            )
        if version > FORMAT_VERSION:
            raise DamagedError(
                f"{self.directory} has format version {version}, but this imgsearch reads "
                f"{FORMAT_VERSION}; {UPDATE}"
            )
        return version

    def is_current(self) -> bool:
        """Tell whether the collection has `FORMAT_VERSION`; raises as `version`."""
        return self.version() == FORMAT_VERSION


def segment_name(number: int) -> str:
    """Return the name of a segment's file."""
    return f"{number:08d}.faiss"


def manifest_of(version: int) -> bytes:
    """Return the content of the manifest of a format version, byte for byte."""
    return json.dumps({"format": _FORMAT, "version": version}).encode() + b"\n"


def _is_ours(entry: os.DirEntry[str], names: re.Pattern[str]) -> bool:
    return bool(names.fullmatch(entry.name)) and entry.is_file(follow_symlinks=False)


def _has(path: Path, sha256: str) -> bool:
    """Tell whether a file of at most `MAX_MODEL` bytes is there, with this SHA-256 (hex)."""
    try:
        return sha256_of(path, MAX_MODEL).hex() == sha256
    except FileNotFoundError:
        return False


def _size_of(path: Path) -> int:
    try:
        status = path.lstat()
    except FileNotFoundError:  # deleted since it was listed: a writer is at work
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0
