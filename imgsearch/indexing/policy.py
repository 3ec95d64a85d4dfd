"""The thresholds of a run: when it commits, folds, trains and compacts."""

from __future__ import annotations

from dataclasses import dataclass

from imgsearch.ann.promise import FEWEST

__all__ = ["HELD_OUT", "POLICY", "SPARE_FROM", "FoldPolicy", "most_lists"]

HELD_OUT = 1_000  # images held out to measure recall
SPARE_FROM = 5_000  # images from which that many can be spared from training; else cross-validation


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldPolicy:
    """When to commit, fold, train and compact; docs/index-upkeep.md explains the rules.

    Attributes:
        commit_seconds: Least time between two commits. It grows with the run, see
            `imgsearch.indexing.commit`.
        commit_files: Number of changed files that are committed without waiting any longer.
        ivf_from: Number of images from which on there are lists; fewer are quick to compare.
        growth: Factor by which the number of images changes until centroids are trained again.
        growth_meanwhile: The same factor during a run, at whose end they are trained again.
        unlike: Share of all images allowed beyond the last band of the promise.
        judged_from: Number of held-out queries from which on a band is judged by them alone.
        tail_least: Number of images below which the tail never becomes a segment.
        tail_most: Number of images from which on the tail always becomes a segment.
        merge: How many times the images of the tail a fold may rewrite to merge segments.
        segments: Number of segments from which on any of them are merged.
        segment_bytes: Maximum bytes of embeddings, or of their codes, in a segment.
        segment_dead: Removed share of a segment from which on it is rewritten.
        small_shard: Number of rows below which a shard is merged with those after it.
        shard_dead: Removed share of a shard from which on it is rewritten.
        ranked_from: Number of images from which on there is a ranking: see
            `imgsearch.indexing.neighbours`.
    """

    commit_seconds: float = 0.5
    commit_files: int = 4_096
    ivf_from: int = 256
    growth: int = 2
    growth_meanwhile: int = 8
    unlike: float = 0.1
    judged_from: int = FEWEST
    tail_least: int = 256
    tail_most: int = 5_000
    merge: int = 4
    segments: int = 16
    segment_bytes: int = 1 << 30
    segment_dead: float = 0.25
    small_shard: int = 2_000
    shard_dead: float = 0.5
    ranked_from: int = 256


POLICY = FoldPolicy()


def most_lists(count: int) -> int:
    """Return the maximum number of centroids for `count` images: one each, except held-out ones."""
    return count if count < SPARE_FROM else count - HELD_OUT
