"""Repair a collection, without touching sound parts or ever leaving it worse than before."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace

import numpy as np

from imgsearch.ann.flat import IvfIndex
from imgsearch.ann.inverted import InvertedFile
from imgsearch.ann.vectors import Vectors, rows_of
from imgsearch.embedding.pipeline import Embedded
from imgsearch.errors import DamagedError, ModelError, SettingError, UntrustedModelError
from imgsearch.images.limits import LIMITS
from imgsearch.indexing.engine import LocalEngine, ModelFile
from imgsearch.indexing.fingerprints import make_missing, without_prints
from imgsearch.indexing.fold import fold, remove_orphans
from imgsearch.indexing.neighbours import rank
from imgsearch.indexing.networks import export
from imgsearch.indexing.policy import POLICY, FoldPolicy
from imgsearch.maintenance.check import owners_of
from imgsearch.maintenance.damage import Damage, Part
from imgsearch.storage.distinct import salvage_distinct, write_distinct
from imgsearch.storage.files import write_atomically
from imgsearch.storage.fingerprints import prints_name
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import Shard
from imgsearch.storage.repair import CatalogRepairer
from imgsearch.storage.seal import reseal, restore
from imgsearch.storage.shards import salvage, write_shard

__all__ = ["Repairer", "repair_catalog"]


def repair_catalog(layout: Layout, damages: Sequence[Damage]) -> Iterator[str]:
    """Repair the manifest, and whatever keeps the catalog from being opened; yield the repairs.

    Raises:
        StorageError: If the disk cannot be written.
    """
    parts = {damage.part for damage in damages}
    if Part.CATALOG in parts:
        if not restore(layout):
            return
        yield f"{layout.catalog.name}: restored to its state at the end of the last run"
    elif parts & {Part.SEAL, Part.COPY}:
        reseal(layout)
        yield f"{layout.catalog.name}: sealed and copied again"
    if Part.MANIFEST in parts:
        layout.write_manifest()
        yield f"{layout.manifest.name}: written again"


@dataclass(slots=True)
class Repairer:
    """The repair of everything that a sound catalog names; `sound` holds the undamaged segments."""

    layout: Layout
    catalog: CatalogRepairer
    sound: Sequence[InvertedFile]
    workers: int
    trust_model: bool = False
    policy: FoldPolicy = POLICY

    def repair(self, damages: Sequence[Damage]) -> Iterator[str]:
        """Repair whatever can be repaired; yield the repairs.

        Raises:
            StorageError: If the disk cannot be written.
            UntrustedModelError: If imgsearch did not export the model needed to embed again.
        """
        parts = {damage.part for damage in damages}
        if self.catalog.snapshot().layers:  # however few images there are
            self.policy = replace(POLICY, ranked_from=2)
        if Part.MODEL in parts:
            with suppress(ModelError, SettingError):  # the weights are unavailable, or have changed
                yield self._repair_model()
        for shard in dict.fromkeys(each.shard for each in damages if each.shard):
            yield self._repair_shard(shard)
        for damage in damages:
            if damage.part is Part.IMAGES:
                self.catalog.drop_images(damage.ids)
                again = "run `imgsearch index` to index their images again"
                yield f"{damage.file}: {len(damage.ids):,} ids dropped; {again}"
        if Part.INDEX in parts:
            self.catalog.drop_index()
        if Part.RANKING in parts:
            self.catalog.drop_ranking()
        if Part.FINGERPRINTS in parts:  # before the fold, which merges their files
            yield self._repair_prints(damages)
        if parts & {Part.SHARD, Part.IMAGES, Part.INDEX} and not self.catalog.snapshot().segments:
            fold(self.layout, self.catalog, device="cpu", policy=self.policy)
            if self.catalog.snapshot().segments:
                yield f"{self.layout.segments.name}: the index was rebuilt from the embeddings"
        if Part.RANKING in parts:
            rank(self.layout, self.catalog, self.policy)
            if self.catalog.snapshot().layers:
                yield f"{self.layout.layers.name}: the ranking was rebuilt from the embeddings"
        if Part.DISTINCT in parts:
            yield self._repair_distinct()
        if parts & {Part.SHARD, Part.INDEX, Part.RANKING, Part.FINGERPRINTS, Part.REPLACED}:
            remove_orphans(self.layout, self.catalog)
        if Part.REPLACED in parts:
            yield "files that are no longer used: deleted"

    def _repair_prints(self, damages: Sequence[Damage]) -> str:
        """Drop damaged files of fingerprints, and make the fingerprints again from the images."""
        lost = {each.file for each in damages if each.part is Part.FINGERPRINTS}
        folder = self.layout.fingerprints
        files = [
            file
            for file in self.catalog.prints()
            if f"{folder.name}/{prints_name(file.number)}" in lost
        ]
        self.catalog.replace_prints(files, None)
        made = 0
        with suppress(ModelError):  # no worker can start
            made = make_missing(self.layout, self.catalog, workers=self.workers)
        left = len(without_prints(self.layout, self.catalog))
        told = f", {left:,} to be made by the next `imgsearch index`" if left else ""
        return f"{folder.name}: {made:,} made again from the images{told}"

    def _repair_distinct(self) -> str:
        """Keep the judgements that are sound."""
        found = salvage_distinct(self.layout)
        write_distinct(self.layout, found)
        return f"{self.layout.distinct.name}: written again with {len(found.sets):,} judgements"

    def _repair_model(self) -> str:
        """Export the model again, from the same weights."""
        model = self.catalog.snapshot().model
        exported = export(model.name, model.weights, progress=True)
        if exported.weights_sha256 != model.weights_sha256:
            raise ModelError(f"the weights {model.weights} have changed")
        write_atomically(self.layout.model, lambda sink: sink.write(exported.onnx))
        names, words = self.layout.model.name, exported.words
        if words is not None:
            write_atomically(self.layout.words, lambda sink: sink.write(words))
            names += f", {self.layout.words.name}"
        self.catalog.change_model(
            hashlib.sha256(exported.onnx).hexdigest(),
            None if words is None else hashlib.sha256(words).hexdigest(),
        )
        return f"{names}: exported again"

    def _repair_shard(self, shard: Shard) -> str:
        """Rewrite a shard with the embeddings that can be recovered."""
        ids = self.catalog.image_ids(shard.first_id, shard.last_id)
        indexed = self._indexed(ids)
        embedded = self._embed([id_ for id_ in ids if id_ not in indexed])
        kept = self._salvage(shard, [id_ for id_ in ids if id_ not in indexed | embedded])
        rows = indexed | embedded | kept
        new = None
        if rows:
            number, _ = self.catalog.next_shard()
            order = sorted(rows)
            vectors = np.stack([rows[id_] for id_ in order])
            new = write_shard(self.layout.vectors, number, np.array(order, np.int64), vectors)
        dropped = [id_ for id_ in ids if id_ not in rows]
        self.catalog.replace_lost(shard, new, dropped)
        ways = {
            "taken from the index": len(indexed),
            "embedded again": len(embedded),
            "kept as they are, because their images are missing": len(kept),
            "dropped, because their images are missing": len(dropped),
        }
        told = ", ".join(f"{count:,} {way}" for way, count in ways.items() if count)
        return f"{self.layout.vectors.name}/{shard.number:08d}.npy: {told or 'dropped'}"

    def _indexed(self, ids: Sequence[int]) -> dict[int, Vectors]:
        """Return the embeddings that the sound segments hold; compact segments hold none."""
        wanted = np.array(ids, np.int64)
        found: dict[int, Vectors] = {}
        for index in self.sound:
            if not isinstance(index, IvfIndex):
                continue
            for number in range(index.nlist):
                indexed, vectors = index.entries(number)
                for row in np.flatnonzero(rows_of(indexed, wanted)).tolist():
                    found[int(indexed[row])] = vectors[row].copy()
        return found

    def _embed(self, ids: Sequence[int]) -> dict[int, Vectors]:
        """Return the embeddings of images whose files exist and are unchanged."""
        record = self.catalog.snapshot().model
        model = ModelFile.of(self.layout, record, trusted=self.trust_model)
        places = self.catalog.paths(ids)
        digests = {places[id_]: self.catalog.digest_of(id_) for id_ in ids}
        try:
            outcomes = LocalEngine(workers=self.workers).embed_files(
                places.values(),
                lambda path, digest: digests[path] == digest,
                model=model,
                limits=LIMITS,
            )
        except DamagedError:  # a damaged model may still embed, and wrongly
            return {}
        found: dict[int, Vectors] = {}
        with closing(outcomes):
            try:
                for id_, outcome in zip(places, outcomes, strict=True):
                    if isinstance(outcome, Embedded):
                        found[id_] = outcome.embedding
            except UntrustedModelError:  # else images that trust could save are dropped
                raise
            except ModelError:  # no worker can start
                pass
        return found

    def _salvage(self, shard: Shard, ids: Sequence[int]) -> dict[int, Vectors]:
        """Return the rows of a damaged shard that are still L2-normalised."""
        snapshot = self.catalog.snapshot()
        owners = owners_of(self.catalog, shard, np.array(snapshot.removed, np.int64))
        if len(owners) != shard.count:  # the owners of the rows are unknown
            return {}
        vectors = salvage(self.layout.vectors, shard, snapshot.model.dim)
        with np.errstate(over="ignore", invalid="ignore"):
            sound = np.abs(np.linalg.norm(vectors, axis=1) - 1) < 1e-3
        rows = np.flatnonzero(rows_of(owners[: len(vectors)], np.array(ids, np.int64)) & sound)
        return {int(owners[row]): vectors[row] for row in rows.tolist()}
