"""Seal the catalog at the end of each run: write its checksum and a copy beside it.

SQLite's own check misses most flipped bits. The commits of a run that was killed are not sealed;
the change counter in the header of a SQLite file tells them from damage ("Database File Format",
1.3.7; the version-valid-for number, 1.3.18, is equal to it).
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from imgsearch.errors import REPAIR_IT, DamagedError, StorageError
from imgsearch.files.opening import is_there, open_regular
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.database import BESIDE, Database, check_beside
from imgsearch.storage.files import (
    copy_file,
    exclusive,
    read_file,
    remove_unfinished,
    sha256_of,
    write_atomically,
)
from imgsearch.storage.layout import MAX_MANIFEST, Layout
from imgsearch.storage.succession import settle

__all__ = ["Seal", "check_sealed", "read_seal", "reseal", "restore", "seal", "writing"]

_FORMAT = "imgsearch seal"


@dataclass(frozen=True, slots=True)
class Seal:
    """A seal: the change counter of a catalog, and the SHA-256 (hex) of its file."""

    changes: int
    sha256: str

    def to_bytes(self) -> bytes:
        """Return the content of the seal's file, byte for byte, with a checksum of its own."""
        fields = {"format": _FORMAT, "changes": self.changes, "sha256": self.sha256}
        check = hashlib.sha256(json.dumps(fields).encode()).hexdigest()
        return json.dumps({**fields, "check": check}).encode() + b"\n"


@contextmanager
def writing(layout: Layout) -> Iterator[None]:
    """Hold the lock of the one writer, and seal the catalog before releasing it.

    Raises:
        BusyError: If another writer holds the lock.
        DamagedError: If the catalog does not match its seal: nothing may be built on it.
        StorageError: If the disk cannot be read or written.
    """
    layout.check_parts()
    with exclusive(layout.directory):
        layout.make_folders()
        remove_unfinished(layout.directory)
        check_sealed(layout)
        _finish_switch(layout)
        try:
            yield
        except DamagedError:
            raise
        except BaseException:
            with suppress(DamagedError, StorageError):  # such as the full disk that ended the run
                seal(layout)
            raise
        seal(layout)


def seal(layout: Layout) -> None:
    """Copy the catalog and write its seal, unless it is sealed; no transaction may be open.

    Raises:
        DamagedError: If a failed transaction cannot be rolled back.
        StorageError: If the disk cannot be written.
    """
    _settle(layout)
    with suppress(DamagedError, FileNotFoundError):
        if read_seal(layout).changes == _changes(layout.catalog) and layout.copy.exists():
            return
    reseal(layout)


def reseal(layout: Layout) -> None:
    """Copy the catalog and write its seal, even if it is sealed; no transaction may be open.

    Raises:
        DamagedError: If a failed transaction cannot be rolled back.
        StorageError: If the disk cannot be written.
    """
    _settle(layout)
    changes = _changes(layout.catalog)
    content = Seal(changes, copy_file(layout.catalog, layout.copy).hex()).to_bytes()
    write_atomically(layout.seal, lambda sink: sink.write(content))


def check_sealed(layout: Layout) -> bool:
    """Check the catalog against its seal, and tell whether it still matches.

    If something was committed since, or there is no seal, SQLite checks the catalog.

    Raises:
        DamagedError: If the catalog is damaged.
        StorageError: If the catalog cannot be read.
    """
    check_beside(layout.catalog)
    with suppress(DamagedError):  # the check of the seal below reports damage
        _settle(layout)
    try:
        sealed = read_seal(layout)
        if sha256_of(layout.catalog).hex() == sealed.sha256:
            return True
        if not _has_gone_on(layout.catalog, sealed):
            raise DamagedError(f"{layout.catalog} does not match its seal; {REPAIR_IT}")
    except FileNotFoundError:  # a missing catalog: see below; without a seal it may still be sound
        pass
    if not _is_sound(layout.catalog):
        raise DamagedError(f"{layout.catalog} is damaged; {REPAIR_IT}")
    return False


def restore(layout: Layout) -> bool:
    """Restore the catalog from its copy if that matches the seal, and tell whether it does.

    Raises:
        StorageError: If the disk cannot be read or written.
    """
    try:
        if sha256_of(layout.copy).hex() != read_seal(layout).sha256:
            return False
    except (DamagedError, FileNotFoundError):
        return False
    _remove_beside(layout.catalog)  # SQLite would roll back the copy with a journal
    copy_file(layout.copy, layout.catalog)
    return True


def read_seal(layout: Layout) -> Seal:
    """Return the seal.

    Raises:
        FileNotFoundError: If there is no seal.
        DamagedError: If the seal is damaged.
        StorageError: If the seal cannot be read.
    """
    content = read_file(layout.seal, MAX_MANIFEST)
    try:
        fields = json.loads(content)
        found = Seal(fields["changes"], fields["sha256"])
        if content == found.to_bytes():
            return found
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise DamagedError(f"{layout.seal} is damaged; {REPAIR_IT}")


def _finish_switch(layout: Layout) -> None:
    """Finish what a switch to another network has left to do, if it was committed."""
    if is_there(layout.next.directory):
        with closing(Catalog(layout.catalog)) as catalog:
            model = catalog.model()
        if model is not None:
            settle(layout, model)


def _settle(layout: Layout) -> None:
    """Let SQLite roll back a transaction that was killed, or that failed and was not fully undone.

    Until then, the file has neither the old nor the new content, with either change counter.
    """
    if not is_there(layout.journal):
        return
    Database(layout.catalog).close()
    if not _is_sound(layout.catalog):
        raise DamagedError(f"{layout.catalog} is damaged; {REPAIR_IT}")


def _remove_beside(path: Path) -> None:
    """Remove the files beside a database that SQLite would use.

    Raises:
        StorageError: If a file cannot be removed.
    """
    try:
        for suffix in BESIDE:
            Path(f"{path}{suffix}").unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot remove {error.filename}: {error.strerror}") from error


def _is_sound(path: Path) -> bool:
    with closing(Catalog(path)) as catalog:
        return catalog.is_sound()


def _has_gone_on(path: Path, sealed: Seal) -> bool:
    """Tell whether a catalog has been written to since it was sealed."""
    header = _header(path)
    changes, valid_for = struct.unpack_from(">I", header, 24), struct.unpack_from(">I", header, 92)
    return changes == valid_for and changes[0] > sealed.changes


def _changes(path: Path) -> int:
    return int(struct.unpack_from(">I", _header(path), 24)[0])


def _header(path: Path) -> bytes:
    with open_regular(path) as file:
        return file.read(100).ljust(100, b"\0")
