"""Listing the files under a folder."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgsearch.files import listing
from imgsearch.files.listing import File, Kind, Listing, Unreadable, list_files, list_one
from imgsearch.files.stamps import trusted_time
from tests.support.depth import examples
from tests.support.privileges import ordinary_folder, ordinary_user

NOW = 1_700_000_000_123_456_789
SECONDS_2 = 2_000_000_000


def _fill(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def _paths(top: Path, seen: set[tuple[int, int]] | None = None) -> list[str]:
    """Return the paths of all files listed under `top`, relative to it."""
    found = list_files([os.fsencode(top)], set() if seen is None else seen)
    return [
        os.path.relpath(os.fsdecode(os.path.join(each.folder, file.name)), top)
        for each in found
        if isinstance(each, Listing)
        for file in each.files
    ]


def _kind(top: Path, name: str) -> Kind:
    (each,) = list_files([os.fsencode(top)], set())
    assert isinstance(each, Listing)
    (kind,) = (file.kind for file in each.files if file.name == os.fsencode(name))
    return kind


def test_files_come_folder_by_folder_sorted_by_name(tmp_path: Path) -> None:
    _fill(tmp_path, "b.jpg", "a.jpg", "B.jpg", "z/1.jpg", "c/2.jpg", "c/d/3.jpg", "c/10.jpg")
    assert _paths(tmp_path) == [
        "B.jpg",
        "a.jpg",
        "b.jpg",
        "c/10.jpg",
        "c/2.jpg",
        "c/d/3.jpg",
        "z/1.jpg",
    ]


def test_a_file_is_listed_with_its_size_and_time(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"12345")
    os.utime(path, ns=(1, 1_700_000_000_123_456_789))
    (each,) = list_files([os.fsencode(tmp_path)], set())
    status = path.stat()
    facts = Kind.REGULAR, status.st_ctime_ns, status.st_ino
    assert each == Listing(os.fsencode(tmp_path), (File(b"a.jpg", 5, status.st_mtime_ns, *facts),))


def test_an_empty_folder_has_no_listing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert list(list_files([os.fsencode(tmp_path)], set())) == []


def test_hidden_folders_are_left_out_and_hidden_files_are_not(tmp_path: Path) -> None:
    _fill(tmp_path, ".thumbnails/a.jpg", "b/.git/c.jpg", "b/.hidden.jpg", ".d.jpg")
    assert _paths(tmp_path) == [".d.jpg", "b/.hidden.jpg"]


def test_a_hidden_folder_that_was_named_is_listed(tmp_path: Path) -> None:
    _fill(tmp_path, ".photos/a.jpg", ".photos/.more/b.jpg")
    assert _paths(tmp_path / ".photos") == ["a.jpg"]


def test_a_hidden_link_to_a_folder_is_left_out(tmp_path: Path) -> None:
    _fill(tmp_path, "elsewhere/a.jpg", "top/b.jpg")
    (tmp_path / "top" / ".link").symlink_to(tmp_path / "elsewhere")
    assert _paths(tmp_path / "top") == ["b.jpg"]


def test_a_linked_file_is_listed_under_the_name_of_its_link(tmp_path: Path) -> None:
    _fill(tmp_path, "elsewhere/a.jpg")
    (tmp_path / "top").mkdir()
    (tmp_path / "top" / "link.jpg").symlink_to(tmp_path / "elsewhere" / "a.jpg")
    assert _paths(tmp_path / "top") == ["link.jpg"]
    assert _kind(tmp_path / "top", "link.jpg") is Kind.REGULAR


def test_a_linked_folder_is_followed_after_the_real_ones(tmp_path: Path) -> None:
    _fill(tmp_path, "elsewhere/sub/a.jpg", "top/z/b.jpg", "top/c.jpg")
    (tmp_path / "top" / "link").symlink_to(tmp_path / "elsewhere")
    assert _paths(tmp_path / "top") == ["c.jpg", "z/b.jpg", "link/sub/a.jpg"]


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    _fill(tmp_path, "a/b/c.jpg")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a" / "self")
    assert _paths(tmp_path) == ["a/self", "a/b/c.jpg"]


def test_a_link_to_itself_is_broken(tmp_path: Path) -> None:
    (tmp_path / "self").symlink_to(tmp_path / "self")
    assert _kind(tmp_path, "self") is Kind.BROKEN


def test_a_folder_reached_twice_is_listed_once_by_its_real_path(tmp_path: Path) -> None:
    _fill(tmp_path, "z/real/a.jpg")
    (tmp_path / "a-link").symlink_to(tmp_path / "z" / "real")
    (tmp_path / "b-link").symlink_to(tmp_path / "z")
    assert _paths(tmp_path) == ["z/real/a.jpg"]


def test_a_folder_with_two_links_and_no_real_path_is_listed_once(tmp_path: Path) -> None:
    _fill(tmp_path, "elsewhere/a.jpg")
    (tmp_path / "top").mkdir()
    for name in ("one", "two"):
        (tmp_path / "top" / name).symlink_to(tmp_path / "elsewhere")
    assert _paths(tmp_path / "top") == ["one/a.jpg"]


def test_a_folder_in_seen_is_not_entered(tmp_path: Path) -> None:
    _fill(tmp_path, "photos/a.jpg", "collection/vectors/b.npy")
    status = (tmp_path / "collection").stat()
    assert _paths(tmp_path, {(status.st_dev, status.st_ino)}) == ["photos/a.jpg"]


def test_overlapping_folders_that_share_seen_are_listed_once(tmp_path: Path) -> None:
    _fill(tmp_path, "a/b/1.jpg", "a/2.jpg")
    seen: set[tuple[int, int]] = set()
    assert _paths(tmp_path / "a" / "b", seen) == ["1.jpg"]
    assert _paths(tmp_path, seen) == ["a/2.jpg"]


def test_a_folder_that_is_gone_is_unreadable_and_the_others_are_listed(tmp_path: Path) -> None:
    _fill(tmp_path, "0.jpg", "a/1.jpg", "b/2.jpg")
    listings = list_files([os.fsencode(tmp_path)], set())
    assert isinstance(next(listings), Listing)
    shutil.rmtree(tmp_path / "a")
    gone, left = listings
    assert gone == Unreadable(os.fsencode(tmp_path / "a"), "No such file or directory")
    assert isinstance(left, Listing)
    assert left.folder == os.fsencode(tmp_path / "b")


def test_a_folder_without_permission_is_unreadable_and_the_others_are_listed() -> None:
    with ordinary_folder() as folder:
        _fill(folder, "a/1.jpg", "b/2.jpg")
        (folder / "a").chmod(0)
        with ordinary_user():
            closed, left = list_files([os.fsencode(folder)], set())
        (folder / "a").chmod(0o755)
    assert closed == Unreadable(os.fsencode(folder / "a"), "Permission denied")
    assert isinstance(left, Listing)


def test_a_pipe_and_a_socket_are_special(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket may not be long
    os.mkfifo("pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jpg")
    assert _kind(tmp_path, "pipe.jpg") is Kind.SPECIAL
    assert _kind(tmp_path, "socket.jpg") is Kind.SPECIAL


def test_a_link_to_a_device_is_special(tmp_path: Path) -> None:
    (tmp_path / "zeros.jpg").symlink_to("/dev/zero")
    assert _kind(tmp_path, "zeros.jpg") is Kind.SPECIAL


def test_a_dangling_link_is_broken(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert _kind(tmp_path, "gone.jpg") is Kind.BROKEN


def test_names_that_are_not_utf8_keep_their_bytes(tmp_path: Path) -> None:
    folder = os.path.join(os.fsencode(tmp_path), b"caf\xe9")
    try:
        os.mkdir(folder)
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    Path(os.fsdecode(os.path.join(folder, b"\xff.jpg"))).write_bytes(b"x")
    (each,) = list_files([os.fsencode(tmp_path)], set())
    assert isinstance(each, Listing)
    assert each.folder == folder
    assert each.files[0].name == b"\xff.jpg"


def test_a_folder_of_many_files_comes_in_sorted_blocks(tmp_path: Path) -> None:
    count = 2 * listing.BLOCK + 1
    for number in range(count):
        (tmp_path / f"{number}.jpg").touch()
    blocks = [
        each for each in list_files([os.fsencode(tmp_path)], set()) if isinstance(each, Listing)
    ]
    assert [len(block.files) for block in blocks] == [listing.BLOCK, listing.BLOCK, 1]
    names = [file.name for block in blocks for file in block.files]
    assert names == sorted(b"%d.jpg" % number for number in range(count))


def test_a_single_file_is_a_listing_of_its_folder(tmp_path: Path) -> None:
    _fill(tmp_path, "a.jpg", "b.jpg")
    each = list_one(os.fsencode(tmp_path / "a.jpg"))
    assert each.folder == os.fsencode(tmp_path)
    assert [(file.name, file.size, file.kind) for file in each.files] == [
        (b"a.jpg", 1, Kind.REGULAR)
    ]


def test_a_single_file_that_is_gone_is_broken(tmp_path: Path) -> None:
    (file,) = list_one(os.fsencode(tmp_path / "gone.jpg")).files
    assert file.kind is Kind.BROKEN


@pytest.mark.parametrize("age", [0, 1, 10**9, SECONDS_2 - 1, -1, -(10**9), -SECONDS_2])
def test_a_time_of_the_last_or_the_next_two_seconds_is_not_trusted(age: int) -> None:
    assert trusted_time(NOW - age, NOW) is None


@pytest.mark.parametrize("age", [SECONDS_2, 10**10, NOW, NOW + 1, -SECONDS_2 - 1, -(10**18)])
def test_an_older_time_is_trusted_and_one_of_the_far_future(age: int) -> None:
    assert trusted_time(NOW - age, NOW) == NOW - age


def test_a_file_just_written_is_listed_without_its_time(tmp_path: Path) -> None:
    _fill(tmp_path, "a-new.jpg", "b-old.jpg", "c-future.jpg")
    hour_ago, in_an_hour = (time.time_ns() + sign * 3600 * 10**9 for sign in (-1, 1))
    os.utime(tmp_path / "b-old.jpg", ns=(hour_ago, hour_ago))
    os.utime(tmp_path / "c-future.jpg", ns=(in_an_hour, in_an_hour))
    (each,) = list_files([os.fsencode(tmp_path)], set())
    assert isinstance(each, Listing)
    expected = [
        None,
        *((tmp_path / name).stat().st_mtime_ns for name in ("b-old.jpg", "c-future.jpg")),
    ]
    assert [file.mtime_ns for file in each.files] == expected
    (alone,) = list_one(os.fsencode(tmp_path / "a-new.jpg")).files
    assert alone.mtime_ns is None


def test_a_file_written_while_a_block_is_listed_has_no_time_however_long_that_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fill(tmp_path, "a.jpg", "b.jpg")
    start = time.time_ns()
    clock = iter((start, start + 100 * 10**9))
    os.utime(tmp_path / "b.jpg", ns=(start, start + 99 * 10**9))
    monkeypatch.setattr(time, "time_ns", lambda: next(clock))
    (each,) = list_files([os.fsencode(tmp_path)], set())
    assert isinstance(each, Listing)
    assert each.files[1].mtime_ns is None


class SlowDrive:
    """Makes a file's status slow to come; `most` is how many were waited for at once.

    `waited` is how many seconds it took in all.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: Callable[[bytes], float]) -> None:
        self.most = self._now = 0
        self.waited = 0.0
        self._lock = threading.Lock()
        self._seconds = seconds
        self._stat = os.stat
        monkeypatch.setattr(os, "stat", self._slow_stat)

    def _slow_stat(self, path: bytes, *args: Any, **keywords: Any) -> os.stat_result:
        if os.fsencode(path).endswith(b".jpg"):
            self._count(1)
            time.sleep(self._seconds(path))
            self._count(-1)
            self.waited += self._seconds(path)
        return self._stat(path, *args, **keywords)

    def _count(self, change: int) -> None:
        with self._lock:
            self._now += change
            self.most = max(self.most, self._now)


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A folder with 40 folders of 4 files, one of 300 files, and a link to nowhere."""
    names = [f"{n // 4:02}/{n}.jpg" for n in range(160)] + [f"z/{n}.jpg" for n in range(300)]
    _fill(tmp_path / "many", *names)
    (tmp_path / "many" / "20" / "no.jpg").symlink_to("nowhere")
    for number, path in enumerate(sorted((tmp_path / "many").rglob("*.jpg"))):
        if path.is_file():
            os.utime(path, (number, number))
    return tmp_path / "many"


def _listings(top: Path) -> list[Listing | Unreadable]:
    return list(list_files([os.fsencode(top)], set()))


def test_on_a_slow_drive_many_files_are_asked_for_at_once_and_come_in_the_same_order(
    many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = _listings(many)
    monkeypatch.setattr(listing, "BLOCK", 100)
    blocks = _listings(many)
    drive = SlowDrive(monkeypatch, lambda _: 0.002)
    assert _listings(many) == blocks
    assert 4 < drive.most <= listing.AT_ONCE
    monkeypatch.setattr(listing, "BLOCK", 1_000)
    assert _listings(many) == expected


def test_a_drive_that_is_slow_only_now_and_then_is_asked_for_one_file_after_another(
    many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = _listings(many)
    drive = SlowDrive(monkeypatch, lambda path: 1.0 if path.endswith(b"/17.jpg") else 0)
    monkeypatch.setattr(time, "perf_counter", lambda: drive.waited)  # however busy the machine is
    assert _listings(many) == expected
    assert drive.most == 1


def test_what_cannot_be_listed_on_a_slow_drive_comes_in_its_place(
    many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SlowDrive(monkeypatch, lambda _: 0.001)
    monkeypatch.setattr(listing, "BLOCK", 10)  # so far does it look ahead
    found = []
    for each in list_files([os.fsencode(many)], set()):
        found.append(each)
        if each.folder.endswith(b"/09"):
            shutil.rmtree(many / "39")
    (gone,) = (n for n, each in enumerate(found) if isinstance(each, Unreadable))
    assert found[gone].folder == os.fsencode(many / "39")
    folders = [each.folder for each in found]
    assert folders == sorted(folders)


_TREES = st.recursive(
    st.dictionaries(st.sampled_from("abcd"), st.none(), max_size=3),
    lambda trees: st.dictionaries(st.sampled_from("abcd"), st.none() | trees, max_size=3),
    max_leaves=12,
)


@settings(derandomize=True, deadline=None, max_examples=examples(50))
@given(tree=_TREES)
def test_every_file_is_listed_exactly_once_and_each_folder_is_sorted(
    tree: dict[str, object], tmp_path_factory: pytest.TempPathFactory
) -> None:
    top = tmp_path_factory.mktemp("tree")
    expected: set[str] = set()

    def make(folder: Path, children: dict[str, object]) -> None:
        for name, child in children.items():
            if isinstance(child, dict):
                (folder / name).mkdir()
                make(folder / name, child)
            else:
                (folder / name).touch()
                expected.add(str((folder / name).relative_to(top)))

    make(top, tree)
    (top / "link").symlink_to(top)
    paths = _paths(top)
    assert sorted(paths) == sorted(expected)
    folders = [os.path.dirname(path) for path in paths]
    assert paths == [
        path
        for folder in dict.fromkeys(folders)
        for path in sorted(each for each in expected if os.path.dirname(each) == folder)
    ]
