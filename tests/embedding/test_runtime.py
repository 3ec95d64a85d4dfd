"""Running a model."""

from __future__ import annotations

import copy
import subprocess
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from imgsearch.embedding.models import find_network, fold_normalisation
from imgsearch.embedding.runtime import (
    Embeddings,
    OnnxRuntime,
    ParallelRuntime,
    TorchRuntime,
    pick_device,
    torch_devices,
)
from imgsearch.embedding.weights import find_weights
from imgsearch.errors import DamagedError, ModelError
from imgsearch.images.decode import Pixels
from tests.embedding.conftest import TINY_DIM, TINY_SIZE, Model
from tests.support.depth import examples
from tests.support.small_network import small_network
from tests.support.tiny_pictures import pixels_of

NO_GPU = "torch finds no CUDA device here"


# ONNX Runtime


def test_a_missing_model_is_a_damaged_collection(tmp_path: Path) -> None:
    with pytest.raises(DamagedError) as caught:
        OnnxRuntime(tmp_path / "model.onnx")
    assert str(caught.value).startswith(f"{tmp_path / 'model.onnx'} cannot be read (")
    assert str(caught.value).endswith("or restore it from a backup")


@pytest.mark.parametrize("cut", ["empty", "garbage", "half"])
def test_a_damaged_model_is_a_damaged_collection(
    cut: str, tmp_path: Path, mobilenet: Model, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = mobilenet.onnx.read_bytes()
    content = {"empty": b"", "garbage": b"garbage" * 99, "half": whole[: len(whole) // 2]}[cut]
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(DamagedError, match="is not an ONNX model, or is cut off") as caught:
        OnnxRuntime(tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_model_that_does_not_end_with_a_pooled_map_cannot_show_one(tiny_model: Path) -> None:
    with pytest.raises(
        ModelError, match="has 0 global average poolings, so similarities cannot be explained"
    ):
        OnnxRuntime(tiny_model, maps=True)


def test_a_model_that_changes_what_it_has_pooled_cannot_show_it(tmp_path: Path) -> None:
    model = onnx.load_model_from_string(small_network())
    bent = onnx.helper.make_node("Relu", ["features"], ["bent"])
    *before, last = model.graph.node
    last.input[0] = "bent"
    del model.graph.node[-1]
    model.graph.node.extend([bent, last])
    assert len(model.graph.node) == len(before) + 2
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    runtime = OnnxRuntime(tmp_path / "model.onnx", maps=True)
    with pytest.raises(ModelError, match="an embedding that is not the mean of its feature map"):
        runtime.maps(pixels_of(1)[None])


@settings(derandomize=True, deadline=None, max_examples=examples(30))
@given(
    pixels=st.integers(1, 9).flatmap(
        lambda n: st.binary(min_size=n * TINY_DIM, max_size=n * TINY_DIM)
    ),
    threads=st.integers(0, 2),
)
def test_the_embedding_of_an_image_does_not_depend_on_its_batch(
    tiny_model: Path, pixels: bytes, threads: int
) -> None:
    images = np.frombuffer(pixels, np.uint8).reshape(-1, TINY_SIZE, TINY_SIZE, 3)
    runtime = OnnxRuntime(tiny_model, threads=threads)
    together = runtime.embed(images)
    assert together.shape == (len(images), TINY_DIM)
    alone = np.concatenate([runtime.embed(image[None]) for image in images])
    np.testing.assert_allclose(alone, together, atol=1e-6)


def test_the_embedding_of_a_photograph_does_not_depend_on_its_batch(
    mobilenet: Model, photographs: Callable[[int], Pixels]
) -> None:
    pixels = photographs(224)
    runtime = OnnxRuntime(mobilenet.onnx)
    together = runtime.embed(pixels)
    np.testing.assert_allclose(runtime.embed(pixels[::-1].copy()), together[::-1], atol=1e-6)
    for image, embedding in zip(pixels, together, strict=True):
        np.testing.assert_allclose(runtime.embed(image[None])[0], embedding, atol=1e-6)


def test_no_images_have_no_embeddings(tiny_model: Path) -> None:
    none = OnnxRuntime(tiny_model).embed(np.zeros((0, TINY_SIZE, TINY_SIZE, 3), np.uint8))
    assert none.shape == (0, TINY_DIM)


def test_one_runtime_may_be_used_by_several_threads(
    mobilenet: Model, photographs: Callable[[int], Pixels]
) -> None:
    pixels = photographs(224)
    runtime = OnnxRuntime(mobilenet.onnx, threads=1)
    expected = runtime.embed(pixels)
    with ThreadPoolExecutor(4) as threads:
        for rows in threads.map(lambda _: runtime.embed(pixels), range(8)):
            np.testing.assert_array_equal(rows, expected)


# torch


def test_torch_on_a_cpu_agrees_with_onnx_runtime(
    mobilenet: Model, photographs: Callable[[int], Pixels]
) -> None:
    pixels = photographs(224)
    weights = find_weights(mobilenet.network)
    runtime = TorchRuntime(mobilenet.network, weights.name, weights.sha256, "cpu")
    rows = runtime.embed(pixels)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, OnnxRuntime(mobilenet.onnx).embed(pixels), atol=1e-4)


@pytest.mark.whole("test_torch_on_a_cpu_agrees_with_onnx_runtime")
def test_torch_takes_pixels_that_are_not_contiguous(
    mobilenet: Model, photographs: Callable[[int], Pixels]
) -> None:
    pixels = photographs(224)
    weights = find_weights(mobilenet.network)
    runtime = TorchRuntime(mobilenet.network, weights.name, weights.sha256, "cpu")
    mirrored = pixels[:, :, ::-1]
    np.testing.assert_array_equal(runtime.embed(mirrored), runtime.embed(mirrored.copy()))


@pytest.mark.few(1)
def test_torch_folds_normalisation_and_computes_the_same(
    model: Model, photographs: Callable[[int], Pixels]
) -> None:
    folded = copy.deepcopy(model.module)
    fold_normalisation(folded)
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in folded.modules())
    pixels = torch.from_numpy(photographs(model.network.input_size))
    with torch.inference_mode():
        np.testing.assert_allclose(folded(pixels), model.module(pixels), atol=1e-5)


@pytest.mark.whole("test_one_runtime_may_be_used_by_several_threads")
def test_torch_may_be_used_by_several_threads(
    mobilenet: Model, photographs: Callable[[int], Pixels]
) -> None:
    pixels = photographs(224)
    weights = find_weights(mobilenet.network)
    runtime = TorchRuntime(mobilenet.network, weights.name, weights.sha256, "cpu")
    parts = [pixels[:1], pixels[1:3], pixels[3:]]
    with ThreadPoolExecutor(3) as threads:
        together = np.concatenate(list(threads.map(runtime.embed, parts)))
    np.testing.assert_allclose(together, runtime.embed(pixels), atol=1e-6)


@pytest.mark.whole("test_torch_on_a_cpu_agrees_with_onnx_runtime")
def test_torch_leaves_the_settings_of_its_user_alone(
    mobilenet: Model, photographs: Callable[[int], Pixels]
) -> None:
    weights = find_weights(mobilenet.network)
    for allowed in (True, False):
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=allowed):
            runtime = TorchRuntime(mobilenet.network, weights.name, weights.sha256, "cpu")
            runtime.embed(photographs(224)[:1])
            assert torch.backends.cudnn.allow_tf32 == allowed


def test_embeddings_that_are_not_finite_are_refused(tmp_path: Path, mobilenet: Model) -> None:
    import torchvision

    state = torchvision.models.mobilenet_v2().state_dict()
    state["features.0.0.weight"] *= float("inf")
    torch.save(state, tmp_path / "w.pt")
    found = find_weights(mobilenet.network, str(tmp_path / "w.pt"))
    runtime = TorchRuntime(mobilenet.network, found.name, found.sha256, "cpu")
    with pytest.raises(ModelError, match="does not give embeddings of 1280 numbers"):
        runtime.embed(np.ones((1, 224, 224, 3), np.uint8))


def test_what_torch_says_of_a_device_is_a_model_error(
    mobilenet: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = find_weights(mobilenet.network)
    runtime = TorchRuntime(mobilenet.network, weights.name, weights.sha256, "cpu")

    def full(_: object, __: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nAnd more")

    monkeypatch.setattr(TorchRuntime, "forward", full)
    with pytest.raises(ModelError) as caught:
        runtime.embed(np.ones((1, 224, 224, 3), np.uint8))
    assert str(caught.value) == (
        "cpu cannot run the model: CUDA out of memory. Tried to allocate 2 GiB.; use --device cpu"
    )


@pytest.mark.few(2)
@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_several_devices_each_embed_a_part_of_a_batch(
    count: int, mobilenet: Model, photographs: Callable[[int], Pixels]
) -> None:
    pixels = np.resize(photographs(224), (count, 224, 224, 3))
    parts: list[int] = []

    class Device(OnnxRuntime):
        def embed(self, pixels: Pixels) -> Embeddings:
            parts.append(len(pixels))
            return super().embed(pixels)

    devices = [Device(mobilenet.onnx) for _ in range(3)]
    runtime = ParallelRuntime(devices)
    assert runtime.devices == 3
    rows = runtime.embed(pixels)
    np.testing.assert_allclose(rows, devices[0].embed(pixels), atol=1e-6)
    assert len(parts) == 1 + max(1, min(3, count))


def test_what_one_of_several_devices_raises_is_raised(
    mobilenet: Model, photographs: Callable[[int], Pixels]
) -> None:
    class Full(OnnxRuntime):
        def embed(self, pixels: Pixels) -> Embeddings:
            raise MemoryError(f"no memory for {len(pixels)} images")

    runtime = ParallelRuntime([OnnxRuntime(mobilenet.onnx), Full(mobilenet.onnx)])
    with pytest.raises(MemoryError, match="no memory for 1 images"):
        runtime.embed(photographs(224)[:2])


def test_all_cuda_devices_are_used_and_one_of_any_other_kind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert torch_devices("cuda") == ["cuda:0", "cuda:1"]
    assert torch_devices("mps") == ["mps"]


def test_torch_refuses_weights_that_are_not_those_of_the_collection(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save({"a": torch.ones(1)}, path)
    with pytest.raises(ModelError) as caught:
        TorchRuntime(find_network("mobilenet_v2"), str(path), "0" * 64, "cpu")
    assert str(caught.value).startswith(f"{path} has changed since the collection was made")


@pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_GPU)
@pytest.mark.parametrize("name", ["mobilenet", "inception"])
def test_a_gpu_makes_the_same_embeddings_as_a_cpu(
    name: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    torchvision_state: dict[str, dict[str, torch.Tensor]],
    photographs: Callable[[int], Pixels],
) -> None:
    model: Model = request.getfixturevalue(name)
    weights = None
    if name == "inception":
        weights = str(tmp_path / "w.pt")
        torch.save(torchvision_state["inception_v3"], weights)
    found = find_weights(model.network, weights)
    pixels = photographs(model.network.input_size)
    on_gpu = TorchRuntime(model.network, found.name, found.sha256, "cuda").embed(pixels)
    assert on_gpu.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(on_gpu, axis=1), 1, atol=1e-4)
    np.testing.assert_allclose(on_gpu, OnnxRuntime(model.onnx).embed(pixels), atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_GPU)
@pytest.mark.parametrize("count", [1, 2, 127, 128, 130])
def test_a_gpu_embeds_any_number_of_images_in_several_threads(
    count: int, mobilenet: Model, photographs: Callable[[int], Pixels]
) -> None:
    pixels = np.resize(photographs(224), (count, 224, 224, 3))
    weights = find_weights(mobilenet.network)
    runtime = TorchRuntime(mobilenet.network, weights.name, weights.sha256, "cuda")
    expected = OnnxRuntime(mobilenet.onnx).embed(pixels)
    with ThreadPoolExecutor(4) as threads:
        for rows in threads.map(runtime.embed, [pixels] * 8):
            np.testing.assert_allclose(rows, expected, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_GPU)
def test_auto_is_cuda_where_there_is_one() -> None:
    assert pick_device("auto") == pick_device("cuda") == "cuda"


# Devices


def test_cpu_is_always_there() -> None:
    assert pick_device("cpu") == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there_is_a_model_error() -> None:
    with pytest.raises(ModelError, match=r"there is no cuda device .* use --device cpu"):
        pick_device("cuda")


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is an MPS device here")
def test_mps_that_is_not_there_is_a_model_error() -> None:
    with pytest.raises(ModelError, match="there is no mps device"):
        pick_device("mps")


def _stub_torch(monkeypatch: pytest.MonkeyPatch, *, cuda: bool) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda _name: object())  # the driver is installed
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)


def test_auto_is_the_gpu_that_torch_can_use(monkeypatch: pytest.MonkeyPatch) -> None:
    _stub_torch(monkeypatch, cuda=True)
    assert pick_device("auto") == pick_device("cuda") == "cuda"


def test_auto_is_the_cpu_when_torch_cannot_use_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    _stub_torch(monkeypatch, cuda=False)
    assert pick_device("auto") == "cpu"


def test_a_mac_with_its_own_chip_may_have_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    assert pick_device("auto") == "mps"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac may have a GPU")
def test_embedding_on_a_cpu_does_not_import_torch(tiny_model: Path) -> None:
    code = """
        import sys
        from pathlib import Path
        import numpy as np
        from imgsearch.embedding.pipeline import embed_files
        from imgsearch.embedding.runtime import OnnxRuntime, pick_device
        assert pick_device("auto") == "cpu"
        OnnxRuntime(Path(sys.argv[1])).embed(np.zeros((1, 8, 8, 3), np.uint8))
        assert not {"torch", "torchvision", "onnx", "faiss"} & sys.modules.keys()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(tiny_model)], check=True)
