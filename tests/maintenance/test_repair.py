"""What `verify --repair` does to each damage: nothing is lost that can be had from anywhere."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from imgsearch.collection import Collection
from imgsearch.errors import ModelError, SettingError, StorageError
from imgsearch.maintenance import repair
from imgsearch.maintenance.damage import Part
from imgsearch.maintenance.verify import verify
from tests.support.aged_collection import LivedIn, holdings, in_this_process, same
from tests.support.damage import files_of
from tests.support.depth import Harm
from tests.support.forked import play_apart
from tests.support.outcomes import age, did
from tests.support.pictures import picture

FILED, ALSO_FILED, TAIL = "00000001.npy", "00000002.npy", "00000006.npy"  # of 27, 9 and 5 images


@pytest.fixture(autouse=True)
def _here() -> Iterator[None]:
    with in_this_process():
        yield


@pytest.fixture
def photos(lived_in: LivedIn, tmp_path: Path) -> Path:
    """A copy of the photos, to which the collection was moved; to be changed."""
    photos = tmp_path / "copied"
    shutil.copytree(lived_in.photos, photos)
    with Collection.open(lived_in.directory, device="cpu") as collection:
        assert collection.index(moved=(lived_in.photos, photos)).removed == 0
    return photos


def at(photos: Path, lived_in: LivedIn) -> dict[str, np.ndarray]:
    """Return what is held, by the paths in the copy of the photos."""
    return {str(photos / Path(path).name): row for path, row in lived_in.held.items()}


def repaired(directory: Path) -> tuple[str, ...]:
    """Repair a collection that can be repaired; return what was done."""
    report = verify(directory, repair=True)
    assert report.damages
    assert report.left == ()
    assert verify(directory, sample=1_000).damages == ()
    return report.repairs


def overwrite(path: Path, at: int, content: bytes) -> None:
    """Change some bytes of a file."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


# A shard


def test_a_lost_shard_is_taken_from_the_index(lived_in: LivedIn, photos: Path) -> None:
    (lived_in.directory / "vectors" / ALSO_FILED).unlink()
    shutil.rmtree(photos)
    segments = {path: path.read_bytes() for path in lived_in.directory.glob("segments/*")}
    assert repaired(lived_in.directory) == (f"vectors/{ALSO_FILED}: 9 taken from the index",)
    assert {path: path.read_bytes() for path in lived_in.directory.glob("segments/*")} == segments
    assert same(holdings(lived_in.directory), at(photos, lived_in))


def test_a_lost_shard_with_removed_rows_has_the_index_made_anew(lived_in: LivedIn) -> None:
    (lived_in.directory / "vectors" / FILED).unlink()
    assert repaired(lived_in.directory) == (
        f"vectors/{FILED}: 27 taken from the index",
        "segments: the index was rebuilt from the embeddings",
    )
    assert same(holdings(lived_in.directory), lived_in.held)


def test_a_lost_shard_that_is_not_in_the_index_is_embedded_again(lived_in: LivedIn) -> None:
    (lived_in.directory / "vectors" / TAIL).unlink()
    assert repaired(lived_in.directory) == (f"vectors/{TAIL}: 5 embedded again",)
    assert same(holdings(lived_in.directory), lived_in.held)


def test_without_the_images_what_is_sound_of_a_shard_is_kept(
    lived_in: LivedIn, photos: Path
) -> None:
    path = lived_in.directory / "vectors" / TAIL
    photos.rename(photos.with_name("unplugged"))
    overwrite(path, 128 + 2 * 192, bytes(192))  # the third row
    (told,) = repaired(lived_in.directory)
    assert told == (
        f"vectors/{TAIL}: 4 kept as they are, because their images are missing, "
        "1 dropped, because their images are missing"
    )
    left = holdings(lived_in.directory)
    before = at(photos, lived_in)
    assert len(left) == len(before) - 1
    assert same(left, {path: before[path] for path in left})
    photos.with_name("unplugged").rename(photos)
    with Collection.open(lived_in.directory, device="cpu") as collection:
        assert collection.index().indexed == 1
    assert same(holdings(lived_in.directory), before)


