"""The catalog as its readers see it: what is where, what is known, what is to be searched."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgsearch.errors import DamagedError
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.changes import (
    Commit,
    Counts,
    FileLocation,
    FileRecord,
    FolderLocation,
    Holder,
)
from imgsearch.storage.database import Database
from imgsearch.storage.layout import FORMAT_VERSION, OLDEST
from imgsearch.storage.records import Root, Segment, Settings, Shard
from imgsearch.storage.schema import KNOWN, SCHEMA, check_shape
from imgsearch.storage.writer import CatalogWriter
from tests.storage.entries import IVF, MODEL, SETTINGS, commit, failure, image, location
from tests.support.depth import examples

GOLDEN = Path(__file__).parent.parent / "data"
TRICKY = [
    b"a",
    b"a/b",
    b"a/b/c",
    b"a-b",
    b"a.b",
    b"a0",
    b"a0/b",
    b"a\xff",
    b"a\xff/b",
    b"ab",
    b"b/a",
]


@pytest.fixture(scope="module")
def growing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CatalogWriter]:
    """A catalog for all examples of a property: each has a root of its own."""
    opened = CatalogWriter(tmp_path_factory.mktemp("growing") / "catalog.sqlite", create=True)
    yield opened
    opened.close()


def new_root(catalog: CatalogWriter) -> Root:
    catalog.add_root(b"/root-%d" % len(catalog.roots()), recursive=True)
    return catalog.roots()[-1]


def test_the_schema_is_that_of_the_format_version() -> None:
    """Another schema is another format: raise FORMAT_VERSION, and add files to tests/data."""
    assert (GOLDEN / f"catalog-{FORMAT_VERSION}.sql").read_text() == SCHEMA


@pytest.mark.parametrize("version", range(OLDEST, FORMAT_VERSION + 1))
def test_the_tables_of_every_format_version_are_known(tmp_path: Path, version: int) -> None:
    """Of the present one, too: when the next comes, this has to be told from damage still."""
    path = shutil.copy(GOLDEN / f"collection-{version}" / "catalog.sqlite", tmp_path)
    with closing(Database(Path(path))) as database:
        assert check_shape(database) == version
        database.run("PRAGMA user_version = 99")
        with pytest.raises(DamagedError, match="does not have the tables"):
            check_shape(database)
    assert {*range(OLDEST, FORMAT_VERSION + 1)} <= KNOWN


def test_a_new_catalog_holds_a_model_and_nothing_else(catalog: CatalogWriter) -> None:
    snapshot = catalog.snapshot()
    assert snapshot.model == catalog.model() == MODEL
    assert snapshot.settings == SETTINGS
    assert (snapshot.shards, snapshot.segments) == ((), ())
    assert (snapshot.removed, snapshot.stale) == ((), ())
    assert snapshot.ivf is None
    assert catalog.counts() == Counts(images=0, failed=0, skipped=0, excluded=0)
    assert catalog.last_folder() == 0
    assert catalog.excluded_folders() == []
    assert catalog.mounts(1) == []


def test_a_catalog_knows_what_the_index_is_to_be_like(tmp_path: Path) -> None:
    catalog = CatalogWriter(tmp_path / "catalog.sqlite", create=True)
    assert catalog.model() is None
    catalog.begin(MODEL, Settings(nlist=64, recall=0.8))
    assert catalog.snapshot().settings == Settings(nlist=64, recall=0.8)
    catalog.close()


def test_what_was_committed_is_there_after_it_was_closed(
    catalog: CatalogWriter, tmp_path: Path
) -> None:
    shard = commit(catalog, image(b"a.jpg"))
    catalog.replace_segments([], [], IVF)
    before = catalog.snapshot()
    catalog.close()
    again = Catalog(tmp_path / "catalog.sqlite")
    assert again.snapshot() == before
    assert again.snapshot().ivf == IVF
    assert again.shards() == [shard]
    assert again.paths([1]) == {1: "/photos/a.jpg"}
    again.close()


def test_another_connection_sees_a_commit_by_the_version(
    catalog: CatalogWriter, reader: Catalog
) -> None:
    before = reader.version()
    assert reader.version() == before
    commit(catalog, image(b"a.jpg"))
    assert reader.version() != before
    assert reader.paths([1]) == {1: "/photos/a.jpg"}


def test_threads_may_share_a_catalog(catalog: CatalogWriter) -> None:
    seen: list[tuple[int, int]] = []

    def read() -> None:
        for _ in range(30):
            snapshot = catalog.snapshot()
            seen.append((sum(shard.count for shard in snapshot.shards), len(snapshot.shards)))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(10):
        commit(catalog, image(b"%d.jpg" % number))
    for thread in threads:
        thread.join()
    assert len(seen) == 120
    assert all(images == shards for images, shards in seen)


# What is wrong with it


def test_a_missing_catalog_is_damage(tmp_path: Path) -> None:
    with pytest.raises(DamagedError, match=r"catalog\.sqlite is missing"):
        Catalog(tmp_path / "catalog.sqlite")


def test_an_empty_file_is_no_catalog(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    path.write_bytes(b"")
    with pytest.raises(DamagedError, match=f"{path} is damaged .*not have the tables"):
        Catalog(path)


def test_a_catalog_without_a_model_is_damaged(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "catalog.sqlite", create=True)
    with pytest.raises(DamagedError, match="names no model; `imgsearch verify --repair`"):
        catalog.snapshot()
    catalog.close()


@pytest.mark.parametrize("table", ["model", "settings"])
def test_a_catalog_that_has_lost_its_model_or_its_settings_is_damaged(
    catalog: CatalogWriter, tmp_path: Path, table: str
) -> None:
    other = sqlite3.connect(tmp_path / "catalog.sqlite", isolation_level=None)
    other.execute(f"DELETE FROM {table}")
    other.close()
    with pytest.raises(DamagedError, match="verify --repair"):
        catalog.snapshot()


def test_an_image_without_a_shard_is_damage(catalog: CatalogWriter) -> None:
    commit(catalog, image(b"a.jpg"))
    with pytest.raises(DamagedError, match="names no shard of image 2; `imgsearch verify"):
        catalog.shard_of(2)


# Where images are


def test_committed_images_are_found_by_id_and_by_place(catalog: CatalogWriter) -> None:
    shard = commit(catalog, image(b"a.jpg"), image(b"b.jpg", folder=b"sub/deep"))
    assert catalog.snapshot().shards == (shard,)
    assert catalog.paths([1, 2, 3]) == {1: "/photos/a.jpg", 2: "/photos/sub/deep/b.jpg"}
    assert catalog.paths([]) == {}
    assert catalog.id_at(location(b"b.jpg", folder=b"sub/deep")) == 2
    assert catalog.id_at(location(b"b.jpg")) is None
    assert catalog.id_at(location(b"a.jpg", root=2)) is None
    assert catalog.id_of(b"/photos/sub/deep/b.jpg") == 2
    assert catalog.id_of(b"/photos/sub/b.jpg") is None
    assert catalog.id_of(b"/sub/deep/b.jpg") is None


def test_a_root_may_be_that_of_the_file_system(catalog: CatalogWriter) -> None:
    catalog.add_root(b"/", recursive=True)
    commit(catalog, image(b"a.jpg", root=2), image(b"b.jpg", root=2, folder=b"etc"))
    catalog.exclude([], [FolderLocation(2, b""), FolderLocation(2, b"etc")])
    commit(catalog, image(b"c.jpg", root=2), image(b"d.jpg", root=2, folder=b"etc"))
    assert catalog.paths([3, 4]) == {3: "/c.jpg", 4: "/etc/d.jpg"}
    assert sorted(catalog.excluded_folders()) == [b"/", b"/etc"]


def test_a_name_that_is_not_utf_8_comes_back_as_os_fsdecode_makes_it(
    catalog: CatalogWriter,
) -> None:
    commit(catalog, image(b"\xff\xfe.jpg"))
    assert os.fsencode(catalog.paths([1])[1]) == b"/photos/\xff\xfe.jpg"


names = st.binary(min_size=1, max_size=12).filter(
    lambda name: not set(name) & set(b"/\0") and name not in (b".", b"..")
)
folders = st.lists(names, max_size=3).map(b"/".join)


@settings(max_examples=examples(20))
@given(places=st.sets(st.tuples(folders, names), min_size=1, max_size=30))
def test_every_path_comes_back_as_it_was(
    growing: CatalogWriter, places: set[tuple[bytes, bytes]]
) -> None:
    root = new_root(growing)
    ordered = sorted(places)
    images = (image(name, folder=folder, root=root.id) for folder, name in ordered)
    shard = commit(growing, *images)
    assert shard is not None
    found = growing.paths(list(range(shard.first_id, shard.last_id + 1)))
    for id_, (folder, name) in enumerate(ordered, shard.first_id):
        assert os.fsencode(found[id_]) == os.path.join(root.path, folder, name)
        assert growing.id_at(FileLocation(root.id, folder, name)) == id_
        number = growing.folder(root.id, folder)
        assert number is not None
        known = growing.known(number, name, name)
        assert known == {name: FileRecord(100, 5_000, id_, None, excluded=False)}


# Folders


def test_the_folders_of_a_root_have_ids_that_only_grow(catalog: CatalogWriter) -> None:
    commit(catalog, image(b"a.jpg"), image(b"b.jpg", folder=b"sub"))
    first, second = catalog.folder(1, b""), catalog.folder(1, b"sub")
    assert first is not None
    assert second is not None
    assert catalog.last_folder() == max(first, second)
    assert catalog.folder(1, b"elsewhere") is None
    assert catalog.folder(2, b"sub") is None
    before = catalog.last_folder()
    commit(catalog, image(b"c.jpg", folder=b"another"), image(b"c.jpg", folder=b"sub"))
    assert catalog.folder(1, b"another") == catalog.last_folder() > before


def fill_folders(catalog: CatalogWriter, paths: Sequence[bytes], *, root: int = 1) -> None:
    commit(catalog, *(image(b"x.jpg", folder=path, root=root) for path in paths))


@pytest.mark.parametrize("path", [*TRICKY, b"c", b"a/", b"a/b/c/d"])
def test_the_folders_below_a_folder_are_those_that_its_path_and_a_slash_begin(
    catalog: CatalogWriter, path: bytes
) -> None:
    fill_folders(catalog, TRICKY)
    found = {folder for _, folder in catalog.folders_below(1, path)}
    assert found == {other for other in TRICKY if (other + b"/").startswith(path + b"/")}


def test_all_folders_are_below_a_root_and_none_below_another(catalog: CatalogWriter) -> None:
    catalog.add_root(b"/other", recursive=True)
    fill_folders(catalog, [b"", *TRICKY])
    assert {path for _, path in catalog.folders_below(1, b"")} == {b"", *TRICKY}
    assert catalog.folders_below(2, b"") == catalog.folders_below(2, b"a") == []
    for id_, path in catalog.folders_below(1, b""):
        assert catalog.folder(1, path) == id_


parts = st.sampled_from([b"a", b"b", b"a0", b"a-", b"a\xff", b"\xff", b"0", b".a"])


@settings(max_examples=examples(25))
@given(
    paths=st.sets(st.lists(parts, max_size=4).map(b"/".join), min_size=1, max_size=20),
    data=st.data(),
)
def test_a_folder_is_below_another_exactly_if_its_path_says_so(
    growing: CatalogWriter, paths: set[bytes], data: st.DataObject
) -> None:
    root = new_root(growing)
    fill_folders(growing, sorted(paths), root=root.id)
    path = data.draw(st.sampled_from(sorted(paths)))
    wanted = {p for p in paths if not path or p == path or p.startswith(path + b"/")}
    assert {folder for _, folder in growing.folders_below(root.id, path)} == wanted


# Files


def test_the_files_known_of_a_folder_are_of_all_kinds(catalog: CatalogWriter) -> None:
    commit(
        catalog,
        image(b"a.jpg"),
        image(b"c.jpg"),
        failures=[failure(b"bad.jpg", "is empty"), failure(b"notes.txt", None)],
    )
    catalog.exclude([location(b"c.jpg")], [])
    folder = catalog.folder(1, b"")
    assert folder is not None
    assert catalog.known(folder) == {
        b"a.jpg": FileRecord(100, 5_000, 1, None, excluded=False),
        b"bad.jpg": FileRecord(10, 6_000, None, "is empty", excluded=False),
        b"c.jpg": FileRecord(0, None, None, None, excluded=True),
        b"notes.txt": FileRecord(10, 6_000, None, None, excluded=False),
    }
    assert catalog.counts() == Counts(images=1, failed=1, skipped=1, excluded=1)


def test_the_mark_of_an_excluded_folder_is_no_file_of_it(catalog: CatalogWriter) -> None:
    commit(catalog, image(b"a.jpg", folder=b"sub"))
    catalog.exclude([], [FolderLocation(1, b"sub")])
    folder = catalog.folder(1, b"sub")
    assert folder is not None
    assert catalog.known(folder) == {}


@pytest.mark.parametrize(
    ("first", "upto", "expected"),
    [
        (b"", None, b"abcdef"),
        (b"", b"c", b"abc"),
        (b"c", None, b"cdef"),
        (b"b", b"e", b"bcde"),
        (b"d", b"d", b"d"),
        (b"aa", b"cc", b"bc"),
        (b"c\xff", b"d", b"d"),
        (b"g", None, b""),
        (b"e", b"b", b""),
    ],
)
def test_the_borders_of_a_range_of_names_belong_to_it(
    catalog: CatalogWriter, first: bytes, upto: bytes | None, expected: bytes
) -> None:
    commit(
        catalog,
        image(b"a"),
        image(b"d"),
        image(b"c", folder=b"sub"),
        failures=[failure(b"b", "is empty"), failure(b"e", None)],
    )
    catalog.exclude([location(b"c"), location(b"f")], [])
    folder = catalog.folder(1, b"")
    assert folder is not None
    assert b"".join(sorted(catalog.known(folder, first, upto))) == expected


@settings(max_examples=examples(20))
@given(files=st.sets(names, min_size=1, max_size=20), data=st.data())
def test_blocks_of_names_hold_each_file_once(
    growing: CatalogWriter, files: set[bytes], data: st.DataObject
) -> None:
    root = new_root(growing).id
    ordered = sorted(files)
    commit(
        growing,
        *(image(name, root=root) for name in ordered[::3]),
        failures=[failure(name, None, root=root) for name in ordered[1::3]],
    )
    growing.exclude([location(name, root=root) for name in ordered[2::3]], [])
    folder = growing.folder(root, b"")
    assert folder is not None
    cuts = sorted(data.draw(st.sets(st.sampled_from(range(len(ordered))))) | {0})
    found: list[bytes] = []
    for start, end in zip(cuts, [*cuts[1:], len(ordered)], strict=True):
        found += sorted(growing.known(folder, ordered[start], ordered[end - 1]))
    assert found == ordered
    assert sorted(growing.known(folder)) == ordered


def test_the_files_of_a_root_are_those_directly_in_it(catalog: CatalogWriter) -> None:
    catalog.add_root(b"/other", recursive=False)
    commit(
        catalog,
        image(b"b.jpg"),
        image(b"c.jpg", folder=b"sub"),
        image(b"e.jpg", root=2),
        image(b"f.jpg"),
        failures=[failure(b"a.jpg", "is empty")],
    )
    catalog.exclude([location(b"f.jpg")], [])
    assert catalog.files_of(1) == [b"/photos/a.jpg", b"/photos/b.jpg"]
    assert catalog.files_of(2) == [b"/other/e.jpg"]
    assert catalog.files_of(3) == []


# Contents


def test_a_content_is_held_by_images_in_the_order_of_their_ids(catalog: CatalogWriter) -> None:
    commit(
        catalog,
        image(b"a", digest=b"D"),
        image(b"b", digest=b"E"),
        image(b"c", digest=b"D", folder=b"sub"),
        image(b"d", digest=b"D"),
    )
    holders = [Holder(1, b"/photos/a"), Holder(3, b"/photos/sub/c"), Holder(4, b"/photos/d")]
    assert catalog.holders(b"D", 10) == holders
    assert catalog.holders(b"D", 2) == holders[:2]
    assert catalog.holders(b"none", 2) == []
    assert catalog.holds(b"D")
    assert not catalog.holds(b"none")


def test_a_removed_image_holds_its_content_until_its_row_is_gone(catalog: CatalogWriter) -> None:
    shard = commit(catalog, image(b"a", digest=b"D"), image(b"b", digest=b"D"))
    assert shard is not None
    catalog.forget([1])
    assert catalog.holders(b"D", 10) == [Holder(2, b"/photos/b")]
    catalog.forget([2])
    (holder,) = catalog.holders(b"D", 10)
    assert holder in (Holder(1, None), Holder(2, None))
    assert catalog.holds(b"D")
    catalog.replace_segments([], [Segment(1, 1, 2, 0, b"x", 0)], IVF)
    catalog.replace_shards([shard], None)
    assert not catalog.holds(b"D")
    assert catalog.holders(b"D", 10) == []


def test_the_digest_of_an_image_is_known_while_it_is_there(catalog: CatalogWriter) -> None:
    commit(catalog, image(b"a", digest=b"\x00\xffD"))
    assert catalog.digest_of(1) == b"\x00\xffD"
    assert catalog.digest_of(2) is None
    catalog.forget([1])
    assert catalog.digest_of(1) is None


def test_a_sample_of_a_root_has_some_of_its_images_each_once(catalog: CatalogWriter) -> None:
    catalog.add_root(b"/other", recursive=True)
    commit(
        catalog,
        *(image(b"%d" % number, folder=b"sub") for number in range(20)),
        image(b"else", root=2),
    )
    every = {(location(b"%d" % n, folder=b"sub"), b"digest of %d" % n) for n in range(20)}
    assert set(catalog.digests(1, 100)) == every
    sample = list(catalog.digests(1, 5))
    assert len(set(sample)) == len(sample) == 5
    assert set(sample) < every
    assert list(catalog.digests(2, 5)) == [(location(b"else", root=2), b"digest of else")]
    assert list(catalog.digests(3, 5)) == []


# Shards


def test_the_shard_of_an_image_is_the_one_whose_range_it_is_in(catalog: CatalogWriter) -> None:
    one = commit(catalog, image(b"a"), image(b"b"))
    two = commit(catalog, image(b"c"))
    assert one is not None
    assert two is not None
    assert [catalog.shard_of(id_) for id_ in (1, 2, 3)] == [one, one, two]
    with pytest.raises(DamagedError):
        catalog.shard_of(4)
    catalog.forget([2])
    assert catalog.shard_of(2) == one
    merged = Shard(3, 1, 3, 2, b"new", b"ids")
    catalog.replace_shards([one, two], merged)
    assert [catalog.shard_of(id_) for id_ in (1, 3)] == [merged, merged]
    assert catalog.shards() == [merged]


def test_shards_are_in_the_order_of_ids_whatever_their_numbers(catalog: CatalogWriter) -> None:
    one = commit(catalog, image(b"a"))
    two = commit(catalog, image(b"b"))
    assert one is not None
    again = Shard(3, 1, 1, 1, b"again")
    catalog.replace_shards([one], again)
    assert catalog.shards() == [again, two]
    assert catalog.snapshot().shards == (again, two)
    assert [catalog.shard_of(id_) for id_ in (1, 2)] == [again, two]


def test_a_commit_of_nothing_changes_nothing(catalog: CatalogWriter) -> None:
    before = catalog.snapshot(), catalog.counts()
    catalog.commit(Commit(None))
    assert (catalog.snapshot(), catalog.counts()) == before


def test_roots_are_listed_in_the_order_in_which_they_came(catalog: CatalogWriter) -> None:
    catalog.add_root(b"/a", recursive=False)
    assert catalog.roots() == [Root(1, b"/photos", True), Root(2, b"/a", False)]


def test_paths_are_as_of_one_moment_though_a_folder_goes_meanwhile(
    catalog: CatalogWriter, reader: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(catalog, image(b"1.jpg", folder=b"old"))
    read = Database.rows
    writers: list[threading.Thread] = []

    def forget() -> None:
        catalog.forget([1], folders=[1])

    def then_forget(self: Database, statement: str, *values: object) -> list[tuple[Any, ...]]:
        rows = read(self, statement, *values)
        if "json_each" in statement and not writers:
            writers.append(threading.Thread(target=forget))
            writers[0].start()
            writers[0].join(timeout=0.5)
        return rows

    monkeypatch.setattr(Database, "rows", then_forget)
    # `reader` binds `rows` when it is opened: this one has to be opened after the patch.
    late = Catalog(catalog._database.path)
    try:
        assert late.paths([1]) == {1: "/photos/old/1.jpg"}
    finally:
        writers[0].join()
        late.close()
    assert reader.paths([1]) == {}
