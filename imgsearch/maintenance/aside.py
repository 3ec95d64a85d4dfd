"""Set files aside under a private name for a moment, and give them their own name back.

Only one process of a user discards at a time, whatever the collection: two could otherwise each
keep what the other deletes. A file that is set aside is noted in the user's state directory, so
that the next run can restore it if this one is killed.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from imgsearch.errors import StorageError, reason_of
from imgsearch.indexing.report import Failure

__all__ = ["discarding_lock", "put_back", "remembered", "rename_back", "unlink_link"]

_NOTES = "aside*.json"  # imgsearch 0.4 and older wrote "aside.json", a single one
_PRIVATE = re.compile(r"\.imgsearch-([0-9a-f]{32})~", re.ASCII)


def _state() -> Path:
    """Return the state directory of this user; `XDG_STATE_HOME` moves it."""
    above = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(above) / "imgsearch"


@contextmanager
def discarding_lock() -> Iterator[Path]:
    """Wait until no other process of this user discards files, lock others out; yield the folder.

    It is the state directory of this user, with the notes and the journal.

    Raises:
        StorageError: If the state directory cannot be written.
    """
    import filelock  # imported here, as merely finding copies does not need it

    state = _state()
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = filelock.FileLock(state / "discarding.lock", mode=0o600)
        lock.acquire()
    except OSError as error:
        reason = reason_of(error)
        raise StorageError(
            f"cannot lock {state}: {reason}; nothing was changed: name another directory in "
            "XDG_STATE_HOME"
        ) from error
    try:
        yield state
    finally:
        lock.release()


@contextmanager
def remembered(folder: str, name: str, private: str, keep: str = "") -> Iterator[None]:
    """Note that a file is set aside, so that the next run finds it if this one is killed.

    Args:
        folder: The path of its folder.
        name: Its own name.
        private: The name that it gets.
        keep: The path of the file to which a link may take its own name meanwhile, if any.

    Raises:
        OSError: If the note cannot be written.
    """
    found = _PRIVATE.match(private)
    note = _state() / _NOTES.replace("*", f"-{found[1]}" if found else "")
    fields = {"folder": os.path.abspath(folder), "name": name, "private": private, "keep": keep}
    _write(note, json.dumps(fields))
    try:
        yield
    finally:
        if not os.path.lexists(os.path.join(folder, private)):
            note.unlink(missing_ok=True)


def _write(note: Path, text: str) -> None:
    temporary = note.with_suffix(".tmp")
    with suppress(FileNotFoundError):
        temporary.unlink()
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(file, "w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    os.replace(temporary, note)


def put_back() -> list[Failure]:
    """Restore the names of the files that killed runs set aside; return failures.

    Call this function under `discarding_lock`.
    """
    return [failure for note in sorted(_state().glob(_NOTES)) for failure in _put_back(note)]


def _put_back(note: Path) -> list[Failure]:
    try:
        fields = json.loads(note.read_text())
        folder, name, private = fields["folder"], fields["name"], fields["private"]
        keep = str(fields.get("keep", ""))
        if not (_PRIVATE.match(private) and _is_name(private) and _is_name(name)):
            raise ValueError
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError):
        note.unlink(missing_ok=True)
        return []
    path = os.path.join(folder, name)
    try:
        there = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:  # perhaps an unplugged drive: the next run may find it
        return [Failure(path, f"was set aside as {private}, and {reason_of(error)}")]
    try:
        if stat.S_ISREG(os.stat(private, dir_fd=there, follow_symlinks=False).st_mode):
            if keep:
                unlink_link(there, name, keep)
            rename_back(there, private, name)
    except FileNotFoundError:
        pass  # it was removed, or has its name back
    except OSError as error:
        return [Failure(path, f"was set aside as {private}, and {reason_of(error)}")]
    finally:
        os.close(there)
    note.unlink(missing_ok=True)
    return []


def _is_name(name: str) -> bool:
    return name not in ("", ".", "..") and not set("/\0") & set(name)


def unlink_link(folder: int, name: str, keep: str) -> None:
    """Remove a hard link to a kept file, if a name is one; that file has another name, then.

    Args:
        folder: Descriptor of the folder.
        name: The name that may be a link.
        keep: The path of the kept file.
    """
    with suppress(OSError):
        above = os.stat(os.path.dirname(keep))
        if os.path.basename(keep) == name and os.path.samestat(above, os.fstat(folder)):
            return  # it is that file itself
        link = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if link.st_nlink > 1 and os.path.samestat(link, os.lstat(keep)):
            os.unlink(name, dir_fd=folder)


def rename_back(folder: int, private: str, name: str) -> None:
    """Restore the name of a file, without replacing anything that has taken that name.

    Args:
        folder: Descriptor of the folder.
        private: The name that the file has.
        name: The name to restore.

    Raises:
        FileExistsError: If something else has that name.
        OSError: If the file cannot be renamed.
    """
    try:
        os.link(private, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except FileExistsError:
        status = [os.stat(each, dir_fd=folder, follow_symlinks=False) for each in (private, name)]
        if not os.path.samestat(*status):
            raise
        os.unlink(private, dir_fd=folder)  # a run was killed between the two steps below
    except OSError:  # a file system without hard links
        if os.access(name, os.F_OK, dir_fd=folder, follow_symlinks=False):
            raise FileExistsError(name) from None
        os.rename(private, name, src_dir_fd=folder, dst_dir_fd=folder)
    else:
        os.unlink(private, dir_fd=folder)
