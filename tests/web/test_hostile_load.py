"""Ordinary clients beside hostile ones: they are answered, soon, and the server stays small."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.bench_serve import Server, besiege, form_of


@pytest.mark.whole("test_more_uploads_than_can_be_dealt_with_are_sent_away")
def test_ordinary_images_are_answered_soon_beside_hostile_ones(
    indexed: Path, photos: Path, tmp_path: Path
) -> None:
    bodies = [form_of(image=path.read_bytes()) for path in sorted(photos.iterdir())]
    with Server(indexed, tmp_path / "cache") as server:
        siege = besiege(server.port, server.process, bodies, seconds=20, scale=0.5)
    assert siege.load.answers > 0
    assert siege.load.errors == 0
    assert siege.load.p99 <= 5.0
    assert siege.memory < 2_500_000_000
    assert sum(siege.hostile.values()) > 0
    assert set(siege.hostile) <= {200, 413, 422, 503}
