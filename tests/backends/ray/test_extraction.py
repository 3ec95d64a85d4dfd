"""A run on a cluster: the same collection as without, whenever it is cut off."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from imgsearch.backends.ray.extraction import PART
from imgsearch.backends.ray.staging import Staging
from imgsearch.collection import Collection
from imgsearch.indexing.report import Progress
from imgsearch.querying.view import open_view
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import Storage
from tests.support.engine_here import EngineHere
from tests.support.outcomes import age, did, ids_in
from tests.support.pictures import save_pictures

COUNT = 3 * PART + 5


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures in two folders, two of them copies, and files that are none; for reading only."""
    folder = tmp_path_factory.mktemp("pictures")
    save_pictures(folder / "a", 2 * PART)
    save_pictures(folder / "b", COUNT - 2 * PART, first=2 * PART)
    shutil.copy(folder / "a" / "0000.jpg", folder / "a" / "copy.jpg")
    shutil.copy(folder / "a" / "0000.jpg", folder / "b" / "copy.jpg")
    (folder / "b" / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    (folder / "b" / "notes.txt").write_text("no image")
    age(folder)
    return folder


@pytest.fixture
def alone(empty: Path, pictures: Path, tmp_path: Path, here: None) -> Path:
    """The collection of `pictures` that is made without a cluster."""
    del here
    directory = shutil.copytree(empty, tmp_path / "alone")
    with Collection.open(directory, device="cpu") as collection:
        collection.index([pictures])
    return directory


def _vectors(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Return id and embedding of the image at each path."""
    layout = Layout.at(directory)
    catalog = Catalog(layout.catalog)
    found: dict[str, tuple[int, bytes]] = {}
    for ids, vectors in open_view(layout, catalog).live_blocks():
        paths = catalog.paths(ids.tolist())
        rows = zip(ids.tolist(), np.asarray(vectors), strict=True)
        found |= {paths[id_]: (id_, row.tobytes()) for id_, row in rows}
    catalog.close()
    return found


def _segments(directory: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(Layout.at(directory).segments.iterdir())]


@pytest.mark.few(1)
@pytest.mark.parametrize("storage", ["flat", "compact"])
def test_a_cluster_makes_the_same_collection(
    empty: Path, pictures: Path, alone: Path, staging: Staging, storage: Storage
) -> None:
    engine = EngineHere(staging)
    pca = 8 if storage == "compact" else None
    with Collection.open(empty, device="cpu") as collection:
        report = collection.index([pictures], engine=engine)
        collection.index(nlist=8, storage=storage, pca=pca, engine=engine)
    with Collection.open(alone, device="cpu") as collection:
        collection.index(nlist=8, storage=storage, pca=pca)
    assert did(report) == {"indexed": COUNT, "copied": 2, "failed": 1, "skipped": 1}
    assert _vectors(empty) == _vectors(alone)
    assert _segments(empty) == _segments(alone)


@pytest.mark.few(1)
def test_nothing_is_embedded_again_and_nothing_is_left_in_the_staging(
    empty: Path, pictures: Path, staging: Staging
) -> None:
    with Collection.open(empty, device="cpu") as collection:
        collection.index([pictures], engine=EngineHere(staging))
        engine = EngineHere(staging)
        report = collection.index([pictures], engine=engine)
    assert did(report) == {"unchanged": COUNT + 2, "failed": 1, "skipped": 1}
    assert engine.asked == []
    model = Catalog(Layout.at(empty).catalog).snapshot().model
    assert staging.find(model.onnx_sha256) == {}


def _stop_after(files: int) -> Callable[[Progress], None]:
    def progress(state: Progress) -> None:
        if state.done >= files and not state.training:
            raise RuntimeError("cut off")

    return progress


@pytest.mark.few(1)
@pytest.mark.parametrize("files", [1, PART - 1, PART, 2 * PART + 1])
def test_a_run_that_was_cut_off_goes_on_from_what_was_staged(
    empty: Path, pictures: Path, alone: Path, staging: Staging, files: int
) -> None:
    first, second = EngineHere(staging), EngineHere(staging)
    with Collection.open(empty, device="cpu") as collection:
        with pytest.raises(RuntimeError, match="cut off"):
            collection.index([pictures], engine=first, progress=_stop_after(files))
        committed = set(ids_in(collection))
        collection.index([pictures], engine=second)
    assert not committed.intersection(second.asked)
    embedded = [path for path in first.asked if not path.endswith(("broken.jpg", "notes.txt"))]
    assert not set(embedded).intersection(second.asked)
    assert {path: row for path, (_, row) in _vectors(empty).items()} == {
        path: row for path, (_, row) in _vectors(alone).items()
    }


def test_a_file_that_has_changed_since_it_was_staged_is_embedded_again(
    empty: Path, staging: Staging, tmp_path: Path
) -> None:
    first, second = save_pictures(tmp_path / "new", 2)
    age(tmp_path / "new")
    engine = EngineHere(staging)
    with Collection.open(empty, device="cpu") as collection:
        with pytest.raises(RuntimeError, match="cut off"):
            collection.index([tmp_path / "new"], engine=engine, progress=_stop_after(0))
        save_pictures(tmp_path / "other", 1, first=9)[0].rename(second)
        age(tmp_path / "new")
        engine = EngineHere(staging)
        collection.index([tmp_path / "new"], engine=engine)
        (hit,) = collection.query(second, k=1, include_self=True)
    assert engine.asked == [str(first), str(second)] or engine.asked == [str(second)]
    assert hit.path == str(second)
    assert hit.distance == 0


@pytest.mark.whole("test_a_run_that_was_cut_off_goes_on_from_what_was_staged")
def test_a_staged_shard_that_was_damaged_is_embedded_again(
    empty: Path, pictures: Path, alone: Path, tmp_path: Path
) -> None:
    staging = Staging(str(tmp_path / "staging"))
    with Collection.open(empty, device="cpu") as collection:
        with pytest.raises(RuntimeError, match="cut off"):
            collection.index([pictures], engine=EngineHere(staging), progress=_stop_after(1))
        for path in (tmp_path / "staging").glob("*.npy"):
            path.write_bytes(path.read_bytes()[:-1])
        collection.index([pictures], engine=EngineHere(staging))
    assert _vectors(empty).keys() == _vectors(alone).keys()