@pytest.mark.few(1)
@pytest.mark.parametrize("harmed", ["header", "cut", "longer", "ids", "ids gone"])
def test_rows_are_kept_though_their_file_is_not_what_it_was(
    lived_in: LivedIn, photos: Path, harmed: str
) -> None:
    path = lived_in.directory / "vectors" / TAIL
    listed = path.with_suffix(".ids.npy")
    photos.rename(photos.with_name("unplugged"))
    if harmed == "header":
        overwrite(path, 0, bytes(128))
    elif harmed == "cut":
        os.truncate(path, 128 + 3 * 192 + 100)
    elif harmed == "longer":
        overwrite(path, path.stat().st_size, b"more")
    elif harmed == "ids":  # the last is that of the one before
        overwrite(listed, 128 + 4 * 8, np.load(listed)[3].tobytes())
    else:
        listed.unlink()
    (told,) = repaired(lived_in.directory)
    kept = 3 if harmed == "cut" else 5
    assert f": {kept} kept as they are" in told
    left, before = holdings(lived_in.directory), at(photos, lived_in)
    assert len(left) == len(before) - 5 + kept
    assert same(left, {path: before[path] for path in left})


@pytest.mark.usefixtures("photos")
def test_a_changed_image_is_not_taken_for_what_it_was(lived_in: LivedIn) -> None:
    with Collection.open(lived_in.directory, device="cpu") as collection:
        paths = sorted(hit.path for hit in collection.query(picture(0), k=100))
    changed, gone = paths[-1], paths[-2]
    (lived_in.directory / "vectors" / TAIL).unlink()
    Image.new("RGB", (9, 9), "red").save(changed)
    Path(gone).unlink()
    (told,) = repaired(lived_in.directory)
    assert told == f"vectors/{TAIL}: 3 embedded again, 2 dropped, because their images are missing"
    age(Path(changed))
    with Collection.open(lived_in.directory, device="cpu") as collection:
        report = did(collection.index())
        assert report == {"indexed": 1, "unchanged": 39, "excluded": 2, "failed": 1, "skipped": 1}
        assert collection.query(changed, k=1, include_self=True)[0].path == changed


# The index


@pytest.mark.few(1)
@pytest.mark.parametrize("number", [1, 2])
def test_a_damaged_segment_has_the_index_made_anew(lived_in: LivedIn, number: int) -> None:
    with Collection.open(lived_in.directory, device="cpu") as collection:
        before = collection.info()
    os.truncate(lived_in.directory / "segments" / f"0000000{number}.faiss", 1_000)
    rebuilt = "segments: the index was rebuilt from the embeddings"
    assert repaired(lived_in.directory) == (rebuilt,)
    with Collection.open(lived_in.directory, device="cpu") as collection:
        after = collection.info()
        assert collection.answer([picture(0)])[0].search.kind in ("ivf", "wide", "exact")
    assert after.ivf is not None
    assert before.ivf is not None
    assert (after.ivf.nlist, after.settings) == (before.ivf.nlist, before.settings)
    assert after.ivf.curve
    assert after.nprobe
    assert same(holdings(lived_in.directory), lived_in.held)


def test_a_lost_shard_of_a_collection_without_an_index_makes_none(empty: Path, tree: Path) -> None:
    with Collection.open(empty, device="cpu") as collection:
        collection.index(tree)
    (empty / "vectors" / "00000001.npy").unlink()
    assert repaired(empty) == ("vectors/00000001.npy: 12 embedded again",)


# The model


def test_a_damaged_model_is_exported_again(lived_in: LivedIn) -> None:
    overwrite(lived_in.directory / "model.onnx", 100, b"\0\0\0\0")
    assert repaired(lived_in.directory) == ("model.onnx: exported again",)
    assert same(holdings(lived_in.directory), lived_in.held)


