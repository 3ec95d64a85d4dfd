"""The map of a collection: made, brought up to date, kept, and read with suspicion."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from imgsearch import Map
from imgsearch.ann.vectors import Ids, Vectors
from imgsearch.collection import Collection
from imgsearch.errors import InputError, NoMapError, PackageError, SettingError
from imgsearch.querying.map import kept, make
from imgsearch.querying.map.clusters import MOST, clusters_of
from tests.support.grower import UNRANKED, Grower, clustered

CENTRES = 5


class Grown(NamedTuple):
    """A collection, and what makes it grow."""

    grower: Grower
    collection: Collection

    def grow(self, count: int, *, seed: int = 1) -> Ids:
        return self.grower.add(clustered(count, seed=seed, centres=CENTRES))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "imgsearch" / "maps"


@pytest.fixture
def grown(empty: Path) -> Iterator[Grown]:
    """A collection of 120 images around a few centres."""
    with (
        Grower(empty, policy=UNRANKED) as grower,
        Collection.open(empty, device="cpu") as collection,
    ):
        grown = Grown(grower, collection)
        grown.grow(120)
        yield grown


def near_agree(collection: Collection, found: Map) -> float:
    """Return how many of the five nearest on the map are around the same centre, as a share."""
    centre = (collection.embeddings(found.ids) @ clusters(CENTRES).T).argmax(axis=1)
    away = ((found.positions[:, None] - found.positions[None]) ** 2).sum(axis=2)
    near = np.argsort(away, axis=1)[:, 1:6]
    return float((centre[near] == centre[:, None]).mean())


def clusters(count: int) -> Vectors:
    """Return the centres that `clustered` draws around."""
    return np.stack([np.mean(clustered(50, seed=2, centres=1, first=n), 0) for n in range(count)])


def file_of(cache: Path) -> Path:
    (path,) = cache.iterdir()
    return path


def test_images_that_look_alike_are_near_each_other(grown: Grown) -> None:
    steps: list[tuple[int, int]] = []
    found = grown.collection.map(progress=lambda done, total: steps.append((done, total)))
    assert (found.ids == grown.collection.ids).all()
    assert found.positions.dtype == np.float32
    assert found.positions.shape == (120, 2)
    assert (found.missing, found.placed, found.rebuilt) == (0, 120, True)
    assert (found.positions.min(), found.positions.max()) == (0, 1)
    assert near_agree(grown.collection, found) > 0.9
    assert steps == sorted(steps)
    assert steps[0][0] == 0
    assert steps[-1][0] == steps[-1][1]
    assert len(steps) > 50


def test_the_same_collection_gets_the_same_map(grown: Grown) -> None:
    first = grown.collection.map()
    again = grown.collection.map(rebuild=True)
    assert again.rebuilt
    assert (first.positions == again.positions).all()


def test_the_map_is_kept_for_this_user_alone(grown: Grown, cache: Path) -> None:
    made = grown.collection.map()
    assert cache.stat().st_mode & 0o777 == 0o700
    assert file_of(cache).stat().st_mode & 0o777 == 0o600
    with Collection.open(grown.grower.layout.directory, device="cpu") as other:
        read = other.map(update=False)
    assert (read.positions == made.positions).all()
    assert not read.rebuilt
    before = file_of(cache).read_bytes()
    assert grown.collection.map().placed == 0
    assert file_of(cache).read_bytes() == before


def test_without_a_map_there_is_none_to_read(grown: Grown) -> None:
    with pytest.raises(NoMapError, match="make one with `imgsearch map`"):
        grown.collection.map(update=False)


def test_new_images_are_placed_among_the_others(grown: Grown) -> None:
    first = grown.collection.map()
    new = grown.grow(30, seed=3)
    read = grown.collection.map(update=False)
    assert (read.missing, len(read.ids)) == (30, 120)
    updated = grown.collection.map()
    assert (updated.placed, updated.rebuilt, updated.missing) == (30, False, 0)
    assert (updated.positions[:120] == first.positions).all()
    assert (updated.ids[120:] == new).all()
    assert near_agree(grown.collection, updated) > 0.9


def test_once_a_quarter_is_new_all_images_are_laid_out_again(grown: Grown) -> None:
    first = grown.collection.map()
    grown.grow(40, seed=3)
    assert not grown.collection.map().rebuilt  # a quarter, but not more
    grown.grow(1, seed=4)
    found = grown.collection.map()
    assert (found.rebuilt, found.placed) == (True, 161)
    assert (found.positions[:120] != first.positions).any()


def test_removed_images_leave_the_map_until_half_of_it_is_gone(grown: Grown) -> None:
    ids = grown.collection.map().ids
    grown.grower.remove(ids[:60])
    read = grown.collection.map(update=False)
    assert (read.ids == ids[60:]).all()
    assert not grown.collection.map().rebuilt
    grown.grower.remove(ids[60:61])
    assert grown.collection.map().rebuilt


def test_of_many_images_some_are_laid_out_and_the_others_placed(
    grown: Grown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make, "LANDMARKS", 60)
    found = grown.collection.map()
    assert (len(found.ids), found.placed, found.rebuilt) == (120, 120, True)
    assert near_agree(grown.collection, found) > 0.9
    assert not grown.collection.map().rebuilt  # those that were placed with it are not new


def test_copies_of_a_file_are_in_one_place(empty: Path, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copies"
    folder.mkdir()
    for path in sorted(photos.iterdir())[:8]:
        for name in (path.name, f"again-{path.name}"):
            (folder / name).write_bytes(path.read_bytes())
    with Collection.open(empty, device="cpu") as collection:
        collection.index([folder])
        found = collection.map()
        names = [Path(path).name.removeprefix("again-") for path in collection.paths]
    places = {(name, *xy) for name, xy in zip(names, found.positions.tolist(), strict=True)}
    assert (len(found.ids), len(places)) == (16, 8)


@pytest.mark.parametrize("count", [1, 2, 3, 49, 60])
def test_a_collection_of_any_size_has_a_map(empty: Path, count: int) -> None:
    with (
        Grower(empty, policy=UNRANKED) as grower,
        Collection.open(empty, device="cpu") as collection,
    ):
        grower.add(clustered(count, seed=1))
        found = collection.map()
    assert len(found.ids) == count
    assert np.isfinite(found.positions).all()
    assert len(np.unique(found.positions, axis=0)) == count


def test_images_that_are_all_the_same_to_the_network_have_a_map(empty: Path) -> None:
    with (
        Grower(empty, policy=UNRANKED) as grower,
        Collection.open(empty, device="cpu") as collection,
    ):
        grower.add(np.repeat(clustered(1, seed=1), 70, axis=0))
        assert np.isfinite(collection.map().positions).all()
        grower.add(clustered(3, seed=2))
        assert np.isfinite(collection.map().positions).all()


def test_an_empty_collection_has_no_map(collection: Collection) -> None:
    with pytest.raises(InputError, match="has no images to make a map of"):
        collection.map()


def test_a_collection_can_have_more_images_than_a_map(
    grown: Grown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make, "MOST_IMAGES", 100)
    with pytest.raises(SettingError, match="more than 100 images"):
        grown.collection.map()


def test_without_the_package_one_line_says_what_to_install(
    grown: Grown, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown.collection.map()
    monkeypatch.setitem(sys.modules, "openTSNE", None)
    assert len(grown.collection.map().ids) == 120  # nothing has to be laid out
    with pytest.raises(PackageError, match=r"openTSNE.*pip install '\.\[map\]'"):
        grown.collection.map(rebuild=True)


# The file in the cache


@pytest.mark.parametrize("at", [0, 20, 50, 82, 100, 1200, -1])
def test_a_damaged_file_is_no_map(grown: Grown, cache: Path, at: int) -> None:
    grown.collection.map()
    content = bytearray(file_of(cache).read_bytes())
    content[at] ^= 1
    file_of(cache).write_bytes(content)
    with pytest.raises(NoMapError):
        grown.collection.map(update=False)
    assert grown.collection.map().rebuilt


@pytest.mark.parametrize("content", [b"", b"imgsearch map 1\n", b"x" * 1000])
def test_a_file_of_something_else_is_no_map(grown: Grown, cache: Path, content: bytes) -> None:
    grown.collection.map()
    file_of(cache).write_bytes(content)
    with pytest.raises(NoMapError):
        grown.collection.map(update=False)


FORGED = {
    "a number that is none": ("<f4", 8 * 120, np.nan),
    "a position far away": ("<f4", 8 * 120, 1e30),
    "a position beside the square": ("<f4", 8 * 120, -0.01),
    "keys out of order": ("<u8", 0, 2**64 - 1),
    "an unknown role": ("u1", 16 * 120, 7),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_forged_file_with_the_right_checksum_is_believed_only_within_bounds(
    grown: Grown, cache: Path, what: str
) -> None:
    grown.collection.map()
    content = file_of(cache).read_bytes()
    head, body = content[:84], bytearray(content[84:])
    kind, at, value = FORGED[what]
    forged = np.array([value], kind).tobytes()
    body[at : at + len(forged)] = forged
    checked = head[:48] + hashlib.sha256(body).digest() + head[80:]
    file_of(cache).write_bytes(checked + body)
    with pytest.raises(NoMapError):
        grown.collection.map(update=False)


def test_a_file_that_claims_more_than_it_holds_is_no_map(grown: Grown, cache: Path) -> None:
    grown.collection.map()
    content = bytearray(file_of(cache).read_bytes())
    content[80:84] = (2**32 - 1).to_bytes(4, "little")
    file_of(cache).write_bytes(content)
    with pytest.raises(NoMapError):
        grown.collection.map(update=False)


def test_a_link_a_pipe_or_a_huge_file_in_place_of_the_map_is_not_read(
    grown: Grown, cache: Path, tmp_path: Path
) -> None:
    grown.collection.map()
    path = file_of(cache)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NoMapError):
        grown.collection.map(update=False)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(NoMapError):
        grown.collection.map(update=False)
    path.unlink()
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(NoMapError):
        grown.collection.map(update=False)


def test_another_collection_in_the_same_place_does_not_get_the_map(
    grown: Grown, cache: Path, tmp_path: Path, photos: Path
) -> None:
    directory = grown.grower.layout.directory
    grown.collection.map()
    directory.rename(tmp_path / "moved")
    from tests.support.small_network import make_small_collection

    make_small_collection(directory)
    with Collection.open(directory, device="cpu") as other:
        other.index([photos])
        with pytest.raises(NoMapError):
            other.map(update=False)
        assert other.map().rebuilt
    assert len(list(cache.iterdir())) == 1


def test_only_the_maps_of_the_latest_collections_are_kept(
    grown: Grown, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "MOST_COLLECTIONS", 2)
    cache.mkdir(parents=True)
    for number in range(3):
        (cache / f"{number}").write_bytes(b"old")
        os.utime(cache / f"{number}", (number, number))
    grown.collection.map()
    left = {path.name for path in cache.iterdir()}
    assert len(left) == 2
    assert left & {"0", "1", "2"} == {"2"}


def test_a_cache_that_cannot_be_written_costs_only_the_time_of_the_next_map(
    grown: Grown, cache: Path
) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_bytes(b"")  # in place of the folder
    assert grown.collection.map().rebuilt
    assert grown.collection.map().rebuilt


# Clusters


def test_islands_are_clusters_the_largest_first() -> None:
    random = np.random.default_rng(1)
    middles, sizes = np.array([(0.2, 0.2), (0.8, 0.3), (0.5, 0.8)]), (50, 300, 150)
    points = [
        random.normal(middle, 0.02, (size, 2)) for middle, size in zip(middles, sizes, strict=True)
    ]
    found = clusters_of(np.concatenate(points).astype(np.float32))
    assert found.sizes.tolist() == [300, 150, 50]
    assert np.bincount(found.of).tolist() == [300, 150, 50]
    assert np.abs(found.middles - middles[[1, 2, 0]]).max() < 0.02
    assert found.of[found.central].tolist() == [0, 1, 2]


@pytest.mark.parametrize("count", [1, 2, 100, 20_000])
def test_there_are_never_too_many_clusters(count: int) -> None:
    points = np.random.default_rng(2).random((count, 2)).astype(np.float32)
    found = clusters_of(points)
    assert 1 <= len(found.sizes) <= MOST
    assert found.sizes.sum() == count
    assert (np.diff(found.sizes) <= 0).all()
    assert (found.of[found.central] == np.arange(len(found.sizes))).all()
