"""Where the files of a collection are, and which version of that they follow."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from imgsearch.errors import (
    MEND,
    UPDATE,
    DamagedError,
    InputError,
    NoCollectionError,
    StorageError,
    missing,
    reason_of,
)
from imgsearch.storage.files import make_folder, sha256_of, write_atomically

__all__ = ["FORMAT_VERSION", "OLDEST", "Layout", "manifest_of", "segment_name"]

FORMAT_VERSION = 5
OLDEST = 2  # format version that `imgsearch.storage.migrations` can bring up to date
_FORMAT = "imgsearch collection"


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of a collection's files."""

    directory: Path

    @classmethod
    def at(cls, directory: str | os.PathLike[str]) -> Layout:
        """Return the layout of a collection at a path, `~` expanded, made absolute.

        Raises:
            InputError: Faiss cannot open files there.
        """
        path = os.path.abspath(os.path.expanduser(os.fsdecode(directory)))
        try:
            path.encode()
        except UnicodeEncodeError:
            raise InputError(
                f"{path}: the path of a collection must be UTF-8, or Faiss cannot open its index"
            ) from None
        return cls(Path(path))

    @property
    def manifest(self) -> Path:
        """The format version. Written last: a directory without it is no collection yet."""
        return self.directory / "collection.json"

    @property
    def catalog(self) -> Path:
        """The database of `imgsearch.storage.catalog`."""
        return self.directory / "catalog.sqlite"

    @property
    def journal(self) -> Path:
        """What SQLite takes a transaction back with; there only during one, or if it was killed."""
        return self.directory / "catalog.sqlite-journal"

    @property
    def seal(self) -> Path:
        """The checksum of the catalog: see `imgsearch.storage.seal`."""
        return self.directory / "catalog.seal"

    @property
    def copy(self) -> Path:
        """The catalog as it was when it was sealed."""
        return self.directory / "catalog.copy"

    @property
    def model(self) -> Path:
        """The exported network."""
        return self.directory / "model.onnx"

    @property
    def vectors(self) -> Path:
        """The folder of the shards."""
        return self.directory / "vectors"

    @property
    def segments(self) -> Path:
        """The folder of the segments."""
        return self.directory / "segments"

    @property
    def staging(self) -> Path:
        """What machines of a cluster have embedded and is not committed yet; usually not there."""
        return self.directory / "staging"

    def segment(self, number: int) -> Path:
        """The file of a segment."""
        return self.segments / segment_name(number)

    def exists(self) -> bool:
        """Tell whether there is a collection.

        Raises:
            StorageError: nobody can tell, for want of a permission.
        """
        try:
            return stat.S_ISREG(os.stat(self.manifest).st_mode)
        except PermissionError as error:
            raise StorageError(f"cannot read {self.manifest}: {reason_of(error)}") from error
        except (OSError, ValueError):  # of a name that no file can have
            return False

    def size(self) -> int:
        """Return the size in bytes of all files together."""
        return sum(_size_of(path) for path in self.directory.rglob("*"))

    def check_free(self) -> None:
        """Check that the directory is missing, empty, or of an unfinished creation.

        Raises:
            InputError: there is something else.
            DamagedError: there is a collection whose manifest was lost.
            StorageError: it cannot be read.
        """
        self._check_lost()
        files = self.catalog, self.seal, self.copy, self.model, self.vectors, self.segments
        own = {path.name for path in files}
        try:
            there = {path.name for path in self.directory.iterdir()}
        except FileNotFoundError:
            there = set()
        except NotADirectoryError:
            raise InputError(f"{self.directory} is a file; a collection is a directory") from None
        except OSError as error:
            raise StorageError(f"cannot read {self.directory}: {reason_of(error)}") from error
        foreign = sorted(
            name for name in there - own - {"lock"} if not name.endswith((".tmp", "-journal"))
        )
        if foreign:
            raise InputError(
                f"{self.directory} is no collection and holds other files, such as {foreign[0]}; "
                "choose an empty directory or a new name"
            )

    def check_model(self, sha256: str) -> None:
        """Check that the model is as it was written: a damaged one may embed, and wrongly.

        Raises:
            DamagedError: it is not.
            StorageError: it cannot be read.
        """
        try:
            if sha256_of(self.model).hex() == sha256:
                return
        except FileNotFoundError as error:
            raise missing(error) from error
        raise DamagedError(f"{self.model} is not what was written; {MEND}")

    def _check_lost(self) -> None:
        """Tell a collection whose manifest was lost from none."""
        try:
            lost = any(self.vectors.glob("*.npy"))
        except OSError as error:
            raise StorageError(f"cannot read {self.vectors}: {reason_of(error)}") from error
        if lost:
            raise DamagedError(f"{self.manifest} is missing; {MEND}")

    def make_folders(self) -> None:
        """Make the folders, or raise `StorageError`."""
        for folder in (self.directory, self.vectors, self.segments):
            make_folder(folder)

    def write_manifest(self) -> None:
        """Declare the directory a collection; the last step of its creation, and of a migration."""
        write_atomically(self.manifest, lambda sink: sink.write(manifest_of(FORMAT_VERSION)))

    def version(self) -> int:
        """Return the format version, one of `OLDEST` to `FORMAT_VERSION`.

        Raises:
            NoCollectionError: there is no collection.
            DamagedError: it is of another version, or its manifest cannot be read.
        """
        try:
            manifest = json.loads(self.manifest.read_bytes())
            version = manifest["version"] if manifest["format"] == _FORMAT else None
        except (FileNotFoundError, NotADirectoryError):
            self._check_lost()
            raise NoCollectionError(
                f"there is no collection at {self.directory}; "
                "make it with `imgsearch index FOLDER`, or name another with -c DIR or "
                "IMGSEARCH_COLLECTION"
            ) from None
        except OSError as error:
            raise StorageError(f"cannot read {self.manifest}: {reason_of(error)}") from error
        except (ValueError, KeyError, TypeError):
            version = None
        if type(version) is not int or version < 1:
            raise DamagedError(f"{self.manifest} is damaged; {MEND}")
        if version < OLDEST:
            raise DamagedError(
                f"{self.directory} has format version {version}, of imgsearch 0.1, this one reads "
                f"{FORMAT_VERSION}; index its folders into a new collection (-c)"
            )
        if version > FORMAT_VERSION:
            raise DamagedError(
                f"{self.directory} has format version {version}, this imgsearch reads "
                f"{FORMAT_VERSION}; {UPDATE}"
            )
        return version


def segment_name(number: int) -> str:
    """Return the name of the file of a segment."""
    return f"{number:08d}.faiss"


def manifest_of(version: int) -> bytes:
    """Return what the manifest of a format version holds, byte for byte."""
    return json.dumps({"format": _FORMAT, "version": version}).encode() + b"\n"


def _size_of(path: Path) -> int:
    try:
        status = path.stat()
    except FileNotFoundError:  # since it was listed: a writer is at work
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0
