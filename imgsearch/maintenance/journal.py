"""Keep a journal of what was done to copies: what was intended, and what then happened.

An intention is on disk before anything is changed, and its outcome is added afterwards. So an entry
never claims what has not happened, and nothing happens that has no entry. The outcome of an
intention that a killed run left open is found out and added by the next run.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from imgsearch.errors import StorageError, reason_of
from imgsearch.files.paths import dump, path_fields
from imgsearch.maintenance.copies import Copy

__all__ = ["NAME", "Act", "Journal", "opened_journal"]

NAME = "duplicates.jsonl"
_RECENT = 1 << 18  # bytes at the end of the journal in which open intentions are looked for
_OURS = ("state", "id", "act", "path")
_OF_COPY = ("id", "act", "path", "path_bytes")


class Act(StrEnum):
    """What is done with a copy."""

    DELETE = "delete"
    LINK = "link"
    TRASH = "trash"


class Journal:
    """The journal of this user, open for appending; use it under `discarding_lock`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        """Take an open file; see `opened_journal`."""
        self.path = path
        self._file = descriptor
        self._torn = self._is_torn()

    def intend(self, act: Act, keep: Copy, copy: Copy) -> Callable[[str, str], None]:
        """Record an intention durably; return the function that records its outcome.

        The function takes "done" or "left", and the reason.

        Raises:
            StorageError: If the journal cannot be written; nothing may be changed then.
        """
        fields = {"id": secrets.token_hex(8), "act": str(act), **path_fields(copy.path)}
        more = {
            "kind": copy.kind,
            "size": copy.size,
            "digest": copy.digest.hex(),
            **path_fields(keep.path, "keep"),
            "keep_digest": keep.digest.hex(),
        }
        self._append("intended", {**fields, **more})

        def outcome(state: str, reason: str) -> None:
            self._append(state, {**fields, **({"reason": reason} if reason else {})})

        return outcome

    def settle(self) -> None:
        """Add the outcomes of intentions that a killed run left open, where they can be known.

        Call this after `put_back`: then a copy has its name, or it was discarded.

        Raises:
            StorageError: If the journal cannot be read or written.
        """
        for fields in self._open():
            path, keep = _path_in(fields, "path"), _path_in(fields, "keep")
            if not os.path.isdir(os.path.dirname(path)):
                continue  # perhaps an unplugged drive
            state = "left" if _is_left(fields, path, keep) else "done"
            told = {name: fields[name] for name in _OF_COPY if name in fields}
            reason = "found out by the next run, as this one was interrupted"
            self._append(state, {**told, "reason": reason})

    def _open(self) -> list[dict[str, Any]]:
        """Return the intentions without an outcome, the oldest first."""
        found: dict[str, dict[str, Any]] = {}
        for fields in self._recent():
            if fields["state"] == "intended":
                found[fields["id"]] = fields
            else:
                found.pop(fields["id"], None)
        return list(found.values())

    def _recent(self) -> Iterator[dict[str, Any]]:
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _RECENT))
                lines = file.read(_RECENT).split(b"\n")
        except OSError as error:
            raise self._error("read", error) from error
        for line in lines:
            try:
                fields = json.loads(line)
            except (ValueError, RecursionError):  # torn by a full disk, or cut off above
                continue
            if isinstance(fields, dict) and all(
                isinstance(fields.get(name), str) for name in _OURS
            ):
                yield fields

    def _append(self, state: str, fields: dict[str, Any]) -> None:
        """Add a line durably.

        Raises:
            StorageError: If that fails; a torn line counts as none.
        """
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = dump({"time": time, "state": state, **fields}).encode() + b"\n"
        data = b"\n" + line if self._torn else line
        self._torn = True
        try:
            while data:
                data = data[os.write(self._file, data) :]
            os.fsync(self._file)
        except OSError as error:
            raise self._error("write", error) from error
        self._torn = False

    def _is_torn(self) -> bool:
        try:
            with self.path.open("rb") as file:
                if not file.seek(0, os.SEEK_END):
                    return False
                file.seek(-1, os.SEEK_END)
                return file.read(1) != b"\n"
        except OSError as error:
            raise self._error("read", error) from error

    def _error(self, what: str, error: OSError) -> StorageError:
        return StorageError(
            f"cannot {what} the journal {self.path}: {reason_of(error)}; nothing more was changed: "
            "free some space there, or name another directory in XDG_STATE_HOME"
        )


@contextmanager
def opened_journal(folder: Path) -> Iterator[Journal]:
    """Open the journal in the state directory of the user, which exists.

    Raises:
        StorageError: If it cannot be written.
    """
    path = folder / NAME
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        raise StorageError(
            f"cannot write the journal {path}: {reason_of(error)}; nothing was changed: name "
            "another directory in XDG_STATE_HOME"
        ) from error
    try:
        above = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(above)
        finally:
            os.close(above)
        yield Journal(path, descriptor)
    finally:
        os.close(descriptor)


def _is_left(fields: dict[str, Any], path: str, keep: str) -> bool:
    """Tell whether a copy still has its name, so that nothing was done to it."""
    if fields["act"] == Act.LINK:
        with suppress(OSError):
            if os.path.samefile(path, keep):
                return False
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == fields.get("digest")
    except FileNotFoundError:
        return False
    except OSError:  # it is there, and unreadable
        return True


def _path_in(fields: dict[str, Any], name: str) -> str:
    """Return a path as `path_fields` has written it."""
    raw = fields.get(f"{name}_bytes")
    if isinstance(raw, str):
        return os.fsdecode(base64.b64decode(raw, validate=False))
    return str(fields.get(name, ""))
