"""Find the collection that a command works on, and refuse one that belongs to another user."""

from __future__ import annotations

import os
import pwd
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
from click.core import ParameterSource

from imgsearch.errors import (
    ImgsearchError,
    InputError,
    NoCollectionError,
    SettingError,
    StorageError,
    reason_of,
)
from imgsearch.files.opening import read_limited
from imgsearch.storage.layout import Layout

__all__ = ["check_owner", "locate", "locate_any"]


HIDDEN = ".imgsearch"
MOST = 1 << 20  # bytes of a configuration


def locate(ctx: click.Context, collection: Path | str | None) -> Path:
    """Return the collection's directory; see `locate_any`.

    Raises:
        SettingError: it is no directory.
    """
    found = locate_any(ctx, collection)
    if isinstance(found, Path):
        return found
    raise SettingError(
        f"`imgsearch {ctx.info_name}` works on a collection in a directory, not on {found}; "
        "`index`, `query`, `info`, `remove`, `evaluate` and `serve` do on both"
    )


def locate_any(
    ctx: click.Context, collection: Path | str | None, *, make: bool = False
) -> Path | str:
    """Return the collection's directory, or the URL of what is elsewhere.

    The one given after the command or before it, the nearest `.imgsearch` from here upwards, or
    `./.imgsearch`. One that was not given has to belong to the user.

    Args:
        ctx: of the command.
        collection: that it was given.
        make: there need not be one: the command makes it.

    Raises:
        NoCollectionError: none is given, and there is none here nor in a folder above.
        InputError: the one that was found belongs to another user.
    """
    # What is given before the command comes before a variable or a file, which stand for both.
    after = ctx.get_parameter_source("collection") is ParameterSource.COMMANDLINE
    given = collection if after else ctx.obj or collection
    if isinstance(given, Path | str):
        return given
    here = Path.cwd()
    near = (folder / HIDDEN for folder in (here, *here.parents))
    found = next((path for path in near if Layout(path).exists()), None)
    nearest = found or here / HIDDEN
    if os.path.lexists(nearest):
        check_owner(nearest)
    if found is None and not make:
        _check_none(here)
    return nearest


def _check_none(here: Path) -> None:
    """Raise `NoCollectionError`, unless there is a damaged collection, about which others raise."""
    try:
        Layout(here / HIDDEN).version()
    except NoCollectionError as error:
        raise NoCollectionError(
            f"there is no collection at {here / HIDDEN}, nor in any folder above; make one with "
            "`imgsearch index FOLDER`, or name one with -c DIR or IMGSEARCH_COLLECTION"
        ) from error
    except ImgsearchError:
        return


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
