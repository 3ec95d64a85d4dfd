"""The catalog, as its one writer sees it. A transaction here is the only commit point."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple
from typing import ClassVar

from imgsearch.storage.catalog import Catalog
from imgsearch.storage.changes import (
    Commit,
    FileLocation,
    FolderLocation,
    NewFailure,
    NewImage,
    Seen,
    Stamp,
)
from imgsearch.storage.fingerprints import prints_name
from imgsearch.storage.layers import layer_name
from imgsearch.storage.layout import segment_name
from imgsearch.storage.records import (
    Facts,
    IvfRecord,
    Layer,
    ModelRecord,
    PrintFile,
    RankingRecord,
    Segment,
    Settings,
    Shard,
    Snapshot,
    Storage,
    text_of,
)
from imgsearch.storage.shards import shard_files

__all__ = ["CatalogWriter"]


class CatalogWriter(Catalog):
    """An open catalog that the holder of the collection's lock may write to."""

    _writes: ClassVar[bool] = True

    def begin(self, model: ModelRecord, settings: Settings) -> None:
        """Record the model and the settings of a new collection."""
        with self._database.transaction():
            *facts, exclude, include = astuple(settings)
            self._insert("settings", *facts, text_of(exclude), text_of(include))
            self._insert("model", *astuple(model))

    # Where to look

    def add_root(self, path: bytes, *, recursive: bool) -> None:
        """Add a root; an existing root may become recursive, but never the reverse."""
        self._run(
            "INSERT INTO roots (path, recursive) VALUES (?, ?) "
            "ON CONFLICT (path) DO UPDATE SET recursive = max(recursive, excluded.recursive)",
            path,
            recursive,
        )

    def move_roots(self, paths: Iterable[tuple[int, bytes]]) -> None:
        """Change the paths of roots, given by id."""
        paths = list(paths)
        with self._database.transaction():
            for root, _ in paths:  # out of the way: a root may move to another's old path
                self._run("UPDATE roots SET path = ? WHERE id = ?", b"%d" % root, root)
            for root, path in paths:
                self._run("UPDATE roots SET path = ? WHERE id = ?", path, root)

    def set_mounts(self, root: int, below: bytes, paths: Iterable[bytes]) -> None:
        """Record the mount points in a root, at or below the folder `below`."""
        with self._database.transaction():
            self._run(
                "DELETE FROM mounts WHERE root = ?1 "
                "AND (?2 = x'' OR path = ?2 OR (path >= ?3 AND path < ?4))",
                *(root, below, below + b"/", below + b"0"),  # "0" is the byte after "/"
            )
            self._database.run_many(
                "INSERT OR IGNORE INTO mounts VALUES (?, ?)", [(root, path) for path in paths]
            )

    def drop_root(self, root: int) -> None:
        """Forget a root that no longer has any known files."""
        with self._database.transaction():
            self._drop_root(root)

    # Images

    def next_shard(self) -> tuple[int, int]:
        """Return the number and first id of the next shard, neither of which was used before."""
        return self._last("shards") + 1, self._last("images") + 1

    def next_segment(self) -> int:
        """Return the number of the next segment, which was not used before."""
        return self._last("segments") + 1

    def commit(self, new: Commit) -> None:
        """Commit new images and all other changes to the files, all or nothing."""
        with self._database.transaction():
            folders: dict[tuple[int, bytes], int] = {}
            entries: list[Seen | NewImage | NewFailure] = [*new.seen, *new.images, *new.failures]
            for entry in entries:
                place = (entry.location.root, entry.location.folder)
                if place not in folders:
                    folders[place] = self._folder(*place)
                self._forget_failure(folders[place], entry.location.name)
                if entry.replaces is not None:
                    self._remove([entry.replaces])
            for seen in new.seen:
                folder = folders[seen.location.root, seen.location.folder]
                self._run(
                    "UPDATE images SET folder = ?, name = ?, size = ?, mtime_ns = ?, ctime_ns = ?, "
                    "inode = ? WHERE id = ?",
                    *(folder, seen.location.name, seen.size, seen.mtime_ns),
                    *(seen.ctime_ns, seen.inode, seen.id),
                )
            if new.shard is not None:
                self._insert_shard(new.shard)
                for id_, image in enumerate(new.images, new.shard.first_id):
                    folder = folders[image.location.root, image.location.folder]
                    name = image.location.name
                    self._insert(
                        "images",
                        *(id_, folder, name, image.size, image.mtime_ns, image.digest),
                        *(image.ctime_ns, image.inode, *astuple(image.facts)),
                    )
            if new.prints is not None:
                self._insert("fingerprints", *astuple(new.prints))
            for failure in new.failures:
                folder = folders[failure.location.root, failure.location.folder]
                self._insert(
                    "failures",
                    *(
                        folder,
                        failure.location.name,
                        failure.size,
                        failure.mtime_ns,
                        failure.reason,
                    ),
                    *(failure.ctime_ns, failure.inode, failure.kind),
                )

    def learn(self, stamps: Iterable[Stamp]) -> None:
        """Record the ctime and inode of image files."""
        rows = [(stamp.ctime_ns, stamp.inode, stamp.id) for stamp in stamps]
        with self._database.transaction():
            self._database.run_many("UPDATE images SET ctime_ns = ?, inode = ? WHERE id = ?", rows)

    def forget(
        self,
        ids: Sequence[int],
        files: Sequence[tuple[int, bytes]] = (),
        folders: Sequence[int] = (),
    ) -> None:
        """Forget missing files.

        Args:
            ids: Ids of images whose files are missing.
            files: Failed or skipped files, by folder and name.
            folders: Folders with no files left, except excluded ones.
        """
        with self._database.transaction():
            self._remove(ids)
            self._database.run_many("DELETE FROM failures WHERE folder = ? AND name = ?", files)
            self._run(
                "DELETE FROM folders WHERE id IN (SELECT value FROM json_each(?1)) "
                "AND NOT EXISTS (SELECT 1 FROM images WHERE folder = folders.id) "
                "AND NOT EXISTS (SELECT 1 FROM failures WHERE folder = folders.id) "
                "AND NOT EXISTS (SELECT 1 FROM excluded WHERE folder = folders.id)",
                json.dumps(folders),
            )

    def exclude(
        self,
        locations: Sequence[FileLocation],
        folders: Sequence[FolderLocation],
        roots: Sequence[int] = (),
    ) -> None:
        """Remove files and keep them out.

        Args:
            locations: Locations of single files.
            folders: Folders, including everything below them.
            roots: Roots to stop scanning altogether.
        """
        folders = [*folders, *(FolderLocation(root, b"") for root in roots)]
        with self._database.transaction():
            for location in locations:
                folder = self._folder(location.root, location.folder)
                id_ = self.id_at(location)
                self._remove([] if id_ is None else [id_])
                self._forget_failure(folder, location.name)
                self._run("INSERT OR IGNORE INTO excluded VALUES (?, ?)", folder, location.name)
            for out in folders:
                for folder, _ in self.folders_below(out.root, out.folder):
                    rows = self._rows("SELECT id FROM images WHERE folder = ?", folder)
                    self._remove([id_ for (id_,) in rows])
                    self._run("DELETE FROM failures WHERE folder = ?", folder)
                    self._run("DELETE FROM excluded WHERE folder = ?", folder)
                folder = self._folder(out.root, out.folder)
                self._run("INSERT OR IGNORE INTO excluded VALUES (?, x'')", folder)
            for root in roots:
                self._drop_root(root)

    def include(self, location: FileLocation) -> None:
        """Stop excluding a file, or a folder if the name of the location is empty."""
        self._run(
            "DELETE FROM excluded WHERE name = ? AND folder IN "
            "(SELECT id FROM folders WHERE root = ? AND path = ?)",
            *(location.name, location.root, location.folder),
        )

    # The index

    def change_settings(
        self,
        *,
        nlist: int | None,
        recall: float | None,
        storage: Storage | None = None,
        pca: int | None = None,
    ) -> None:
        """Change the settings of the index; None leaves a setting unchanged."""
        self._run(
            "UPDATE settings SET nlist = coalesce(?, nlist), recall = coalesce(?, recall), "
            "storage = coalesce(?, storage), pca = coalesce(?, pca)",
            *(nlist, recall, storage, pca),
        )

    def change_patterns(self, exclude: Sequence[str], include: Sequence[str]) -> None:
        """Change the patterns of files to leave out: see `Settings`."""
        self._run("UPDATE settings SET exclude = ?, include = ?", *map(text_of, (exclude, include)))

    def replace_segments(self, gone: Sequence[int], new: Sequence[Segment], ivf: IvfRecord) -> None:
        """Replace segments with new ones, written and synced.

        Args:
            gone: Numbers of the segments to replace.
            new: New segments, which hold none of the images removed so far.
            ivf: Record of the index for all segments.
        """
        with self._database.transaction():
            self._drop_segments(gone)
            for segment in new:
                self._insert("segments", *astuple(segment))
                self._run(
                    "UPDATE removed SET stale = 0 WHERE id BETWEEN ? AND ?",
                    *(segment.first_id, segment.last_id),
                )
            self._replace_ivf(ivf)

    def drop_index(self) -> None:
        """Drop the index and return to exact search."""
        with self._database.transaction():
            self._drop_index()

    def replace_shards(self, gone: Sequence[Shard], new: Shard | None) -> None:
        """Replace neighbouring shards with one, written and synced.

        Their removed ids are forgotten, except those that a segment may hold.
        """
        with self._database.transaction():
            self._drop_shards(gone)
            self._run(
                "DELETE FROM removed WHERE id BETWEEN ? AND ? AND "
                "(NOT stale OR id > (SELECT coalesce(max(last_id), 0) FROM segments))",
                *(gone[0].first_id, gone[-1].last_id),
            )
            if new is not None:
                self._insert_shard(new)

    # Another network: see `imgsearch.storage.succession`

    def adopt(self, settings: Settings) -> None:
        """Change the settings of the index to those of another collection."""
        self._run(
            "UPDATE settings SET nlist = ?, recall = ?, storage = ?, pca = ?",
            *(settings.nlist, settings.recall, settings.storage, settings.pca),
        )

    def add_embedded(self, contents: Sequence[tuple[int, bytes]], shard: Shard) -> None:
        """Add the images of a shard to a successor, which knows only their ids and digests."""
        with self._database.transaction():
            self._run("INSERT OR IGNORE INTO roots (path, recursive) VALUES (x'2f', 0)")
            ((root,),) = self._rows("SELECT id FROM roots")
            folder = self._folder(root, b"")
            self._insert_shard(shard)
            self._database.run_many(
                "INSERT INTO images (id, folder, name, size, digest) VALUES (?, ?, ?, 0, ?)",
                [(id_, folder, b"%d" % id_, digest) for id_, digest in contents],
            )

    def keep(self, ids: Iterable[int]) -> None:
        """Remove all other images."""
        with self._database.transaction():
            self._remove(sorted(set(self.image_ids()).difference(ids)))

    def succeed(self, new: Snapshot, removed: Mapping[int, bytes], without: Sequence[int]) -> None:
        """Replace the network, and everything that was made with it.

        Args:
            new: The other network, its shards and its index, written and synced. Its settings are
                ignored.
            removed: Digests of its removed ids.
            without: Ids of the images of which it has no embedding.
        """
        stale = set(new.stale)
        rows = [(id_, digest, id_ in stale) for id_, digest in removed.items()]
        with self._database.transaction():
            self._drop_index()
            self._drop_shards(self.shards())
            self._drop_ranking()
            self._run("DELETE FROM removed")
            self._run("DELETE FROM model")
            self._run(
                "DELETE FROM images WHERE id IN (SELECT value FROM json_each(?))",
                json.dumps(without),
            )
            self._insert("model", *astuple(new.model))
            for shard in new.shards:
                self._insert_shard(shard)
            self._database.run_many("INSERT INTO removed VALUES (?, ?, ?)", rows)
            for segment in new.segments:
                self._insert("segments", *astuple(segment))
            self._replace_ivf(new.ivf)
            for layer in new.layers:
                self._insert("layers", *astuple(layer))
            if new.ranking is not None:
                self._insert("ranking", *astuple(new.ranking))

    # Fingerprints

    def next_prints(self) -> int:
        """Return the number of the next file of fingerprints, which was not used before."""
        return self._last("fingerprints") + 1

    def add_prints(self, new: PrintFile, facts: Mapping[int, Facts]) -> None:
        """Add fingerprints of known images, written and synced, and what their files state."""
        rows = [(*astuple(found), id_) for id_, found in facts.items()]
        with self._database.transaction():
            self._insert("fingerprints", *astuple(new))
            self._database.run_many(
                "UPDATE images SET width = ?, height = ?, taken = ?, camera = ? WHERE id = ?", rows
            )

    def replace_prints(self, gone: Sequence[PrintFile], new: PrintFile | None) -> None:
        """Replace files of fingerprints with one, written and synced, or with nothing.

        Args:
            gone: The files; all fingerprints of an id are the same, as its content never changes.
            new: The new file; None to replace them with nothing.
        """
        with self._database.transaction():
            for file in gone:
                self._note_replaced({prints_name(file.number): file.sha256})
                self._run("DELETE FROM fingerprints WHERE number = ?", file.number)
            if new is not None:
                self._insert("fingerprints", *astuple(new))

    # The ranking

    def next_layer(self) -> int:
        """Return the number of the next layer, which was not used before."""
        return self._last("layers") + 1

    def replace_layers(
        self, gone: Sequence[Layer], new: Layer | None, ranking: RankingRecord | None
    ) -> None:
        """Replace layers with one, written and synced.

        Args:
            gone: The last layers, or all of them.
            new: The new layer; None to replace them with nothing.
            ranking: Record of the ranking; None if no layer is left.
        """
        with self._database.transaction():
            self._drop_layers([layer.number for layer in gone])
            if new is not None:
                self._insert("layers", *astuple(new))
            self._run("DELETE FROM ranking")
            if ranking is not None:
                self._insert("ranking", *astuple(ranking))

    def drop_ranking(self) -> None:
        """Drop the layers, and return to the ranking by cosine."""
        with self._database.transaction():
            self._drop_ranking()

    def _drop_ranking(self) -> None:
        self._drop_layers([number for (number,) in self._rows("SELECT number FROM layers")])
        self._run("DELETE FROM ranking")

    def _drop_layers(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            rows = self._rows("SELECT sha256 FROM layers WHERE number = ?", number)
            self._note_replaced({layer_name(number): sha256 for (sha256,) in rows})
            self._run("DELETE FROM layers WHERE number = ?", number)

    def forget_replaced(self) -> None:
        """Forget the replaced files, which are deleted next."""
        self._run("DELETE FROM replaced")

    def _drop_segments(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            rows = self._rows("SELECT sha256 FROM segments WHERE number = ?", number)
            self._note_replaced({segment_name(number): sha256 for (sha256,) in rows})
            self._run("DELETE FROM segments WHERE number = ?", number)

    def _replace_ivf(self, ivf: IvfRecord | None) -> None:
        self._run("DELETE FROM ivf")
        self._run("DELETE FROM curve")
        if ivf is None:
            return
        self._insert(
            "ivf",
            *(ivf.nlist, ivf.requested_nlist, ivf.trained, ivf.held_out, ivf.strangers),
            *(ivf.added, ivf.far, ivf.pca),
        )
        for step in ivf.curve:
            self._insert(
                "curve",
                *(step.up_to, step.nprobe, step.recall, step.recall_bound, step.milliseconds),
            )

    def _drop_index(self) -> None:
        self._drop_segments([number for (number,) in self._rows("SELECT number FROM segments")])
        self._replace_ivf(None)
        self._run("UPDATE removed SET stale = 0")

    def _drop_shards(self, shards: Sequence[Shard]) -> None:
        for shard in shards:
            self._note_replaced(shard_files(shard))
            self._run("DELETE FROM shards WHERE number = ?", shard.number)

    def _note_replaced(self, files: Mapping[str, bytes]) -> None:
        self._database.run_many("INSERT OR REPLACE INTO replaced VALUES (?, ?)", files.items())

    def _remove(self, ids: Sequence[int]) -> None:
        """Turn images into removed ids, all stale because a segment may be in progress."""
        given = json.dumps(ids)
        self._run(
            "INSERT INTO removed SELECT id, digest, 1 FROM images "
            "WHERE id IN (SELECT value FROM json_each(?))",
            given,
        )
        self._run("DELETE FROM images WHERE id IN (SELECT value FROM json_each(?))", given)

    def _drop_root(self, root: int) -> None:
        self._run(
            "DELETE FROM excluded WHERE folder IN (SELECT id FROM folders WHERE root = ?)", root
        )
        self._run("DELETE FROM folders WHERE root = ?", root)
        self._run("DELETE FROM roots WHERE id = ?", root)

    def _forget_failure(self, folder: int, name: bytes) -> None:
        self._run("DELETE FROM failures WHERE folder = ? AND name = ?", folder, name)

    def _folder(self, root: int, path: bytes) -> int:
        self._run("INSERT OR IGNORE INTO folders (root, path) VALUES (?, ?)", root, path)
        rows = self._rows("SELECT id FROM folders WHERE root = ? AND path = ?", root, path)
        return int(rows[0][0])

    def _last(self, table: str) -> int:
        rows = self._rows("SELECT seq FROM sqlite_sequence WHERE name = ?", table)
        return int(rows[0][0]) if rows else 0

    def _insert_shard(self, new: Shard) -> None:
        row = (new.number, new.first_id, new.last_id, new.count, new.sha256, new.ids_sha256)
        self._insert("shards", *row)

    def _insert(self, table: str, *values: object) -> None:
        marks = ", ".join("?" * len(values))
        self._run(f"INSERT INTO {table} VALUES ({marks})", *values)  # noqa: S608 - our own names

    def _run(self, statement: str, *values: object) -> None:
        self._database.run(statement, *values)
