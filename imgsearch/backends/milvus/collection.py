"""`MilvusCollection`: a collection in Milvus."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial

import numpy as np

from imgsearch.ann.vectors import Ids, Vectors
from imgsearch.backends.milvus.entries import MilvusEntries, refuse_filter
from imgsearch.backends.milvus.evaluate import evaluate
from imgsearch.backends.milvus.ingest import index, remove, remove_ids
from imgsearch.backends.milvus.model import local_model, write_model
from imgsearch.backends.milvus.rows import Address
from imgsearch.backends.milvus.state import State, read_state, write_state
from imgsearch.backends.milvus.store import MAX_LISTS, Store
from imgsearch.backends.milvus.train import is_outgrown
from imgsearch.backends.milvus.view import MilvusView
from imgsearch.collection import Collection, Queries
from imgsearch.embedding.runtime import pick_device
from imgsearch.errors import SettingError
from imgsearch.evaluation.evaluate import Evaluation
from imgsearch.files.exclusions import Exclusions, changed_patterns
from imgsearch.files.paths import plain_path, real_path, resolved_path
from imgsearch.images.crop import Box
from imgsearch.images.decode import Pixels
from imgsearch.images.limits import LIMITS, Limits
from imgsearch.indexing.create import make_model
from imgsearch.indexing.engine import ModelFile
from imgsearch.indexing.options import IndexOptions
from imgsearch.indexing.report import IndexReport
from imgsearch.querying.embedder import Embedder
from imgsearch.querying.explanation import Explanation, explain
from imgsearch.querying.hits import Answer, HitArrays, answers_of
from imgsearch.querying.info import Info
from imgsearch.querying.options import PathLike, SearchOptions
from imgsearch.querying.search import left_out, names_left_out, search
from imgsearch.storage.layout import Location
from imgsearch.storage.records import Entry

__all__ = ["MilvusCollection"]


class MilvusCollection(Collection):
    """A collection in Milvus."""

    def __init__(
        self, store: Store, device: str, threads: int = 0, *, trust_model: bool = False
    ) -> None:
        """Open an existing collection, or raise `NoCollectionError`."""
        model = read_state(store).model
        super().__init__(model, device, trust_model=trust_model)
        self.store = store
        self._own_embedder = Embedder(
            model, device, lambda: local_model(store, model), threads, trust_model=trust_model
        )

    @property
    def _embedder(self) -> Embedder:
        return self._own_embedder

    @property
    def _where(self) -> str:
        return self.store.address.location

    def _count(self) -> int:
        return self.store.count()

    @property
    def entries(self) -> MilvusEntries:
        """The facts about each image."""
        return MilvusEntries(self.store)

    def close(self) -> None:
        """Close the collection; no other method may be called afterwards."""
        self._stop_looking()
        self._embedder.close()
        self.store.close()

    def _evaluate(
        self, labels: PathLike, options: SearchOptions, progress: Callable[[int, int], None] | None
    ) -> Evaluation:
        if options.verify:
            raise SettingError("verify applies only to collections in directories")
        return evaluate(self.view(), labels, options, progress)

    def view(self) -> MilvusView:
        """Return a view of the present state."""
        return MilvusView(self.store, read_state(self.store), self.store.count())

    def info(self) -> Info:
        """Return a description of the collection, with the computed size of its embeddings."""
        view = self.view()
        state, size = view.state, view.count * (4 * self._model.dim + 8)
        return Info(
            directory=self.store.address.location,
            images=view.count,
            failed=0,
            skipped=0,
            excluded=len(state.excluded),
            roots=tuple(os.fsdecode(path) for path in (*state.folders, *state.files)),
            left_out=Exclusions.of(state.settings.exclude, state.settings.include).patterns,
            model=self._model,
            settings=state.settings,
            ivf=state.ivf,
            nprobe=() if view.nprobe is None else (view.nprobe,),
            outgrown=is_outgrown(state, view.count),
            segments=0,
            list_sizes=(),
            index_bytes=size,
            tail=0,
            bytes=size,
            device=pick_device(self._device),
            faiss=f"not used: Milvus {self.store.version()} searches",
        )

    @classmethod
    def _create(
        cls, location: Location, *, model: str, weights: str | None, progress: bool
    ) -> None:
        """Create an empty collection; complete whatever an interrupted attempt left."""
        with closing(Store(Address.of(location))) as store:
            record, onnx, _ = make_model(model, weights, progress=progress)
            record = replace(record, words_sha256=None)  # Milvus keeps no text tower
            store.create(record.dim)
            write_model(store, onnx)
            write_state(store, State(record))
            store.flush()

    @classmethod
    def _open(
        cls, location: Location, *, device: str, threads: int = 0, trust_model: bool = False
    ) -> MilvusCollection:
        return cls(Store(Address.of(location)), device, threads, trust_model=trust_model)

    @classmethod
    def _exists(cls, location: Location) -> bool:
        with closing(Store(Address.of(location))) as store:
            return store.exists() and store.get("collection") is not None

    @classmethod
    def _discard(cls, location: Location) -> bool:
        with closing(Store(Address.of(location))) as store:
            if store.count():
                return False
            store.drop()
        return True

    def _index(self, paths: list[PathLike], options: IndexOptions) -> IndexReport:
        if options.moved or options.pca or options.storage == "compact":
            raise SettingError(
                "--moved, --pca and --storage compact apply only to collections in directories; "
                "in Milvus, moved files are recognised by their content"
            )
        if options.nlist is not None and options.nlist > MAX_LISTS:
            raise SettingError(
                f"nlist is {options.nlist}; in Milvus, it must be from 1 to {MAX_LISTS:,}"
            )
        state = read_state(self.store)
        kept = state.settings.exclude, state.settings.include
        changed = changed_patterns(kept, list(options.exclude), list(options.include))
        settings = replace(
            state.settings,
            exclude=changed[0],
            include=changed[1],
            nlist=options.nlist or state.settings.nlist,
            recall=options.recall or state.settings.recall,
        )
        engine = options.engine_on(pick_device(self._device))
        network = local_model(self.store, self._model)
        model = ModelFile(self._model, lambda: network, self._trust_model)
        embed = partial(engine.embed_files, model=model, limits=options.limits)
        report = index(
            self.store,
            replace(state, settings=settings),
            paths,
            options,
            embed=embed,
            own=network.parent,
        )
        engine.committed()
        return report

    def _remove(self, paths: list[PathLike]) -> int:
        return remove(self.store, read_state(self.store), paths)

    def _remove_ids(self, ids: list[int]) -> int:
        return remove_ids(self.store, read_state(self.store), ids)

    def _embed(self, queries: Queries, crop: Box | None = None, limits: Limits = LIMITS) -> Vectors:
        return self._embedder.embed(queries, crop, limits)

    def _answer(
        self, queries: Queries, embeddings: Vectors, options: SearchOptions
    ) -> list[Answer]:
        without = self._left_out(queries, options)
        while True:
            found, searches = search(self.view(), embeddings, options, without)
            ids = np.unique(found.ids[found.ids >= 0]).tolist()
            paths = self.store.paths(ids)
            if len(paths) == len(ids):  # else an image has been deleted meanwhile
                return answers_of(found, searches, {i: os.fsdecode(p) for i, p in paths.items()})

    def _find(self, queries: Queries, embeddings: Vectors, options: SearchOptions) -> HitArrays:
        without = self._left_out(queries, options)
        return search(self.view(), embeddings, options, without).hits

    def _left_out(self, queries: Queries, options: SearchOptions) -> list[Ids]:
        refuse_filter(options.filter)
        return left_out(names_left_out(queries, options), self._ids_at)

    def _explain(self, hit: Entry, pixels: Pixels) -> Explanation:
        return explain(hit, self._embedder.maps(pixels), self.view().ranking)

    def _ids_at(self, path: PathLike) -> Sequence[int]:
        for absolute in dict.fromkeys((plain_path(path), real_path(path), resolved_path(path))):
            if found := self.store.ids_at(absolute):
                return found
        return []
