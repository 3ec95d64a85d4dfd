"""Measure rankings against relevance, and give confidence intervals of the means.

The measures are those of C. D. Manning, P. Raghavan and H. Schütze, "Introduction to Information
Retrieval" (2008), sections 8.3 and 8.4.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from imgsearch.ann.vectors import Ids

__all__ = ["Flags", "Values", "interval", "measure"]

Flags: TypeAlias = npt.NDArray[np.bool_]
Values: TypeAlias = npt.NDArray[np.float64]

RESAMPLES = 1_000
CONFIDENCE = 0.95
_SEED = 1234


def measure(relevant: Flags, retrieved: Flags, totals: Ids, k: int) -> Values:
    """Return P@1, P@k, recall@k and the average precision of each query, float64 `[n, 4]`.

    P@k divides by k, even if fewer images are retrieved. Average precision is not interpolated: it
    is the mean, over all relevant images, of the precision at the rank of each, which is 0 for an
    image that is not retrieved. If all images are retrieved and no two are equally near, it equals
    the result of `sklearn.metrics.average_precision_score`.

    Args:
        relevant: Flags of the relevant images, ordered by rank, bool `[n, m]`.
        retrieved: Flags of the retrieved images, bool `[n, m]`; others take no rank.
        totals: Number of relevant images per query, retrieved or not, int64 `[n]`, at least 1.
        k: Number of ranks that P@k and recall@k consider.
    """
    ranks = np.cumsum(retrieved, axis=1, dtype=np.int32)
    rows, columns = np.nonzero(relevant & retrieved)  # row by row, the best rank first
    found = ranks[rows, columns]
    counts = np.bincount(rows, minlength=len(totals))
    number = np.arange(1, len(rows) + 1) - np.repeat(np.cumsum(counts) - counts, counts)
    average = np.bincount(rows, weights=number / found, minlength=len(totals)) / totals
    first, best = (np.bincount(rows[found <= depth], minlength=len(totals)) for depth in (1, k))
    return np.stack([first, best / k, best / totals, average], axis=1)


def interval(values: Values) -> tuple[Values, Values]:
    """Return the 95 % confidence interval of the mean of each column, float64 `[columns]` each.

    This is the percentile interval of 1,000 seeded bootstrap resamples of the rows: B. Efron and
    R. J. Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13.

    Args:
        values: Values of n queries, at least one, float64 `[n, columns]`.
    """
    random = np.random.default_rng(_SEED)
    count = len(values)
    means = np.empty((RESAMPLES, values.shape[1]))
    for resample in means:
        drawn = np.bincount(random.integers(count, size=count), minlength=count)
        resample[:] = drawn @ values / count
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, (tail, 1 - tail), axis=0)
    return low, high
