"""Discard copies while other programs change the same files, and after a run was killed."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from imgsearch.maintenance import discard as discarding
from imgsearch.maintenance.aside import discarding_lock, remembered
from imgsearch.maintenance.copies import Copy, Discarded, Duplicates, Group
from imgsearch.maintenance.discard import delete_copies, link_copies
from tests.images.test_compare import scene


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    scene(1).save(folder / "keep.png")
    scene(1).save(folder / "copy.jpg", quality=80)
    scene(1).save(folder / "other copy.jpg", quality=70)
    scene(2).save(folder / "other.png")
    return folder


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


def test_a_picture_that_is_no_copy_stays_whatever_the_groups_say(folder: Path) -> None:
    done = delete_copies(group(folder / "keep.png", folder / "other.png", folder / "copy.jpg"))
    assert done.done == (str(folder / "copy.jpg"),)
    (failure,) = done.failures
    assert "is not a copy of" in failure.reason
    assert names(folder) == {"keep.png", "other.png", "other copy.jpg"}


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
@pytest.mark.parametrize("discard", [delete_copies, link_copies])
def test_a_copy_gets_its_name_back_if_the_kept_file_goes_meanwhile(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    discard: Callable[[Duplicates], Discarded],
) -> None:
    found = group(folder / "keep.png", folder / "copy.jpg")
    content = (folder / "copy.jpg").read_bytes()
    before_the_kept_file_is_checked(monkeypatch, lambda: os.unlink(folder / "keep.png"))
    (failure,) = discard(found).failures
    assert "which was to be kept" in failure.reason
    assert (folder / "copy.jpg").read_bytes() == content
    assert names(folder) == {"copy.jpg", "other copy.jpg", "other.png"}


def test_nothing_is_replaced_when_a_copy_cannot_have_its_name_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = group(folder / "keep.png", folder / "copy.jpg")
    content = (folder / "copy.jpg").read_bytes()

    def disturb() -> None:
        (folder / "keep.png").unlink()
        (folder / "copy.jpg").write_text("new")

    before_the_kept_file_is_checked(monkeypatch, disturb)
    (failure,) = delete_copies(found).failures
    (aside,) = (path for path in folder.iterdir() if path.name.endswith("~copy.jpg"))
    assert str(aside) in failure.reason
    assert aside.read_bytes() == content
    assert (folder / "copy.jpg").read_text() == "new"


def test_a_copy_that_is_gone_is_the_failure_of_that_file_alone(folder: Path) -> None:
    found = group(folder / "keep.png", folder / "copy.jpg", folder / "other copy.jpg")
    (folder / "copy.jpg").unlink()
    done = delete_copies(found)
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
