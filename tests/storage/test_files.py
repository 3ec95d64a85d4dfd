"""Atomic writing, cleaning up, and the lock of the one writer."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from imgsearch.errors import BusyError, DamagedError, StorageError
from imgsearch.storage.files import (
    Sink,
    check_room,
    exclusive,
    make_folder,
    remove_unnamed,
    undisturbed,
    write_atomically,
)
from tests.support.commands import run_python

LIMITED = """
import resource, sys
from pathlib import Path
from imgsearch.errors import StorageError
from imgsearch.storage.files import write_atomically
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomically(Path(sys.argv[1]), lambda sink: sink.write(b"n" * 5000))
except StorageError as error:
    sys.exit(str(error))
"""

HOLDER = """
import sys, time
from pathlib import Path
from imgsearch.storage.files import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_holds_what_was_filled_in_and_its_digest_is_returned(tmp_path: Path) -> None:
    def fill(sink: Sink) -> None:
        assert sink.write(b"one ") == 4
        sink.write(memoryview(b"two"))

    digest = write_atomically(tmp_path / "file", fill)
    assert (tmp_path / "file").read_bytes() == b"one two"
    assert digest == hashlib.sha256(b"one two").digest()
    assert names_in(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fill(sink: Sink) -> None:
        sink.write(b"half of the n")
        raise error

    with pytest.raises(error):
        write_atomically(path, fill)
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["file"]


@pytest.mark.usefixtures("uncovered")
def test_a_full_disk_leaves_the_old_file_and_is_a_storage_error(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    ended = run_python([sys.executable, "-c", LIMITED, str(path)], cwd=tmp_path)
    assert ended.err.startswith(f"cannot write {path}: File too large")
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["file"]


def test_a_folder_that_is_missing_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file or directory"):
        write_atomically(tmp_path / "missing" / "file", lambda sink: sink.write(b""))


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_follow_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "file", lambda sink: sink.write(b""), mode=0o666)
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize(("folder", "file"), [(0o700, 0o600), (0o755, 0o644), (0o750, 0o640)])
def test_whoever_may_not_enter_a_folder_may_not_read_its_files(
    tmp_path: Path, folder: int, file: int
) -> None:
    tmp_path.chmod(folder)
    write_atomically(tmp_path / "file", lambda sink: sink.write(b""))
    assert (tmp_path / "file").stat().st_mode & 0o777 == file


def test_a_file_is_synced_then_renamed_then_its_folder_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, os.replace

    def spy_on_fsync(descriptor: int) -> None:
        target = Path(f"/dev/fd/{descriptor}").resolve()
        name = re.sub(r"\.[0-9a-f]{16}\.", ".RANDOM.", target.name)
        steps.append(f"sync {name} of {target.stat().st_size if target.is_file() else '-'}")
        fsync(descriptor)

    def spy_on_rename(source: str, target: str, **folders: int) -> None:
        name = re.sub(r"\.[0-9a-f]{16}\.", ".RANDOM.", source)
        steps.append(f"rename {name} to {target}")
        rename(source, target, **folders)

    monkeypatch.setattr(os, "fsync", spy_on_fsync)
    monkeypatch.setattr(os, "replace", spy_on_rename)
    write_atomically(tmp_path / "file", lambda sink: sink.write(b"new"))
    assert steps == [
        "sync file.RANDOM.tmp of 3",
        "rename file.RANDOM.tmp to file",
        f"sync {tmp_path.name} of -",
    ]


def test_macos_is_told_to_flush_the_drive_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[int] = []
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", lambda _, command: commands.append(command))
    write_atomically(tmp_path / "file", lambda sink: sink.write(b"new"))
    assert commands == [51]


def test_a_folder_is_made_with_those_above_it_and_may_be_there(tmp_path: Path) -> None:
    folder = tmp_path / "one" / "two"
    make_folder(folder)
    make_folder(folder)
    assert folder.is_dir()


def test_a_folder_where_a_file_is_in_the_way_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot make the folder"):
        make_folder(tmp_path / "file" / "folder")


def disk_with(free: int) -> Callable[[Path], SimpleNamespace]:
    return lambda _: SimpleNamespace(total=10**12, used=10**12 - free, free=free)


@pytest.mark.parametrize("size", [0, 1, 5_000_000])
def test_what_fits_on_the_disk_has_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", disk_with(5_000_000))
    check_room(tmp_path, size)


def test_what_does_not_fit_on_the_disk_is_refused_with_both_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", disk_with(5_000_000))
    with pytest.raises(
        StorageError, match=f"{tmp_path} needs 1,234 MB .* 5 MB left; .* free some space, and run"
    ):
        check_room(tmp_path, 1_234_000_000)


def test_room_is_asked_for_where_the_folder_is(tmp_path: Path) -> None:
    check_room(tmp_path, 1)
    with pytest.raises(StorageError, match="free some space"):
        check_room(tmp_path, 1 << 60)


def test_room_in_a_folder_that_is_missing_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot read .*: No such file or directory"):
        check_room(tmp_path / "missing", 1)


def test_only_files_that_are_not_named_and_unfinished_ones_are_removed(tmp_path: Path) -> None:
    ours = ["00000002.npy", "00000002.ids.npy", "00000003.npy.tmp", f"00000004.npy.{'0a' * 8}.tmp"]
    kept = ["00000001.npy", "1.npy", "mine.npy", "mine.npy.tmp", "notes.txt"]
    for name in (*ours, *kept):
        (tmp_path / name).write_bytes(b"")
    remove_unnamed(tmp_path, ".npy", {"00000001.npy"})
    assert names_in(tmp_path) == kept


def test_cleaning_up_removes_nothing_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    precious = tmp_path / "mine" / "00000001.npy"
    precious.write_bytes(b"precious")
    (tmp_path / "vectors").symlink_to(tmp_path / "mine")
    with pytest.raises(DamagedError, match="vectors is a link"):
        remove_unnamed(tmp_path / "vectors", ".npy", set())
    (tmp_path / "mine" / "00000002.npy").symlink_to(precious)
    (tmp_path / "mine" / "00000003.npy.tmp").symlink_to(precious)
    remove_unnamed(tmp_path / "mine", ".npy", {"00000001.npy"})
    assert precious.read_bytes() == b"precious"
    assert names_in(tmp_path / "mine") == ["00000001.npy"]


def test_what_is_written_goes_through_no_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    for name in ("file", "file.tmp"):
        (tmp_path / name).symlink_to(victim)
    write_atomically(tmp_path / "file", lambda sink: sink.write(b"new"))
    assert victim.read_bytes() == b"precious"
    assert (tmp_path / "file").read_bytes() == b"new"
    assert not (tmp_path / "file").is_symlink()


@pytest.mark.parametrize("kind", ["link", "dangling link", "FIFO", "folder"])
def test_a_lock_that_is_no_file_is_damage_and_nothing_is_made_of_it(
    tmp_path: Path, kind: str
) -> None:
    lock, victim = tmp_path / "lock", tmp_path / "victim"
    if "link" in kind:
        lock.symlink_to(victim)
        if kind == "link":
            victim.write_bytes(b"precious")
    elif kind == "FIFO":
        os.mkfifo(lock)
    else:
        lock.mkdir()
    for hold in (exclusive, undisturbed):
        with pytest.raises(DamagedError, match=f"lock is a {kind.split()[-1]}"), hold(tmp_path):
            pytest.fail("locked it")
    assert not victim.exists() or victim.read_bytes() == b"precious"


def test_a_lock_that_was_deleted_keeps_nobody_out_and_two_writers_apart(tmp_path: Path) -> None:
    with exclusive(tmp_path):
        (tmp_path / "lock").unlink()
        with exclusive(tmp_path), pytest.raises(BusyError), exclusive(tmp_path):
            pytest.fail("two writers")


def test_cleaning_up_a_folder_that_is_missing_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot clean up"):
        remove_unnamed(tmp_path / "missing", ".npy", set())


def test_a_second_writer_is_refused_until_the_first_is_done(tmp_path: Path) -> None:
    with (
        exclusive(tmp_path),
        pytest.raises(BusyError, match="try again when it is done"),
        exclusive(tmp_path),
    ):
        pytest.fail("two writers")
    with exclusive(tmp_path):
        pass


def test_a_lock_is_released_when_its_holder_fails(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="oops"), exclusive(tmp_path):
        raise ValueError("oops")
    with exclusive(tmp_path):
        pass


def test_a_lock_keeps_other_processes_out_until_its_holder_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(BusyError), exclusive(tmp_path):
            pytest.fail("two writers")
        holder.kill()
        holder.wait()
        with exclusive(tmp_path):
            pass


def test_a_lock_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot lock"), exclusive(tmp_path / "file"):
        pytest.fail("locked nothing")
