"""A second search of a collection asks only for what is new, and finds what a first one finds."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from imgsearch.ann.vectors import Vectors
from imgsearch.collection import Collection
from imgsearch.maintenance import searched
from imgsearch.maintenance.copies import Duplicates
from imgsearch.maintenance.discard import delete_copies
from imgsearch.maintenance.duplicates import find_duplicates
from imgsearch.maintenance.searched import Searched, recall_search, remember_search
from imgsearch.querying.view import Found, View
from imgsearch.storage.catalog import open_catalog
from imgsearch.storage.layout import Layout
from tests.images.test_compare import scene
from tests.support.outcomes import age

DIGESTS = {id_: bytes([7 * id_ % 11]) * 32 for id_ in range(1, 6)}
FOUND = Searched(frozenset((1, 2, 3, 4)), [(1, 2, 5), (4, 3, 0)], [(2, 4)])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "cache"


def record_of(cache: Path) -> Path:
    (path,) = (cache / "imgsearch" / "duplicates" / "searched").iterdir()
    return path


def test_what_was_found_is_known_to_the_next_run(tmp_path: Path, cache: Path) -> None:
    remember_search(tmp_path, "some", DIGESTS, FOUND)
    assert recall_search(tmp_path, "some", DIGESTS) == FOUND
    assert recall_search(tmp_path / "other", "some", DIGESTS) == Searched()
    assert recall_search(tmp_path, "other settings", DIGESTS) == Searched()
    assert record_of(cache).stat().st_mode & 0o077 == 0


def test_images_that_have_other_ids_now_or_have_gone_are_recognised_by_content(
    tmp_path: Path,
) -> None:
    remember_search(tmp_path, "", DIGESTS, FOUND)
    now = {10 + id_: digest for id_, digest in DIGESTS.items() if id_ != 3}
    found = recall_search(tmp_path, "", now)
    assert found == Searched(frozenset((11, 12, 14)), [(11, 12, 5)], [(12, 14)])


@pytest.mark.parametrize("at", [0, 30, 60, 90, -1])
def test_a_damaged_record_is_not_believed(tmp_path: Path, cache: Path, at: int) -> None:
    remember_search(tmp_path, "", DIGESTS, FOUND)
    content = bytearray(record_of(cache).read_bytes())
    content[at] ^= 1
    record_of(cache).write_bytes(content)
    assert recall_search(tmp_path, "", DIGESTS) == Searched()


def test_a_search_that_found_too_much_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searched, "MOST_PAIRS", 1)
    remember_search(tmp_path, "", DIGESTS, FOUND)
    assert recall_search(tmp_path, "", DIGESTS) == Searched()


def test_only_the_latest_collections_are_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searched, "MOST_COLLECTIONS", 2)
    for name in "abc":
        remember_search(tmp_path / name, "", DIGESTS, FOUND)
    known = [recall_search(tmp_path / name, "", DIGESTS) == FOUND for name in "abc"]
    assert known == [False, True, True]


# Together with a collection


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(3):
        scene(seed).save(folder / f"{seed}.png")
        scene(seed).resize((360, 270)).save(folder / f"{seed}-small.jpg", quality=80)
    age(folder)
    return folder


@pytest.fixture
def directory(empty: Path, folder: Path) -> Path:
    with Collection.open(empty, device="cpu") as collection:
        collection.index([folder])
    return empty


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return how many images were searched for, search by search."""
    counts: list[int] = []

    search = View.search

    def noted(view: View, queries: Vectors, k: int, **options: Any) -> Found:
        counts.append(len(queries))
        return search(view, queries, k, **options)

    monkeypatch.setattr(View, "search", noted)
    return counts


def names(found: Duplicates) -> dict[str, set[str]]:
    return {
        Path(group.keep.path).name: {Path(copy.path).name for copy in group.others}
        for group in found.groups
    }


EXPECTED = {f"{seed}.png": {f"{seed}-small.jpg"} for seed in range(3)}


def test_a_second_run_searches_for_nothing_and_finds_the_same(
    directory: Path, asked: list[int]
) -> None:
    first = find_duplicates(directory)
    assert names(first) == EXPECTED
    assert sum(asked) == 6
    asked.clear()
    assert find_duplicates(directory) == first
    assert asked == []
    assert find_duplicates(directory, min_similarity=0.8) == first
    assert sum(asked) == 6


@pytest.mark.whole("test_a_second_run_searches_for_nothing_and_finds_the_same")
@pytest.mark.parametrize("is_part", [True, False])
def test_a_new_image_is_searched_for_and_found_beside_those_that_were_known(
    directory: Path, folder: Path, asked: list[int], *, is_part: bool
) -> None:
    if not is_part:  # the new one is what a known one is a part of
        scene(5).crop((30, 24, 470, 350)).save(folder / "5.jpg", quality=90)
        with Collection.open(directory, device="cpu") as collection:
            collection.index()
    find_duplicates(directory)
    asked.clear()
    if is_part:
        scene(1).crop((30, 24, 470, 350)).save(folder / "new.jpg", quality=80)
    else:
        scene(5).save(folder / "new.png")
    with Collection.open(directory, device="cpu") as collection:
        collection.index()
    found = names(find_duplicates(directory))
    assert asked == [1]
    if is_part:
        assert found == {**EXPECTED, "1.png": {"1-small.jpg", "new.jpg"}}
    else:
        assert found == {**EXPECTED, "new.png": {"5.jpg"}}


def test_a_record_that_somebody_forged_deletes_nothing(directory: Path, folder: Path) -> None:
    find_duplicates(directory)
    with Collection.open(directory, device="cpu") as collection:
        digests = {entry.id: entry.digest for entry in collection.entries.after(0, 100)}
    with closing(open_catalog(Layout.at(directory))) as catalog:
        settings = f"0.75 {catalog.model()}"
    pairs = [(one, other, 0) for one in digests for other in digests if one < other]
    forged = Searched(frozenset(digests), pairs, [(one, other) for one, other, _ in pairs])
    remember_search(directory, settings, digests, forged)
    assert recall_search(directory, settings, digests) == forged
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    found = find_duplicates(directory)
    assert names(found) == EXPECTED
    delete_copies(found)
    left = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert left == {name: before[name] for name in before if "small" not in name}
