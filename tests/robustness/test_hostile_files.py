"""Hostile files: bombs, damage, absurd metadata and names, and decoders that hang or crash."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import resource
import subprocess
import sys
import threading
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from imgsearch.collection import Collection
from imgsearch.images.limits import Limits
from tests.support.commands import Run, imgsearch_command
from tests.support.depth import Harm
from tests.support.hostile_files import NAMES, make_hostile_files, png, scan_bomb
from tests.support.image_files import encode, photo
from tests.support.outcomes import age, did
from tests.support.pictures import save_pictures

MB = 1 << 20
GB = 1 << 30
AT_REST = 400 * MB  # of one process of imgsearch, its libraries included


class Watched:
    """A run of imgsearch, and the most memory that it and its workers had in RAM at once."""

    def __init__(self, *arguments: str | Path, space: int = resource.RLIM_INFINITY) -> None:
        """Run to the end; `space` bounds the address space of each process."""
        self.peak = 0
        started = time.monotonic()
        process = subprocess.Popen(
            imgsearch_command(*arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (space, space)),
        )
        watch = threading.Thread(target=self._watch, args=(psutil.Process(process.pid),))
        watch.start()
        self.out, self.err = process.communicate(timeout=600)
        watch.join()
        self.code = process.returncode
        self.seconds = time.monotonic() - started

    def _watch(self, process: psutil.Process) -> None:
        with suppress(psutil.NoSuchProcess):  # it ends at any moment
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                held = 0
                for each in [process, *process.children(recursive=True)]:
                    with suppress(psutil.Error):
                        held += each.memory_info().rss
                self.peak = max(self.peak, held)
                time.sleep(0.02)

    def report(self) -> Any:
        """Return what the run printed, having checked that its numbers add up."""
        assert self.code == 0, self.err
        report = json.loads(self.out)
        fates = ("indexed", "copied", "moved", "unchanged", "failed", "skipped", "excluded")
        assert report["found"] == sum(report[fate] for fate in fates)
        assert report["failed"] == len(report["failures"])
        assert all(failure["reason"] for failure in report["failures"])
        lines = self.err.decode().splitlines()
        assert all(line.isprintable() for line in lines), lines
        return report


def names_in(failures: list[dict[str, str]]) -> set[bytes]:
    """Return the paths in a report, byte by byte."""
    return {
        base64.b64decode(each["path_bytes"]) if "path_bytes" in each else each["path"].encode()
        for each in failures
    }


@pytest.mark.whole("test_odd_files_are_decoded_or_refused_with_a_reason")
def test_hostile_files_are_all_accounted_for_in_bounded_memory_and_time(
    empty: Path, tmp_path: Path, harm: Harm
) -> None:
    limit, edge = harm.times(20_000_000, 100_000_000), harm.times(4000, 9000, fast=1000)
    folder = tmp_path / "hostile"
    count = make_hostile_files(
        folder, harm.times(250, 6000, fast=30), edge=edge, frames=harm.times(500, 5000, fast=50)
    )
    age(folder)
    command: list[str | Path] = ["-c", empty, "index", folder, "--json", "--workers", "2"]
    command += ["--max-pixels", str(limit), "--time-limit", "20"]
    run = Watched(*command)
    report = run.report()
    assert report["found"] == count
    assert report["indexed"] > count / 8
    assert not any("crash" in each["reason"] for each in report["failures"])
    assert run.peak < 3 * AT_REST + 2 * Limits(limit).memory(2)
    assert run.seconds < harm.times(100, 500)

    again = Watched(*command).report()
    assert (again["indexed"], again["found"]) == (0, count)
    assert again["unchanged"] == report["indexed"] + report["copied"]
    assert names_in(again["failures"]) == names_in(report["failures"])
    harm.done("hostile files", count)


@pytest.mark.whole("test_odd_files_are_decoded_or_refused_with_a_reason")
def test_the_odd_files_are_indexed_in_6_gib_of_address_space(
    data: Path, mobilenet_empty: Path, tmp_path: Path, harm: Harm
) -> None:
    files = [path for path in (data / "odd").rglob("*") if not path.is_dir()]
    collection = tmp_path / "odd"
    subprocess.run(["cp", "-r", mobilenet_empty, collection], check=True)
    run = Watched("-c", collection, "index", data / "odd", "--json", space=6 * GB)
    report = run.report()
    assert report["found"] == len(files)
    assert report["indexed"] > len(files) / 3
    assert run.seconds < 120
    harm.done("hostile files", len(files))


# Limits


@pytest.mark.processes
def test_an_image_beyond_the_limit_is_recorded_and_indexed_once_the_limit_is_raised(
    collection: Collection, tmp_path: Path
) -> None:
    save_pictures(tmp_path / "tree", 3)
    (tmp_path / "tree" / "large.png").write_bytes(encode(photo(300, 200), "PNG"))
    age(tmp_path / "tree")
    report = collection.index(tmp_path / "tree", max_pixels=59_999)
    assert did(report) == {"indexed": 3, "failed": 1}
    assert report.failures[0].reason == (
        "has 300 x 200 pixels, and the limit is 59,999: make it smaller, or raise --max-pixels"
    )
    assert collection.info().failed == 1
    assert did(collection.index(max_pixels=59_999)) == {"unchanged": 3, "failed": 1}
    assert did(collection.index(max_pixels=60_000)) == {"indexed": 1, "unchanged": 3}
    assert collection.info().failed == 0
    assert did(collection.index(max_pixels=59_999)) == {"unchanged": 4}  # it is not taken out


@pytest.mark.whole(
    "test_an_image_beyond_the_limit_is_recorded_and_indexed_once_the_limit_is_raised"
)
@pytest.mark.processes
def test_an_image_that_has_grown_beyond_the_limit_is_no_longer_found(
    collection: Collection, tmp_path: Path
) -> None:
    (path, *_) = save_pictures(tmp_path / "tree", 2)
    collection.index(tmp_path / "tree")
    path.write_bytes(encode(photo(300, 200), "PNG"))
    assert collection.index(max_pixels=10_000).failed == 1
    assert str(path) not in {hit.path for hit in collection.query(path, include_self=True)}


@pytest.mark.whole("test_odd_files_are_decoded_or_refused_with_a_reason")
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process")
def test_as_many_floats_as_there_may_be_pixels_fit_into_the_memory_of_a_worker(
    collection: Collection, tmp_path: Path, harm: Harm
) -> None:
    folder = tmp_path / "tree"
    save_pictures(folder, 8)
    floats = Image.new("F", (7000, 7000))  # of 196 MB, in a file of 200 KB
    (folder / "0003a.tif").write_bytes(encode(floats, "TIFF", compression="tiff_deflate"))
    age(folder)
    report = collection.index(folder, max_pixels=49_000_000, workers=1)
    assert did(report) == {"indexed": 9}
    harm.done("hostile files")


@pytest.mark.whole(
    "test_an_image_beyond_the_limit_is_recorded_and_indexed_once_the_limit_is_raised"
)
@pytest.mark.processes
def test_what_is_in_an_icon_counts(collection: Collection, tmp_path: Path) -> None:
    large = png(3000, 3000, zlib.compress(bytes(3000 * 3001)))
    icon = (
        b"\0\0\1\0\1\0" + b"\0\0\0\0\1\0\x20\0" + len(large).to_bytes(4, "little") + b"\x16\0\0\0"
    )
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a.ico").write_bytes(icon + large)
    for limit in (8_999_999, 4_000_000):
        (failure,) = collection.index(tmp_path / "tree", max_pixels=limit).failures
        assert failure.reason == (
            f"has 3,000 x 3,000 pixels, and the limit is {limit:,}: "
            "make it smaller, or raise --max-pixels"
        )
    assert did(collection.index(max_pixels=9_000_000)) == {"indexed": 1}


@pytest.mark.whole(
    "test_an_image_beyond_the_limit_is_recorded_and_indexed_once_the_limit_is_raised"
)
def test_a_small_file_that_would_take_a_decoder_minutes_is_refused(
    collection: Collection, tmp_path: Path, harm: Harm
) -> None:
    """A progressive JPEG of 2 MB, whose scans each go over all its pixels once more."""
    tree = tmp_path / "tree"
    save_pictures(tree, 12)
    (tree / "0005a.jpg").write_bytes(scan_bomb(6000, 20_000))
    assert (tree / "0005a.jpg").stat().st_size < 4 * MB
    age(tree)
    before = set(psutil.Process().children(recursive=True))
    started = time.monotonic()
    report = collection.index(tree, time_limit=3)
    assert time.monotonic() - started < 30
    assert did(report) == {"indexed": 12, "failed": 1}
    assert report.failures[0].reason == "cannot be decoded: it has more than 100 scans"
    assert did(collection.index()) == {"unchanged": 12, "failed": 1}
    assert not set(psutil.Process().children(recursive=True)) - before
    harm.done("hostile files")


# What is printed


def chatty_tiff() -> bytes:
    """Return a TIFF about which libtiff writes to stderr by itself."""
    data = bytearray(encode(photo(64, 48), "TIFF", compression="tiff_lzw"))
    data[10:60] = b"\xff" * 50
    return bytes(data)


@pytest.mark.whole("test_csv_holds_hostile_names_as_json_does")
def test_what_libtiff_says_of_a_file_reaches_no_terminal(
    run: Run, empty: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    save_pictures(tmp_path / "tree", 3)
    path = tmp_path / "tree" / "chatty.tif"
    path.write_bytes(chatty_tiff())
    with Image.open(path) as image, suppress(OSError):
        image.load()
    assert "not yet in table" in capfd.readouterr().err  # it does chatter
    ended = run("-c", empty, "index", "tree")
    refusal = f"{path}: cannot be decoded: decoder error -2"
    assert ended.err.splitlines()[:-1] == [f"failed: {refusal}"]
    ended = run("-c", empty, "query", path)
    assert (ended.code, ended.out, ended.err) == (3, "", f"imgsearch: {refusal}\n")
    ended = run("-c", empty, "query", tmp_path / "tree" / "0000.jpg", "--html", "page.html")
    assert (ended.code, ended.err) == (0, "wrote page.html\n")


@pytest.mark.whole("test_csv_holds_hostile_names_as_json_does")
def test_hostile_names_come_back_byte_by_byte_and_never_raw_among_messages(
    run: Run, empty: Path, tmp_path: Path, harm: Harm
) -> None:
    count = make_hostile_files(tmp_path / "files", 0, edge=200, frames=3)
    names = os.fsencode(tmp_path / "files" / "names")
    good = {os.path.join(names, name + b".png") for name in NAMES}
    for name in NAMES:
        with open(os.path.join(names, name[:240] + b"-bad.png"), "wb") as file:
            file.write(b"\x89PNG\r\n\x1a\n" + name)
    bad = {os.path.join(names, name[:240] + b"-bad.png") for name in NAMES}
    ended = run("-c", empty, "index", os.fsdecode(names), "--json")
    assert all(line.isprintable() for line in ended.err.splitlines())
    assert names_in(json.loads(ended.out)["failures"]) == bad

    first = os.fsdecode(min(good))
    query: list[str | Path] = ["-c", empty, "query", first, "--include-self", "-k", "1000"]
    assert {*os.fsencode(run(*query, "-0").out).split(b"\0")} == {*good, b""}
    assert names_in(json.loads(run(*query, "--json").out)["hits"]) == good
    rows = csv.reader(io.StringIO(run(*query, "--csv").out, newline=""), strict=True)
    assert [len(row) for row in rows] == [9] * (1 + len(good))
    table = run(*query).out
    assert len(table.splitlines()) == 2 + len(good)
    assert all(line.isprintable() for line in table.splitlines())
    ended = run("-c", empty, "query", *map(os.fsdecode, sorted(bad)))
    assert (ended.code, len(ended.err.splitlines())) == (3, len(bad))
    assert all(line.isprintable() for line in ended.err.splitlines())
    harm.done("hostile files", count + len(bad))


# Queries


@pytest.mark.few(1)
@pytest.mark.parametrize(
    "options", [[], ["--crop", "0,0,0.1,0.1"], ["--html", "page.html"], ["--json"]]
)
@pytest.mark.parametrize("stdin", [False, True])
def test_a_bomb_that_is_asked_with_is_refused_in_one_line(
    options: list[str], stdin: bool, indexed: Path, tmp_path: Path
) -> None:
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png(40_000, 40_000, zlib.compress(bytes(5001 * 40_000)), bits=1))
    name = "-" if stdin else str(bomb)
    with bomb.open("rb") as file:
        command = imgsearch_command("-c", indexed, "query", name, *options)
        ended = subprocess.run(
            command, cwd=tmp_path, stdin=file, capture_output=True, text=True, check=False
        )
    assert (ended.returncode, ended.stdout) == (3, "")
    assert ended.stderr == (
        f"imgsearch: {name}: has 40,000 x 40,000 pixels, and the limit is 250,000,000: "
        "make it smaller, or raise --max-pixels\n"
    )
    assert not (tmp_path / "page.html").exists()


@pytest.mark.whole("test_a_bomb_that_is_asked_with_is_refused_in_one_line")
def test_the_limit_of_a_query_can_be_raised_and_does_not_outlast_it(
    indexed: Path, photos: Path, run: Run, tmp_path: Path
) -> None:
    path = photos / "0003.png"  # 48 x 40
    small = run("-c", indexed, "query", path, env={"IMGSEARCH_MAX_PIXELS": "1919"})
    assert (small.code, small.out) == (3, "")
    assert run("-c", indexed, "query", path, "--max-pixels", "1920").code == 0
    with Collection.open(indexed, device="cpu") as collection:
        before = Image.MAX_IMAGE_PIXELS
        assert collection.embed([path], max_pixels=1920).shape[0] == 1
        assert before == Image.MAX_IMAGE_PIXELS  # it is the caller's process
    large = tmp_path / "large.tif"
    Image.new("1", (13_400, 13_400)).save(large)  # Pillow by itself would refuse 179 million
    assert run("-c", indexed, "query", large).code == 0