@pytest.mark.parametrize("error", [ModelError("not installed"), SettingError("no such file")])
def test_a_model_whose_weights_are_not_to_be_had_is_left_and_all_else_repaired(
    lived_in: LivedIn, error: Exception
) -> None:
    (lived_in.directory / "model.onnx").unlink()
    (lived_in.directory / "vectors" / FILED).unlink()
    with mock.patch.object(repair, "export", side_effect=error):
        report = verify(lived_in.directory, repair=True)
    assert [each.part for each in report.left] == [Part.MODEL]
    assert same(holdings(lived_in.directory), lived_in.held)


def test_a_model_that_embeds_wrongly_embeds_nothing_again(lived_in: LivedIn) -> None:
    path = lived_in.directory / "model.onnx"
    middle = path.read_bytes().index(np.float32(127.5).tobytes())
    overwrite(path, middle, np.float32(10).tobytes())
    os.truncate(lived_in.directory / "vectors" / TAIL, 128 + 3 * 192)
    with mock.patch.object(repair, "export", side_effect=ModelError("not installed")):
        report = verify(lived_in.directory, repair=True)
    assert [each.part for each in report.left] == [Part.MODEL]
    assert report.repairs == (
        f"vectors/{TAIL}: 3 kept as they are, because their images are missing, "
        "2 dropped, because their images are missing",
    )
    left = holdings(lived_in.directory)
    assert len(left) == len(lived_in.held) - 2
    assert same(left, {path: lived_in.held[path] for path in left})
    assert verify(lived_in.directory, repair=True).left == ()


# The catalog


def test_a_damaged_catalog_is_put_back(lived_in: LivedIn) -> None:
    before = (lived_in.directory / "catalog.sqlite").read_bytes()
    overwrite(lived_in.directory / "catalog.sqlite", 30_000, b"harm")
    done = ("catalog.sqlite: restored to its state at the end of the last run",)
    assert repaired(lived_in.directory) == done
    assert (lived_in.directory / "catalog.sqlite").read_bytes() == before


@pytest.mark.parametrize("file", ["catalog.seal", "catalog.copy"])
def test_a_damaged_seal_or_copy_is_written_again(lived_in: LivedIn, file: str) -> None:
    before = (lived_in.directory / file).read_bytes()
    overwrite(lived_in.directory / file, 30, b"harm")
    assert repaired(lived_in.directory) == ("catalog.sqlite: sealed and copied again",)
    assert (lived_in.directory / file).read_bytes() == before


def test_a_catalog_whose_copy_is_damaged_too_is_left_as_it_is(lived_in: LivedIn) -> None:
    for name in ("catalog.sqlite", "catalog.copy"):
        overwrite(lived_in.directory / name, 30_000, b"harm")
    files = {
        path: (lived_in.directory / path).read_bytes() for path in files_of(lived_in.directory)
    }
    report = verify(lived_in.directory, repair=True)
    assert {each.part for each in report.left} == {Part.CATALOG, Part.COPY}
    assert report.repairs == ()
    for path, content in files.items():
        assert (lived_in.directory / path).read_bytes() == content


# Several at once


@pytest.mark.few(1)
@pytest.mark.parametrize(
    "harmed",
    [
        [f"vectors/{FILED}", "segments/00000001.faiss"],
        [f"vectors/{FILED}", f"vectors/{ALSO_FILED}", f"vectors/{TAIL}"],
        ["segments/00000001.faiss", "segments/00000002.faiss"],
        [f"vectors/{TAIL}", "model.onnx"],
        ["catalog.sqlite", f"vectors/{ALSO_FILED}", "collection.json"],
        ["catalog.seal", "catalog.copy", "segments/00000002.faiss"],
        ["vectors/00000003.npy", "vectors/00000005.npy"],
        [],
    ],
    ids=" and ".join,
)
def test_several_damages_at_once_are_repaired(lived_in: LivedIn, harmed: list[str]) -> None:
    sparing = {"catalog.seal", "catalog.copy", "catalog.sqlite"}  # one of them, or two, have to be
    files = [path for path in map(str, files_of(lived_in.directory)) if path not in sparing]
    for file in harmed or [*files, "catalog.sqlite"]:
        overwrite(lived_in.directory / file, 20, b"harm")
    repaired(lived_in.directory)
    assert same(holdings(lived_in.directory), lived_in.held)


