"""Near hashes are found as by comparing each with each."""

from __future__ import annotations

import numpy as np
import pytest

from imgsearch.ann import hashes as module
from imgsearch.ann.hashes import near_hashes


def pairs(hashes: np.ndarray, asked: np.ndarray, most_bits: int) -> set[tuple[int, int]]:
    found = near_hashes(hashes, asked, most_bits)
    return {
        pair for rows, others in found for pair in zip(rows.tolist(), others.tolist(), strict=True)
    }


@pytest.mark.parametrize("exact_up_to", [10_000, 10])
def test_all_hashes_within_seven_bits_are_found(
    exact_up_to: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EXACT_UP_TO", exact_up_to)
    draw = np.random.default_rng(3)
    hashes = draw.integers(0, 2**64, 300, dtype=np.uint64)
    flips = [sum(1 << bit for bit in draw.permutation(64)[:many].tolist()) for many in range(12)]
    asked = hashes[:12] ^ np.array(flips, np.uint64)
    expected = {
        (row, other)
        for row, one in enumerate(asked.tolist())
        for other, hash_ in enumerate(hashes.tolist())
        if (one ^ hash_).bit_count() <= 7
    }
    assert pairs(hashes, asked, 7) == expected == {(row, row) for row in range(8)}


def test_of_very_many_near_hashes_the_nearest_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 2)
    hashes = np.array([1, 3, 0, 7], np.uint64)
    assert pairs(hashes, np.array([0], np.uint64), 8) == {(0, 2), (0, 0)}


def test_among_no_hashes_there_are_none() -> None:
    assert pairs(np.empty(0, np.uint64), np.array([0], np.uint64), 8) == set()
