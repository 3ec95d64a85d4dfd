"""Embedding many files in worker processes."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import repeat
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from imgsearch.embedding import pipeline, pool, process, runtime
from imgsearch.embedding.models import Shapes
from imgsearch.embedding.pipeline import Embedded, Outcome, Refused
from imgsearch.embedding.runtime import Embeddings, OnnxRuntime, ParallelRuntime
from imgsearch.errors import DamagedError, ModelError
from imgsearch.images.decode import Pixels, read
from imgsearch.images.limits import Limits
from tests.embedding.conftest import TINY_DIM, TINY_SIZE, Embed, Fault, Model
from tests.support.image_files import encode, photos, write
from tests.support.processes import started_here


@pytest.fixture
def alone(tiny_model: Path) -> Callable[[str], Embeddings]:
    """Return a function that embeds one file in this process."""
    runtime = OnnxRuntime(tiny_model)

    def embedding(path: str) -> Embeddings:
        row: Embeddings = runtime.embed(read(path, TINY_SIZE).pixels[None])[0]
        return row

    return embedding


def _many(folder: Path, count: int) -> list[str]:
    return photos(folder, *(f"{number}.png" for number in range(count)))


def _refused(outcomes: Iterable[Outcome], paths: list[str]) -> dict[str, str]:
    """Return the reasons of the files that were refused, by their names."""
    return {
        Path(path).name: outcome.reason
        for path, outcome in zip(paths, outcomes, strict=True)
        if isinstance(outcome, Refused)
    }


# Outcomes


@pytest.mark.few(1)
@pytest.mark.parametrize("count", [1, 3, 4, 5, 21])
def test_outcomes_come_in_order_and_are_those_of_one_process(
    count: int, tmp_path: Path, embed: Embed, alone: Callable[[str], Embeddings]
) -> None:
    paths = _many(tmp_path, count)
    for path in paths:
        os.utime(path, ns=(1, 1_700_000_000_123_456_789))
    outcomes = list(embed(paths, workers=3))
    assert len(outcomes) == count
    for path, outcome in zip(paths, outcomes, strict=True):
        assert isinstance(outcome, Embedded)
        assert outcome.embedding.dtype == np.float32
        np.testing.assert_allclose(outcome.embedding, alone(path), atol=1e-6)
        assert outcome.digest == hashlib.sha256(Path(path).read_bytes()).digest()
        status = Path(path).stat()
        assert (outcome.size, outcome.mtime_ns) == (status.st_size, status.st_mtime_ns)


@pytest.mark.whole("test_outcomes_come_in_order_and_are_those_of_one_process")
def test_a_real_network_makes_the_same_embeddings_in_workers(
    tmp_path: Path, embed: Embed, mobilenet: Model
) -> None:
    paths = _many(tmp_path, 5)
    runtime = OnnxRuntime(mobilenet.onnx)
    shapes = Shapes(mobilenet.network.input_size, mobilenet.network.dim)
    outcomes = list(embed(paths, model=mobilenet.onnx, shapes=shapes))
    for path, outcome in zip(paths, outcomes, strict=True):
        assert isinstance(outcome, Embedded)
        expected = runtime.embed(read(path, 224).pixels[None])[0]
        np.testing.assert_allclose(outcome.embedding, expected, atol=1e-5)


def test_refused_files_stand_between_the_others_with_their_reasons(
    tmp_path: Path, embed: Embed
) -> None:
    paths = photos(tmp_path, "0.png", "1.png", "2.png", "3.png", "4.png", "5.png")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "half.png").write_bytes(Path(paths[0]).read_bytes()[:100])
    strange = ["notes.txt", "empty.jpg", "half.png", "gone.jpg"]
    for place, name in zip((0, 2, 3, 7), strange, strict=True):
        paths.insert(place, str(tmp_path / name))
    outcomes = dict(zip((Path(path).name for path in paths), embed(paths), strict=True))
    assert outcomes["notes.txt"] == Refused(
        "is not an image of a supported format", recognised=False
    )
    assert outcomes["empty.jpg"] == Refused("is named like an image but is empty")
    assert isinstance(half := outcomes["half.png"], Refused)
    assert half.reason.startswith("cannot be decoded: ")
    assert outcomes["gone.jpg"] == Refused(
        "cannot be read: No such file or directory", transient=True
    )
    assert sum(isinstance(outcome, Embedded) for outcome in outcomes.values()) == 6


@pytest.mark.whole("test_refused_files_stand_between_the_others_with_their_reasons")
def test_a_run_of_nothing_but_refused_files_is_fine(tmp_path: Path, embed: Embed) -> None:
    paths = [str(tmp_path / f"{number}.jpg") for number in range(9)]
    assert all(isinstance(outcome, Refused) for outcome in embed(paths))


@pytest.mark.whole("test_csv_holds_hostile_names_as_json_does")
def test_names_of_any_bytes_reach_the_workers(tmp_path: Path, embed: Embed) -> None:
    names = [b"new\nline.png", "日本.png".encode(), b'quo"te\\.png', b" .png"]
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.png")).touch()
        names.append(b"caf\xe9.png")
    except OSError:
        pass  # this file system takes names in UTF-8 only
    paths = photos(tmp_path, *map(os.fsdecode, names))
    assert all(isinstance(outcome, Embedded) for outcome in embed(paths))


@pytest.mark.whole("test_refused_files_stand_between_the_others_with_their_reasons")
def test_modules_among_the_photographs_are_not_imported(
    tmp_path: Path, embed: Embed, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('imported from the photographs')")
    paths = _many(tmp_path, 2)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    assert all(isinstance(outcome, Embedded) for outcome in embed(paths))


# Bounds


def test_an_empty_input_starts_no_process(tmp_path: Path, embed: Embed) -> None:
    assert list(embed([], model=tmp_path / "a worker would miss it.onnx")) == []


@pytest.mark.whole("test_pixels_are_taken_a_shorter_distance_ahead")
def test_paths_are_taken_a_bounded_distance_ahead(
    tmp_path: Path, embed: Embed, fault: Fault
) -> None:
    fault('when_opened("slow", lambda: time.sleep(1.5))')
    slow, quick = photos(tmp_path, "slow.png", "quick.png")
    taken = 0

    def paths() -> Iterator[str]:
        nonlocal taken
        yield slow
        for path in repeat(quick):
            taken += 1
            yield path

    outcomes = embed(paths(), workers=1)
    ahead = pipeline.WINDOW * pool.BATCH
    for given in range(2 * pool.BATCH):
        assert isinstance(next(outcomes), Embedded)
        assert taken <= given + ahead + pool.BATCH
    assert taken >= ahead - 1  # while the slow one kept the others waiting


def test_pixels_are_taken_a_shorter_distance_ahead(
    tmp_path: Path, embed: Embed, tiny_model: Path
) -> None:
    (path,) = photos(tmp_path, "a.png")
    taken = 0

    def paths() -> Iterator[str]:
        nonlocal taken
        for each in repeat(path):
            taken += 1
            yield each

    outcomes = embed(paths(), gpu=OnnxRuntime(tiny_model))
    assert isinstance(next(outcomes), Embedded)
    batches = runtime.AT_ONCE + 1  # the first of them is done, or the last waits
    ahead = (pipeline.PIXEL_WINDOW + 1) * pipeline.PIXEL_BATCH
    assert taken <= batches * pipeline.GPU_BATCH + ahead


@pytest.mark.whole("test_pixels_are_taken_a_shorter_distance_ahead")
def test_a_slow_listing_does_not_hold_back_what_is_ready(tmp_path: Path, embed: Embed) -> None:
    paths = _many(tmp_path, pool.BATCH)
    given = threading.Event()
    waited = 0

    def listing() -> Iterator[str]:
        nonlocal waited
        yield from paths
        while not given.is_set():  # goes on for as long as no outcome is given
            waited += 1
            time.sleep(0.02)
            yield paths[0]

    outcomes = embed(listing())
    assert isinstance(next(outcomes), Embedded)
    assert waited < pipeline.WINDOW * pool.BATCH // 2  # it was not asked for all it may be
    given.set()
    assert all(isinstance(outcome, Embedded) for outcome in outcomes)


@pytest.mark.whole("test_pixels_are_taken_a_shorter_distance_ahead")
def test_paths_are_taken_in_the_thread_of_the_caller(tmp_path: Path, embed: Embed) -> None:
    threads = set()

    def paths() -> Iterator[str]:
        for path in _many(tmp_path, 6):
            threads.add(threading.get_ident())
            yield path

    assert len(list(embed(paths()))) == 6
    assert threads == {threading.get_ident()}


# Ends


def test_closing_early_leaves_no_process_and_no_thread(tmp_path: Path, embed: Embed) -> None:
    threads = threading.active_count()
    with closing(embed(repeat(*photos(tmp_path, "a.png")))) as outcomes:  # type: ignore[type-var]  # a generator has close
        assert isinstance(next(outcomes), Embedded)
        assert len(started_here()) == 2
    assert started_here() == []
    assert threading.active_count() == threads


@pytest.mark.whole("test_closing_early_leaves_no_process_and_no_thread")
def test_closing_does_not_wait_for_a_file_that_hangs(
    tmp_path: Path, embed: Embed, fault: Fault
) -> None:
    fault('when_opened("hangs", lambda: time.sleep(1000))')
    good, hangs = photos(tmp_path, "good.png", "hangs.png")
    outcomes = embed([good] * pool.BATCH + [hangs] * 9)
    assert isinstance(next(outcomes), Embedded)
    started = time.monotonic()
    outcomes.close()  # type: ignore[attr-defined]  # a generator has it
    assert time.monotonic() - started < 5
    assert started_here() == []


def test_an_error_of_the_listing_is_passed_on_and_leaves_nothing(
    tmp_path: Path, embed: Embed
) -> None:
    def paths() -> Iterator[str]:
        yield from _many(tmp_path, 9)
        raise PermissionError("the listing failed")

    with pytest.raises(PermissionError, match="the listing failed"):
        list(embed(paths()))
    assert started_here() == []


@pytest.mark.whole("test_an_error_of_the_listing_is_passed_on_and_leaves_nothing")
def test_an_error_of_the_gpu_is_passed_on_and_leaves_nothing(tmp_path: Path, embed: Embed) -> None:
    class OutOfMemory:
        devices = 1

        def embed(self, pixels: Pixels) -> Embeddings:
            raise MemoryError(f"no memory for {len(pixels)} images")

    with pytest.raises(MemoryError, match="no memory for 256 images") as caught:
        list(embed(repeat(*photos(tmp_path, "a.png")), gpu=OutOfMemory()))
    assert caught.value.__traceback__ is not None  # which keeps the frames of the generators
    assert started_here() == []


def test_workers_leave_when_their_parent_is_killed(tmp_path: Path, tiny_model: Path) -> None:
    (path,) = photos(tmp_path, "a.png")
    code = f"""
        from itertools import repeat
        from pathlib import Path
        from imgsearch.embedding.models import Shapes
        from imgsearch.embedding.pipeline import embed_files
        for _ in embed_files(
            repeat({path!r}), model=Path({str(tiny_model)!r}), workers=2,
            shapes=Shapes({TINY_SIZE}, {TINY_DIM}), wanted=lambda path, digest: True,
        ):
            print("one", flush=True)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"one\n"
        workers = psutil.Process(parent.pid).children(recursive=True)
        assert len(workers) >= 1
        parent.kill()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert alive == []


