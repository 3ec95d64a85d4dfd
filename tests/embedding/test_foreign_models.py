"""A model that imgsearch did not export: refused, or run where it can do no harm."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgsearch.embedding import process
from imgsearch.embedding.confined import ConfinedRuntime
from imgsearch.embedding.models import Shapes
from imgsearch.embedding.onnx.check import check_model
from imgsearch.embedding.onnx.protobuf import ForeignError, MalformedError
from imgsearch.embedding.runtime import OnnxRuntime, open_model
from imgsearch.errors import DamagedError, ModelError, UntrustedModelError
from tests.support.depth import Harm
from tests.support.foreign_models import FOREIGN, foreign_model, harmless_model, relus
from tests.support.small_network import DIM, INPUT_SIZE, small_network

SHAPES = Shapes(INPUT_SIZE, DIM)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"


# Refused


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_model_is_refused_and_the_remedy_is_named(name: str, model: Path) -> None:
    model.write_bytes(foreign_model(name))
    with pytest.raises(UntrustedModelError) as caught:
        open_model(model, SHAPES)
    assert str(caught.value).startswith(f"{model} was not exported by imgsearch (it has ")
    assert "--trust-model" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_of_millions_of_nodes_is_refused_at_once(model: Path) -> None:
    node = b"\x0a\x02\x0a\x00"  # a node whose one input has no name
    graph = node * 10_000_000
    size = bytes([0x3A, *_varint(len(graph))])
    model.write_bytes(size + graph)
    started = time.thread_time()
    with pytest.raises(UntrustedModelError, match="more than 50,000 fields"):
        open_model(model, SHAPES)
    assert time.thread_time() - started < 5


def test_values_count_until_the_last_use_of_them_whatever_the_order_of_the_nodes() -> None:
    assert check_model(relus(apart=False)) == (299, 299 * 299 * 3)
    with pytest.raises(ForeignError, match="more than 250,000,000 intermediate values at once"):
        check_model(relus(apart=True))


def test_a_model_of_other_shapes_than_the_catalog_says_is_damage(model: Path) -> None:
    model.write_bytes(small_network())
    for shapes in (Shapes(INPUT_SIZE, DIM + 1), Shapes(INPUT_SIZE + 1, DIM)):
        with pytest.raises(DamagedError, match="according to the catalog it should map"):
            open_model(model, shapes)


@pytest.mark.parametrize("kind", ["link", "FIFO", "device", "sparse giant", "folder"])
def test_a_model_that_is_no_file_of_its_size_is_damage(
    kind: str, model: Path, tmp_path: Path
) -> None:
    match kind:
        case "link":
            (tmp_path / "other.onnx").write_bytes(small_network())
            model.symlink_to(tmp_path / "other.onnx")
        case "FIFO":
            os.mkfifo(model)
        case "device":
            model.symlink_to("/dev/zero")
        case "sparse giant":
            with model.open("wb") as file:
                file.truncate(1 << 40)
        case _:
            model.mkdir()
    for trust in (False, True):
        with pytest.raises((DamagedError, ModelError)) as caught:
            open_model(model, SHAPES, trust=trust).embed(_images(1))
        assert str(model) in str(caught.value)


# Trusted


def test_a_foreign_model_that_is_trusted_embeds_images(model: Path) -> None:
    model.write_bytes(harmless_model())
    with pytest.raises(UntrustedModelError):
        open_model(model, SHAPES)
    images = _images(3)
    runtime = open_model(model, SHAPES, trust=True)
    assert isinstance(runtime, ConfinedRuntime)
    rows = runtime.embed(images)
    runtime.close()
    expected = np.arctan(images.reshape(3, -1).astype(np.float32) - 127.5)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(rows, expected, atol=1e-5)


def test_a_model_of_our_own_runs_in_this_process_trusted_or_not(model: Path) -> None:
    model.write_bytes(small_network())
    assert isinstance(open_model(model, SHAPES, trust=True), OnnxRuntime)


@pytest.mark.few(1)
@pytest.mark.parametrize("name", [name for name in FOREIGN if name.startswith("data in ")])
def test_a_model_that_is_trusted_may_not_read_other_files_either(
    name: str, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(np.ones(DIM, np.float32).tobytes())
    model.write_bytes(foreign_model(name))
    with pytest.raises(ModelError, match="a model may read no file other than its own"):
        OnnxRuntime(model, shapes=SHAPES, trusted=True)


@pytest.mark.whole("test_a_model_that_is_trusted_may_not_take_for_ever")
def test_a_model_that_is_trusted_may_not_take_all_memory(model: Path) -> None:
    model.write_bytes(foreign_model("a huge constant"))
    runtime = open_model(model, SHAPES, trust=True)
    with pytest.raises(ModelError) as caught:
        runtime.embed(_images(1))
    runtime.close()
    assert "\n" not in str(caught.value)


def test_a_model_that_is_trusted_may_not_take_for_ever(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "START_LIMITS", (3.0,))
    model.write_bytes(foreign_model("a loop"))
    runtime = open_model(model, SHAPES, trust=True)
    with pytest.raises(ModelError, match="was not ready after 3 s"):
        runtime.embed(_images(1))
    runtime.close()


@pytest.mark.whole("test_a_model_that_is_trusted_may_not_take_for_ever")
def test_closing_ends_a_model_that_another_thread_runs(model: Path) -> None:
    model.write_bytes(foreign_model("a loop"))
    runtime = open_model(model, SHAPES, trust=True)
    ended: list[BaseException] = []

    def embed() -> None:
        try:
            runtime.embed(_images(1))
        except ModelError as error:
            ended.append(error)

    thread = threading.Thread(target=embed)
    thread.start()
    time.sleep(1)
    runtime.close()
    thread.join(30)
    assert len(ended) == 1


# Anything at all


def test_whatever_a_model_holds_it_is_ours_or_refused(harm: Harm) -> None:
    """Change some bytes, or cut, double or move a part; what is accepted reads no file."""

    @settings(max_examples=harm.times(1_000, 20_000, fast=50))
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        whole = bytearray(small_network() if data.draw(st.booleans()) else _any_foreign(data))
        for _ in range(data.draw(st.integers(1, 3))):
            _spoil(whole, data)
        try:
            check_model(bytes(whole))
        except (ForeignError, MalformedError):
            pass
        else:
            _check_harmless(bytes(whole))
        harm.done("ONNX graphs")

    check()


LARGE = {"hours of multiplications", "many values at once", "too many nodes"}


def _any_foreign(data: st.DataObject) -> bytes:
    small = [name for name in FOREIGN if name not in LARGE]
    return foreign_model(data.draw(st.sampled_from(small)))


def _spoil(whole: bytearray, data: st.DataObject) -> None:
    if not whole:
        return
    start = data.draw(st.integers(0, len(whole) - 1))
    end = min(len(whole), start + data.draw(st.integers(1, 40)))
    match data.draw(st.sampled_from(["byte", "cut", "double", "end", "insert"])):
        case "byte":
            whole[start] = data.draw(st.integers(0, 255))
        case "cut":
            del whole[start:end]
        case "double":
            whole[start:start] = whole[start:end]
        case "end":
            del whole[start:]
        case _:
            whole[start:start] = data.draw(st.binary(max_size=12))


HARMLESS = {
    *("Add", "Cast", "Flatten", "GlobalAveragePool", "Identity", "LpNormalization", "Mul"),
    *("Reshape", "Sub"),
}


def _check_harmless(model: bytes) -> None:
    """Check, as ONNX reads the model, that there is nothing in it that was to be refused."""
    try:
        read = onnx.load_model_from_string(model)
    except Exception:  # what ONNX cannot read, ONNX Runtime cannot either
        return
    assert not read.functions
    assert not read.training_info
    assert not read.graph.sparse_initializer
    tensors = [*read.graph.initializer]
    for node in read.graph.node:
        assert node.domain in ("", "ai.onnx")
        assert node.op_type in HARMLESS
        for attribute in node.attribute:
            assert not attribute.HasField("g")
            assert not attribute.graphs
            tensors += [attribute.t, *attribute.tensors]
    for tensor in tensors:
        assert not tensor.external_data
        assert tensor.data_location == onnx.TensorProto.DEFAULT


def _images(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    random = np.random.default_rng(0)
    return random.integers(0, 256, (count, INPUT_SIZE, INPUT_SIZE, 3), np.uint8)


def _varint(number: int) -> bytes:
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])
