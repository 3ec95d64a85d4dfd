"""Describe the content of a collection."""

from __future__ import annotations

import os

import numpy as np

from imgsearch.ann.gpu import describe_faiss
from imgsearch.embedding.runtime import pick_device
from imgsearch.files.exclusions import Exclusions
from imgsearch.indexing.fold import is_outgrown
from imgsearch.querying.info import Info
from imgsearch.querying.view import View
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.layout import Layout

__all__ = ["describe"]


def describe(layout: Layout, catalog: Catalog, view: View, device: str) -> Info:
    """Return a description of a collection.

    Args:
        layout: The layout of the collection.
        catalog: The catalog of the collection.
        view: A view of its present state.
        device: The device that it was opened for, "auto" for the best one available.

    Raises:
        ModelError: If there is no such device.
    """
    counts, settings = catalog.counts(), view.snapshot.settings
    sizes = [index.list_sizes() for index in view.segments]
    picked = pick_device(device)
    ranking = view.ranking
    return Info(
        directory=str(layout.directory),
        images=view.count,
        failed=counts.failed,
        skipped=counts.skipped,
        excluded=counts.excluded,
        roots=tuple(os.fsdecode(root.path) for root in catalog.roots()),
        left_out=Exclusions.of(settings.exclude, settings.include).patterns,
        model=view.snapshot.model,
        settings=settings,
        ivf=view.snapshot.ivf,
        nprobe=view.nprobe,
        outgrown=is_outgrown(view.snapshot, view.count),
        segments=len(view.segments),
        list_sizes=tuple(np.sum(sizes, axis=0).tolist()) if sizes else (),
        index_bytes=sum(segment.size for segment in view.snapshot.segments),
        tail=view.tail_count,
        bytes=layout.size(),
        device=picked,
        faiss=describe_faiss(picked),
        rank="cosine" if ranking is None else "collection",
        ranking_bytes=sum(layer.size for layer in view.snapshot.layers),
        unranked=0 if ranking is None else len(catalog.image_ids(ranking.layers.last_id() + 1)),
    )