# Faults during the repair


def harm_much(directory: Path) -> None:
    """Do harm to a collection the repair of which has many steps."""
    (directory / "vectors" / TAIL).unlink()
    for file in ("segments/00000002.faiss", "model.onnx", "catalog.seal", f"vectors/{FILED}"):
        overwrite(directory / file, 30, b"harm")


def repair_and_die(task: str) -> str:
    """Repair a collection, and be killed before so many steps that change a file are done."""
    steps, _, directory = task.partition(" ")
    left = int(steps)

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        del arguments
        if event in ("open", "os.rename", "os.remove", "sqlite3.connect", "os.truncate"):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    with in_this_process():
        sys.addaudithook(count)
        assert verify(directory, repair=True).left == ()
    return "repaired"


@pytest.mark.whole("test_a_repair_that_is_interrupted_says_nothing_and_loses_nothing")
def test_a_repair_that_is_killed_leaves_what_the_next_repairs(
    lived_in: LivedIn, tmp_path: Path, harm: Harm
) -> None:
    harm_much(lived_in.directory)
    chance = random.Random(1234)
    steps = sorted(chance.sample(range(1, 170), harm.times(12, 160, fast=3)))
    victims = [shutil.copytree(lived_in.directory, tmp_path / f"{each}") for each in steps]
    fates = play_apart(
        repair_and_die, [f"{n} {path}" for n, path in zip(steps, victims, strict=True)]
    )
    kills = 0
    for victim, fate in zip(victims, fates, strict=True):
        assert fate.status in (0, -signal.SIGKILL), fate.said
        kills += fate.status != 0
        assert verify(victim, repair=True).left == ()
        assert verify(victim, sample=1_000).damages == ()
        assert same(holdings(victim), lived_in.held)
    assert kills > len(steps) // 2
    harm.done("kills", kills)


def repair_on_a_full_disk(task: str) -> str:
    """Repair a collection where no file may grow beyond a size."""
    size, _, directory = task.partition(" ")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(size), before[1]))
    with in_this_process():
        try:
            verify(directory, repair=True)
        except StorageError as error:
            return str(error)
        finally:  # the coverage is written as the process ends
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    return "repaired"


@pytest.mark.whole("test_a_repair_that_is_interrupted_says_nothing_and_loses_nothing")
def test_a_disk_that_is_full_during_a_repair_leaves_what_the_next_repairs(
    lived_in: LivedIn, tmp_path: Path, harm: Harm
) -> None:
    harm_much(lived_in.directory)
    sizes = [0, 100, 250, 1_000, 4_000, 6_000, 20_000, 50_000, 90_000]
    sizes = sizes[:: harm.times(1, 1, fast=4)]
    victims = [shutil.copytree(lived_in.directory, tmp_path / f"{size}") for size in sizes]
    tasks = [f"{size} {path}" for size, path in zip(sizes, victims, strict=True)]
    for victim, fate in zip(victims, play_apart(repair_on_a_full_disk, tasks), strict=True):
        assert fate.status == 0, fate.said
        assert "cannot" in fate.said
        assert str(victim) in fate.said
        assert verify(victim, repair=True).left == ()
        assert same(holdings(victim), lived_in.held)
    harm.done("full disks", len(sizes))


def test_a_repair_that_is_interrupted_says_nothing_and_loses_nothing(lived_in: LivedIn) -> None:
    harm_much(lived_in.directory)
    with (
        mock.patch.object(repair, "fold", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        verify(lived_in.directory, repair=True)
    assert verify(lived_in.directory, repair=True).left == ()
    assert same(holdings(lived_in.directory), lived_in.held)
