"""The catalog, as read and written by a repair."""

from __future__ import annotations

from collections.abc import Sequence

from imgsearch.storage.records import Shard
from imgsearch.storage.writer import CatalogWriter

__all__ = ["CatalogRepairer"]


class CatalogRepairer(CatalogWriter):
    """An open catalog that the holder of the collection's lock may repair."""

    def replace_lost(self, gone: Shard, new: Shard | None, dropped: Sequence[int]) -> None:
        """Replace a damaged shard with one that holds the recovered embeddings.

        Args:
            gone: Damaged shard.
            new: Shard of recovered images in the range of `gone`, written and synced; None if none
                could be recovered.
            dropped: Ids of the lost images.
        """
        between = gone.first_id, gone.last_id
        with self._database.transaction():
            self._drop_shards([gone])
            self._drop_images(dropped)
            stale = self._rows("SELECT 1 FROM removed WHERE stale AND id BETWEEN ? AND ?", *between)
            filed = self._rows("SELECT 1 FROM segments WHERE last_id >= ?", gone.first_id)
            if filed and (dropped or stale):  # segments may hold ids that no longer have a row
                self._drop_index()
            self._run("DELETE FROM removed WHERE id BETWEEN ? AND ?", *between)
            if new is not None:
                self._insert_shard(new)

    def drop_images(self, ids: Sequence[int]) -> None:
        """Forget ids without an embedding, and the index, which may hold them."""
        with self._database.transaction():
            self._drop_images(ids)
            self._drop_index()

    def change_model(self, onnx_sha256: str, words_sha256: str | None) -> None:
        """Record that the model was exported again from the same weights."""
        changed = "UPDATE model SET onnx_sha256 = ?, words_sha256 = ?"
        self._run(changed, onnx_sha256, words_sha256)

    def _drop_images(self, ids: Sequence[int]) -> None:
        rows = [(id_,) for id_ in ids]
        self._database.run_many("DELETE FROM images WHERE id = ?", rows)
        self._database.run_many("DELETE FROM removed WHERE id = ?", rows)
