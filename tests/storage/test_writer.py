"""The catalog as its writer changes it: all of a change or nothing, and no id is used twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from imgsearch.errors import DamagedError
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.changes import Commit, Counts, FileRecord, FolderLocation, Holder, NewFailure
from imgsearch.storage.records import CurveStep, Root, Segment, Settings, Shard
from imgsearch.storage.writer import CatalogWriter
from tests.storage.entries import IVF, MODEL, SETTINGS, commit, failure, image, location, seen


def known(catalog: Catalog, folder: bytes = b"", root: int = 1) -> dict[bytes, FileRecord]:
    """Return the files known of a folder, none if it is not known."""
    number = catalog.folder(root, folder)
    return {} if number is None else catalog.known(number)


def an_image(id_: int) -> FileRecord:
    return FileRecord(100, 5_000, id_, None, excluded=False)


# Commits


def test_images_become_visible_to_others_with_the_commit(
    catalog: CatalogWriter, reader: Catalog
) -> None:
    assert reader.counts().images == 0
    shard = commit(catalog, image(b"a.jpg"), image(b"b.jpg", folder=b"sub"))
    assert reader.snapshot().shards == (shard,)
    assert reader.paths([1, 2]) == {1: "/photos/a.jpg", 2: "/photos/sub/b.jpg"}


def test_failed_and_skipped_files_are_remembered_until_they_succeed(catalog: CatalogWriter) -> None:
    commit(catalog, failures=[failure(b"bad.jpg", "is empty"), failure(b"notes.txt", None)])
    assert catalog.counts() == Counts(images=0, failed=1, skipped=1, excluded=0)
    assert catalog.shards() == []
    commit(catalog, image(b"bad.jpg"))
    assert catalog.counts() == Counts(images=1, failed=0, skipped=1, excluded=0)
    assert known(catalog)[b"bad.jpg"] == an_image(1)


def test_a_file_that_fails_again_is_remembered_with_its_last_reason(catalog: CatalogWriter) -> None:
    commit(catalog, failures=[failure(b"bad.jpg", "is empty")])
    commit(catalog, failures=[failure(b"bad.jpg", "is cut off")])
    assert known(catalog) == {b"bad.jpg": FileRecord(10, 6_000, None, "is cut off", excluded=False)}


def test_a_time_that_is_not_to_be_trusted_is_none(catalog: CatalogWriter) -> None:
    commit(catalog, replace(image(b"a.jpg"), mtime_ns=None))
    assert known(catalog)[b"a.jpg"].mtime_ns is None
    commit(catalog, moved=[seen(1, b"a.jpg")])
    assert known(catalog)[b"a.jpg"].mtime_ns == 7_000


def test_changed_content_gets_a_new_id_and_the_old_one_is_removed(catalog: CatalogWriter) -> None:
    commit(catalog, image(b"a.jpg"))
    commit(catalog, image(b"a.jpg", digest=b"other", replaces=1))
    assert catalog.paths([1, 2]) == {2: "/photos/a.jpg"}
    assert catalog.snapshot().removed == catalog.snapshot().stale == (1,)
    assert catalog.counts().images == 1


def test_an_image_that_turns_bad_is_removed(catalog: CatalogWriter) -> None:
    commit(catalog, image(b"a.jpg"))
    commit(catalog, failures=[failure(b"a.jpg", "is empty", replaces=1)])
    assert catalog.paths([1]) == {}
    assert catalog.snapshot().removed == (1,)
    assert catalog.counts() == Counts(images=0, failed=1, skipped=0, excluded=0)


def test_an_image_that_was_touched_keeps_its_id_and_its_content(catalog: CatalogWriter) -> None:
    commit(catalog, image(b"a.jpg"))
    commit(catalog, moved=[seen(1, b"a.jpg")])
    assert known(catalog) == {b"a.jpg": FileRecord(200, 7_000, 1, None, excluded=False)}
    assert catalog.digest_of(1) == b"digest of a.jpg"
    assert catalog.snapshot().removed == ()


def test_an_image_that_was_moved_keeps_its_id(catalog: CatalogWriter) -> None:
    catalog.add_root(b"/other", recursive=True)
    commit(catalog, image(b"a.jpg"), image(b"b.jpg"))
    commit(catalog, moved=[seen(1, b"new.jpg", folder=b"sub"), seen(2, b"b.jpg", root=2)])
    assert catalog.paths([1, 2]) == {1: "/photos/sub/new.jpg", 2: "/other/b.jpg"}
    assert catalog.id_at(location(b"a.jpg")) is None
    assert known(catalog) == {}
    assert catalog.holders(b"digest of a.jpg", 9) == [Holder(1, b"/photos/sub/new.jpg")]
    assert catalog.counts().images == 2
    assert catalog.snapshot().removed == ()


def test_an_image_that_was_moved_over_another_replaces_it(catalog: CatalogWriter) -> None:
    commit(catalog, image(b"a.jpg"), image(b"b.jpg"))
    commit(catalog, moved=[seen(1, b"b.jpg", replaces=2)])
    assert catalog.paths([1, 2]) == {1: "/photos/b.jpg"}
    assert catalog.snapshot().removed == (2,)
    assert catalog.holders(b"digest of b.jpg", 9) == [Holder(2, None)]


def test_images_may_move_up_in_a_row(catalog: CatalogWriter) -> None:
    commit(catalog, image(b"1.jpg"), image(b"2.jpg"))
    commit(catalog, moved=[seen(2, b"3.jpg"), seen(1, b"2.jpg")])
    assert catalog.paths([1, 2]) == {1: "/photos/2.jpg", 2: "/photos/3.jpg"}


def test_an_image_that_was_moved_to_where_a_file_had_failed_ends_that(
    catalog: CatalogWriter,
) -> None:
    commit(catalog, image(b"a.jpg"), failures=[failure(b"b.jpg", "is empty")])
    commit(catalog, moved=[seen(1, b"b.jpg")])
    assert catalog.counts() == Counts(images=1, failed=0, skipped=0, excluded=0)


def test_a_new_image_may_come_to_where_one_moved_away(catalog: CatalogWriter) -> None:
    commit(catalog, image(b"a.jpg"))
    commit(catalog, image(b"a.jpg", digest=b"new"), moved=[seen(1, b"b.jpg")])
    assert catalog.paths([1, 2]) == {1: "/photos/b.jpg", 2: "/photos/a.jpg"}


def test_a_commit_that_fails_leaves_nothing(catalog: CatalogWriter) -> None:
    commit(catalog, image(b"a.jpg"), image(b"z.jpg"))
    before = catalog.snapshot(), catalog.counts(), catalog.next_shard(), catalog.last_folder()
    with pytest.raises(DamagedError, match="UNIQUE constraint failed"):
        commit(
            catalog,
            image(b"b.jpg", replaces=1),
            image(b"c.jpg", folder=b"new"),
            image(b"b.jpg"),
            moved=[seen(2, b"y.jpg")],
            failures=[failure(b"d.jpg", "bad")],
        )
    after = catalog.snapshot(), catalog.counts(), catalog.next_shard(), catalog.last_folder()
    assert after == before
    commit(catalog, image(b"b.jpg"))
    assert catalog.paths([1, 2, 3]) == {
        1: "/photos/a.jpg",
        2: "/photos/z.jpg",
        3: "/photos/b.jpg",
    }


def test_a_commit_for_a_root_that_is_not_there_leaves_nothing(catalog: CatalogWriter) -> None:
    with pytest.raises(DamagedError, match="FOREIGN KEY constraint failed"):
        commit(catalog, image(b"a.jpg"), image(b"a.jpg", root=9))
    assert catalog.counts().images == 0
    assert catalog.shards() == []


def test_an_interrupt_in_the_middle_of_a_commit_leaves_nothing(catalog: CatalogWriter) -> None:
    class Interrupting(tuple[NewFailure, ...]):
        """Failures that are read twice: for their places, then to be written."""

        def __iter__(self) -> Iterator[NewFailure]:
            if catalog.shards():
                raise KeyboardInterrupt
            return super().__iter__()

    shard = Shard(1, 1, 1, 1, b"")
    failures = Interrupting([failure(b"b.jpg", "bad")])
    with pytest.raises(KeyboardInterrupt):
        catalog.commit(Commit(shard, (image(b"a.jpg"),), failures=failures))
    assert catalog.shards() == []
    assert catalog.counts() == Counts(images=0, failed=0, skipped=0, excluded=0)
    assert commit(catalog, image(b"a.jpg")) == Shard(1, 1, 1, 1, b"sha256")


def test_ids_and_shard_numbers_are_never_used_again(catalog: CatalogWriter) -> None:
    assert catalog.next_shard() == (1, 1)
    shard = commit(catalog, image(b"a.jpg"), image(b"b.jpg"))
    assert shard is not None
    assert catalog.next_shard() == (2, 3)
    catalog.forget([1, 2])
    catalog.replace_segments([], [Segment(1, 1, 2, 0, b"x", 0)], IVF)
    catalog.replace_shards([shard], None)
    assert catalog.shards() == []
    assert catalog.snapshot().removed == ()
    assert catalog.next_shard() == (2, 3)


# Roots


def test_a_root_becomes_recursive_and_never_the_reverse(catalog: CatalogWriter) -> None:
    catalog.add_root(b"/more", recursive=False)
    assert catalog.roots()[1] == Root(2, b"/more", False)
    catalog.add_root(b"/more", recursive=True)
    catalog.add_root(b"/more", recursive=False)
    assert catalog.roots() == [Root(1, b"/photos", True), Root(2, b"/more", True)]


def test_a_root_that_was_moved_takes_its_images_along(catalog: CatalogWriter) -> None:
    catalog.add_root(b"/other", recursive=True)
    commit(catalog, image(b"a.jpg", folder=b"sub"), image(b"b.jpg", root=2))
    catalog.move_roots([(1, b"/new")])
    assert catalog.roots() == [Root(1, b"/new", True), Root(2, b"/other", True)]
    assert catalog.paths([1, 2]) == {1: "/new/sub/a.jpg", 2: "/other/b.jpg"}
    catalog.move_roots([])
    assert catalog.roots()[0].path == b"/new"


@pytest.mark.parametrize(
    "paths",
    [
        [(1, b"/photos/old"), (2, b"/photos/old/old")],  # all moved down into a new folder
        [(2, b"/photos"), (1, b"/photos/old")],
    ],
)
def test_roots_may_move_to_where_one_of_them_was(
    catalog: CatalogWriter, paths: list[tuple[int, bytes]]
) -> None:
    catalog.add_root(b"/photos/old", recursive=True)
    catalog.move_roots(paths)
    assert {root.id: root.path for root in catalog.roots()} == dict(paths)


def test_roots_that_cannot_all_be_moved_stay_where_they_are(catalog: CatalogWriter) -> None:
    catalog.add_root(b"/other", recursive=True)
    catalog.add_root(b"/third", recursive=True)
    before = catalog.roots()
    with pytest.raises(DamagedError, match="UNIQUE"):
        catalog.move_roots([(1, b"/new"), (2, b"/third")])
    assert catalog.roots() == before


def test_a_root_is_dropped_with_what_was_excluded_and_mounted_in_it(
    catalog: CatalogWriter,
) -> None:
    catalog.add_root(b"/other", recursive=True)
    commit(catalog, image(b"a.jpg"), image(b"b.jpg", folder=b"sub"), image(b"c.jpg", root=2))
    catalog.set_mounts(1, b"", [b"", b"sub"])
    catalog.set_mounts(2, b"", [b"drive"])
    catalog.exclude([location(b"a.jpg"), location(b"c.jpg", root=2)], [FolderLocation(1, b"sub")])
    catalog.drop_root(1)
    assert catalog.roots() == [Root(2, b"/other", True)]
    assert catalog.counts() == Counts(images=0, failed=0, skipped=0, excluded=1)
    assert catalog.folders_below(1, b"") == []
    assert catalog.excluded_folders() == []
    assert catalog.mounts(1) == []
    assert catalog.mounts(2) == [b"/other/drive"]
    assert catalog.snapshot().removed == (1, 2, 3)


def test_a_root_that_comes_again_has_another_id(catalog: CatalogWriter) -> None:
    catalog.drop_root(1)
    assert catalog.roots() == []
    catalog.add_root(b"/photos", recursive=True)
    assert catalog.roots() == [Root(2, b"/photos", True)]


@pytest.mark.parametrize("what", ["image", "failure"])
def test_a_root_of_which_something_is_known_is_not_dropped(
    catalog: CatalogWriter, what: str
) -> None:
    if what == "image":
        commit(catalog, image(b"a.jpg"))
    else:
        commit(catalog, failures=[failure(b"a.jpg", None)])
    catalog.exclude([location(b"b.jpg")], [])
    with pytest.raises(DamagedError, match="FOREIGN KEY"):
        catalog.drop_root(1)
    assert catalog.roots() == [Root(1, b"/photos", True)]
    assert sorted(known(catalog)) == [b"a.jpg", b"b.jpg"]


def test_mounts_are_remembered_by_root(catalog: CatalogWriter) -> None:
    catalog.add_root(b"/other", recursive=True)
    catalog.set_mounts(1, b"", [b"", b"a", b"a/b", b"c"])
    catalog.set_mounts(2, b"", [b"a"])
    assert sorted(catalog.mounts(1)) == [b"/photos", b"/photos/a", b"/photos/a/b", b"/photos/c"]
    assert catalog.mounts(2) == [b"/other/a"]
    catalog.set_mounts(1, b"", [b"c"])
    assert catalog.mounts(1) == [b"/photos/c"]
    assert catalog.mounts(2) == [b"/other/a"]


def test_mounts_at_and_below_a_folder_are_replaced_and_no_others(catalog: CatalogWriter) -> None:
    others = [b"", b"a-b", b"a0", b"a\xff", b"b"]
    catalog.set_mounts(1, b"", [*others, b"a", b"a/b", b"a/b/c"])
    catalog.set_mounts(1, b"a", [b"a/new"])
    kept = {b"/photos", *(b"/photos/" + path for path in others if path)}
    assert set(catalog.mounts(1)) == kept | {b"/photos/a/new"}


def test_mounts_are_replaced_all_or_nothing(catalog: CatalogWriter) -> None:
    def interrupted() -> Iterator[bytes]:
        yield b"b"
        raise KeyboardInterrupt

    catalog.set_mounts(1, b"", [b"a"])
    with pytest.raises(KeyboardInterrupt):
        catalog.set_mounts(1, b"", interrupted())
    assert catalog.mounts(1) == [b"/photos/a"]


def test_a_mount_that_is_known_already_is_known_once(catalog: CatalogWriter) -> None:
    catalog.set_mounts(1, b"", [b"a"])
    catalog.set_mounts(1, b"b", [b"a", b"a"])
    assert catalog.mounts(1) == [b"/photos/a"]


# What is gone


def test_images_that_are_gone_are_forgotten_but_for_their_content(catalog: CatalogWriter) -> None:
    commit(catalog, image(b"a.jpg"), image(b"b.jpg"), image(b"c.jpg"))
    catalog.forget([1, 3, 99])
    assert catalog.paths([1, 2, 3]) == {2: "/photos/b.jpg"}
    assert catalog.snapshot().removed == catalog.snapshot().stale == (1, 3)
    assert catalog.holders(b"digest of a.jpg", 9) == [Holder(1, None)]
    catalog.forget([1])
    assert catalog.snapshot().removed == (1, 3)


def test_failures_that_are_gone_are_forgotten(catalog: CatalogWriter) -> None:
    commit(catalog, failures=[failure(b"a", None), failure(b"b", "bad"), failure(b"c", None)])
    folder = catalog.folder(1, b"")
    assert folder is not None
    catalog.forget([], [(folder, b"a"), (folder, b"b"), (folder + 1, b"c")])
    assert known(catalog).keys() == {b"c"}


def test_only_folders_of_which_nothing_is_left_are_forgotten(catalog: CatalogWriter) -> None:
    commit(
        catalog,
        image(b"x", folder=b"empty"),
        image(b"x", folder=b"image"),
        image(b"x", folder=b"unasked"),
        image(b"x", folder=b"excluded"),
        failures=[failure(b"x", None, folder=b"failure")],
    )
    catalog.exclude([location(b"x", folder=b"excluded")], [])
    folders = [id_ for id_, path in catalog.folders_below(1, b"") if path != b"unasked"]
    catalog.forget([1, 3], (), folders)
    left = {path for _, path in catalog.folders_below(1, b"")}
    assert left == {b"image", b"failure", b"excluded", b"unasked"}


def test_a_file_in_a_folder_that_was_forgotten_is_a_new_one(catalog: CatalogWriter) -> None:
    commit(catalog, image(b"a.jpg", folder=b"sub"))
    folder = catalog.folder(1, b"sub")
    assert folder is not None
    catalog.forget([1], [], [folder])
    assert catalog.folder(1, b"sub") is None
    commit(catalog, image(b"a.jpg", folder=b"sub"))
    assert catalog.paths([1, 2]) == {2: "/photos/sub/a.jpg"}


# What was taken out


def test_files_that_were_taken_out_are_known_as_that(catalog: CatalogWriter) -> None:
    commit(catalog, image(b"a.jpg"), image(b"b.jpg"), failures=[failure(b"bad.jpg", "is empty")])
    out = FileRecord(0, None, None, None, excluded=True)
    locations = [location(b"a.jpg"), location(b"bad.jpg"), location(b"new.jpg", folder=b"sub")]
    for _ in range(2):  # the second time changes nothing
        catalog.exclude(locations, [])
        assert known(catalog) == {b"a.jpg": out, b"bad.jpg": out, b"b.jpg": an_image(2)}
        assert known(catalog, b"sub") == {b"new.jpg": out}
        assert catalog.counts() == Counts(images=1, failed=0, skipped=0, excluded=3)
        assert catalog.snapshot().removed == (1,)
    assert catalog.excluded_folders() == []


def test_a_file_that_is_let_in_again_is_not_known(catalog: CatalogWriter) -> None:
    commit(catalog, image(b"a.jpg"), image(b"b.jpg"))
    catalog.exclude([location(b"a.jpg"), location(b"b.jpg")], [])
    catalog.include(location(b"a.jpg"))
    catalog.include(location(b"never.jpg"))
    assert known(catalog).keys() == {b"b.jpg"}
    commit(catalog, image(b"a.jpg"))
    assert catalog.paths([1, 2, 3]) == {3: "/photos/a.jpg"}


def test_a_folder_is_taken_out_with_all_below_it_and_nothing_else(catalog: CatalogWriter) -> None:
    catalog.add_root(b"/other", recursive=True)
    outside = [b"", b"a-b", b"a0", b"a\xff", b"b/a"]
    inside = [b"a", b"a/b", b"a/b/c"]
    commit(
        catalog,
        *(image(b"x.jpg", folder=folder) for folder in [*outside, *inside]),
        image(b"x.jpg", folder=b"a", root=2),
        failures=[failure(b"bad", None, folder=folder) for folder in (b"a/b", b"b/a")],
    )
    locations = [location(b"out.jpg", folder=folder) for folder in (b"a", b"a/b", b"b/a")]
    catalog.exclude(locations, [FolderLocation(1, b"a/b")])
    catalog.exclude([], [FolderLocation(1, b"a")])
    assert catalog.excluded_folders() == [b"/photos/a"]
    assert [known(catalog, folder) for folder in inside] == [{}, {}, {}]
    assert {b"x.jpg" in known(catalog, folder) for folder in outside} == {True}
    assert known(catalog, b"b/a").keys() == {b"x.jpg", b"bad", b"out.jpg"}
    assert known(catalog, b"a", root=2).keys() == {b"x.jpg"}
    assert catalog.counts() == Counts(images=6, failed=0, skipped=1, excluded=2)
    assert catalog.snapshot().removed == (6, 7, 8)


def test_a_folder_may_be_taken_out_before_anything_is_known_of_it(catalog: CatalogWriter) -> None:
    catalog.exclude([], [FolderLocation(1, b"sub"), FolderLocation(1, b"sub")])
    assert catalog.excluded_folders() == [b"/photos/sub"]
    assert catalog.counts().excluded == 1


def test_a_whole_root_may_be_taken_out(catalog: CatalogWriter) -> None:
    commit(catalog, image(b"a.jpg"), image(b"b.jpg", folder=b"sub"))
    catalog.exclude([], [FolderLocation(1, b"")])
    assert catalog.excluded_folders() == [b"/photos"]
    assert catalog.counts() == Counts(images=0, failed=0, skipped=0, excluded=1)


def test_a_folder_that_is_let_in_again_leaves_others_and_its_files_out(
    catalog: CatalogWriter,
) -> None:
    catalog.exclude([location(b"a.jpg", folder=b"sub")], [FolderLocation(1, b"other")])
    catalog.exclude([], [FolderLocation(1, b"sub/deep")])
    catalog.exclude([location(b"b.jpg", folder=b"sub/deep")], [])
    catalog.include(location(b"", folder=b"sub/deep"))
    assert catalog.excluded_folders() == [b"/photos/other"]
    assert known(catalog, b"sub").keys() == {b"a.jpg"}
    assert known(catalog, b"sub/deep").keys() == {b"b.jpg"}
    catalog.include(location(b"", folder=b"sub"))
    assert known(catalog, b"sub").keys() == {b"a.jpg"}


def test_taking_out_is_all_or_nothing(catalog: CatalogWriter) -> None:
    commit(catalog, image(b"a.jpg"))
    with pytest.raises(DamagedError, match="FOREIGN KEY"):
        catalog.exclude([location(b"a.jpg")], [FolderLocation(9, b"no such root")])
    assert known(catalog) == {b"a.jpg": an_image(1)}
    assert catalog.snapshot().removed == ()


# The index


def test_settings_change_where_they_are_given(catalog: CatalogWriter) -> None:
    catalog.change_settings(nlist=None, recall=None)
    assert catalog.snapshot().settings == SETTINGS
    catalog.change_settings(nlist=16, recall=None)
    assert catalog.snapshot().settings == Settings(16, 0.95)
    catalog.change_settings(nlist=None, recall=0.5)
    assert catalog.snapshot().settings == Settings(16, 0.5)
    catalog.change_settings(nlist=8, recall=1.0)
    assert catalog.snapshot().settings == Settings(8, 1.0)
    assert catalog.model() == MODEL


def test_segment_numbers_are_never_used_again(catalog: CatalogWriter) -> None:
    assert catalog.next_segment() == 1
    one, two = Segment(1, 1, 10, 10, b"x", 0), Segment(2, 11, 20, 9, b"y", 0)
    catalog.replace_segments([], [one, two], IVF)
    assert catalog.next_segment() == 3
    three = Segment(3, 1, 20, 19, b"z", 0)
    catalog.replace_segments([1, 2], [three], IVF)
    assert catalog.snapshot().segments == (three,)
    catalog.replace_segments([3], [], IVF)
    assert catalog.snapshot().segments == ()
    assert catalog.next_segment() == 4


def test_segments_that_are_not_replaced_stay(catalog: CatalogWriter) -> None:
    kept, gone = Segment(1, 1, 10, 10, b"x", 0), Segment(2, 11, 20, 9, b"y", 0)
    catalog.replace_segments([], [gone, kept], IVF)
    new = Segment(3, 11, 25, 14, b"z", 0)
    catalog.replace_segments([2, 77], [new], IVF)
    assert catalog.snapshot().segments == (kept, new)


def test_new_segments_come_with_how_they_were_made_and_measured(catalog: CatalogWriter) -> None:
    catalog.replace_segments([], [Segment(1, 1, 2, 2, b"x", 0)], IVF)
    assert catalog.snapshot().ivf == IVF
    other = replace(
        IVF, nlist=2, requested_nlist=2, added=7, far=1, curve=(CurveStep(0.5, 2, 1.0, 1.0, 0.1),)
    )
    catalog.replace_segments([1], [Segment(2, 1, 3, 2, b"y", 0)], other)
    assert catalog.snapshot().ivf == other
    catalog.replace_segments([2], [], replace(IVF, curve=()))
    assert catalog.snapshot().ivf == replace(IVF, curve=())


def test_the_steps_of_a_curve_are_ordered_by_band_and_nprobe(catalog: CatalogWriter) -> None:
    catalog.replace_segments([], [], replace(IVF, curve=IVF.curve[::-1]))
    assert catalog.snapshot().ivf == IVF


def test_removed_images_are_stale_until_a_new_segment_covers_them(catalog: CatalogWriter) -> None:
    commit(catalog, *(image(b"%d.jpg" % number) for number in range(1, 10)))
    catalog.replace_segments([], [Segment(1, 1, 4, 4, b"x", 0), Segment(2, 5, 8, 4, b"y", 0)], IVF)
    catalog.forget([1, 4, 5, 8, 9])
    assert catalog.snapshot().stale == (1, 4, 5, 8, 9)
    catalog.replace_segments([2], [Segment(3, 5, 8, 2, b"z", 0)], IVF)
    assert catalog.snapshot().removed == (1, 4, 5, 8, 9)
    assert catalog.snapshot().stale == (1, 4, 9)
    catalog.replace_segments([1], [], IVF)
    assert catalog.snapshot().stale == (1, 4, 9)
    catalog.replace_segments([], [Segment(4, 1, 4, 2, b"4", 0), Segment(5, 9, 9, 0, b"5", 0)], IVF)
    assert catalog.snapshot().removed == (1, 4, 5, 8, 9)
    assert catalog.snapshot().stale == ()


def test_segments_that_cannot_all_be_replaced_stay(catalog: CatalogWriter) -> None:
    commit(catalog, image(b"a.jpg"))
    catalog.replace_segments([], [Segment(1, 1, 1, 1, b"x", 0)], IVF)
    catalog.forget([1])
    before = catalog.snapshot()
    twice = (CurveStep(0.5, 1, 1.0, 1.0, 0.1),) * 2
    with pytest.raises(DamagedError, match="UNIQUE"):
        catalog.replace_segments([1], [Segment(2, 1, 1, 0, b"y", 0)], replace(IVF, curve=twice))
    assert catalog.snapshot() == before


def test_a_shard_takes_the_place_of_neighbours(catalog: CatalogWriter) -> None:
    parts = [commit(catalog, image(b"%d" % n)) for n in range(4)]
    gone = [shard for shard in parts[1:3] if shard is not None]
    new = Shard(5, 2, 3, 2, b"merged")
    catalog.replace_shards(gone, new)
    assert catalog.snapshot().shards == (parts[0], new, parts[3])
    assert catalog.next_shard() == (6, 5)
    assert catalog.counts().images == 4


def test_rows_that_were_dropped_are_forgotten_where_no_segment_holds_them(
    catalog: CatalogWriter,
) -> None:
    one = commit(catalog, *(image(b"%d" % n) for n in range(1, 5)))
    two = commit(catalog, *(image(b"%d" % n) for n in range(5, 9)))
    three = commit(catalog, image(b"9"), image(b"10"))
    assert one is not None
    assert two is not None
    catalog.forget([1, 3, 5, 9])
    catalog.replace_segments([], [Segment(1, 1, 10, 6, b"x", 0)], IVF)
    catalog.forget([2, 8])
    assert catalog.snapshot().stale == (2, 8)
    new = Shard(4, 2, 8, 5, b"merged", b"ids")
    catalog.replace_shards([one, two], new)
    snapshot = catalog.snapshot()
    assert snapshot.shards == (new, three)
    assert snapshot.removed == (2, 8, 9)  # 9 has its row still: it is of another shard
    assert snapshot.stale == (2, 8)
    assert not catalog.holds(b"digest of 1")
    assert catalog.holds(b"digest of 2")
    assert catalog.holds(b"digest of 9")


def test_shards_that_cannot_all_be_replaced_stay(catalog: CatalogWriter) -> None:
    one = commit(catalog, image(b"a"))
    two = commit(catalog, image(b"b"))
    assert one is not None
    assert two is not None
    catalog.forget([1])
    catalog.replace_segments([], [Segment(1, 1, 2, 1, b"x", 0)], IVF)
    before = catalog.snapshot()
    with pytest.raises(DamagedError, match="UNIQUE"):
        catalog.replace_shards([one], replace(two, number=3))
    assert catalog.snapshot() == before


def test_a_commit_may_hold_nothing_but_failures(catalog: CatalogWriter) -> None:
    catalog.commit(Commit(None, failures=(failure(b"a", None),)))
    assert catalog.next_shard() == (1, 1)
    assert catalog.counts().skipped == 1
