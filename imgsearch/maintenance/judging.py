"""Remember in a collection which files somebody judged not to be copies of one another."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing

from imgsearch.errors import ImageError, InputError, NoImageError, SettingError
from imgsearch.files.paths import is_url, plain_path, real_path, resolved_path
from imgsearch.images.decode import ImageFile
from imgsearch.storage.catalog import Catalog, open_catalog
from imgsearch.storage.distinct import Distinct, read_distinct, write_distinct
from imgsearch.storage.files import exclusive
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import Entry

__all__ = ["forget_not_duplicates", "mark_not_duplicates"]

PathLike = str | os.PathLike[str]


def mark_not_duplicates(directory: PathLike, paths: Iterable[PathLike]) -> int:
    """Remember that no two of some images are copies of one another; return how many images.

    No group that `find_duplicates` returns will contain two of them. Their contents are remembered,
    so this holds wherever the files are moved, and as long as they do not change. Files with the
    same content can be judged, too: then all files with this content stay.

    Args:
        directory: The collection itself.
        paths: At least two images of the collection.

    Raises:
        SettingError: If there are fewer than two images.
        NoCollectionError: If there is no collection.
        InputError: If the collection has no image at a path, or the file there has changed.
        BusyError: If another process is writing to the collection.
        DamagedError: If a file of the collection is damaged.
        StorageError: If the disk cannot be read or written.
    """
    return _judge(directory, paths, Distinct.with_set)


def forget_not_duplicates(directory: PathLike, paths: Iterable[PathLike]) -> int:
    """Take back that no two of some images are copies; return how many images.

    Args:
        directory: The collection itself.
        paths: At least two images of the collection.

    Raises:
        The same as `mark_not_duplicates`.
    """
    return _judge(directory, paths, Distinct.without)


def _judge(
    directory: PathLike,
    paths: Iterable[PathLike],
    change: Callable[[Distinct, Sequence[bytes]], Distinct],
) -> int:
    layout = Layout.at(directory)
    layout.version()
    layout.check_parts()
    with exclusive(layout.directory), closing(open_catalog(layout)) as catalog:
        entries = {entry.id: entry for entry in (_entry_at(catalog, path) for path in paths)}
        if len(entries) < 2:
            raise SettingError("a judgement needs at least two images; nothing was changed")
        before = read_distinct(layout)
        after = change(before, [entry.digest for entry in entries.values()])
        if after != before:
            write_distinct(layout, after)
    return len(entries)


def _entry_at(catalog: Catalog, path: PathLike) -> Entry:
    """Return the entry of an image whose file, if it can be read, has not changed.

    Raises:
        InputError: If there is no such image, or its file has changed.
    """
    shown = os.fsdecode(path)
    for absolute in dict.fromkeys((plain_path(path), real_path(path), resolved_path(path))):
        id_ = catalog.id_of(absolute)
        if id_ is None:
            continue
        found = catalog.entries_of([id_])
        if not found:
            raise NoImageError(id_)
        if not is_url(absolute) and _has_changed(found[0]):
            raise InputError(
                f"{shown} has changed since it was indexed; run `imgsearch index`, and look at it "
                "again; nothing was changed"
            )
        return found[0]
    raise InputError(f"{shown}: the collection has no image there; nothing was changed")


def _has_changed(entry: Entry) -> bool:
    try:
        with ImageFile(entry.path) as file:
            return file.digest != entry.digest
    except ImageError:
        return os.path.exists(entry.path)  # not an image any more; on an unplugged drive, unknown
