"""Fill a collection that has no images yet: choose a folder below the home folder, and index it.

Whoever may do that is at this machine (`ServerOptions.may_fill`). Folders outside of the home
folder are refused in the same words whether or not they exist, and so are links that lead there.
"""

from __future__ import annotations

import os
from itertools import islice
from typing import Any

from starlette.exceptions import HTTPException

from imgsearch.collection import Collection
from imgsearch.errors import InputError, SettingError, reason_of
from imgsearch.files.paths import is_at
from imgsearch.images.formats import is_named_like_an_image
from imgsearch.storage.layout import backend_of
from imgsearch.web.job import Jobs
from imgsearch.web.job_process import Index

__all__ = ["Filling"]

MOST_ENTRIES = 20_000  # of a folder to look at
MOST_FOLDERS = 1_000  # of a folder to list


class Filling:
    """The first images of one collection. Its methods may be called from any thread, and block."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._jobs = Jobs("a folder is being indexed already")
        self._folder: str | None = None
        self._indexed: dict[str, int] | None = None

    def folders(self, path: str) -> dict[str, Any]:
        """Return the folders in a folder, and how many files there have the name of an image.

        Args:
            path: The folder; if it is not absolute, it is one in the home folder.

        Raises:
            InputError: If it is not a folder below the home folder, or cannot be listed.
            HTTPException: 403 if the collection has images.
        """
        self._check_empty()
        home, folder = _home(), _below_home(path)
        names, images = [], 0
        try:
            with os.scandir(folder) as found:
                for entry in islice(found, MOST_ENTRIES):
                    if entry.name.startswith(".") or not _is_text(entry.name):
                        continue
                    if _leads_to_folder(entry, home):
                        names.append(entry.name)
                    else:
                        images += is_named_like_an_image(entry.name)
        except OSError as error:
            raise InputError(f"{folder}: {reason_of(error)}") from error
        names.sort(key=str.casefold)
        parent = None if folder == home else os.path.dirname(folder)
        return {
            "path": folder,
            "parent": parent,
            "may_index": folder != home,
            "images": images,
            "folders": names[:MOST_FOLDERS],
        }

    def start(self, path: str) -> None:
        """Begin to index a folder.

        Raises:
            InputError: If it is not a folder below the home folder.
            SettingError: If it is the home folder itself, or the collection is not in a directory.
            HTTPException: 403 if the collection has images; 409 if a folder is being indexed.
        """
        folder = _below_home(path)
        if folder == _home():
            raise SettingError("choose a folder in your home folder, not all of it")
        with self._jobs.lock:
            self._jobs.check_free()
            self._check_empty()
            directory = self._collection.info().directory
            if backend_of(directory) is not None:
                raise SettingError("only a collection in a directory is filled from here")
            wanted = Index(directory=os.path.abspath(directory), folder=folder)
            self._jobs.start("index", wanted.message(), self._hear)
            self._folder, self._indexed = folder, None

    def cancel(self) -> None:
        """End the run, if there is one; the images that it has added stay."""
        self._jobs.cancel()

    def status(self) -> dict[str, Any]:
        """Tell what is being indexed, and how the latest run ended."""
        with self._jobs.lock:
            told = self._jobs.status()
            return {
                **told,
                "running": told["running"] is not None,
                "folder": self._folder,
                "seconds": round(self._jobs.seconds, 3),
                "indexed": self._indexed,
            }

    def close(self) -> None:
        """End the run, and accept no other."""
        self._jobs.close()

    def _check_empty(self) -> None:
        if self._collection.entries.count():
            raise HTTPException(
                403, "only a collection without images is filled from here; use imgsearch index"
            )

    def _hear(self, told: dict[str, Any]) -> bool:
        with self._jobs.lock:
            self._indexed = told.get("indexed")
        return "indexed" in told


def _home() -> str:
    """Return the home folder without links.

    Raises:
        SettingError: If there is none.
    """
    home = os.path.realpath(os.path.expanduser("~"))
    if home == "/" or not os.path.isdir(home):
        raise SettingError("you have no home folder; use imgsearch index")
    return home


def _below_home(path: str) -> str:
    """Return the real path of the home folder or a folder below it.

    Raises:
        InputError: If it is none, whether or not there is such a folder elsewhere.
    """
    home = _home()
    refusal = InputError(f"{path[:200]!r} is not a folder in your home folder")
    if not _is_text(path) or "\0" in path:
        raise refusal
    folder = os.path.realpath(os.path.join(home, os.path.expanduser(path)))
    if not _is_at(folder, home) or not os.path.isdir(folder):
        raise refusal
    return folder


def _leads_to_folder(entry: os.DirEntry[str], home: str) -> bool:
    """Tell whether an entry is a folder, or a link to one below the home folder."""
    try:
        if not entry.is_symlink():
            return entry.is_dir()
        return entry.is_dir() and _is_at(os.path.realpath(entry.path), home)
    except OSError:
        return False


def _is_at(path: str, folder: str) -> bool:
    return is_at(os.fsencode(path), os.fsencode(folder))


def _is_text(path: str) -> bool:
    """Tell whether a path can be sent as text: whether it is UTF-8."""
    return path.isprintable() or not any("\ud800" <= letter <= "\udfff" for letter in path)
