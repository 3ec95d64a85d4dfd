"""Compact indexes as imgsearch 0.4 and earlier made them: a byte per value after PCA (SQ8)."""

from __future__ import annotations

import faiss

from imgsearch.ann.compact import CompactIndex, _copy
from imgsearch.ann.inverted import quantizer_of
from imgsearch.ann.vectors import Vectors

__all__ = ["outdated"]


def outdated(index: CompactIndex, vectors: Vectors) -> CompactIndex:
    """Return an empty index with the PCA and the centroids of `index`, and ranges of `vectors`."""
    centroids = index.centroids
    nlist, pca = centroids.shape
    kind = faiss.ScalarQuantizer.QT_8bit
    lists = faiss.IndexIVFScalarQuantizer(
        quantizer_of(centroids), pca, nlist, kind, faiss.METRIC_L2, False
    )
    lists.train(index.project(vectors))
    return CompactIndex(faiss.IndexPreTransform(_copy(index._pca), lists))
