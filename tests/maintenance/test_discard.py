"""Discard copies while other programs change the same files, and after a run was killed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pytest

from imgsearch.errors import StorageError
from imgsearch.maintenance import aside
from imgsearch.maintenance import discard as discarding
from imgsearch.maintenance.aside import discarding_lock, remembered
from imgsearch.maintenance.copies import Copy, Discarded, Duplicates, Group
from imgsearch.maintenance.discard import delete_copies, link_copies, trash_copies
from imgsearch.maintenance.journal import NAME
from tests.images.test_compare import scene
from tests.support.embedding_here import decoders_here

ROOT = Path(__file__).parents[2]
ACTS = [trash_copies, delete_copies, link_copies]

Act = Callable[[Duplicates], Discarded]

pytestmark = pytest.mark.usefixtures("trash")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(discarding, "decoders", decoders_here)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture(scope="module")
def _saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    scene(1).save(folder / "keep.png")
    scene(1).save(folder / "copy.jpg", quality=80)
    scene(1).save(folder / "other copy.jpg", quality=70)
    scene(2).save(folder / "other.png")
    return folder


@pytest.fixture
def folder(_saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(_saved, tmp_path / "photos")


def of(path: Path) -> Copy:
    content = path.read_bytes()
    return Copy(1, str(path), 480, 360, len(content), 0, hashlib.sha256(content).digest(), False, 1)


def group(keep: Path, *others: Path) -> Duplicates:
    found = Group(of(keep), tuple(of(path) for path in others))
    return Duplicates((found,), 1 + len(others), ())


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def before_the_kept_file_is_checked(
    monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]
) -> None:
    """Do something at the moment when a copy has its private name."""
    check = discarding._check_kept

    def checked(keep: Copy) -> os.stat_result:
        act()
        return check(keep)

    monkeypatch.setattr(discarding, "_check_kept", checked)


@pytest.mark.few(1)
@pytest.mark.parametrize("act", ACTS)
def test_a_picture_that_is_no_copy_stays_whatever_the_groups_say(folder: Path, act: Act) -> None:
    other = (folder / "other.png").read_bytes()
    done = act(group(folder / "keep.png", folder / "other.png", folder / "copy.jpg"))
    assert done.done == (str(folder / "copy.jpg"),)
    (failure,) = done.failures
    assert "is not a copy of" in failure.reason
    assert names(folder) - {"copy.jpg"} == {"keep.png", "other.png", "other copy.jpg"}
    assert (folder / "other.png").read_bytes() == other


@pytest.mark.few(1)
@pytest.mark.parametrize("act", [trash_copies, link_copies])
def test_a_new_file_at_the_name_of_a_copy_stays_and_so_does_the_copy(
    folder: Path, monkeypatch: pytest.MonkeyPatch, act: Act
) -> None:
    copy = folder / "copy.jpg"
    content = copy.read_bytes()
    found = group(folder / "keep.png", copy)
    before_the_kept_file_is_checked(monkeypatch, lambda: copy.write_text("the only one"))
    (failure,) = act(found).failures
    (private,) = (path for path in folder.iterdir() if path.name.endswith("~copy.jpg"))
    assert str(private) in failure.reason
    assert (private.read_bytes(), copy.read_text()) == (content, "the only one")


def test_what_takes_the_place_of_a_copy_meanwhile_stays(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = folder / "copy.jpg"
    found = group(folder / "keep.png", copy)
    before_the_kept_file_is_checked(monkeypatch, lambda: copy.write_text("the only one"))
    assert delete_copies(found).done == (str(copy),)
    assert copy.read_text() == "the only one"
    assert names(folder) == {"keep.png", "copy.jpg", "other copy.jpg", "other.png"}


@pytest.mark.few(1)
@pytest.mark.parametrize("act", ACTS)
def test_a_copy_gets_its_name_back_if_the_kept_file_goes_meanwhile(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    act: Act,
) -> None:
    found = group(folder / "keep.png", folder / "copy.jpg")
    content = (folder / "copy.jpg").read_bytes()
    before_the_kept_file_is_checked(monkeypatch, lambda: os.unlink(folder / "keep.png"))
    (failure,) = act(found).failures
    assert "which was to be kept" in failure.reason
    assert (folder / "copy.jpg").read_bytes() == content
    assert names(folder) == {"copy.jpg", "other copy.jpg", "other.png"}


@pytest.mark.few(1)
@pytest.mark.parametrize("act", ACTS)
def test_nothing_is_replaced_when_a_copy_cannot_have_its_name_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch, act: Act
) -> None:
    found = group(folder / "keep.png", folder / "copy.jpg")
    content = (folder / "copy.jpg").read_bytes()

    def disturb() -> None:
        (folder / "keep.png").unlink()
        (folder / "copy.jpg").write_text("new")

    before_the_kept_file_is_checked(monkeypatch, disturb)
    (failure,) = act(found).failures
    (private,) = (path for path in folder.iterdir() if path.name.endswith("~copy.jpg"))
    assert str(private) in failure.reason
    assert private.read_bytes() == content
    assert (folder / "copy.jpg").read_text() == "new"


@pytest.mark.few(1)
@pytest.mark.parametrize("act", ACTS)
def test_a_copy_that_is_gone_is_the_failure_of_that_file_alone(folder: Path, act: Act) -> None:
    found = group(folder / "keep.png", folder / "copy.jpg", folder / "other copy.jpg")
    (folder / "copy.jpg").unlink()
    done = act(found)
    assert done.done == (str(folder / "other copy.jpg"),)
    assert [failure.path for failure in done.failures] == [str(folder / "copy.jpg")]


def test_an_interrupt_puts_the_copy_back_and_what_was_done_is_reported(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = group(folder / "keep.png", folder / "copy.jpg", folder / "other copy.jpg")
    calls: list[int] = []

    def interrupt() -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    before_the_kept_file_is_checked(monkeypatch, interrupt)
    done = delete_copies(found)
    assert (done.done, done.interrupted) == ((str(folder / "copy.jpg"),), True)
    assert names(folder) == {"keep.png", "other copy.jpg", "other.png"}


def test_what_a_killed_run_set_aside_is_put_back_by_the_next(folder: Path) -> None:
    private = ".imgsearch-" + "0" * 32 + "~other.png"
    with discarding_lock(), remembered(str(folder), "other.png", private):
        os.rename(folder / "other.png", folder / private)
    delete_copies(Duplicates((), 0, ()))
    assert names(folder) == {"keep.png", "copy.jpg", "other copy.jpg", "other.png"}


def test_two_runs_never_discard_what_the_other_keeps(folder: Path) -> None:
    (folder / "copy.png").write_bytes((folder / "keep.png").read_bytes())
    groups = [
        group(folder / "keep.png", folder / "copy.png"),
        group(folder / "copy.png", folder / "keep.png"),
    ]
    threads = [threading.Thread(target=delete_copies, args=(each,)) for each in groups]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names(folder) & {"keep.png", "copy.png"}) == 1


def test_links_take_the_place_of_copies_and_nothing_is_left_over(folder: Path) -> None:
    done = link_copies(group(folder / "keep.png", folder / "copy.jpg"))
    assert done.failures == ()
    assert (folder / "copy.jpg").samefile(folder / "keep.png")
    assert names(folder) == {"keep.png", "copy.jpg", "other copy.jpg", "other.png"}
    (failure,) = delete_copies(group(folder / "keep.png", folder / "copy.jpg")).failures
    assert "is the same file" in failure.reason


@pytest.mark.few(1)
@pytest.mark.parametrize("act", ACTS)
def test_a_copy_that_changes_meanwhile_stays(
    folder: Path, monkeypatch: pytest.MonkeyPatch, act: Act
) -> None:
    def change() -> None:
        (private,) = (path for path in folder.iterdir() if path.name.endswith("~copy.jpg"))
        with private.open("ab") as file:
            file.write(b"more")

    found = group(folder / "keep.png", folder / "copy.jpg")
    before_the_kept_file_is_checked(monkeypatch, change)
    (failure,) = act(found).failures
    assert failure.reason == discarding.CHANGED
    assert (folder / "copy.jpg").read_bytes().endswith(b"more")
    assert not (folder / "copy.jpg").samefile(folder / "keep.png")
    assert names(folder) == {"keep.png", "copy.jpg", "other copy.jpg", "other.png"}


def test_the_trash_can_restore_a_copy_under_its_own_name(folder: Path, trash: Path) -> None:
    copies = [folder / "copy.jpg", folder / "other copy.jpg"]
    content = [copy.read_bytes() for copy in copies]
    done = trash_copies(group(folder / "keep.png", *copies))
    assert (done.done, done.untrashed) == (tuple(map(str, copies)), ())
    assert names(folder) == {"keep.png", "other.png"}
    assert [(trash / copy.name).read_bytes() for copy in copies] == content
    for copy in copies:
        info = (trash.parent / "info" / f"{copy.name}.trashinfo").read_text()
        path = next(line for line in info.splitlines() if line.startswith("Path="))
        assert unquote(path.removeprefix("Path=")) == str(copy)


def test_without_a_trash_everything_stays(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "nowhere"))
    before = {path: path.read_bytes() for path in folder.iterdir()}
    copies = [folder / "copy.jpg", folder / "other copy.jpg"]
    done = trash_copies(group(folder / "keep.png", *copies))
    assert (done.done, done.failures) == ((), ())
    assert [failure.path for failure in done.untrashed] == list(map(str, copies))
    assert "cannot be moved to the trash: No such file or directory" in done.untrashed[0].reason
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_name_that_is_too_long_for_the_trash_keeps_no_other_file_out_of_it(
    folder: Path,
) -> None:
    long = folder / f"{'n' * 246}.jpg"
    (folder / "other copy.jpg").rename(long)
    done = trash_copies(group(folder / "keep.png", long, folder / "copy.jpg"))
    assert done.done == (str(folder / "copy.jpg"),)
    (failure,) = done.untrashed
    assert failure.reason == "cannot be moved to the trash: its name is too long for the trash"
    assert long.exists()


@pytest.mark.few(1)
@pytest.mark.parametrize("act", ACTS)
def test_the_journal_says_what_was_intended_and_what_happened(
    folder: Path, state: Path, act: Act
) -> None:
    before = group(folder / "keep.png", folder / "copy.jpg", folder / "other.png")
    act(before)
    lines = [json.loads(line) for line in (state / "imgsearch" / NAME).read_text().splitlines()]
    word = act.__name__.removesuffix("_copies")
    told = [(line["state"], line["act"], Path(line["path"]).name) for line in lines]
    assert told == [("intended", word, "copy.jpg"), ("done", word, "copy.jpg")]
    assert lines[0]["keep"] == str(folder / "keep.png")
    assert lines[0]["digest"] == before.groups[0].others[0].digest.hex()
    assert lines[0]["id"] == lines[1]["id"]


def test_without_room_for_the_journal_nothing_is_changed(
    folder: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = os.write
    torn: list[int] = []

    def full(file: int, data: bytes) -> int:
        if b'"state": "intended"' not in data and not torn:
            return written(file, data)
        if torn:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        torn.append(1)
        return written(file, data[:50])

    found = group(folder / "keep.png", folder / "copy.jpg")
    before = names(folder)
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(StorageError, match=r"cannot write the journal .* nothing more was"):
            delete_copies(found)
    assert names(folder) == before
    assert delete_copies(found).done == (str(folder / "copy.jpg"),)
    lines = (state / "imgsearch" / NAME).read_text().splitlines()
    assert [json.loads(line)["state"] for line in lines[1:]] == ["intended", "done"]


@pytest.mark.few(1)
@pytest.mark.parametrize("act", ACTS)
def test_on_a_full_disk_every_file_stays_where_it_is(
    folder: Path, state: Path, monkeypatch: pytest.MonkeyPatch, act: Act
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(aside, "_write", full)
    before = {path: path.stat().st_ino for path in folder.iterdir()}
    (failure,) = act(group(folder / "keep.png", folder / "copy.jpg")).failures
    assert failure.reason == "No space left on device"
    assert {path: path.stat().st_ino for path in folder.iterdir()} == before
    lines = (state / "imgsearch" / NAME).read_text().splitlines()
    assert [json.loads(line)["state"] for line in lines] == ["intended", "left"]


@pytest.mark.few(1)
@pytest.mark.parametrize("act", ACTS)
def test_whenever_a_run_is_killed_nothing_is_lost_and_the_journal_is_true(
    tmp_path: Path, act: Act
) -> None:
    """See `tests/support/killed_discards.py`."""
    command = [sys.executable, "-m", "tests.support.killed_discards", act.__name__, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    kills, states = done.stdout.split()
    assert int(kills) > 5
    assert states == "done,left"
