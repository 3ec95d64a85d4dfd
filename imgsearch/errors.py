"""Exceptions, each with its facts, its message and its exit code on the command line.

::

    ImgsearchError
    ├── SettingError        2  an option or a configuration file that makes no sense
    ├── InputError          3  a path, an image or an embedding that cannot be used
    │   ├── ImageError          a file that is not an image, or that cannot be decoded
    │   ├── GoneError           missing files that may be on an unplugged drive
    │   ├── NoCollectionError   there is no collection at the given location
    │   ├── NoImageError        the collection has no image with the given id
    │   └── NoMapError          no map of the collection was made
    ├── DamagedError        4  a file of the collection is damaged, missing or of another format
    ├── BusyError           5  another process is writing to the collection
    ├── ModelError          6  the model, its weights, its device or its cluster is unavailable
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
    "NoMapError",
    "PackageError",
    "PicklableError",
    "SettingError",
    "StorageError",
    "UntrustedModelError",
    "check_installed",
    "is_installed",
    "missing",
    "reason_of",
    "url_package_error",
]


#: What to do about damage.
REPAIR_IT = "`imgsearch verify --repair` may repair it, or restore it from a backup"

#: How to install a newer imgsearch.
UPDATE = "update imgsearch: `git pull`, then `pip install .`, in its checkout"


class PicklableError(Exception):
    """An exception that can be sent to another process, whatever its constructor takes."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how to rebuild the exception; the default would call its class with `args`."""
        return _made_again, (type(self), self.args, self.__dict__)


def _made_again(
    kind: type[PicklableError], args: tuple[Any, ...], attributes: dict[str, Any]
) -> PicklableError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(attributes)
    return error


class ImgsearchError(PicklableError):
    """An error whose message says what failed, where, and what to do about it, in one line."""

    exit_code: ClassVar[int] = 1


class SettingError(ImgsearchError):
    """An option, or a combination of options, that makes no sense."""

    exit_code = 2


class InputError(ImgsearchError):
    """A path, an image or an embedding that cannot be used."""

    exit_code = 3


class ImageError(InputError):
    """An image that cannot be used.

    Attributes:
        path: The path of the image, or a word for its origin.
        reason: The reason why the image cannot be used, without the path.
        recognised: Whether the content looked like a supported image format at all.
        transient: Whether another attempt on the same content could succeed.
        limited: Whether the image exceeds a limit on pixels or memory, which can be raised.
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
    """A refusal to drop images whose files are missing as if a drive were unplugged.

    Attributes:
        report: The `imgsearch.indexing.report.IndexReport` of what the run did all the same.
    """

    def __init__(self, message: str, report: object = None) -> None:
        super().__init__(message)
        self.report = report


class NoCollectionError(InputError):
    """The absence of a collection at a path."""


class NoImageError(InputError):
    """An id that no image of the collection has, or has any longer."""

    def __init__(self, id_: int) -> None:
        super().__init__(f"there is no image with the id {id_} in the collection")


class NoMapError(InputError):
    """A collection of which no map was made."""

    def __init__(self, where: object) -> None:
        super().__init__(f"there is no map of {where} yet; make one with `imgsearch map`")


class DamagedError(ImgsearchError):
    """A collection whose files do not fit together."""

    exit_code = 4


class BusyError(ImgsearchError):
    """A collection that another process is writing to."""

    exit_code = 5


class ModelError(ImgsearchError):
    """A model that is unavailable, or whose weights, device or cluster are."""

    exit_code = 6


class PackageError(ImgsearchError):
    """A package that is not installed.

    Attributes:
        extra: The extra in pyproject.toml that installs the package; None if none does.
    """

    exit_code = 6

    def __init__(self, what: str, extra: str | None = None) -> None:
        """Take a message that says what needs which package.

        Args:
            what: The message. Where no extra installs the package, it also says how to install it.
            extra: The extra that installs the package; None if none does.
        """
        how = f"; install it with `pip install '.[{extra}]'` in a checkout of imgsearch"
        super().__init__(what + how if extra else what)
        self.extra = extra


class UntrustedModelError(ModelError):
    """A model that was not exported by imgsearch, and is therefore not run."""


class StorageError(ImgsearchError):
    """A disk that cannot be read or written."""

    exit_code = 7


def check_installed(what: str, *packages: str) -> None:
    """Raise `PackageError` unless all packages that `what` needs are installed.

    A light installation (docs/install.md) lacks some of those that imgsearch depends on.
    """
    if lacking := [name for name in packages if not is_installed(name)]:
        are = "are" if len(lacking) > 1 else "is"
        how = f"`pip install {' '.join(lacking)}` adds what a light installation leaves out"
        raise PackageError(f"{what} needs {', '.join(lacking)}, which {are} not installed; {how}")


def is_installed(package: str) -> bool:
    """Tell whether a package can be imported, without importing it."""
    from importlib.util import find_spec

    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def url_package_error(url: str, error: ImportError) -> PackageError:
    """Return an error for the package that a URL needs: fsspec, or the one that fsspec names."""
    if str(error.name).partition(".")[0] == "fsspec":
        return PackageError(f"{url} needs fsspec, which is not installed", "fsspec")
    reason = reason_of(error).rstrip(".")
    return PackageError(f"{url} needs a package that is not installed: {reason}", None)


def missing(error: FileNotFoundError) -> DamagedError:
    """Return the error for a missing file that the catalog names."""
    return DamagedError(f"{error.filename} is missing; {REPAIR_IT}")


def reason_of(error: BaseException) -> str:
    """Return an exception's message on one line, without the path, which the caller states."""
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return "its path is too long for this system; move it up, or shorten a name"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
