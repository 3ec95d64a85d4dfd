"""Damage is found wherever it is, and repaired without a loss."""

from __future__ import annotations

import hashlib
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from imgsearch.collection import Collection
from imgsearch.errors import BusyError, DamagedError, ImgsearchError, NoCollectionError
from imgsearch.indexing.policy import FoldPolicy
from imgsearch.maintenance.damage import Part
from imgsearch.maintenance.judging import mark_not_duplicates
from imgsearch.maintenance.verify import verify
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.files import exclusive, undisturbed
from imgsearch.storage.layout import FORMAT_VERSION, Layout, manifest_of
from imgsearch.storage.records import Shard
from imgsearch.storage.seal import seal
from tests.support.damage import DAMAGE, answers, files_of
from tests.support.depth import Harm
from tests.support.embedding_here import EngineInProcess
from tests.support.outcomes import age
from tests.support.pictures import save_pictures
from tests.support.small_network import DIM, make_small_collection

pytestmark = pytest.mark.usefixtures("embedded_here")


RANKED = FoldPolicy(ranked_from=20)


@pytest.fixture(scope="module")
def lived_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection with all kinds of files and rows, and its pictures beside it, to be copied."""
    top = tmp_path_factory.mktemp("lived_in").resolve()
    directory, photos = make_small_collection(top / "collection"), top / "photos"
    engine = EngineInProcess()
    with Collection.open(directory, device="cpu") as collection:
        for start, count in ((0, 60), (100, 3), (200, 3)):
            save_pictures(photos, count, first=start)
            (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no JPEG")
            age(photos)
            collection.index(photos, nlist=3, engine=engine, policy=RANKED)
        collection.remove([next(photos.glob(f"{n:04}.*")) for n in (2, 101, 200, 201)])
        collection.index(nlist=4, engine=engine, policy=RANKED)
        for start, count in ((300, 3), (400, 5)):
            save_pictures(photos, count, first=start)
            age(photos)
            collection.index(engine=engine, policy=RANKED)
    mark_not_duplicates(directory, sorted(photos.glob("000[3-5].*")))
    files = {path.name for path in files_of(directory)}
    assert "not-duplicates" in files
    assert any(name.endswith(".ids.npy") for name in files)
    assert any(name.endswith(".layer") for name in files)
    with closing(Catalog(directory / "catalog.sqlite")) as catalog:
        assert files & catalog.replaced().keys()
    return directory


@pytest.fixture
def damaged(lived_in: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return shutil.copytree(lived_in, tmp_path / "damaged")


def flip(path: Path, at: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(content)


def shards_of(directory: Path) -> list[Shard]:
    """Return the shards, the largest first."""
    catalog = sqlite3.connect(directory / "catalog.sqlite")
    shards = [Shard(*row) for row in catalog.execute("SELECT * FROM shards ORDER BY count DESC")]
    catalog.close()
    return shards


def edit(directory: Path, *statements: str) -> None:
    """Change the catalog, and seal it as if that had been right."""
    catalog = sqlite3.connect(directory / "catalog.sqlite")
    for statement in statements:
        catalog.execute(statement)
    catalog.commit()
    catalog.close()
    (directory / "catalog.seal").unlink()
    seal(Layout(directory))


def test_a_sound_collection_is_found_sound_and_is_not_touched(lived_in: Path) -> None:
    def content() -> dict[Path, str]:
        files = (path for path in lived_in.rglob("*") if path.is_file())
        return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    before = content()
    for repair in (False, True):
        report = verify(lived_in, repair=repair)
        assert (report.damages, report.repairs, report.left) == ((), (), ())
        assert (report.images, report.sampled, report.embedded) == (70, 20, 20)
        assert (report.sealed, report.leftovers) == (True, 0)
    assert content() == before


@pytest.mark.usefixtures("here")
def test_any_damage_to_any_file_is_found_and_repaired_without_a_loss(
    lived_in: Path, tmp_path: Path, harm: Harm
) -> None:
    chance = random.Random(1234)
    files, expected = files_of(lived_in), answers(lived_in)
    for number in range(harm.times(120, 2_000, fast=10)):
        directory = tmp_path / "damaged"
        shutil.copytree(lived_in, directory)
        file, kind = chance.choice(files), list(DAMAGE)[number % len(DAMAGE)]
        content = bytearray((directory / file).read_bytes())
        DAMAGE[kind](content, chance)
        (directory / file).write_bytes(content)
        what = f"{kind} of {file} (number {number})"

        report = verify(directory)
        assert report.damages, what
        assert report.left == report.damages, what
        if file.name != "model.onnx":  # whose weights nobody has
            report = verify(directory, repair=True)
            assert report.repairs, what
            assert report.left == (), what
            assert answers(directory) == expected, what
        harm.done(kind)
        shutil.rmtree(directory)


@pytest.mark.whole("test_every_bit_of_the_header_of_the_catalog_counts")
def test_every_bit_of_the_small_files_counts(lived_in: Path, tmp_path: Path, harm: Harm) -> None:
    directory = shutil.copytree(lived_in, tmp_path / "damaged")
    every = harm.times(1, 1, fast=29)
    for name in ("collection.json", "catalog.seal"):
        content = (directory / name).read_bytes()
        for bit in range(0, 8 * len(content), every):
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            (directory / name).write_bytes(flipped)
            assert [damage.file for damage in verify(directory, sample=0).damages] == [name], bit
        harm.done("bit flips", -(-8 * len(content) // every))
        (directory / name).write_bytes(content)


def test_every_bit_of_the_header_of_the_catalog_counts(
    lived_in: Path, tmp_path: Path, harm: Harm
) -> None:
    directory = shutil.copytree(lived_in, tmp_path / "damaged")
    content = (directory / "catalog.sqlite").read_bytes()
    every = harm.times(1, 1, fast=7)
    for bit in range(0, 800, every):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        (directory / "catalog.sqlite").write_bytes(flipped)
        assert "catalog.sqlite" in {each.file for each in verify(directory, sample=0).damages}, bit
    harm.done("bit flips", -(-800 // every))
    assert sorted(files_of(directory)) == sorted(files_of(lived_in))


@pytest.mark.few(1)
@pytest.mark.parametrize(
    "part", ["catalog.sqlite", "catalog.seal", "catalog.copy", "segments", "layers", "fingerprints"]
)
def test_what_is_missing_is_made_again(damaged: Path, part: str) -> None:
    expected = answers(damaged)
    if part in ("segments", "layers", "fingerprints"):
        for path in (damaged / part).iterdir():
            path.unlink()
    else:
        (damaged / part).unlink()
    assert verify(damaged).left
    assert verify(damaged, repair=True).left == ()
    assert answers(damaged) == expected


def test_a_lost_manifest_is_written_again_and_no_collection_is_made_over_the_old_one(
    damaged: Path,
) -> None:
    expected = answers(damaged)
    (damaged / "collection.json").unlink()
    with pytest.raises(DamagedError, match=r"collection\.json is missing; `imgsearch verify"):
        Collection.open(damaged, device="cpu")
    with pytest.raises(ImgsearchError):
        Collection.create(damaged, device="cpu")
    assert verify(damaged, repair=True).left == ()
    assert (damaged / "collection.json").read_bytes() == manifest_of(FORMAT_VERSION)
    assert answers(damaged) == expected


def test_a_lost_shard_is_embedded_again_where_the_index_is_lost_too(damaged: Path) -> None:
    expected = answers(damaged)
    for path in [*(damaged / "vectors").iterdir(), *(damaged / "segments").iterdir()]:
        path.unlink()
    report = verify(damaged, repair=True)
    assert report.left == ()
    assert all("embedded again" in line for line in report.repairs if "vectors/" in line)
    assert "segments: the index was rebuilt from the embeddings" in report.repairs
    assert answers(damaged) == expected
    with Collection.open(damaged, device="cpu") as collection:
        info = collection.info()
        assert info.ivf is not None
        assert info.ivf.nlist == 4
        assert collection.index().unchanged == 70


def test_an_image_that_was_dropped_is_embedded_by_the_next_run(
    damaged: Path, lived_in: Path
) -> None:
    expected = answers(damaged)
    photos = lived_in.parent / "photos"
    photos.rename(photos.with_name("away"))
    for path in [*(damaged / "vectors").iterdir(), *(damaged / "segments").iterdir()]:
        path.unlink()
    report = verify(damaged, repair=True)
    photos.with_name("away").rename(photos)
    assert (report.left, report.images) == ((), 0)
    with Collection.open(damaged, device="cpu") as collection:
        assert collection.index().indexed == 70
    assert answers(damaged) == expected


@pytest.mark.whole("test_a_damaged_model_is_exported_again")
def test_a_damaged_model_of_a_real_network_is_exported_again(
    photos_indexed: Path, tmp_path: Path
) -> None:
    directory = shutil.copytree(photos_indexed, tmp_path / "damaged")
    model = (directory / "model.onnx").read_bytes()
    flip(directory / "model.onnx", len(model) // 2)
    with (
        Collection.open(directory, device="cpu") as collection,
        pytest.raises(DamagedError, match=r"model\.onnx has changed since it was written"),
    ):
        collection.query(np.zeros((9, 9, 3), np.uint8))
    assert {damage.part for damage in verify(directory).left} == {Part.MODEL}
    report = verify(directory, repair=True)
    assert report.left == ()
    assert report.embedded == 20
    assert verify(directory).damages == ()


@pytest.mark.parametrize(
    ("statement", "part"),
    [
        ("DELETE FROM images WHERE id = (SELECT min(id) FROM images)", Part.SHARD),
        ("DELETE FROM shards WHERE first_id = (SELECT max(first_id) FROM shards)", Part.IMAGES),
        ("UPDATE segments SET first_id = first_id + 1", Part.INDEX),
        ("INSERT INTO removed VALUES (999, x'00', 1)", Part.IMAGES),
    ],
)
def test_a_catalog_that_does_not_fit_its_files_is_found(
    damaged: Path, statement: str, part: Part
) -> None:
    edit(damaged, statement)
    assert part in {damage.part for damage in verify(damaged).damages}
    assert verify(damaged, repair=True).left == ()


def test_an_embedding_that_is_not_what_its_image_gives_is_found(damaged: Path) -> None:
    shard = shards_of(damaged)[-1]
    path = damaged / "vectors" / f"{shard.number:08}.npy"
    np.save(path, np.eye(shard.count, DIM, dtype=np.float32))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    edit(damaged, f"UPDATE shards SET sha256 = x'{sha256}' WHERE number = {shard.number}")
    damages = {damage.part: damage for damage in verify(damaged, sample=70).damages}
    reason = damages[Part.EMBEDDINGS].reason
    assert reason.startswith(f"{shard.count} of 70 are not what their images give now")


def test_what_an_older_decoder_made_of_an_image_is_no_damage(damaged: Path) -> None:
    shard = shards_of(damaged)[-1]
    path = damaged / "vectors" / f"{shard.number:08}.npy"
    np.save(path, np.eye(shard.count, DIM, dtype=np.float32))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    edit(damaged, f"UPDATE shards SET sha256 = x'{sha256}' WHERE number = {shard.number}")
    edit(damaged, "UPDATE model SET decoder = 1")
    report = verify(damaged, sample=70)
    assert Part.EMBEDDINGS not in {damage.part for damage in report.damages}
    assert report.embedded > 0


def test_a_writer_and_a_verification_keep_each_other_off(damaged: Path) -> None:
    with (
        exclusive(damaged),
        pytest.raises(BusyError, match="another imgsearch is writing"),
    ):
        verify(damaged)
    with undisturbed(damaged):
        assert verify(damaged).damages == ()
        with pytest.raises(BusyError, match="or is verifying it"):
            verify(damaged, repair=True)


def test_what_a_killed_run_committed_is_no_damage_and_is_sealed_by_the_next(damaged: Path) -> None:
    catalog = sqlite3.connect(damaged / "catalog.sqlite")
    catalog.execute("UPDATE settings SET recall = 0.9")
    catalog.commit()
    catalog.close()
    report = verify(damaged)
    assert (report.damages, report.sealed) == ((), False)
    with Collection.open(damaged, device="cpu") as collection:
        collection.index()
    assert verify(damaged).sealed


def test_a_newer_or_an_unknown_collection_is_refused(tmp_path: Path, damaged: Path) -> None:
    with pytest.raises(NoCollectionError):
        verify(tmp_path / "nowhere")
    edit(damaged, f"PRAGMA user_version = {FORMAT_VERSION + 1}")
    (damaged / "collection.json").write_bytes(manifest_of(FORMAT_VERSION + 1))
    with pytest.raises(DamagedError, match="update imgsearch"):
        verify(damaged)
