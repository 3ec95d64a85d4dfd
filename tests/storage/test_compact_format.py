"""docs/format.md is enough to read a compact segment: here without Faiss."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imgsearch.ann.compact import CompactIndex, train_compact
from imgsearch.ann.vectors import Vectors
from tests.support.grower import clustered
from tests.support.small_network import DIM

NLIST, PCA = 7, 12


class Reader:
    """Reads fields one behind the other."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.at = 0

    def fields(self, form: str) -> tuple[Any, ...]:
        values: tuple[Any, ...] = struct.unpack_from(f"<{form}", self.content, self.at)
        self.at += struct.calcsize(f"<{form}")
        return values

    def floats(self) -> Vectors:
        (length,) = self.fields("Q")
        return np.array(self.fields(f"{length}f"), np.float32)


@pytest.mark.parametrize("count", [300, 4])
def test_a_compact_segment_can_be_read_as_the_document_says(tmp_path: Path, count: int) -> None:
    vectors, ids = clustered(count, seed=3), np.arange(5, 5 + count)
    index = train_compact(clustered(300, seed=1), NLIST, PCA)
    index.add(ids, vectors)
    with (tmp_path / "segment").open("wb") as file:
        index.save(file)
    reader = Reader((tmp_path / "segment").read_bytes())
    assert reader.fields("4siq16xBi") == (b"IxPT", DIM, count, 1, 1)
    assert reader.fields("i4s8xBi") == (1, b"Pcam", 0, 0)
    mean, eigenvalues, unused = reader.floats(), reader.floats(), reader.floats()
    assert reader.fields("B") == (1,)
    matrix, bias = reader.floats().reshape(PCA, DIM), reader.floats()
    assert reader.fields("iiB") == (DIM, PCA, 1)
    assert len(eigenvalues) == DIM
    assert len(unused) == 0
    np.testing.assert_allclose(bias, -matrix @ mean, atol=1e-6)
    assert reader.fields("4siq16xBiQ8x") == (b"Iwrq", PCA, count, 1, 1, NLIST)
    assert reader.fields("4siq16xBi") == (b"IxF2", PCA, NLIST, 1, 1)
    centroids = reader.floats().reshape(NLIST, PCA)
    assert reader.fields("BQ") == (0, 0)
    width = (PCA + 7) // 8 + 8
    assert reader.fields("QQiQBB") == (PCA, width, 1, width, 1, 4)
    assert reader.fields("4sQQ") == (b"ilar", NLIST, width)
    form, length = reader.fields("4sQ")
    numbers = reader.fields(f"{length}Q")
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    sizes = dict(enumerate(numbers) if form == b"full" else pairs)
    short = vectors @ matrix.T + bias
    found = 0
    for number, size in sizes.items():
        codes = np.array(reader.fields(f"{size * width}B"), np.uint8).reshape(size, width)
        owners = np.array(reader.fields(f"{size}q"), np.int64)
        exact = short[owners - 5]
        residual = exact - centroids[number]
        bits = np.unpackbits(codes[:, :-8], axis=1, count=PCA, bitorder="little")
        clear = np.abs(residual) > 1e-6
        np.testing.assert_array_equal(bits[clear], (residual > 0)[clear])
        square, factor = codes[:, -8:].copy().view("<f4").T
        np.testing.assert_allclose(square, np.square(residual).sum(axis=1), rtol=1e-3, atol=1e-6)
        sums = np.abs(residual).sum(axis=1)
        np.testing.assert_allclose(factor * sums, square * PCA**0.5, rtol=1e-3, atol=1e-6)
        squared = np.square(exact[:, None] - centroids).sum(axis=2)
        assert (squared.argmin(axis=1) == number).all()
        found += size
    assert (found, reader.at) == (count, len(reader.content))
    assert CompactIndex.open(tmp_path / "segment").count == count
