"""Find the images that arguments name: files, all images under a folder, or one on stdin."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from imgsearch.errors import InputError
from imgsearch.files.listing import Unreadable, list_files
from imgsearch.files.paths import located
from imgsearch.files.sources import is_folder

__all__ = ["STDIN", "Picture", "pictures"]

STDIN = "-"


@dataclass(frozen=True, slots=True)
class Picture:
    """A query image.

    Attributes:
        name: The name as it was given, for people to read.
        path: The absolute path; `STDIN` for the image on stdin.
        source: The path of the image, or its content.
        listed: Whether it was found in a folder, so that it might not be an image at all.
    """

    name: str
    path: str
    source: str | bytes
    listed: bool = False


def pictures(argument: str) -> Iterator[Picture | InputError]:
    """Yield the images that an argument names, and an error for each that cannot be read."""
    from imgsearch.files.paths import plain_path

    if argument == STDIN:
        yield _on_stdin()
        return
    try:
        source, path = located(argument), os.fsdecode(plain_path(argument))
    except InputError as error:
        yield error
        return
    if is_folder(os.fsencode(path)):
        yield from _under(argument, path)
    else:
        yield Picture(argument, path, os.fsdecode(source))


def _on_stdin() -> Picture | InputError:
    content = sys.stdin.buffer.read() if sys.stdin else b""
    if not content:
        return InputError("-: there is nothing on stdin; send it an image, as in `< cat.jpg`")
    return Picture(STDIN, STDIN, content)


def _under(argument: str, folder: str) -> Iterator[Picture | InputError]:
    for listing in list_files([os.fsencode(folder)], set()):
        if isinstance(listing, Unreadable):
            yield InputError(f"{os.fsdecode(listing.folder)}: cannot be listed: {listing.reason}")
            continue
        for file in listing.files:
            path = os.fsdecode(os.path.join(listing.folder, file.name))
            name = os.path.join(argument, os.path.relpath(path, folder))
            yield Picture(name, path, path, listed=True)
