"""Move a file to the trash of the system, from where the user can restore it."""

from __future__ import annotations

import errno
import os

from imgsearch.errors import PackageError, PicklableError

__all__ = ["NoTrashError", "check_trash", "move_to_trash"]


class NoTrashError(PicklableError):
    """The reason why a file cannot be moved to the trash; it is where it was.

    Attributes:
        alone: Whether this is about the file alone, so that the trash may take others.
    """

    def __init__(self, why: str, *, alone: bool = False) -> None:
        super().__init__(f"cannot be moved to the trash: {why}")
        self.alone = alone


def check_trash() -> None:
    """Check that the package is there that knows the trash.

    Raises:
        PackageError: If it is not.
    """
    try:
        import send2trash  # noqa: F401 - imported here, as only this needs it
    except ImportError as error:
        raise PackageError(
            "moving files to the trash needs the package send2trash; install it with `pip install "
            "send2trash`, or pass --delete-forever",
            None,
        ) from error


def move_to_trash(path: str) -> None:
    """Move a file to the trash, under its own name.

    Raises:
        NoTrashError: If there is no trash for its file system, or it does not take the file.
    """
    from send2trash import send2trash

    before = os.lstat(path)
    try:
        send2trash(path)
    except OSError as error:  # TrashPermissionError is one
        if not os.access(path, os.W_OK):
            raise NoTrashError("it is write-protected", alone=True) from error
        if error.errno == errno.ENAMETOOLONG:  # with the suffix of the trash
            raise NoTrashError("its name is too long for the trash", alone=True) from error
        raise NoTrashError(os.strerror(error.errno) if error.errno else str(error)) from error
    except Exception as error:  # of the system's own library, such as GLib.Error
        raise NoTrashError(str(error)) from error
    if os.path.lexists(path) and os.path.samestat(os.lstat(path), before):
        raise NoTrashError("it is still there")
