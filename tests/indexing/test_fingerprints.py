"""Every image has a fingerprint after a run, whoever indexed it."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imgsearch.collection import Collection
from imgsearch.indexing import fingerprints
from imgsearch.indexing.policy import FoldPolicy
from imgsearch.indexing.report import Progress
from imgsearch.maintenance.verify import verify
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.fingerprints import Prints
from imgsearch.storage.layout import Layout
from imgsearch.storage.seal import reseal
from tests.support.embedding_here import EngineInProcess
from tests.support.outcomes import age, did, ids_in
from tests.support.pictures import picture, save_pictures

ONE_COMMIT = FoldPolicy(commit_seconds=600.0)


def prints(directory: Path) -> dict[int, bytes | None]:
    """Return the fingerprint of each image."""
    layout = Layout(directory)
    with closing(Catalog(layout.catalog)) as catalog:
        table = Prints.open(layout.fingerprints, catalog.prints())
        return {id_: table.row_of(id_) for id_ in catalog.image_ids()}


def facts(directory: Path) -> dict[int, tuple[Any, ...]]:
    with closing(sqlite3.connect(directory / "catalog.sqlite")) as catalog:
        rows = catalog.execute("SELECT id, width, height, taken, camera FROM images").fetchall()
    return {row[0]: row[1:] for row in rows}


def forget(directory: Path) -> None:
    """Make a collection as a version before the fingerprints left it, once it is migrated."""
    with closing(sqlite3.connect(directory / "catalog.sqlite")) as catalog:
        catalog.execute("DELETE FROM fingerprints")
        catalog.execute("UPDATE images SET width = NULL, height = NULL")
        catalog.commit()
    shutil.rmtree(directory / "fingerprints")
    reseal(Layout(directory))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    save_pictures(folder, 9)
    exif = Image.Exif()
    exif[0x0110] = "A camera"
    picture(20).save(folder / "shot.jpg", exif=exif)
    age(folder)
    return folder


@pytest.fixture
def old(empty: Path, photos: Path) -> Path:
    """A collection without fingerprints."""
    with Collection.open(empty, device="cpu") as collection:
        collection.index(photos, engine=EngineInProcess(), policy=ONE_COMMIT)
    assert None not in prints(empty).values()
    assert (48, 40, None, "A camera") in facts(empty).values()
    return empty


def decoding_here(monkeypatch: pytest.MonkeyPatch, stop: int | None = None) -> list[str]:
    """Decode in this process, and interrupt that at a file; return the list of decoded files."""
    decoded: list[str] = []

    def here(paths: Any, *, wanted: Callable[[str, bytes], bool], input_size: int, **_: Any) -> Any:
        from imgsearch.embedding.pipeline import Fingerprinted, Known, Refused
        from imgsearch.errors import ImageError
        from imgsearch.images.decode import ImageFile

        for path in paths:
            if len(decoded) == stop:
                raise KeyboardInterrupt
            decoded.append(path)
            try:
                with ImageFile(path) as file:
                    if not wanted(path, file.digest):
                        yield Known(file.digest, file.size, file.mtime_ns)
                        continue
                    yield Fingerprinted(file.described(input_size)[1], file.digest)
            except ImageError as error:
                yield Refused(error.reason, error.recognised, error.transient, error.limited)

    monkeypatch.setattr(fingerprints, "fingerprint_files", here)
    return decoded


def test_an_older_collection_gets_its_fingerprints_at_the_next_run_without_embedding(
    old: Path,
) -> None:
    expected, stated = prints(old), facts(old)
    forget(old)
    told: list[Progress] = []
    with Collection.open(old, device="cpu") as collection:
        assert did(collection.index(progress=told.append)) == {"unchanged": 10}
    assert prints(old) == expected
    assert facts(old) == stated
    last = [each for each in told if each.fingerprints][-1]
    assert (last.done, last.total) == (10, 10)
    assert verify(old, sample=0).damages == ()


def test_what_was_made_before_an_interruption_is_not_made_again(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = prints(old)
    forget(old)
    first = decoding_here(monkeypatch, stop=4)
    with Collection.open(old, device="cpu") as collection, pytest.raises(KeyboardInterrupt):
        collection.index(engine=EngineInProcess())
    then = decoding_here(monkeypatch)
    with Collection.open(old, device="cpu") as collection:
        collection.index(engine=EngineInProcess())
        assert len(first) == 4
        assert sorted([*first, *then]) == sorted(ids_in(collection))
    assert prints(old) == expected


def test_a_file_that_is_missing_or_has_changed_gets_no_fingerprint_of_something_else(
    old: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget(old)
    decoded = decoding_here(monkeypatch)
    picture(50).save(photos / "0001.png")
    (photos / "new").mkdir()
    picture(51).save(photos / "new" / "51.png")
    age(photos)
    with Collection.open(old, device="cpu") as collection:
        changed = ids_in(collection)[str(photos / "0001.png")]
        collection.index(photos / "new", engine=EngineInProcess())
        assert prints(old)[changed] is None
        assert str(photos / "0001.png") in decoded
        decoded.clear()
        collection.index(engine=EngineInProcess())
    assert decoded == []
    assert None not in prints(old).values()


def test_a_copy_of_a_file_has_its_fingerprint_without_being_decoded(
    old: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = decoding_here(monkeypatch)
    shutil.copy(photos / "shot.jpg", photos / "again.jpg")
    age(photos)
    with Collection.open(old, device="cpu") as collection:
        assert did(collection.index(engine=EngineInProcess())) == {"copied": 1, "unchanged": 10}
        ids = ids_in(collection)
    one, other = ids[str(photos / "shot.jpg")], ids[str(photos / "again.jpg")]
    assert decoded == []
    assert prints(old)[one] == prints(old)[other]
    assert facts(old)[one] == facts(old)[other]


def test_files_of_fingerprints_are_merged_and_lose_those_of_removed_images(
    empty: Path, photos: Path
) -> None:
    few = FoldPolicy(commit_files=2, small_shard=8)
    with Collection.open(empty, device="cpu") as collection:
        collection.index(photos, engine=EngineInProcess(), policy=few)
        collection.remove(sorted(photos.iterdir())[:7])
        collection.index(engine=EngineInProcess(), policy=few)
    layout = Layout(empty)
    with closing(Catalog(layout.catalog)) as catalog:
        files = catalog.prints()
        ids = Prints.open(layout.fingerprints, files).ids()
        assert np.array_equal(ids, catalog.image_ids())
    assert len(files) <= 2
