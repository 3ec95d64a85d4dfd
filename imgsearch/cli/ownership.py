"""Refuse a collection that was found by itself and belongs to another user.

Whoever may write to a folder above the one that somebody works in could put a collection there. As
with git's `safe.directory`, a collection is trusted that is named with -c, or listed by its user.
"""

from __future__ import annotations

import os
import pwd
import tomllib
from collections.abc import Iterator
from pathlib import Path

from imgsearch.errors import InputError, SettingError, StorageError, reason_of
from imgsearch.files.opening import read_limited

__all__ = ["check_owner"]

MOST = 1 << 20  # bytes of a configuration


def check_owner(directory: Path) -> None:
    """Check that a collection, and all that is in it, belongs to its user, or is trusted.

    Raises:
        InputError: it does not.
        SettingError: the user's list of what is trusted cannot be understood.
        StorageError: it cannot be read.
    """
    own = _own_users()
    try:
        foreign = next((path for path, user in _owners(directory) if user not in own), None)
        owner = None if foreign is None else foreign.lstat().st_uid
    except OSError as error:
        raise StorageError(f"cannot read {directory}: {reason_of(error)}") from error
    if owner is None or _is_trusted(directory):
        return
    raise InputError(
        f"{foreign} belongs to {_name_of(owner)}: to trust this collection, name it with "
        f"-c {directory}, or list it as trusted in {_config()}"
    )


def _own_users() -> set[int]:
    """Return whose files are trusted: one's own; with sudo also those of who called it."""
    user = os.geteuid()
    caller = os.environ.get("SUDO_UID", "")
    return {user, int(caller)} if user == 0 and caller.isdecimal() else {user}


def _owners(directory: Path) -> Iterator[tuple[Path, int]]:
    """Yield the owner of a collection, of its files and of those in its folders."""
    yield directory, directory.lstat().st_uid  # it may be a link
    yield directory, directory.stat().st_uid
    with os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            yield Path(entry.path), entry.stat(follow_symlinks=False).st_uid
            if entry.is_dir(follow_symlinks=False):
                with os.scandir(entry.path) as inside:
                    inner = [Path(each.path) for each in inside]
                yield from ((path, path.lstat().st_uid) for path in inner)


def _is_trusted(directory: Path) -> bool:
    """Tell whether its user has listed a collection, or a folder that it is in."""
    real = Path(os.path.realpath(directory))
    listed = (Path(os.path.realpath(os.path.expanduser(path))) for path in _listed())
    return any(real.is_relative_to(path) for path in listed)


def _listed() -> list[str]:
    path = _config()
    try:
        settings = tomllib.loads(read_limited(Path(os.path.realpath(path)), MOST).decode())
    except FileNotFoundError:
        return []
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"{path} is not a TOML file: {error}") from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {reason_of(error)}") from error
    trusted = settings.get("trusted", [])
    if not isinstance(trusted, list) or not all(
        isinstance(each, str) and os.path.isabs(os.path.expanduser(each)) for each in trusted
    ):
        raise SettingError(f"{path}: trusted must be a list of absolute paths")
    return trusted


def _config() -> Path:
    """Return the user's own configuration, which need not be there."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    folder = base if os.path.isabs(base) else os.path.expanduser("~/.config")
    return Path(folder, "imgsearch", "config.toml")


def _name_of(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"
