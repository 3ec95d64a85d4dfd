"""Interrupted, ended by the system, or left without what a process needs: told shortly, kept."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from click.testing import Result

from imgsearch.collection import Collection, DirectoryCollection
from tests.support.commands import Run, imgsearch_command, run_python
from tests.support.depth import Harm
from tests.support.drives import with_drives
from tests.support.integrity import busily, check
from tests.support.pictures import save_pictures
from tests.support.small_network import make_small_collection

pytestmark = pytest.mark.processes

KEPT = (
    "imgsearch: interrupted; everything indexed so far is kept; "
    "run the same command again to resume"
)

# Trains at great length, and tells when it begins.
SLOWLY_TRAINED = """
import time
from imgsearch.indexing import train as training
train = training.train
def train_slowly(*arguments, **named):
    print("training", flush=True)
    for _ in range(500):
        time.sleep(0.02)
    return train(*arguments, **named)
training.train = train_slowly
main()
"""


def start(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # so that all of it can be sent a signal, as a terminal does
        text=True,
    )


def await_workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return the workers once there are any; none if it ends without, having nothing to embed."""
    while process.poll() is None:
        if workers := psutil.Process(process.pid).children():
            return workers
        time.sleep(0.01)
    return []


@pytest.mark.few(1)
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_run_that_is_ended_takes_its_workers_along_and_the_same_command_resumes(
    empty: Path, tmp_path: Path, sent: signal.Signals, harm: Harm
) -> None:
    photos = save_pictures(tmp_path / "many", 300)
    command = busily("-c", empty, "index", tmp_path / "many", "--nlist", "5")
    for moment in range(harm.times(1, 6)):
        with start(command) as process:
            workers = await_workers(process)
            time.sleep(0.1 * moment)
            process.send_signal(sent)  # to it alone, as the system does when it shuts down
            _, err = process.communicate(timeout=60)
        _, alive = psutil.wait_procs(workers, timeout=30)
        assert not alive
        assert "Traceback" not in err
        if process.returncode == 130:
            assert (sent, err) == (signal.SIGINT, KEPT + "\n")
        else:  # Python itself gives way to the signal once it is about to end
            assert (process.returncode, err) in ((0, err), (-sent, ""))
        check(empty)
        harm.done("signals")
    assert run_python(command, cwd=tmp_path).code == 0
    assert check(empty).keys() == set(map(str, photos))


@pytest.mark.whole("test_a_run_that_is_ended_takes_its_workers_along_and_the_same_command_resumes")
@pytest.mark.usefixtures("uncovered")
def test_ctrl_c_again_and_again_ends_without_a_traceback(
    empty: Path, tmp_path: Path, harm: Harm
) -> None:
    photos = save_pictures(tmp_path / "many", 300)
    command = busily("-c", empty, "index", tmp_path / "many")
    for moment in range(harm.times(1, 8)):
        with start(command) as process:
            workers = await_workers(process)
            time.sleep(0.05 * moment)
            with contextlib.suppress(ProcessLookupError):  # it may have ended by now
                for _ in range(3):
                    os.killpg(process.pid, signal.SIGINT)
                    time.sleep(0.005)
            _, err = process.communicate(timeout=60)
        _, alive = psutil.wait_procs(workers, timeout=30)
        assert not alive
        assert process.returncode in (0, 130, -signal.SIGINT)
        assert len(err.splitlines()) <= 1, err
        check(empty)
        harm.done("signals")
    assert run_python(command, cwd=tmp_path).code == 0
    assert check(empty).keys() == set(map(str, photos))


@pytest.mark.whole("test_a_run_that_is_ended_takes_its_workers_along_and_the_same_command_resumes")
def test_ctrl_c_while_it_trains_ends_with_130_and_keeps_the_images(
    empty: Path, tmp_path: Path, harm: Harm
) -> None:
    photos = save_pictures(tmp_path / "many", 40)
    arguments = ("-c", empty, "index", tmp_path / "many", "--nlist", "5")
    with start(busily(*arguments, code=SLOWLY_TRAINED)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "training\n"
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, KEPT + "\n")
    check(empty)
    assert run_python(busily(*arguments), cwd=tmp_path).code == 0
    assert check(empty).keys() == set(map(str, photos))
    harm.done("signals")


# Ctrl-C comes while a module is loaded.
INTERRUPTED_EARLY = """
import sys
class Finder:
    def find_spec(self, name, *_):
        if name == "click":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Finder())
from imgsearch.cli import main
"""


def test_ctrl_c_before_anything_has_begun_ends_without_a_traceback(tmp_path: Path) -> None:
    ended = run_python([sys.executable, "-c", INTERRUPTED_EARLY], cwd=tmp_path)
    assert (ended.code, ended.err) == (130, "")


# Python waits for a thread before it ends.
INTERRUPTED_AND_NOT_ENDING = """
import threading, time
from imgsearch.collection import DirectoryCollection
def info(self):
    raise KeyboardInterrupt
DirectoryCollection.info = info
threading.Thread(target=time.sleep, args=(100,)).start()
main()
"""


def test_ctrl_c_again_ends_at_once_and_without_a_traceback(indexed: Path) -> None:
    with start(busily("-c", indexed, "info", code=INTERRUPTED_AND_NOT_ENDING)) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "imgsearch: interrupted\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (-signal.SIGINT, "")


# What a process needs


def few_files(count: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))


