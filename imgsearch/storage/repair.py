"""The catalog as a repair reads and writes it."""

from __future__ import annotations

from collections.abc import Sequence

from imgsearch.storage.shards import Shard
from imgsearch.storage.writer import CatalogWriter

__all__ = ["CatalogMender"]


class CatalogMender(CatalogWriter):
    """An open catalog that may be repaired by who holds the collection's lock."""

    def replace_lost(self, gone: Shard, new: Shard | None, dropped: Sequence[int]) -> None:
        """Put a shard with what could be recovered in the place of one that is damaged.

        Args:
            gone: the damaged shard.
            new: of images in its range, written and synced; None if none could be recovered.
            dropped: ids of images that are lost.
        """
        between = gone.first_id, gone.last_id
        with self._database.transaction():
            self._drop_shards([gone])
            self._drop_images(dropped)
            stale = self._rows("SELECT 1 FROM removed WHERE stale AND id BETWEEN ? AND ?", *between)
            filed = self._rows("SELECT 1 FROM segments WHERE last_id >= ?", gone.first_id)
            if filed and (dropped or stale):  # what segments may hold has no row any more
                self._drop_index()
            self._run("DELETE FROM removed WHERE id BETWEEN ? AND ?", *between)
            if new is not None:
                self._insert_shard(new)

    def drop_images(self, ids: Sequence[int]) -> None:
        """Forget ids of which there is no embedding, and the index, which may name them."""
        with self._database.transaction():
            self._drop_images(ids)
            self._drop_index()

    def change_model(self, onnx_sha256: str) -> None:
        """Record that the model was exported again, of the same weights."""
        self._run("UPDATE model SET onnx_sha256 = ?", onnx_sha256)

    def _drop_images(self, ids: Sequence[int]) -> None:
        rows = [(id_,) for id_ in ids]
        self._database.run_many("DELETE FROM images WHERE id = ?", rows)
        self._database.run_many("DELETE FROM removed WHERE id = ?", rows)
