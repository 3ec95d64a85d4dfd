"""Decoders that hang, crash or devour: the worker goes down with them, the run does not."""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

import psutil
import pytest

from imgsearch.cli.duplicates import write_page
from imgsearch.collection import Collection
from imgsearch.embedding.lanes import Lane, decoders
from imgsearch.images.limits import Limits
from imgsearch.maintenance import discard, duplicates, sample
from imgsearch.maintenance.copies import Copy, Duplicates, Group
from imgsearch.maintenance.verify import verify
from tests.embedding.conftest import Fault
from tests.images.test_compare import scene
from tests.support.depth import Harm
from tests.support.outcomes import age, did
from tests.support.pictures import save_pictures

pytestmark = pytest.mark.processes

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


@pytest.mark.few(1)
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


@pytest.mark.whole("test_a_deadly_decoder_costs_its_own_file_only_and_is_not_tried_again")
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


@pytest.mark.whole("test_a_file_that_crashes_the_worker_is_blamed_and_the_others_are_embedded")
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


def hasty(count: int) -> Lane:
    """Return decoders that may take a second for an image."""
    return decoders(count, Limits(time_limit=1.0))


@pytest.mark.whole("test_a_deadly_decoder_costs_its_own_file_only_and_is_not_tried_again")
@pytest.mark.parametrize("deed", ["a null pointer", "a loop that never lets go of Python's lock"])
def test_duplicates_and_verify_outlive_a_deadly_decoder(
    deed: str,
    collection: Collection,
    empty: Path,
    tmp_path: Path,
    fault: Fault,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for module in (duplicates, sample):
        monkeypatch.setattr(module, "decoders", hasty)
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


CLOSELY = """
from PIL import Image, ImageFile

plain_init, plain_getexif = ImageFile.ImageFile.__init__, Image.Image.getexif

def init(self, file, *args, **kwargs):
    plain_init(self, file, *args, **kwargs)
    self.deadly = hasattr(file, "getvalue") and file.getvalue().endswith(b"deadly")

def getexif(self):
    if getattr(self, "deadly", False):
        {}
    return plain_getexif(self)

ImageFile.ImageFile.__init__, Image.Image.getexif = init, getexif
"""


@pytest.fixture
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three copies of one picture, one of which a decoder can only glance at."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for module in (duplicates, discard):
        monkeypatch.setattr(module, "decoders", hasty)
    folder = tmp_path / "copies"
    folder.mkdir()
    for quality in (95, 85, 75):
        scene(3).save(folder / f"{quality}.jpg", quality=quality)
    with (folder / "85.jpg").open("ab") as file:
        file.write(b"deadly")
    age(folder)
    return folder


CLOSE_DEEDS = ["a null pointer", "a loop that never lets go of Python's lock", "an exit"]


@pytest.mark.whole("test_a_deadly_decoder_costs_its_own_file_only_and_is_not_tried_again")
@pytest.mark.parametrize("deed", CLOSE_DEEDS)
def test_a_decoder_that_dies_at_a_close_look_costs_duplicates_that_file_only(
    deed: str, collection: Collection, empty: Path, copies: Path, fault: Fault
) -> None:
    collection.index(copies)
    fault(FUNCTIONS + CLOSELY.format(DEADLY[deed][0]))
    found = duplicates.find_duplicates(empty)
    assert [Path(each.path).name for each in found.unreadable] == ["85.jpg"]
    (group,) = found.groups
    assert Path(group.keep.path).name == "95.jpg"
    assert [Path(copy.path).name for copy in group.others] == ["75.jpg"]


@pytest.mark.whole("test_a_deadly_decoder_costs_its_own_file_only_and_is_not_tried_again")
@pytest.mark.parametrize("deed", CLOSE_DEEDS)
def test_a_decoder_that_dies_when_a_copy_is_to_be_deleted_leaves_that_copy(
    deed: str, copies: Path, fault: Fault
) -> None:
    def of(name: str) -> Copy:
        content = (copies / name).read_bytes()
        digest = hashlib.sha256(content).digest()
        return Copy(1, str(copies / name), 480, 360, len(content), 0, digest, False, 1)

    fault(FUNCTIONS + CLOSELY.format(DEADLY[deed][0]))
    group = Group(of("95.jpg"), (of("85.jpg"), of("75.jpg")))
    done = discard.delete_copies(Duplicates((group,), 3, ()))
    assert done.done == (str(copies / "75.jpg"),)
    assert [Path(failure.path).name for failure in done.failures] == ["85.jpg"]
    assert {path.name for path in copies.iterdir()} == {"95.jpg", "85.jpg"}


@pytest.mark.whole("test_a_deadly_decoder_costs_its_own_file_only_and_is_not_tried_again")
def test_a_decoder_that_dies_at_a_thumbnail_costs_the_page_of_copies_that_picture_only(
    collection: Collection, empty: Path, copies: Path, tmp_path: Path, fault: Fault
) -> None:
    collection.index(copies)
    found = duplicates.find_duplicates(empty)
    fault(FUNCTIONS + f'when_sent(b"deadly", lambda: {DEADLY["a null pointer"][0]})')
    assert write_page(tmp_path / "page.html", found)
    page = (tmp_path / "page.html").read_text()
    assert page.count("<img") == 3  # the kept image is beside each of its two copies
    assert "no picture: made its worker crash" in page