@pytest.mark.whole("test_output_that_cannot_be_written_ends_with_7")
@pytest.mark.parametrize("count", [5, 6, 8, 10, 12, 64])
def test_with_few_open_files_it_works_or_says_so_in_one_line(
    indexed: Path, tmp_path: Path, run: Run, count: int, harm: Harm
) -> None:
    (photo,) = save_pictures(tmp_path / "more", 1, first=70)
    before = check(indexed).keys()
    commands: list[list[str | Path]] = [["query", photo], ["index", photo, "--nlist", "4"]]
    for command in commands:
        ended = run("-c", indexed, *command, before=few_files(count))
        assert ended.code in ((0,) if count == 64 else (0, 3, 6, 7))
        assert len(ended.err.splitlines()) <= 1
        assert not ended.code or "Too many open files" in ended.err
    assert run("-c", indexed, "index", photo).code == 0
    assert check(indexed).keys() == before | {str(photo)}
    harm.done("file faults")


@pytest.mark.whole("test_where_memory_ends_in_the_middle_it_says_so_in_one_line")
def test_with_little_memory_it_works_or_says_so_in_one_line(indexed: Path, run: Run) -> None:
    def little() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (150 << 20, 150 << 20))

    ended = run("-c", indexed, "index", before=little)
    (line,) = ended.err.splitlines()
    assert ended.code == 7
    assert line.startswith("imgsearch: ")
    check(indexed)


# There is no room for a thread once workers are to be started.
NO_MORE_THREADS = """
import threading
from types import SimpleNamespace
from imgsearch.embedding import pool
class Refused(threading.Thread):
    def start(self):
        raise RuntimeError("can't start new thread")
pool.threading = SimpleNamespace(Thread=Refused, Event=threading.Event)
main()
"""


@pytest.mark.whole("test_where_memory_ends_in_the_middle_it_says_so_in_one_line")
def test_without_another_thread_it_says_so_in_one_line(empty: Path, photos: Path) -> None:
    command = busily("-c", empty, "index", photos, code=NO_MORE_THREADS)
    ended = run_python(command, cwd=empty)
    assert ended.code == 6
    assert ended.err == ("imgsearch: a worker process could not start: can't start new thread\n")


def test_where_memory_ends_in_the_middle_it_says_so_in_one_line(
    invoke: Callable[..., Result], indexed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def info(_: Collection) -> None:
        raise MemoryError

    monkeypatch.setattr(DirectoryCollection, "info", info)
    ended = invoke("-c", indexed, "info")
    assert ended.exit_code == 7
    assert ended.stderr == ("imgsearch: memory ran out; everything indexed so far is kept\n")


def index_without_temporary_files(folder: Path) -> None:
    make_small_collection(folder / "collection")
    save_pictures(folder / "photos", 1)
    (folder / "work").mkdir()
    here = Path("/mnt")
    mounted([str(folder), str(here)], "--bind")
    for place in ("/tmp", "/var/tmp", "/usr/tmp", str(here / "work")):
        if Path(place).is_dir():
            mounted([place, place], "--bind")
            mounted([place], "-o", "remount,ro,bind")
    command = imgsearch_command("-c", here / "collection", "index", here / "photos")
    ended = run_python(command, cwd=here / "work", env={"TMPDIR": "/tmp"})
    (line,) = ended.err.splitlines()
    assert ended.code == 6
    assert line.startswith("imgsearch: a worker process could not start: No usable temporary")
    assert check(here / "collection") == {}


def mounted(what: list[str], *options: str) -> None:
    subprocess.run(["mount", *options, *what], check=True, capture_output=True)


@pytest.mark.whole("test_what_may_not_be_read_or_written_ends_in_one_line")
@pytest.mark.usefixtures("uncovered")
def test_without_a_place_for_temporary_files_it_says_so_in_one_line(tmp_path: Path) -> None:
    with_drives(index_without_temporary_files, tmp_path)


# Where the output goes


PRINTING = (["query", "PHOTO"], ["query", "PHOTO", "--json"], ["query", "PHOTO", "-0"], ["info"])


@pytest.mark.few(1)
@pytest.mark.parametrize("command", [*PRINTING, ["info", "--json"], ["index", "--json"]])
@pytest.mark.parametrize("out", ["full", "closed"])
def test_output_that_cannot_be_written_ends_with_7(
    indexed: Path, photos: Path, command: list[str], out: str
) -> None:
    if out == "full" and not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    command = [str(photos / "0003.png") if part == "PHOTO" else part for part in command]
    with open("/dev/full" if out == "full" else os.devnull, "w") as stdout:
        ended = subprocess.run(
            imgsearch_command("-c", indexed, *command),
            stdout=stdout,
            stderr=subprocess.PIPE,
            preexec_fn=None if out == "full" else lambda: os.close(1),
            text=True,
            timeout=100,
            check=False,
        )
    assert ended.returncode == 7
    *_, line = ended.stderr.splitlines()
    assert line.startswith("imgsearch: cannot read or write: ")
    assert "Traceback" not in ended.stderr
    check(indexed)


@pytest.mark.whole("test_output_that_cannot_be_written_ends_with_7")
@pytest.mark.parametrize("closed", [[0], [1], [2], [0, 1, 2]])
def test_without_standard_streams_no_file_of_the_collection_takes_their_place(
    indexed: Path, tmp_path: Path, closed: list[int], run: Run
) -> None:
    (photo,) = save_pictures(tmp_path / "more", 1, first=70)
    before = check(indexed).keys()

    def close() -> None:
        for descriptor in closed:
            os.close(descriptor)

    assert run("-c", indexed, "index", photo, "--nlist", "4", before=close).code == 0
    assert check(indexed).keys() == before | {str(photo)}