@pytest.mark.whole("test_workers_leave_when_their_parent_is_killed")
def test_workers_in_the_middle_of_a_file_leave_when_their_parent_is_killed(
    tmp_path: Path, tiny_model: Path, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(f'when_opened("hangs", lambda: (open({str(tmp_path / "at")!r}, "w"), time.sleep(1000)))')
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fault"))
    (path,) = photos(tmp_path, "hangs.png")
    code = f"""
        from pathlib import Path
        from imgsearch.embedding.models import Shapes
        from imgsearch.embedding.pipeline import embed_files
        from imgsearch.images.limits import Limits
        list(embed_files(
            [{path!r}], model=Path({str(tiny_model)!r}), workers=1,
            shapes=Shapes({TINY_SIZE}, {TINY_DIM}), limits=Limits(time_limit=1000),
            wanted=lambda path, digest: True,
        ))
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)]) as parent:
        deadline = time.monotonic() + 30
        while not (tmp_path / "at").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        workers = psutil.Process(parent.pid).children(recursive=True)
        parent.kill()
    assert len(workers) == 1
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert alive == []


# Files that hang or crash


@pytest.mark.whole("test_a_file_that_crashes_the_worker_is_blamed_and_the_others_are_embedded")
def test_a_file_that_hangs_is_blamed_and_the_others_are_embedded(
    tmp_path: Path, embed: Embed, fault: Fault
) -> None:
    fault('when_opened("hangs", lambda: time.sleep(1000))')
    paths = photos(tmp_path, *"abcde", "hangs.png", *"fghijk")
    refused = _refused(embed(paths, limits=Limits(time_limit=2)), paths)
    assert refused == {"hangs.png": "took longer than 2 s"}


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("action", "how"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "signal 11"),
        ("os.abort()", "signal 6"),
        ("os._exit(3)", "exit status 3"),
        ("sys.exit(4)", "exit status 4"),
    ],
)
def test_a_file_that_crashes_the_worker_is_blamed_and_the_others_are_embedded(
    action: str, how: str, tmp_path: Path, embed: Embed, fault: Fault
) -> None:
    fault(f'when_opened("crashes", lambda: {action})')
    paths = photos(tmp_path, *"ab", "crashes.png", *"cdefg")
    refused = _refused(embed(paths), paths)
    assert refused == {"crashes.png": f"made its worker crash ({how})"}


@pytest.mark.whole("test_a_file_that_crashes_the_worker_is_blamed_and_the_others_are_embedded")
def test_a_file_whose_worker_is_killed_is_to_be_tried_again(
    tmp_path: Path, embed: Embed, fault: Fault
) -> None:
    fault('when_opened("unlucky", lambda: os.kill(os.getpid(), signal.SIGKILL))')
    paths = photos(tmp_path, "a", "unlucky.png", "b")
    outcomes = list(embed(paths))
    assert outcomes[1] == Refused("its worker was killed; memory may have run out", transient=True)
    assert isinstance(outcomes[0], Embedded)
    assert isinstance(outcomes[2], Embedded)


@pytest.mark.whole("test_a_file_that_crashes_the_worker_is_blamed_and_the_others_are_embedded")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_is_replaced_as_often_as_it_dies(
    workers: int, tmp_path: Path, embed: Embed, fault: Fault
) -> None:
    fault('when_opened("crashes", lambda: os._exit(3))')
    names = ["crashes-0", "a", "crashes-1", "crashes-2", "b", "c", "crashes-3"]
    paths = photos(tmp_path, *names)
    refused = _refused(embed(paths, workers=workers), paths)
    assert refused == dict.fromkeys(
        (name for name in names if name.startswith("crashes")),
        "made its worker crash (exit status 3)",
    )


@pytest.mark.whole("test_a_file_that_crashes_the_worker_is_blamed_and_the_others_are_embedded")
def test_a_refused_file_before_a_crash_keeps_its_own_reason(
    tmp_path: Path, embed: Embed, fault: Fault
) -> None:
    fault('when_opened("crashes", lambda: os._exit(3))')
    paths = photos(tmp_path, "a", "crashes", "b")
    paths.insert(0, str(tmp_path / "gone.jpg"))
    refused = _refused(embed(paths), paths)
    assert refused == {
        "gone.jpg": "cannot be read: No such file or directory",
        "crashes": "made its worker crash (exit status 3)",
    }


_DIES_AT_MAGENTA = """
    import onnxruntime
    plain = onnxruntime.InferenceSession.run

    def run(self, names, inputs):
        if (inputs["pixels"] == (255, 0, 255)).all(axis=(1, 2, 3)).any():
            {action}
        return plain(self, names, inputs)

    onnxruntime.InferenceSession.run = run
"""


@pytest.mark.whole("test_a_file_that_crashes_the_worker_is_blamed_and_the_others_are_embedded")
@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ("os._exit(9)", r"made its worker crash \(exit status 9\)"),
        ("time.sleep(1000)", r"took longer than 2 s"),
        ("raise RuntimeError('no room')", r"made its worker crash \(.*: no room\)"),
    ],
)
def test_only_the_image_that_kills_the_model_is_refused(
    action: str, reason: str, tmp_path: Path, embed: Embed, fault: Fault
) -> None:
    fault(_DIES_AT_MAGENTA.format(action=action))
    paths = photos(tmp_path, *"abcdef")
    paths.insert(2, write(tmp_path / "guilty", Image.new("RGB", (9, 9), (255, 0, 255)), "PNG"))
    refused = _refused(embed(paths, workers=1, limits=Limits(time_limit=2)), paths)
    assert list(refused) == ["guilty"]
    assert re.fullmatch(reason, refused["guilty"])


@pytest.mark.whole("test_a_file_that_crashes_the_worker_is_blamed_and_the_others_are_embedded")
@pytest.mark.skipif(not hasattr(os, "waitid"), reason="this system lacks waitid")
def test_a_worker_that_was_killed_while_it_was_idle_is_replaced_and_no_file_is_blamed(
    tmp_path: Path, embed: Embed
) -> None:
    first, second = photos(tmp_path, "first.png", "second.png")

    def paths() -> Iterator[str]:
        yield from [first] * pool.BATCH
        deadline = time.monotonic() + 30
        while not outcome_given.is_set() and time.monotonic() < deadline:
            time.sleep(0.1)
            yield first  # until the first is ready, so that the worker has been at work
        time.sleep(1)  # let it finish what it was asked for
        (worker,) = started_here()
        worker.kill()
        os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
        yield second

    outcome_given = threading.Event()
    outcomes = embed(paths(), workers=1)
    assert isinstance(next(outcomes), Embedded)
    outcome_given.set()
    *_, last = outcomes
    assert isinstance(last, Embedded)


# Workers


def test_a_model_that_no_worker_can_load_is_damage(tmp_path: Path, embed: Embed) -> None:
    with pytest.raises(DamagedError, match=r"missing\.onnx cannot be read"):
        list(embed(_many(tmp_path, 3), model=tmp_path / "missing.onnx"))
    assert started_here() == []


def test_a_worker_that_dies_at_its_start_without_a_word_is_a_model_error(
    tmp_path: Path, embed: Embed, fault: Fault
) -> None:
    fault("os._exit(7)")
    with pytest.raises(ModelError, match=r"a worker process could not start: exit status 7$"):
        list(embed(_many(tmp_path, 3)))


@pytest.mark.whole("test_a_worker_that_is_killed_while_it_starts_is_started_again")
def test_a_worker_that_can_no_longer_start_ends_the_run(
    tmp_path: Path, embed: Embed, fault: Fault
) -> None:
    fault('when_opened("crashes", lambda: (open(flag, "w").close(), os._exit(3)))')
    site = tmp_path / "fault" / "sitecustomize.py"
    flag = f"flag = {str(tmp_path / 'flag')!r}\n"
    broken = "import os\nif os.path.exists(flag): raise SystemExit('no room left')\n"
    site.write_text(flag + broken + site.read_text())
    with pytest.raises(ModelError, match=r"a worker process could not start: .*no room left"):
        list(embed(photos(tmp_path, *"abcd", "crashes", *"efgh"), workers=1))


@pytest.mark.few(1)
@pytest.mark.parametrize("deed", ["os.kill(os.getpid(), signal.SIGKILL)", "os.abort()"])
def test_a_worker_that_is_killed_while_it_starts_is_started_again(
    deed: str, tmp_path: Path, embed: Embed, fault: Fault
) -> None:
    fault(_twice(tmp_path, deed))
    paths = _many(tmp_path, 10)
    assert all(isinstance(outcome, Embedded) for outcome in embed(paths, workers=1))


@pytest.mark.whole("test_a_worker_that_is_killed_while_it_starts_is_started_again")
def test_a_worker_that_is_stopped_while_it_starts_is_replaced(
    tmp_path: Path, embed: Embed, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "START_LIMITS", (2.0, 2.0, 60.0))
    fault(_twice(tmp_path, "os.kill(os.getpid(), signal.SIGSTOP)"))
    paths = _many(tmp_path, 10)
    assert all(isinstance(outcome, Embedded) for outcome in embed(paths, workers=1))


@pytest.mark.whole("test_a_worker_that_is_killed_while_it_starts_is_started_again")
def test_a_worker_that_is_always_killed_while_it_starts_is_given_up_after_a_few_attempts(
    tmp_path: Path, embed: Embed, fault: Fault
) -> None:
    fault("os.kill(os.getpid(), signal.SIGKILL)")
    reason = r"could not start: it was killed \(signal 9\); it was tried 3 times$"
    with pytest.raises(ModelError, match=reason):
        list(embed(_many(tmp_path, 3)))
    assert started_here() == []


def _twice(folder: Path, deed: str) -> str:
    """Return code by which the first two processes that run it come to harm."""
    return f"""
        for mark in ("first", "second"):
            try:
                os.mkdir(os.path.join({str(folder)!r}, mark))
            except FileExistsError:
                continue
            {deed}
    """


@pytest.mark.whole("test_warnings_of_decoders_are_neither_errors_nor_shown")
@pytest.mark.parametrize(
    "chatter",
    ["print('{\"replies\": []}', flush=True)", "os.write(1, b'noise' * 9999)", "os.write(2, b'x')"],
)
def test_what_libraries_print_does_not_get_among_the_answers(
    chatter: str, tmp_path: Path, embed: Embed, fault: Fault, capfd: pytest.CaptureFixture[str]
) -> None:
    fault(f'when_opened("chatty", lambda: {chatter})')
    paths = photos(tmp_path, "a", "chatty", "b", "c", "chatty-2")
    assert all(isinstance(outcome, Embedded) for outcome in embed(paths))
    assert capfd.readouterr() == ("", "")


def test_warnings_of_decoders_are_neither_errors_nor_shown(
    tmp_path: Path, embed: Embed, fault: Fault, capfd: pytest.CaptureFixture[str]
) -> None:
    fault('import warnings\nwhen_opened("odd", lambda: warnings.warn("odd"))')
    assert isinstance(next(embed(photos(tmp_path, "odd.png"))), Embedded)
    assert capfd.readouterr() == ("", "")


def test_ctrl_c_is_left_to_the_parent(tmp_path: Path, embed: Embed, fault: Fault) -> None:
    fault('when_opened("interrupted", lambda: os.kill(os.getpid(), signal.SIGINT))')
    paths = photos(tmp_path, "a", "interrupted", "b")
    assert all(isinstance(outcome, Embedded) for outcome in embed(paths))


# A GPU


def test_a_gpu_in_this_process_makes_the_same_embeddings(
    tmp_path: Path, embed: Embed, alone: Callable[[str], Embeddings], tiny_model: Path
) -> None:
    paths = _many(tmp_path, 11)
    paths.insert(3, str(tmp_path / "gone.jpg"))
    outcomes = list(embed(paths, gpu=OnnxRuntime(tiny_model), model=tmp_path / "unused.onnx"))
    assert outcomes.pop(3) == Refused("cannot be read: No such file or directory", transient=True)
    paths.pop(3)
    for path, outcome in zip(paths, outcomes, strict=True):
        assert isinstance(outcome, Embedded)
        np.testing.assert_allclose(outcome.embedding, alone(path), atol=1e-6)
        assert outcome.digest == hashlib.sha256(Path(path).read_bytes()).digest()


class Counting:
    """Notes how many images it was given at a time."""

    devices = 1

    def __init__(self, model: Path) -> None:
        self.sizes: list[int] = []
        self._runtime = OnnxRuntime(model)

    def embed(self, pixels: Pixels) -> Embeddings:
        self.sizes.append(len(pixels))
        return self._runtime.embed(pixels)


@pytest.mark.whole("test_a_gpu_in_this_process_makes_the_same_embeddings")
def test_a_gpu_is_given_large_batches(tmp_path: Path, embed: Embed, tiny_model: Path) -> None:
    (path,) = photos(tmp_path, "a.png")
    gpu = Counting(tiny_model)
    count = pipeline.GPU_BATCH + 10
    assert len(list(embed([path] * count, gpu=gpu))) == count
    assert sorted(gpu.sizes) == [10, pipeline.GPU_BATCH]


@pytest.mark.whole("test_a_gpu_in_this_process_makes_the_same_embeddings")
def test_several_gpus_share_batches_that_are_as_many_times_as_large(
    tmp_path: Path, embed: Embed, tiny_model: Path
) -> None:
    (path,) = photos(tmp_path, "a.png")
    gpus = [Counting(tiny_model), Counting(tiny_model)]
    count = 2 * pipeline.GPU_BATCH + 5
    assert len(list(embed([path] * count, gpu=ParallelRuntime(gpus)))) == count
    assert [sorted(gpu.sizes) for gpu in gpus] == [
        [3, pipeline.GPU_BATCH],
        [2, pipeline.GPU_BATCH],
    ]


@pytest.mark.whole("test_a_gpu_in_this_process_makes_the_same_embeddings")
def test_a_gpu_is_given_the_next_batch_while_it_is_at_one_and_outcomes_stay_in_order(
    tmp_path: Path, embed: Embed, tiny_model: Path, alone: Callable[[str], Embeddings]
) -> None:
    class Overtaking(Counting):
        """Is done with its first batch after it was given the second."""

        second = threading.Event()

        def embed(self, pixels: Pixels) -> Embeddings:
            rows = super().embed(pixels)
            if len(self.sizes) > 1:
                self.second.set()
            assert self.second.wait(60), "no second batch came while the first was embedded"
            return rows

    paths = photos(tmp_path, "a.png", "b.png")
    count = pipeline.GPU_BATCH
    outcomes = list(embed([paths[0]] * count + [paths[1]] * count, gpu=Overtaking(tiny_model)))
    for outcome, path in zip(outcomes[:: count - 1], (paths[0], paths[0], paths[1]), strict=False):
        assert isinstance(outcome, Embedded)
        np.testing.assert_allclose(outcome.embedding, alone(path), atol=1e-6)
    assert len(outcomes) == 2 * count


def test_a_gpu_is_not_asked_when_no_file_is_an_image(tmp_path: Path, embed: Embed) -> None:
    class Unused:
        devices = 1

        def embed(self, pixels: Pixels) -> Embeddings:
            raise AssertionError(pixels.shape)

    paths = [str(tmp_path / f"{number}.jpg") for number in range(5)]
    assert all(isinstance(outcome, Refused) for outcome in embed(paths, gpu=Unused()))


def test_real_photographs_are_embedded(data: Path, embed: Embed, mobilenet: Model) -> None:
    paths = [str(path) for path in sorted((data / "camera").iterdir())[::8]]
    shapes = Shapes(224, 1280)
    for outcome in embed(paths, model=mobilenet.onnx, shapes=shapes):
        assert isinstance(outcome, Embedded)
        assert np.linalg.norm(outcome.embedding) == pytest.approx(1, abs=1e-5)


@pytest.mark.whole("test_real_photographs_are_embedded")
def test_a_photograph_is_not_read_into_a_shared_buffer(tmp_path: Path, embed: Embed) -> None:
    """Each outcome keeps its own values, however many follow."""
    black, white = Image.new("RGB", (9, 9), "black"), Image.new("RGB", (9, 9), "red")
    (tmp_path / "a.png").write_bytes(encode(black, "PNG"))
    (tmp_path / "b.png").write_bytes(encode(white, "PNG"))
    first, second, *_ = embed([str(tmp_path / "a.png"), str(tmp_path / "b.png")] * 8)
    assert isinstance(first, Embedded)
    assert isinstance(second, Embedded)
    np.testing.assert_allclose(first.embedding, TINY_DIM**-0.5, atol=1e-6)
    assert not np.allclose(first.embedding, second.embedding)
