"""Find the collection that a command works on, and refuse one that belongs to another user."""

from __future__ import annotations

import os
import pwd
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
MAX_CONFIG = 1 << 20  # maximum size of a configuration file in bytes


def locate(ctx: click.Context, collection: Path | str | None) -> Path:
    """Return the collection's directory; see `locate_any`.

    Raises:
        SettingError: If the collection is not in a directory.
    """
    found = locate_any(ctx, collection)
    if isinstance(found, Path):
        return found
    raise SettingError(
        f"`imgsearch {ctx.info_name}` works only on a collection in a directory, not on {found}; "
        f"`index`, `query`, `info`, `remove`, `evaluate` and `serve` work on both"
    )


def locate_any(
    ctx: click.Context, collection: Path | str | None, *, make: bool = False
) -> Path | str:
    """Return the collection's directory, or its URL if it is not in a directory.

    This is the collection given after or before the command, else the nearest `.imgsearch` in the
    current folder or one above it, else `./.imgsearch`. A collection that was not given must
    belong to the user.

    Args:
        ctx: Context of the command.
        collection: The collection given to the command.
        make: Whether the command can create the collection, so that it need not exist.

    Raises:
        NoCollectionError: If no collection is given, and there is none in the current folder or
            above it.
        InputError: If the collection that was found belongs to another user.
    """
    # The option before the command outranks a variable or a file, which set it in both positions.
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
    """Raise `NoCollectionError`, except for a damaged collection, which is reported elsewhere."""
    try:
        Layout(here / HIDDEN).version()
    except NoCollectionError as error:
        raise NoCollectionError(
            f"there is no collection at {here / HIDDEN}, nor in any folder above; create one with "
            "`imgsearch index FOLDER`, or name one with -c DIR or IMGSEARCH_COLLECTION"
        ) from error
    except ImgsearchError:
        return


def check_owner(directory: Path) -> None:
    """Check that a collection and everything in it belongs to the user, or is trusted.

    Raises:
        InputError: If it does not, and is not trusted.
        SettingError: If the user's list of trusted collections is malformed.
        StorageError: If the collection cannot be read.
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
    """Return the users whose files are trusted: this one and, under sudo, the one who ran it."""
    user = os.geteuid()
    caller = os.environ.get("SUDO_UID", "")
    return {user, int(caller)} if user == 0 and caller.isdecimal() else {user}


def _owners(directory: Path) -> Iterator[tuple[Path, int]]:
    """Yield the owners of a collection's directory, of its entries and of those one level down."""
    yield directory, directory.lstat().st_uid  # the directory may be a link
    yield directory, directory.stat().st_uid
    with os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            yield Path(entry.path), entry.stat(follow_symlinks=False).st_uid
            if entry.is_dir(follow_symlinks=False):
                with os.scandir(entry.path) as inside:
                    inner = [Path(each.path) for each in inside]
                yield from ((path, path.lstat().st_uid) for path in inner)


def _is_trusted(directory: Path) -> bool:
    """Tell whether the user has listed a collection, or a folder above it, as trusted."""
    real = Path(os.path.realpath(directory))
    listed = (Path(os.path.realpath(os.path.expanduser(path))) for path in _listed())
    return any(real.is_relative_to(path) for path in listed)


def _listed() -> list[str]:
    import tomllib

    path = _config()
    try:
        settings = tomllib.loads(read_limited(Path(os.path.realpath(path)), MAX_CONFIG).decode())
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
    """Return the path of the user's own configuration file, which need not exist."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    folder = base if os.path.isabs(base) else os.path.expanduser("~/.config")
    return Path(folder, "imgsearch", "config.toml")


def _name_of(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"
