"""`MilvusCollection`: what `imgsearch.collection.Collection` is, in Milvus."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Unpack

import numpy as np

from imgsearch.ann.vectors import Ids, Vectors, combine
from imgsearch.backends.milvus.entries import MilvusEntries
from imgsearch.backends.milvus.ingest import index, remove
from imgsearch.backends.milvus.model import local_model
from imgsearch.backends.milvus.state import read_state
from imgsearch.backends.milvus.store import MOST_LISTS, Store
from imgsearch.backends.milvus.train import is_outgrown
from imgsearch.backends.milvus.view import MilvusView
from imgsearch.embedding.runtime import pick_device
from imgsearch.errors import SettingError
from imgsearch.files.exclusions import Exclusions, changed_patterns
from imgsearch.files.paths import plain_path, real_path, resolved_path
from imgsearch.images.crop import Box
from imgsearch.images.limits import MAX_PIXELS, Limits
from imgsearch.indexing.create import check_model
from imgsearch.indexing.engine import ModelFile
from imgsearch.indexing.options import IndexKeywords, IndexOptions
from imgsearch.indexing.report import IndexReport
from imgsearch.querying.embedder import Embedder
from imgsearch.querying.hits import Answer, Hit, HitArrays, answers_of
from imgsearch.querying.info import Info
from imgsearch.querying.options import (
    PathLike,
    Query,
    QueryOptions,
    SearchOptions,
    paths_of,
    queries_of,
    whole,
)
from imgsearch.querying.search import left_out, names_left_out, search

__all__ = ["MilvusCollection"]


class MilvusCollection:
    """A collection in Milvus, opened; its methods are those of `Collection`. A context manager."""

    def __init__(
        self, store: Store, device: str, threads: int = 0, *, trust_model: bool = False
    ) -> None:
        """Open what is there, or raise `NoCollectionError`."""
        self.store = store
        self._device = device
        self._trust_model = trust_model
        self._model = read_state(store).model
        self._embedder = Embedder(
            self._model,
            device,
            lambda: local_model(store, self._model),
            threads,
            trust_model=trust_model,
        )
        self.entries = MilvusEntries(store)

    def close(self) -> None:
        """Close it; no other method may be called then."""
        self._embedder.close()
        self.store.close()

    def __enter__(self) -> MilvusCollection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def index(
        self,
        paths: PathLike | Iterable[PathLike] = (),
        **options: Unpack[IndexKeywords],
    ) -> IndexReport:
        """Bring the collection up to date with the files under `paths`.

        Raises:
            SettingError: an option is for collections in directories only, or makes no sense.
        """
        given = IndexOptions.of(**options)
        if given.moved or given.pca or given.storage == "compact":
            raise SettingError(
                "--moved, --pca and --storage compact are for collections in directories; in "
                "Milvus, moved files are known by their content without being named"
            )
        if given.nlist is not None and given.nlist > MOST_LISTS:
            raise SettingError(f"nlist is {given.nlist}; in Milvus, it is from 1 to {MOST_LISTS:,}")
        state = read_state(self.store)
        kept = state.settings.exclude, state.settings.include
        changed = changed_patterns(kept, list(given.exclude), list(given.include))
        settings = replace(
            state.settings,
            exclude=changed[0],
            include=changed[1],
            nlist=given.nlist or state.settings.nlist,
            recall=given.recall or state.settings.recall,
        )
        engine = given.engine_on(pick_device(self._device))
        network = local_model(self.store, self._model)
        model = ModelFile(self._model, lambda: network, self._trust_model)
        embed = partial(engine.embed_files, model=model, limits=given.limits)
        report = index(
            self.store,
            replace(state, settings=settings),
            paths_of(paths),
            given,
            embed=embed,
            own=network.parent,
        )
        engine.committed()
        return report

    def remove(self, paths: PathLike | Iterable[PathLike]) -> int:
        """Take images out, and keep them out; see `Collection.remove`."""
        return remove(self.store, read_state(self.store), paths_of(paths))

    def query(self, query: Query, **options: Unpack[QueryOptions]) -> list[Hit]:
        """Return the `k` most similar images, best first; see `Collection.query`."""
        return list(self.answer([query], **options)[0].hits)

    def query_many(
        self,
        queries: Sequence[Query] | Vectors,
        *,
        arrays: bool = False,
        **options: Unpack[QueryOptions],
    ) -> list[list[Hit]] | HitArrays:
        """Answer several queries at once; see `Collection.query_many`."""
        if not arrays:
            return [list(answer.hits) for answer in self.answer(queries, **options)]
        settings, queries = SearchOptions.of(**options), queries_of(queries)
        if settings.min_similarity is not None:
            raise SettingError("arrays hold all hits: compare their similarities yourself")
        without = self._left_out(queries, settings)
        return search(self.view(), self._embedder.embed(queries), settings, without)[0]

    def answer(
        self, queries: Sequence[Query] | Vectors, **options: Unpack[QueryOptions]
    ) -> list[Answer]:
        """Answer several queries at once, and tell how each was searched."""
        settings, queries = SearchOptions.of(**options), queries_of(queries)
        embeddings = self._embedder.embed(queries)
        without = self._left_out(queries, settings)
        while True:
            found, searches = search(self.view(), embeddings, settings, without)
            ids = np.unique(found.ids[found.ids >= 0]).tolist()
            paths = self.store.paths(ids)
            if len(paths) == len(ids):  # else an image was deleted meanwhile
                return answers_of(found, searches, {i: os.fsdecode(p) for i, p in paths.items()})

    def embed(
        self,
        queries: Sequence[Query] | Vectors,
        *,
        crop: tuple[float, float, float, float] | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Vectors:
        """Return the embeddings of queries, float32 `[n, dim]`; see `Collection.embed`."""
        limits = Limits(whole("max_pixels", max_pixels, 1))
        return self._embedder.embed(queries, None if crop is None else Box.of(crop), limits)

    def combine(
        self,
        queries: Sequence[Query] | Vectors,
        *,
        unlike: Sequence[Query] | Vectors = (),
        weights: Sequence[float] | None = None,
    ) -> Vectors:
        """Return one embedding for what is like all `queries` and not `unlike`."""
        return combine(self.embed(queries), self.embed(unlike), weights)

    def check_model(self, model: str | None, weights: str | None) -> None:
        """Check that a model and weights, where given, are those of this collection."""
        check_model(self._model, model, weights)

    def view(self) -> MilvusView:
        """Return a view of the present state."""
        return MilvusView(self.store, read_state(self.store), self.store.count())

    def info(self) -> Info:
        """Return what the collection holds; sizes are those of the embeddings, worked out."""
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

    def _left_out(self, queries: Sequence[Query] | Vectors, options: SearchOptions) -> Ids | None:
        named = names_left_out(queries, options)
        return left_out(named, self._ids_at) if named else None

    def _ids_at(self, path: PathLike) -> list[int]:
        for absolute in dict.fromkeys((plain_path(path), real_path(path), resolved_path(path))):
            if found := self.store.ids_at(absolute):
                return found
        return []
