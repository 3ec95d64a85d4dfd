"""Decoders that hang, crash or devour: the worker goes down with them, the run does not."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import psutil
import pytest

from imgsearch.collection import Collection
from imgsearch.maintenance import duplicates, sample
from imgsearch.maintenance.verify import verify
from tests.accounts import age, did
from tests.harm import Harm
from tests.pictures import save_pictures

from .conftest import Fault

CRASH = r"made its worker crash \(signal 11\)"
HANG = "took longer than 3 s"
MEMORY = "takes more memory than there is, or than is allowed: make it smaller, or raise.*"

DEADLY = {
    "a null pointer": ("ctypes.string_at(0)", CRASH),
    "a stack that overflows": ("overflow()", CRASH),
    "an assertion in C": ("os.abort()", r"made its worker crash \(signal 6\)"),
    "an exit": ("os._exit(1)", r"made its worker crash \(exit status 1\)"),
    "a loop that never lets go of Python's lock": ("any(iter(int, 1))", HANG),
    "a sleep that no signal ends": ("stubborn()", HANG),
    "an allocation of a terabyte": ("bytearray(1 << 40)", MEMORY),
    "a leak": ("list(iter(lambda: bytearray(1 << 24), None))", MEMORY),
}

FUNCTIONS = """
import ctypes

def overflow():
    sys.setrecursionlimit(1 << 30)
    recurse = lambda _: list(map(recurse, [0]))  # each level takes some of C's stack
    recurse(0)

def stubborn():
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    while True:
        time.sleep(1000)

"""


@pytest.mark.parametrize("deed", DEADLY)
def test_a_deadly_decoder_costs_its_own_file_only_and_is_not_tried_again(
    deed: str, collection: Collection, tmp_path: Path, fault: Fault, harm: Harm
) -> None:
    action, reason = DEADLY[deed]
    if reason is MEMORY and sys.platform != "linux":
        pytest.skip("only Linux limits the memory of a process")
    fault(FUNCTIONS + f'when_opened("deadly", lambda: {action})')
    tree = tmp_path / "tree"
    good = save_pictures(tree, 20)
    (tree / "deadly.png").write_bytes(good[1].read_bytes() + b"its own content")
    age(tree)

    report = collection.index(tree, time_limit=3, max_pixels=1_000_000)
    assert did(report) == {"indexed": 20, "failed": 1}
    assert report.failures[0].path == str(tree / "deadly.png")
    assert re.fullmatch(reason, report.failures[0].reason)
    assert psutil.Process().children(recursive=True) == []

    again = collection.index(tree, time_limit=3, max_pixels=1_000_000)
    assert did(again) == {"unchanged": 20, "failed": 1}
    assert again.failures == report.failures
    harm.done("deadly decoders")


def test_a_decoder_that_never_stops_talking_does_not_fill_the_disk(
    collection: Collection, tmp_path: Path, fault: Fault, capfd: pytest.CaptureFixture[str]
) -> None:
    talk = """
        from contextlib import suppress

        def talk():
            for _ in range(20):
                with suppress(OSError):
                    os.write(2, b"an odd tag; " * 9000)
            if os.fstat(2).st_size > 1 << 20:
                os._exit(9)

        when_opened("00", talk)
    """
    fault(talk)
    save_pictures(tmp_path / "tree", 20)
    assert did(collection.index(tmp_path / "tree")) == {"indexed": 20}
    assert capfd.readouterr() == ("", "")


def test_workers_that_are_killed_from_outside_cost_nothing_that_the_next_run_does_not_mend(
    collection: Collection, tmp_path: Path, fault: Fault, harm: Harm
) -> None:
    fault('when_opened("0007", lambda: os.kill(os.getpid(), signal.SIGKILL))')
    tree = tmp_path / "tree"
    save_pictures(tree, 20)
    age(tree)
    report = collection.index(tree)
    assert did(report) == {"indexed": 19, "failed": 1}
    assert report.failures[0].reason == "its worker was killed; memory may have run out"
    fault("")  # whatever it was, it is over
    assert did(collection.index(tree)) == {"indexed": 1, "unchanged": 19}
    harm.done("killed workers")


@pytest.mark.parametrize("deed", ["a null pointer", "a loop that never lets go of Python's lock"])
def test_duplicates_and_verify_outlive_a_deadly_decoder(
    deed: str,
    collection: Collection,
    empty: Path,
    tmp_path: Path,
    fault: Fault,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(duplicates, "SECONDS", 1.0)
    monkeypatch.setattr(sample, "SECONDS", 1.0)
    tree = tmp_path / "tree"
    good = save_pictures(tree, 6)
    for name in ("one.png", "other.png"):  # the same content twice
        (tree / name).write_bytes(good[1].read_bytes() + b"deadly")
    age(tree)
    collection.index(tree)
    fault(FUNCTIONS + f'when_sent(b"deadly", lambda: {DEADLY[deed][0]})')
    found = duplicates.find_duplicates(empty)
    # One of them, as they have the same content.
    assert [Path(each.path).name for each in found.unreadable] == ["one.png"]
    assert all("crash" in each.reason or "longer" in each.reason for each in found.unreadable)
    checked = verify(empty)
    assert (checked.damages, checked.sampled, checked.embedded) == ((), 8, 6)
