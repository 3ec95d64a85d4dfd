"""Exceptions: each carries its facts, its message and the exit code of the command line.

::

    ImgsearchError
    ├── SettingError        2  an option or a configuration file that makes no sense
    ├── InputError          3  a path, an image or an embedding that cannot be used
    │   ├── ImageError          a file that is no image, or that cannot be decoded
    │   ├── GoneError           files are missing that an unplugged drive may hold
    │   ├── NoCollectionError   there is no collection where one was looked for
    │   └── NoImageError        the collection has no image with an id
    ├── DamagedError        4  a file of the collection is damaged, missing or of another format
    ├── BusyError           5  another process is writing to the collection
    ├── ModelError          6  the model, its weights, its device or its cluster cannot be had
    │   └── UntrustedModelError a model that imgsearch did not export
    ├── PackageError        6  a package is not installed
    └── StorageError        7  the disk cannot be read or written
"""

from __future__ import annotations

import errno
from typing import Any, ClassVar

__all__ = [
    "REPAIR_IT",
    "UPDATE",
    "BusyError",
    "DamagedError",
    "GoneError",
    "ImageError",
    "ImgsearchError",
    "InputError",
    "ModelError",
    "NoCollectionError",
    "NoImageError",
    "PackageError",
    "PicklableError",
    "SettingError",
    "StorageError",
    "UntrustedModelError",
    "missing",
    "reason_of",
    "url_package_error",
]


#: What to do about damage.
REPAIR_IT = "`imgsearch verify --repair` may repair it, or restore it from a backup"

#: How a newer imgsearch is installed.
UPDATE = "update imgsearch: `git pull`, then `pip install .`, in its checkout"


class PicklableError(Exception):
    """An exception that a process can send to another, whatever its constructor takes."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how to make it again; an exception by itself would be called with its message."""
        return _made_again, (type(self), self.args, self.__dict__)


def _made_again(
    kind: type[PicklableError], args: tuple[Any, ...], attributes: dict[str, Any]
) -> PicklableError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(attributes)
    return error


class ImgsearchError(PicklableError):
    """Say what failed, where, and the remedy, in one line."""

    exit_code: ClassVar[int] = 1


class SettingError(ImgsearchError):
    """Refuse an option, or a combination of options."""

    exit_code = 2


class InputError(ImgsearchError):
    """Refuse a path, an image or an embedding that was given."""

    exit_code = 3


class ImageError(InputError):
    """Refuse one image.

    Attributes:
        path: where it is, or a word for where it came from.
        reason: why it cannot be used, without the path.
        recognised: whether the content looked like a supported image format at all.
        transient: whether another attempt on the same content could succeed.
        limited: whether it is beyond a limit, of pixels or of memory, which can be raised.
    """

    def __init__(
        self,
        path: str,
        reason: str,
        *,
        recognised: bool = True,
        transient: bool = False,
        limited: bool = False,
    ) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason
        self.recognised = recognised
        self.transient = transient
        self.limited = limited


class GoneError(InputError):
    """Refuse to drop images whose files are missing as if a drive were unplugged.

    Attributes:
        report: what the run did all the same, an `imgsearch.indexing.report.IndexReport`.
    """

    def __init__(self, message: str, report: object = None) -> None:
        super().__init__(message)
        self.report = report


class NoCollectionError(InputError):
    """Report that there is no collection at a path."""


class NoImageError(InputError):
    """Report that a collection has no image with an id (any more)."""

    def __init__(self, id_: int) -> None:
        super().__init__(f"there is no image with the id {id_} in the collection")


class DamagedError(ImgsearchError):
    """Report a collection whose files do not fit together."""

    exit_code = 4


class BusyError(ImgsearchError):
    """Report that another writer holds the collection."""

    exit_code = 5


class ModelError(ImgsearchError):
    """Report that a model, its weights, or the device or cluster to run it cannot be had."""

    exit_code = 6


class PackageError(ImgsearchError):
    """Report that a package is not installed.

    Attributes:
        extra: the extra of imgsearch that brings it, as in pyproject.toml; None if none does.
    """

    exit_code = 6

    def __init__(self, what: str, extra: str | None) -> None:
        """Say in `what` what needs which package, and how to install it where no extra does."""
        how = f"; install it with `pip install '.[{extra}]'` in a checkout of imgsearch"
        super().__init__(what + how if extra else what)
        self.extra = extra


class UntrustedModelError(ModelError):
    """Refuse to run a model that imgsearch did not export."""


class StorageError(ImgsearchError):
    """Report that the disk cannot be read or written."""

    exit_code = 7


def url_package_error(url: str, error: ImportError) -> PackageError:
    """Return which package a kind of URL lacks: fsspec, or the one that fsspec names."""
    if str(error.name).partition(".")[0] == "fsspec":
        return PackageError(f"{url} needs fsspec, which is not installed", "fsspec")
    reason = reason_of(error).rstrip(".")
    return PackageError(f"{url} needs a package that is not installed: {reason}", None)


def missing(error: FileNotFoundError) -> DamagedError:
    """Turn the absence of a file that the catalog names into damage."""
    return DamagedError(f"{error.filename} is missing; {REPAIR_IT}")


def reason_of(error: BaseException) -> str:
    """Return what an exception says, on one line, without a path that the caller states anyway."""
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return "its path is too long for this system; move it up, or shorten a name"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
