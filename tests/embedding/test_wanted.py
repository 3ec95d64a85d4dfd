"""Files whose content is known already: hashed, asked about, and not decoded."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from imgsearch.embedding import pool
from imgsearch.embedding.pipeline import Embedded, Known, Outcome, Refused
from imgsearch.embedding.runtime import Embeddings, OnnxRuntime
from imgsearch.images.decode import Pixels
from imgsearch.images.limits import Limits
from tests.embedding.conftest import Embed, Fault
from tests.support.image_files import photos
from tests.support.processes import started_here

NOW = 1_700_000_000_123_456_000


def _digest(path: str) -> bytes:
    return hashlib.sha256(Path(path).read_bytes()).digest()


def _known(path: str) -> Known:
    """Return the outcome of a file that is not wanted."""
    status = Path(path).stat()
    return Known(_digest(path), status.st_size, status.st_mtime_ns)


def _photos(folder: Path, *names: str) -> list[str]:
    """Write pictures that have not changed for long."""
    paths = photos(folder, *names)
    for path in paths:
        os.utime(path, ns=(1, NOW - 3600 * 10**9))
    return paths


def _nothing(path: str, digest: bytes) -> bool:  # noqa: ARG001 - it is called so
    return False


def _but(*paths: str) -> Callable[[str, bytes], bool]:
    """Return what wants all contents but those of `paths`."""
    unwanted = {_digest(path) for path in paths}
    return lambda path, digest: digest not in unwanted  # noqa: ARG005 - it is called so


class _Asked:
    """Wants everything, and remembers what it was asked."""

    def __init__(self) -> None:
        self.times: Counter[tuple[str, bytes]] = Counter()
        self._lock = threading.Lock()

    def __call__(self, path: str, digest: bytes) -> bool:
        with self._lock:
            self.times[path, digest] += 1
        return True


# The question


@pytest.mark.few(1)
@pytest.mark.parametrize("action", ["os._exit(3)", "time.sleep(1000)", "sys.exit('decoded')"])
def test_a_file_that_is_not_wanted_is_not_decoded(
    action: str, tmp_path: Path, embed: Embed, fault: Fault
) -> None:
    fault(f'when_opened("bad", lambda: {action})')
    paths = _photos(tmp_path, *"ab", "bad", *"cd")
    outcomes = list(embed(paths, wanted=_but(paths[2]), limits=Limits(time_limit=5)))
    assert outcomes.pop(2) == _known(paths[2])
    assert all(isinstance(outcome, Embedded) for outcome in outcomes)


@pytest.mark.whole("test_a_file_that_is_not_wanted_is_not_decoded")
def test_a_damaged_file_that_is_not_wanted_is_known_and_otherwise_refused(
    tmp_path: Path, embed: Embed
) -> None:
    (path,) = _photos(tmp_path, "half.png")
    os.truncate(path, 100)
    os.utime(path, ns=(1, NOW))
    assert list(embed([path], wanted=_nothing)) == [_known(path)]
    (outcome,) = embed([path])
    assert isinstance(outcome, Refused)


def test_each_path_is_asked_about_once_with_its_own_digest(tmp_path: Path, embed: Embed) -> None:
    paths = _photos(tmp_path, *(f"{number}.png" for number in range(21)))
    asked = _Asked()
    assert len(list(embed(paths, wanted=asked))) == 21
    assert asked.times == Counter((path, _digest(path)) for path in paths)


@pytest.mark.whole("test_each_path_is_asked_about_once_with_its_own_digest")
def test_two_files_of_one_content_are_each_asked_about(tmp_path: Path, embed: Embed) -> None:
    paths = _photos(tmp_path, "a", "b")
    Path(paths[1]).write_bytes(Path(paths[0]).read_bytes())
    os.utime(paths[1], ns=(1, NOW))
    outcomes = list(embed(paths, wanted=lambda path, _: path == paths[0]))
    assert isinstance(outcomes[0], Embedded)
    assert outcomes[1] == _known(paths[1])


@pytest.mark.whole("test_each_path_is_asked_about_once_with_its_own_digest")
def test_a_file_that_is_refused_at_sight_is_neither_hashed_nor_asked_about(
    tmp_path: Path, embed: Embed, fault: Fault
) -> None:
    fault('when_hashed("no-image", lambda: os._exit(3))')
    (tmp_path / "no-image.txt").write_text("hello")
    (tmp_path / "no-image.jpg").touch()
    (tmp_path / "no-image-folder").mkdir()
    os.mkfifo(tmp_path / "no-image-pipe.jpg")
    refused = [*map(str, tmp_path.glob("no-image*")), str(tmp_path / "gone.jpg")]
    (good,) = _photos(tmp_path, "good.png")
    asked = _Asked()
    *outcomes, last = embed([*refused, good], wanted=asked)
    assert all(isinstance(outcome, Refused) for outcome in outcomes)
    assert isinstance(last, Embedded)
    assert list(asked.times) == [(good, _digest(good))]


@pytest.mark.few(1)
@pytest.mark.parametrize("workers", [1, 3])
def test_order_is_kept_whatever_is_wanted(workers: int, tmp_path: Path, embed: Embed) -> None:
    paths = _mix(tmp_path)
    outcomes = list(embed(paths, wanted=_but_known, workers=workers))
    _check_mix(paths, outcomes)


def _mix(folder: Path) -> list[str]:
    """Return the paths of files that are wanted, that are known, and that are not there."""
    names = [f"{number}{'-known' if number % 3 == 0 else ''}.png" for number in range(22)]
    paths = _photos(folder, *names)
    for index in (5, 12, 19):
        paths.insert(index, str(folder / f"{index}-gone.jpg"))
    return paths


def _but_known(path: str, digest: bytes) -> bool:  # noqa: ARG001 - it is called so
    return "known" not in path


def _check_mix(paths: list[str], outcomes: list[Outcome]) -> None:
    for path, outcome in zip(paths, outcomes, strict=True):
        if "gone" in path:
            assert isinstance(outcome, Refused)
        elif "known" in path:
            assert outcome == _known(path)
        else:
            assert isinstance(outcome, Embedded)
            assert outcome.digest == _digest(path)


def test_a_file_that_changes_while_it_is_asked_about_is_to_be_tried_again(
    tmp_path: Path, embed: Embed
) -> None:
    (path,) = _photos(tmp_path, "a.png")

    def wanted(path: str, digest: bytes) -> bool:  # noqa: ARG001 - it is called so
        with Path(path).open("ab") as writer:
            writer.write(b"more")
        return True

    (outcome,) = embed([path], wanted=wanted)
    assert outcome == Refused("changed while it was read; index again", transient=True)


@pytest.mark.few(1)
@pytest.mark.parametrize("is_wanted", [True, False])
def test_only_a_time_that_can_be_trusted_is_told(
    is_wanted: bool, tmp_path: Path, embed: Embed, fault: Fault
) -> None:
    fault(f"time.time_ns = lambda: {NOW}")
    ages = [1, 10, -1, -10]  # seconds
    paths = photos(tmp_path, *map(str, ages))
    for path, age in zip(paths, ages, strict=True):
        os.utime(path, ns=(1, NOW - age * 10**9))
    outcomes = list(embed(paths, wanted=lambda *_: is_wanted))
    times = [outcome.mtime_ns for outcome in outcomes if not isinstance(outcome, Refused)]
    assert times == [None, NOW - 10 * 10**9, None, NOW + 10 * 10**9]


# Workers that die, callers that fail


@pytest.mark.whole("test_a_file_that_is_not_wanted_is_not_decoded")
def test_a_worker_that_dies_after_it_asked_is_replaced_and_the_others_are_answered(
    tmp_path: Path, embed: Embed, fault: Fault
) -> None:
    fault('when_opened("crashes", lambda: os._exit(3))')
    paths = _photos(tmp_path, "a", "crashes", "b", "c")
    assert len(paths) == pool.BATCH
    asked = _Asked()
    outcomes = list(embed(paths, wanted=asked, workers=1))
    assert outcomes.pop(1) == Refused("made its worker crash (exit status 3)")
    assert all(isinstance(outcome, Embedded) for outcome in outcomes)
    times = {Path(path).name: count for (path, _), count in asked.times.items()}
    assert times == {"a": 2, "crashes": 1, "b": 2, "c": 2}


@pytest.mark.whole("test_a_file_that_is_not_wanted_is_not_decoded")
@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ("os._exit(3)", "made its worker crash (exit status 3)"),
        ("time.sleep(1000)", "took longer than 2 s"),
    ],
)
def test_a_file_that_cannot_be_hashed_is_blamed_and_the_others_are_answered(
    action: str, reason: str, tmp_path: Path, embed: Embed, fault: Fault
) -> None:
    fault(f'when_hashed("bad", lambda: {action})')
    paths = _photos(tmp_path, *"ab", "bad", *"cd")
    outcomes = list(embed(paths, wanted=_but(paths[0]), limits=Limits(time_limit=2)))
    assert outcomes.pop(2) == Refused(reason)
    assert outcomes.pop(0) == _known(paths[0])
    assert all(isinstance(outcome, Embedded) for outcome in outcomes)


@pytest.mark.whole("test_a_file_that_is_not_wanted_is_not_decoded")
def test_a_worker_killed_while_it_waits_for_the_answer_is_replaced_and_no_file_is_blamed(
    tmp_path: Path, embed: Embed
) -> None:
    paths = _photos(tmp_path, *"abcdef")
    killed = False

    def wanted(path: str, digest: bytes) -> bool:  # noqa: ARG001 - it is called so
        nonlocal killed
        if not killed:
            killed = True
            (worker,) = started_here()
            worker.kill()
        return path != paths[1]

    outcomes = list(embed(paths, wanted=wanted, workers=1))
    assert outcomes.pop(1) == _known(paths[1])
    assert all(isinstance(outcome, Embedded) for outcome in outcomes)


@pytest.mark.whole("test_only_a_time_that_can_be_trusted_is_told")
def test_the_time_that_the_answer_takes_is_not_that_of_a_file(tmp_path: Path, embed: Embed) -> None:
    def wanted(path: str, digest: bytes) -> bool:  # noqa: ARG001 - it is called so
        time.sleep(2.5)
        return True

    (outcome,) = embed(_photos(tmp_path, "a"), wanted=wanted, limits=Limits(time_limit=2))
    assert isinstance(outcome, Embedded)


@pytest.mark.few(1)
@pytest.mark.parametrize("kind", [RuntimeError, OSError, EOFError, KeyError])
def test_what_the_caller_raises_comes_back_to_it_and_leaves_nothing(
    kind: type[Exception], tmp_path: Path, embed: Embed
) -> None:
    def wanted(path: str, digest: bytes) -> bool:  # noqa: ARG001 - it is called so
        raise kind("the catalog is gone")

    with pytest.raises(kind, match="the catalog is gone"):
        list(embed(_photos(tmp_path, *"abcdefghij"), wanted=wanted))
    assert started_here() == []


# A GPU


@pytest.mark.whole("test_a_gpu_is_not_asked_when_nothing_is_wanted")
def test_a_gpu_embeds_only_what_is_wanted_and_order_is_kept(
    tmp_path: Path, embed: Embed, tiny_model: Path
) -> None:
    class Counting:
        devices = 1

        def __init__(self) -> None:
            self.count = 0
            self._runtime = OnnxRuntime(tiny_model)

        def embed(self, pixels: Pixels) -> Embeddings:
            self.count += len(pixels)
            return self._runtime.embed(pixels)

    paths = _mix(tmp_path)
    gpu = Counting()
    on_gpu = list(embed(paths, wanted=_but_known, gpu=gpu))
    _check_mix(paths, on_gpu)
    on_cpu = embed(paths, wanted=_but_known)
    for one, other in zip(on_gpu, on_cpu, strict=True):
        if isinstance(one, Embedded):
            gpu.count -= 1
            assert isinstance(other, Embedded)
            np.testing.assert_allclose(one.embedding, other.embedding, atol=1e-6)
    assert gpu.count == 0


def test_a_gpu_is_not_asked_when_nothing_is_wanted(tmp_path: Path, embed: Embed) -> None:
    class Unused:
        devices = 1

        def embed(self, pixels: Pixels) -> Embeddings:
            raise AssertionError(pixels.shape)

    paths = _photos(tmp_path, *"abcde")
    assert list(embed(paths, gpu=Unused(), wanted=_nothing)) == [_known(path) for path in paths]
