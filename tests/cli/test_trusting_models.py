"""A collection whose model imgsearch did not export: what each command does."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from imgsearch.collection import Collection
from imgsearch.errors import UntrustedModelError
from imgsearch.maintenance.verify import verify
from tests.support.commands import Run, imgsearch_command
from tests.support.foreign_models import foreign_model, harmless_model, put_model
from tests.support.pictures import save_pictures

pytestmark = pytest.mark.processes

Invoke = Callable[..., Result]


@pytest.fixture
def foreign(indexed: Path) -> Path:
    """A collection whose model works, and is not ours."""
    put_model(indexed, harmless_model())
    return indexed


@pytest.fixture
def photo(photos: Path) -> Path:
    return min(photos.iterdir())


@pytest.fixture
def new(tmp_path: Path) -> Path:
    save_pictures(tmp_path / "new", 2, first=200)
    return tmp_path / "new"


def test_every_command_that_would_run_it_refuses_in_one_line(
    foreign: Path, photo: Path, new: Path, invoke: Invoke
) -> None:
    for arguments in (["query", photo], ["index", new], ["verify"]):
        ended = invoke("-c", foreign, *arguments)
        assert ended.exit_code == 6, ended.output
        (line,) = [each for each in ended.stderr.splitlines() if each.startswith("imgsearch: ")]
        assert "model.onnx was not exported by imgsearch (it has the operator 'Atan')" in line
        assert "--trust-model" in line


def test_what_does_not_run_it_goes_on_as_ever(foreign: Path, invoke: Invoke) -> None:
    assert invoke("-c", foreign, "info").exit_code == 0
    assert invoke("-c", foreign, "verify", "--sample", "0").exit_code == 0


def test_it_is_run_once_the_user_says_so(foreign: Path, new: Path, invoke: Invoke) -> None:
    ended = invoke("-c", foreign, "index", new, "--trust-model")
    assert ended.exit_code == 0, ended.output
    ended = invoke("-c", foreign, "query", new / "0200.jpg", "--trust-model", "--include-self")
    assert ended.exit_code == 0, ended.output
    assert "0200.jpg" in ended.stdout


def test_python_asks_for_it_as_well(foreign: Path, photo: Path) -> None:
    with Collection.open(foreign) as collection, pytest.raises(UntrustedModelError):
        collection.query(photo)
    with pytest.raises(UntrustedModelError):
        verify(foreign)
    with Collection.open(foreign, trust_model=True) as collection:
        (embedding,) = collection.embed([photo])
    assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-5)


@pytest.mark.whole("test_python_asks_for_it_as_well")
def test_a_repair_drops_no_image_that_a_trusted_model_would_save(foreign: Path) -> None:
    shard = min((foreign / "vectors").glob("*.npy"))
    shard.write_bytes(shard.read_bytes()[:-1000])
    for file in (foreign / "segments").glob("*.faiss"):
        file.unlink()
    with pytest.raises(UntrustedModelError):
        verify(foreign, repair=True)
    report = verify(foreign, repair=True, trust_model=True, sample=0)
    assert report.left == ()
    assert report.images == 40


@pytest.mark.whole("test_a_model_that_is_trusted_may_not_take_for_ever")
def test_ctrl_c_ends_a_model_that_never_ends(indexed: Path, photo: Path, tmp_path: Path) -> None:
    put_model(indexed, foreign_model("a loop"))
    command = imgsearch_command("-c", indexed, "query", photo, "--trust-model")
    asking = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    _wait_for(lambda: _confined(asking.pid))
    model = _confined(asking.pid)
    asking.send_signal(signal.SIGINT)
    _, said = asking.communicate(timeout=30)
    assert asking.returncode == 130, said
    assert "Traceback" not in said
    _wait_for(lambda: not os.path.exists(f"/proc/{model}"))


@pytest.mark.whole("test_a_model_that_is_trusted_may_not_take_for_ever")
def test_a_model_does_not_outlive_the_program_that_runs_it(
    indexed: Path, photo: Path, tmp_path: Path
) -> None:
    put_model(indexed, foreign_model("a loop"))
    command = imgsearch_command("-c", indexed, "query", photo, "--trust-model")
    asking = subprocess.Popen(command, cwd=tmp_path)
    _wait_for(lambda: _confined(asking.pid))
    model = _confined(asking.pid)
    time.sleep(2)  # until it runs
    asking.kill()
    asking.wait()
    _wait_for(lambda: not os.path.exists(f"/proc/{model}"))


@pytest.mark.whole("test_every_command_that_would_run_it_refuses_in_one_line")
def test_no_file_of_the_user_ends_up_in_an_embedding(
    indexed: Path, photo: Path, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(np.arange(48, dtype=np.float32).tobytes())
    put_model(indexed, foreign_model("data in a file beside"))
    for trust in ((), ("--trust-model",)):
        ended = run("-c", indexed, "query", photo, *trust)
        assert (ended.code, ended.out) == (6, "")
        assert "whose data is in another file" in ended.err


def _confined(parent: int) -> int | None:
    """Return the process that runs a model for another."""
    for thread in Path(f"/proc/{parent}/task").iterdir():
        with suppress(FileNotFoundError):  # a thread that has ended, or a child
            for child in (thread / "children").read_text().split():
                if "imgsearch.embedding.confined" in Path(f"/proc/{child}/cmdline").read_text():
                    return int(child)
    return None


def _wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
