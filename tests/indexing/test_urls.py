"""A collection of files at URLs is one like any other."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from imgsearch.collection import Collection
from imgsearch.errors import GoneError, InputError
from imgsearch.evaluation.evaluate import evaluate
from imgsearch.files import urls
from imgsearch.maintenance.discard import delete_copies
from imgsearch.maintenance.duplicates import find_duplicates
from imgsearch.maintenance.verify import verify
from imgsearch.storage.records import Entry
from imgsearch.web.originals import Original
from imgsearch.web.problems import LostFileError
from tests.support.memory_urls import Bucket, bucket, image_of
from tests.support.outcomes import did, holds, ids_in
from tests.support.pictures import save_pictures

pytestmark = pytest.mark.usefixtures("here")

NAMES = [f"{seed}.png" if seed < 8 else f"below/{seed}.png" for seed in range(12)]


@pytest.fixture
def files() -> Iterator[Bucket]:
    """Twelve images, four of them in a folder below, a broken one and a text."""
    with bucket() as made:
        for seed, name in enumerate(NAMES):
            made.put(name, seed)
        made.put("broken.jpg", b"\xff\xd8\xff and no more")
        made.put("notes.txt", b"notes")
        yield made


@pytest.fixture
def indexed(collection: Collection, files: Bucket) -> Bucket:
    """The same, in `collection`."""
    assert did(collection.index([files.url + "/"])) == {"indexed": 12, "failed": 1, "skipped": 1}
    return files


def _holds(collection: Collection, files: Bucket, names: list[str]) -> bool:
    return holds(collection, [files.at(name) for name in names])


def test_hits_have_urls(collection: Collection, indexed: Bucket) -> None:
    assert _holds(collection, indexed, NAMES)
    assert collection.info().roots == (indexed.url,)
    url = indexed.at("3.png")
    assert collection.query(url, k=1, include_self=True)[0].path == url
    assert url not in [hit.path for hit in collection.query(url, k=12)]


@pytest.mark.usefixtures("here", "indexed")
def test_what_has_not_changed_is_not_read(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(urls, "fetch", fetch)
    assert did(collection.index()) == {"unchanged": 12, "failed": 1, "skipped": 1}


def test_what_has_changed_moved_come_and_gone_is_seen(
    collection: Collection, indexed: Bucket
) -> None:
    ids = ids_in(collection)
    indexed.put("0.png", 100)  # another
    indexed.drop("1.png")
    indexed.put("moved/1.png", 1)
    indexed.put("copy.png", 2)
    indexed.drop("below/8.png")
    indexed.put("new.png", 101)
    expected = {"indexed": 2, "moved": 1, "copied": 1, "failed": 1, "skipped": 1}
    assert did(collection.index()) == {**expected, "unchanged": 9, "removed": 1}
    gone = {"1.png", "below/8.png"}
    names = [name for name in NAMES if name not in gone] + ["moved/1.png", "copy.png", "new.png"]
    assert _holds(collection, indexed, names)
    assert ids_in(collection)[indexed.at("moved/1.png")] == ids[indexed.at("1.png")]


def test_a_folder_that_is_gone_keeps_its_images_until_pruned(
    collection: Collection, indexed: Bucket
) -> None:
    indexed.clear()
    with pytest.raises(GoneError, match=f"{indexed.url} is missing: its 12 images are kept"):
        collection.index()
    assert _ids(collection) == {indexed.at(name) for name in NAMES}
    assert collection.index(prune=True).removed == 12
    assert collection.info().roots == ()


@pytest.mark.parametrize("prune", [True, False])
def test_a_server_that_does_not_answer_costs_nothing(
    collection: Collection, indexed: Bucket, monkeypatch: pytest.MonkeyPatch, *, prune: bool
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise FileNotFoundError("x") from ConnectionError("refused")

    with monkeypatch.context() as down:
        for name in ("ls", "info", "isdir"):
            down.setattr(MemoryFileSystem, name, fail)
        with pytest.raises(GoneError, match=f"{indexed.url} cannot be listed: its images are kept"):
            collection.index(prune=prune)
        with pytest.raises(InputError, match="cannot be reached: refused"):
            collection.index([indexed.url])
    assert _holds(collection, indexed, NAMES)
    assert did(collection.index()) == {"unchanged": 12, "failed": 1, "skipped": 1}


def test_a_part_that_cannot_be_listed_keeps_its_images(
    collection: Collection, indexed: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    ls = MemoryFileSystem.ls

    def fail(self: MemoryFileSystem, path: str, **options: object) -> object:
        if path.endswith("/below"):
            raise PermissionError("forbidden")
        return ls(self, path, **options)

    monkeypatch.setattr(MemoryFileSystem, "ls", fail)
    report = collection.index(prune=True)
    assert [(each.path, each.reason) for each in report.unreadable] == [
        (indexed.at("below"), "forbidden")
    ]
    assert _ids(collection) == {indexed.at(name) for name in NAMES}


def test_what_was_taken_out_stays_out_until_it_is_named(
    collection: Collection, indexed: Bucket
) -> None:
    assert collection.remove([indexed.at("below"), indexed.at("0.png")]) == 5
    expected = {"unchanged": 7, "excluded": 1, "failed": 1, "skipped": 1}
    assert did(collection.index()) == expected
    assert did(collection.index([indexed.at("below") + "/"])) == {"copied": 4}
    assert did(collection.index([indexed.at("0.png")])) == {"copied": 1}
    assert _holds(collection, indexed, NAMES)
    assert collection.remove([indexed.url + "/*.png"]) == 12


def test_a_single_file_is_indexed(collection: Collection, files: Bucket) -> None:
    assert did(collection.index([files.at("3.png")])) == {"indexed": 1}
    assert did(collection.index()) == {"unchanged": 1}
    assert _holds(collection, files, ["3.png"])


def test_a_root_below_another_is_listed_once(collection: Collection, files: Bucket) -> None:
    assert did(collection.index([files.at("below")])) == {"indexed": 4}
    assert did(collection.index([files.url])) == {
        "indexed": 8,
        "unchanged": 4,
        "failed": 1,
        "skipped": 1,
    }
    assert _holds(collection, files, NAMES)


def test_a_folder_may_move_to_a_url_and_back(
    collection: Collection, files: Bucket, tmp_path: Path
) -> None:
    save_pictures(tmp_path / "photos", 6)
    collection.index([tmp_path / "photos"])
    for path in (tmp_path / "photos").iterdir():
        files.put(f"photos/{path.name}", path.read_bytes())
    there = files.at("photos")
    assert did(collection.index(moved=(tmp_path / "photos", there))) == {"unchanged": 6}
    assert collection.info().roots == (there,)
    assert all(path.startswith(there) for path in ids_in(collection))
    assert did(collection.index(moved=(there, tmp_path / "photos"))) == {"unchanged": 6}
    with pytest.raises(InputError, match="does not hold the images"):
        collection.index(moved=(tmp_path / "photos", files.at("below")))


@pytest.mark.parametrize("scheme", ["file:", "file://", "FILE://localhost", "file:///"])
def test_a_url_of_a_file_is_its_path_wherever_it_is_given(
    collection: Collection, tmp_path: Path, scheme: str
) -> None:
    def url(path: Path) -> str:
        return scheme + quote(str(path))

    one, other = save_pictures(tmp_path / "with space & %", 2)
    assert did(collection.index([url(one.parent)])) == {"indexed": 2}
    assert holds(collection, [one, other])
    assert [hit.path for hit in collection.query(url(one))] == [str(other)]
    left = collection.query(url(one), include_self=True, exclude=[[url(other)]])
    assert [hit.path for hit in left] == [str(one)]
    assert np.array_equal(collection.embed([url(one)]), collection.embed([one]))
    new = one.parent.rename(tmp_path / "neu ü")
    assert did(collection.index(moved=(url(one.parent), url(new)))) == {"unchanged": 2}
    assert collection.remove(url(new / one.name)) == 1
    with pytest.raises(InputError, match="a file on the host 'server'"):
        collection.index("file://server/photos")


@pytest.mark.parametrize("name", ["nothing", "nothing/3.png"])
def test_what_is_not_there_is_refused(collection: Collection, files: Bucket, name: str) -> None:
    with pytest.raises(InputError, match=f"{files.at(name)}: there is no such file or folder"):
        collection.index([files.at(name)])


def test_copies_are_found_and_left_alone(
    collection: Collection, indexed: Bucket, empty: Path
) -> None:
    indexed.put("twin.png", 5)
    collection.index()
    duplicates = find_duplicates(empty)
    (group,) = duplicates.groups
    twins = {indexed.at("5.png"), indexed.at("twin.png")}
    assert {group.keep.path, *(copy.path for copy in group.others)} == twins
    discarded = delete_copies(duplicates)
    assert not discarded.done
    (failure,) = discarded.failures
    assert "is at a URL" in failure.reason


@pytest.mark.usefixtures("collection")
def test_labels_may_name_urls(indexed: Bucket, empty: Path, tmp_path: Path) -> None:
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label"])
        rows.writerows([indexed.at(name), f"class {place % 3}"] for place, name in enumerate(NAMES))
    assert evaluate(empty, tmp_path / "labels.csv", k=2).queries == 12


def test_originals_are_delivered_while_they_are_what_was_indexed(files: Bucket) -> None:
    content = image_of(3)
    entry = Entry(1, files.at("3.png"), len(content), 0, sha256(content).digest())
    assert b"".join(Original(entry).chunks()) == content
    files.put("3.png", 4)
    with pytest.raises(LostFileError, match=re.escape(f"{entry.path} has changed")):
        Original(entry)
    files.drop("3.png")
    with pytest.raises(LostFileError, match=re.escape(f"{entry.path} is gone")):
        Original(entry)


@pytest.mark.usefixtures("here", "collection", "indexed")
def test_verification_embeds_some_again(empty: Path) -> None:
    found = verify(empty)
    assert not found.damages
    assert found.embedded == 12


def _ids(collection: Collection) -> set[str]:
    return set(ids_in(collection))
