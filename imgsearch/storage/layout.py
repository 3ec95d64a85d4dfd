"""Where the files of a collection are, and which version of that they follow."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from imgsearch.errors import DamagedError, InputError, NoCollectionError, StorageError, reason_of
from imgsearch.storage.files import make_folder, write_atomically

__all__ = ["FORMAT_VERSION", "Layout"]

FORMAT_VERSION = 2
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

    def segment(self, number: int) -> Path:
        """The file of a segment."""
        return self.segments / f"{number:08d}.faiss"

    def exists(self) -> bool:
        """Tell whether there is a collection."""
        return os.path.isfile(self.manifest)  # unlike Path.is_file, it raises for no name

    def size(self) -> int:
        """Return the size in bytes of all files together."""
        return sum(_size_of(path) for path in self.directory.rglob("*"))

    def check_free(self) -> None:
        """Check that the directory is missing, empty, or of an unfinished creation.

        Raises:
            InputError: there is something else.
            StorageError: it cannot be read.
        """
        own = {path.name for path in (self.catalog, self.model, self.vectors, self.segments)}
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

    def make_folders(self) -> None:
        """Make the folders, or raise `StorageError`."""
        for folder in (self.directory, self.vectors, self.segments):
            make_folder(folder)

    def write_manifest(self) -> None:
        """Declare the directory a collection; the last step of its creation."""
        text = json.dumps({"format": _FORMAT, "version": FORMAT_VERSION}) + "\n"
        write_atomically(self.manifest, lambda sink: sink.write(text.encode()))

    def check(self) -> None:
        """Check that there is a collection of this format version.

        Raises:
            NoCollectionError: there is none.
            DamagedError: it is of another version, or its manifest cannot be read.
        """
        try:
            manifest = json.loads(self.manifest.read_bytes())
            version = manifest["version"] if manifest["format"] == _FORMAT else None
        except (FileNotFoundError, NotADirectoryError):
            raise NoCollectionError(
                f"there is no collection at {self.directory}; "
                "make one with `imgsearch index FOLDER`, or name another with -c"
            ) from None
        except OSError as error:
            raise StorageError(f"cannot read {self.manifest}: {reason_of(error)}") from error
        except (ValueError, KeyError, TypeError):
            version = None
        if version is None:
            raise DamagedError(f"{self.manifest} is damaged; restore the collection from a copy")
        if version == 1:
            raise DamagedError(
                f"{self.directory} has format version 1, of imgsearch 0.1, this one reads "
                f"{FORMAT_VERSION}; index its folders into a new collection (-c)"
            )
        if version != FORMAT_VERSION:
            raise DamagedError(
                f"{self.directory} has format version {version}, this imgsearch reads "
                f"{FORMAT_VERSION}; update imgsearch (pip install -U imgsearch-faiss)"
            )


def _size_of(path: Path) -> int:
    try:
        status = path.stat()
    except FileNotFoundError:  # since it was listed: a writer is at work
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0
