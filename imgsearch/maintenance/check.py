"""Check the files of a collection against their checksums, and against one another."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from imgsearch.ann.inverted import InvertedFile
from imgsearch.ann.vectors import Ids
from imgsearch.errors import REPAIR_IT, DamagedError, ImgsearchError, StorageError, reason_of
from imgsearch.files.opening import is_there
from imgsearch.maintenance.damage import Damage, Oddity, Part
from imgsearch.querying.segments import open_segment
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.distinct import read_distinct
from imgsearch.storage.files import read_file, sha256_of
from imgsearch.storage.fingerprints import open_prints, prints_name
from imgsearch.storage.layers import layer_name, open_layer
from imgsearch.storage.layout import FORMAT_VERSION, MAX_MANIFEST, MAX_MODEL, Layout, manifest_of
from imgsearch.storage.records import Segment, Shard, Snapshot
from imgsearch.storage.seal import check_sealed, read_seal
from imgsearch.storage.shards import open_ids, open_shard, shard_files

__all__ = [
    "Checker",
    "check_catalog",
    "check_manifest",
    "check_parts",
    "is_older",
    "oddities_of",
    "owners_of",
]

ALTERED = "has changed since it was written: its SHA-256 differs"


def is_older(layout: Layout) -> bool:
    """Tell whether a collection has an older format version, or is being migrated from one.

    Its catalog says so; if that is sealed, migration is complete, and the manifest is damaged.

    Raises:
        NoCollectionError: If there is no collection.
        StorageError: If it cannot be read.
    """
    try:
        if layout.version() == FORMAT_VERSION:
            return False
        return not (_is_of_this_format(layout.catalog) and check_sealed(layout))
    except DamagedError:
        return False


def check_parts(layout: Layout) -> list[Damage]:
    """Check that the folders and the lock are sound: otherwise nothing can be read."""
    own = {layout.manifest, layout.catalog, layout.seal, layout.copy, layout.model}
    own |= {layout.words, layout.distinct}
    return [
        Damage(Part.FOREIGN, str(path.relative_to(layout.directory)), _reason(error, path))
        for path, error in layout.wrong_parts()
        if path not in own  # these have checks of their own
    ]


def oddities_of(layout: Layout) -> tuple[list[Damage], list[Oddity]]:
    """Return foreign entries of a collection: those that may do harm, and harmless ones."""
    damages, oddities = [], []
    known = {layout.manifest.name, layout.catalog.name, layout.seal.name, layout.copy.name}
    known |= {layout.model.name, layout.words.name, layout.lock.name, layout.distinct.name}
    for name, kind in layout.foreign_files():
        if kind in ("is a file", "is a folder"):
            oddities.append(Oddity(name, f"{kind} that imgsearch does not know"))
        elif name not in known:
            damages.append(Damage(Part.FOREIGN, name, f"{kind}, which imgsearch never makes"))
    size = layout.lock.lstat().st_size if is_there(layout.lock) else 0
    if size:
        reason = f"has {size:,} bytes; imgsearch leaves it empty"
        oddities.append(Oddity(layout.lock.name, reason))
    return damages, oddities


def check_manifest(layout: Layout, *, older: bool = False) -> list[Damage]:
    """Check the manifest, which may be of an older format.

    Raises:
        NoCollectionError: If there is no collection.
        DamagedError: If this imgsearch cannot read its format.
        StorageError: If it cannot be read.
    """
    try:
        version = layout.version()
        content = read_file(layout.manifest, MAX_MANIFEST)
        if content == manifest_of(version if older else FORMAT_VERSION):
            return []
        reason = "has changed since it was written"
    except DamagedError as error:
        if not (_is_of_this_format(layout.catalog) or _is_of_this_format(layout.copy)):
            raise  # its version may be right
        reason = _reason(error, layout.manifest)
    return [Damage(Part.MANIFEST, layout.manifest.name, reason)]


def check_catalog(layout: Layout, *, older: bool = False) -> tuple[list[Damage], bool]:
    """Check the catalog, its seal and its copy; also tell whether its present state is sealed.

    A catalog of an `older` format need not have a seal.
    """
    damages: list[Damage] = []
    sealed = False
    try:
        seal = read_seal(layout)
    except FileNotFoundError:
        seal = None
        if not older:
            damages.append(Damage(Part.SEAL, layout.seal.name, "is missing"))
    except DamagedError as error:
        seal = None
        reason = _reason(error, layout.seal)
        reason = "has changed since it was written" if reason == "is damaged" else reason
        damages.append(Damage(Part.SEAL, layout.seal.name, reason))
    try:
        if seal is not None:
            sealed = check_sealed(layout)
        elif not _is_sound(layout.catalog):
            damages.append(Damage(Part.CATALOG, layout.catalog.name, "SQLite finds it damaged"))
    except DamagedError as error:
        reason = _reason(error, layout.catalog)
        reason = ALTERED if reason == "does not match its seal" else reason
        damages.append(Damage(Part.CATALOG, layout.catalog.name, reason))
    if seal is not None and (sealed or damages):
        reason_or_none = _altered(layout.copy, bytes.fromhex(seal.sha256), None)
        if reason_or_none is not None:
            damages.append(Damage(Part.COPY, layout.copy.name, reason_or_none))
    return damages, sealed


@dataclass(slots=True)
class Checker:
    """A check of everything that a sound catalog names; counts files, bytes and leftovers.

    `progress` is called with the number of bytes read.
    """

    layout: Layout
    catalog: Catalog
    snapshot: Snapshot
    progress: Callable[[int], None]
    files: int = 0
    size: int = 0
    leftovers: int = 0
    sound: list[InvertedFile] = field(default_factory=list)

    def check(self) -> Iterator[Damage]:
        """Yield all damage; afterwards, `sound` holds the undamaged segments."""
        model = self.snapshot.model
        for path, sha256 in (
            (self.layout.model, model.onnx_sha256),
            (self.layout.words, model.words_sha256),
        ):
            if sha256 is None:
                continue
            held = self.layout.held(path, sha256)
            if reason := self._read(held, bytes.fromhex(sha256), MAX_MODEL):
                yield Damage(Part.MODEL, path.name, reason)
        removed = np.array(self.snapshot.removed, np.int64)
        for shard in self.snapshot.shards:
            yield from self._check_shard(shard, removed)
        yield from self._check_images()
        yield from self._check_index(removed)
        yield from self._check_ranking()
        yield from self._check_prints()
        yield from self._check_distinct()
        yield from self._check_replaced()

    def _read(self, path: Path, sha256: bytes, most: int | None = None) -> str | None:
        """Return the fault of a file, or None if it is sound."""
        reason = _altered(path, sha256, most)
        if reason is None:
            self.files += 1
            size = path.stat().st_size
            self.size += size
            self.progress(size)
        return reason

    def _check_shard(self, shard: Shard, removed: Ids) -> Iterator[Damage]:
        folder = self.layout.vectors
        for name, sha256 in shard_files(shard).items():
            if reason := self._read(folder / name, sha256):
                yield Damage(Part.SHARD, f"{folder.name}/{name}", reason, shard)
                return
        try:
            ids = open_ids(folder, shard)
            rows = len(open_shard(folder, shard, self.snapshot.model.dim))
            fits = rows == len(ids) and np.array_equal(ids, owners_of(self.catalog, shard, removed))
        except DamagedError:
            fits = False
        if not fits:
            name = f"{folder.name}/{next(iter(shard_files(shard)))}"
            reason = "its rows do not match the images in the catalog"
            yield Damage(Part.SHARD, name, reason, shard)

    def _check_images(self) -> Iterator[Damage]:
        """Check that every id, of a present or removed image, is in the range of a shard."""
        ids = np.sort(np.array([*self.catalog.image_ids(), *self.snapshot.removed], np.int64))
        covered = np.zeros(ids.shape, np.bool_)
        for shard in self.snapshot.shards:
            start, end = np.searchsorted(ids, (shard.first_id, shard.last_id + 1))
            covered[start:end] = True
        lost = ids[~covered]
        if lost.size:
            reason = f"names {lost.size:,} ids without an embedding"
            name = self.layout.catalog.name
            yield Damage(Part.IMAGES, name, reason, ids=tuple(lost.tolist()))

    def _check_index(self, removed: Ids) -> Iterator[Damage]:
        following = 1
        for segment in self.snapshot.segments:
            path = self.layout.segment(segment.number)
            name = f"{self.layout.segments.name}/{path.name}"
            reason = self._read(path, segment.sha256)
            if reason is None and segment.first_id != following:
                reason = f"begins with id {segment.first_id}, not {following}"
            if reason is None:
                reason = self._misfit(segment, removed)
            if reason is not None:
                yield Damage(Part.INDEX, name, reason)
            following = segment.last_id + 1

    def _misfit(self, segment: Segment, removed: Ids) -> str | None:
        """Return how a segment contradicts its row or other segments, None if it is sound."""
        ivf, dim = self.snapshot.ivf, self.snapshot.model.dim
        other = "is not the index named in the catalog"
        if ivf is None:
            return other
        try:
            index = open_segment(self.layout, segment, compact=ivf.pca is not None)
        except DamagedError:
            return other
        if (index.nlist, index.dim, index.pca) != (ivf.nlist, dim, ivf.pca):
            return other
        if self.sound and not self.sound[0].is_trained_as(index):
            return "has other centroids than the first segment"
        if reason := self._uncovered(segment, index, removed):
            return reason
        self.sound.append(index)
        return None

    def _uncovered(self, segment: Segment, index: InvertedFile, removed: Ids) -> str | None:
        """Return how a segment differs from the images it should cover, None if it does not."""
        ids = np.sort(np.concatenate([np.empty(0, np.int64), *index.list_ids()]))
        images = np.array(self.catalog.image_ids(segment.first_id, segment.last_id), np.int64)
        if (np.diff(ids) == 0).any():
            return "lists an image twice"
        if np.setdiff1d(images, ids, assume_unique=True).size:
            return "lacks images that it should cover"
        if np.setdiff1d(ids, np.concatenate([images, removed])).size:
            return "lists images that do not exist"
        return None

    def _check_ranking(self) -> Iterator[Damage]:
        """Check the layers; their rows may also be of images that are gone."""
        folder, dim = self.layout.layers, self.snapshot.model.dim
        for layer in self.snapshot.layers:
            name = layer_name(layer.number)
            reason = self._read(folder / name, layer.sha256)
            if reason is None:
                try:
                    ids = open_layer(folder, layer, dim).ids
                    sound = bool((np.diff(ids) > 0).all()) and ids[0] > 0
                except DamagedError:
                    sound = False
                reason = None if sound else "is not the layer that the catalog names"
            if reason is not None:
                yield Damage(Part.RANKING, f"{folder.name}/{name}", reason)

    def _check_prints(self) -> Iterator[Damage]:
        """Check the fingerprints; some may be of images that are gone, and some may be missing."""
        folder = self.layout.fingerprints
        for file in self.catalog.prints():
            name = prints_name(file.number)
            reason = self._read(folder / name, file.sha256)
            if reason is None:
                try:
                    ids = open_prints(folder, file).ids
                    sound = bool((np.diff(ids) > 0).all()) and ids[0] > 0
                except DamagedError:
                    sound = False
                reason = None if sound else "is not the file of fingerprints that the catalog names"
            if reason is not None:
                yield Damage(Part.FINGERPRINTS, f"{folder.name}/{name}", reason)

    def _check_distinct(self) -> Iterator[Damage]:
        """Check what somebody judged not to be copies of one another, if there is anything."""
        try:
            judged = bool(read_distinct(self.layout).sets)
        except DamagedError as error:
            reason = _reason(error, self.layout.distinct)
            yield Damage(Part.DISTINCT, self.layout.distinct.name, reason)
            return
        if judged:
            self.files += 1
            size = self.layout.distinct.stat().st_size
            self.size += size
            self.progress(size)

    def _check_replaced(self) -> Iterator[Damage]:
        replaced = self.catalog.replaced()
        shards = {name for shard in self.snapshot.shards for name in shard_files(shard)}
        segments = {self.layout.segment(each.number).name for each in self.snapshot.segments}
        layers = {layer_name(each.number) for each in self.snapshot.layers}
        prints = {prints_name(each.number) for each in self.catalog.prints()}
        for folder in self.layout.folders:
            for path in sorted(folder.glob("*")):  # none if the folder itself is missing
                if path.name in shards | segments | layers | prints:
                    continue
                if path.is_symlink():
                    stray = f"{folder.name}/{path.name}"
                    yield Damage(Part.REPLACED, stray, "is a link, which imgsearch never makes")
                elif path.name not in replaced:
                    self.leftovers += 1
                elif reason := self._read(path, replaced[path.name]):
                    yield Damage(Part.REPLACED, f"{folder.name}/{path.name}", reason)


def owners_of(catalog: Catalog, shard: Shard, removed: Ids) -> Ids:
    """Return the sorted ids that have rows in a shard: of present and of removed images."""
    images = np.array(catalog.image_ids(shard.first_id, shard.last_id), np.int64)
    start, end = np.searchsorted(removed, (shard.first_id, shard.last_id + 1))
    return np.sort(np.concatenate([images, removed[start:end]]))


def _altered(path: Path, sha256: bytes, most: int | None) -> str | None:
    """Return the fault of a file, or None if it has this SHA-256."""
    try:
        return None if sha256_of(path, most) == sha256 else ALTERED
    except FileNotFoundError:
        return "is missing"
    except DamagedError as error:
        return _reason(error, path)
    except StorageError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno == errno.EIO:  # a bad block on the disk
            return f"cannot be read: {reason_of(cause)}"
        raise


def _reason(error: DamagedError, path: Path) -> str:
    """Return the reason in an error about a file, without its path and the remedy."""
    text = str(error).removesuffix(f"; {REPAIR_IT}").removeprefix(f"{path} ")
    return text.removeprefix(f"{path.parent}{os.sep}")


def _is_of_this_format(path: Path) -> bool:
    """Tell whether a catalog, or its copy, declares the present format."""
    try:
        with closing(Catalog(path)) as catalog:
            return catalog.format_version() == FORMAT_VERSION
    except ImgsearchError:
        return False


def _is_sound(path: Path) -> bool:
    with closing(Catalog(path)) as catalog:
        return catalog.is_sound()
