"""`evaluate --verify` shows what verification by local features gains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from imgsearch.collection import Collection
from tests.support.commands import Run
from tests.support.textures import texture


@pytest.fixture
def labels(collection: Collection, tmp_path: Path) -> Path:
    """A folder with a sub-folder for each of 6 pictures and its turned copy, indexed."""
    folder = tmp_path / "labelled"
    for seed in range(6):
        (folder / str(seed)).mkdir(parents=True)
        picture = texture(seed, width=200, height=150)
        picture.save(folder / str(seed) / "picture.png")
        picture.rotate(100, expand=True).save(folder / str(seed) / "turned.png")
    collection.index([folder])
    return folder


def test_verification_is_measured_beside_exact_search(collection: Collection, labels: Path) -> None:
    found = collection.evaluate(labels, k=1, verify=True)
    assert found.verified is not None
    assert found.verified_gain is not None
    assert found.exact.precision_at_1.mean < 0.5
    assert found.verified.precision_at_1.mean == 1
    gain, exact = found.verified_gain.precision_at_1, found.exact.precision_at_1
    assert gain.mean == pytest.approx(1 - exact.mean)
    assert 0 < gain.low <= gain.mean <= gain.high
    plain = collection.evaluate(labels, k=1)
    assert (plain.exact, plain.verified, plain.verified_gain) == (found.exact, None, None)


@pytest.mark.whole("test_verification_is_measured_beside_exact_search")
def test_the_command_shows_the_difference(collection: Collection, labels: Path, run: Run) -> None:
    asked = "evaluate", labels, "-c", collection.info().directory, "--verify"
    text = run(*asked).out
    assert "its first 50 hits verified by local features" in text
    fields = json.loads(run(*asked, "--json").out)
    assert fields["verified"]["precision_at_1"]["mean"] == 1
    assert fields["verified_gain"]["precision_at_1"]["low"] > 0
