"""The networks: their rows, their agreement with torchvision, their export."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from imgsearch.embedding.models import MODELS, Network, Shapes, build, export_onnx, find_network
from imgsearch.embedding.onnx.check import check_model
from imgsearch.embedding.runtime import Embeddings, OnnxRuntime
from imgsearch.embedding.weights import find_weights, read_state
from imgsearch.embedding.zoo import head_of, load_state, skeleton
from imgsearch.errors import ModelError
from imgsearch.images.decode import Pixels
from imgsearch.querying.explanation import explain
from imgsearch.storage.records import Entry
from tests.embedding.conftest import Model

State = dict[str, torch.Tensor]

pytestmark = pytest.mark.few(1)  # a network

#: The rows whose networks torchvision builds; see test_lite.py for the others.
TORCHVISIONS = [name for name, row in MODELS.items() if row.library == "torchvision"]


def _in_torch(module: torch.nn.Module, pixels: Pixels) -> Embeddings:
    with torch.inference_mode():
        result: Embeddings = module(torch.from_numpy(pixels)).numpy()
    return result


def _reference(row: Network, weights: Any, pixels: Pixels) -> Embeddings:
    """Return what torchvision's own network, weights and normalisation make of the pixels."""
    import torchvision

    builder = getattr(torchvision.models, row.builder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the initialisation that the weights replace
        network = builder(weights=weights).eval()
    for name in (head_of(network)[0], *row.left_out):
        network.set_submodule(name, torch.nn.Identity())
    transforms = weights.transforms()
    inputs = torchvision.transforms.functional.normalize(
        torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255, transforms.mean, transforms.std
    )
    with torch.inference_mode():
        result: Embeddings = torch.nn.functional.normalize(network(inputs), dim=1).numpy()
    return result


def _differences(one: Embeddings, other: Embeddings) -> float:
    return float(np.abs(one - other).max())


# The registry


def test_a_network_is_found_by_its_name() -> None:
    for name, row in MODELS.items():
        assert find_network(name) is row
        assert row.name == name


def test_an_unknown_network_is_a_model_error_that_names_those_there_are() -> None:
    told = rf"'resnet'; there are {', '.join(MODELS)}, torchvision:NAME, timm:NAME, open_clip:"
    with pytest.raises(ModelError, match=told):
        find_network("resnet")


@pytest.mark.parametrize(
    ("name", "input_size", "dim"),
    [("mobilenet_v2", 224, 1280), ("inception_v3", 299, 2048), ("mobilenet_v2_320", 224, 320)],
)
def test_a_row_has_the_sizes_of_its_network(name: str, input_size: int, dim: int) -> None:
    row = find_network(name)
    assert (row.input_size, row.dim) == (input_size, dim)


@pytest.mark.parametrize("name", TORCHVISIONS)
def test_a_row_normalises_as_torchvision_says_of_its_weights(name: str) -> None:
    import torchvision

    for weights in torchvision.models.get_model_weights(MODELS[name].builder):
        transforms = weights.transforms()
        assert tuple(transforms.mean) == MODELS[name].mean
        assert tuple(transforms.std) == MODELS[name].std
        assert transforms.crop_size == [MODELS[name].input_size]


# Parity


def test_onnx_runtime_and_torch_agree(model: Model, photographs: Callable[[int], Pixels]) -> None:
    pixels = photographs(model.network.input_size)
    in_torch = _in_torch(model.module, pixels)
    assert in_torch.shape == (len(pixels), model.network.dim)
    assert _differences(OnnxRuntime(model.onnx).embed(pixels), in_torch) < 1e-4


@pytest.mark.whole("test_onnx_runtime_and_torch_agree")
@pytest.mark.parametrize("name", TORCHVISIONS)
def test_an_embedding_is_that_of_torchvisions_own_network_and_weights(
    name: str, cached_weights: dict[str, Any], photographs: Callable[[int], Pixels]
) -> None:
    network = find_network(name)
    state = read_state(network, find_weights(network, "IMAGENET1K_V1"))
    pixels = photographs(network.input_size)
    ours = _in_torch(build(network, state, source="test"), pixels)
    theirs = _reference(network, cached_weights[network.builder], pixels)
    assert _differences(ours, theirs) < 1e-4
    # The weights are random, and still tell the images apart: agreement means something.
    assert np.abs(theirs[:-1] - theirs[1:]).max(axis=1).min() > 1e-2


@pytest.mark.whole("test_onnx_runtime_and_torch_agree")
def test_an_embedding_of_the_default_weights_is_that_of_torchvisions_network(
    mobilenet: Model, photographs: Callable[[int], Pixels]
) -> None:
    import torchvision

    network = mobilenet.network
    theirs = torchvision.models.mobilenet_v2(weights=None)
    theirs.load_state_dict(read_state(network, find_weights(network)), strict=False)
    theirs.classifier = torch.nn.Identity()
    pixels = photographs(network.input_size)
    transforms = torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1.transforms()
    inputs = torchvision.transforms.functional.normalize(
        torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255, transforms.mean, transforms.std
    )
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(theirs.eval()(inputs), dim=1).numpy()
    assert _differences(OnnxRuntime(mobilenet.onnx).embed(pixels), expected) < 1e-4


def test_the_default_weights_see_that_photographs_of_a_kind_are_alike(
    data: Path, mobilenet: Model
) -> None:
    from imgsearch.images.decode import read

    paths = [data / "corel1k" / "images" / f"{number}.jpg" for number in (400, 401, 500, 501)]
    if not all(path.exists() for path in paths):
        pytest.skip("these photographs are not there")
    embeddings = OnnxRuntime(mobilenet.onnx).embed(
        np.stack([read(str(path), 224).pixels for path in paths])
    )
    similarity = embeddings @ embeddings.T
    assert similarity[0, 1] > similarity[0, 2:].max()
    assert similarity[2, 3] > similarity[3, :2].max()


# State dicts that do not fit


@pytest.mark.parametrize("name", TORCHVISIONS)
def test_the_head_may_be_left_out_or_be_of_another_size(
    name: str, torchvision_state: dict[str, State]
) -> None:
    network = find_network(name)
    state = torchvision_state[network.builder]
    head, _ = head_of(skeleton(network.builder))
    unused = f"{head}.", "AuxLogits."
    without = {key: value for key, value in state.items() if not key.startswith(unused)}
    other = state | {
        key: torch.zeros(7, *value.shape[1:])
        for key, value in state.items()
        if key.startswith(f"{head}.")
    }
    assert len(without) < len(other) == len(state)
    for each in (state, without, other):
        loaded = load_state(network, each, source="test").state_dict()
        left_out = (*unused, *(f"{module}." for module in network.left_out))
        kept = {key for key in loaded if not key.startswith("AuxLogits.")}
        assert kept == {key for key in without if not key.startswith(left_out)}
        assert all(torch.equal(loaded[key], without[key]) for key in kept)


def test_counters_of_training_may_be_missing(torchvision_state: dict[str, State]) -> None:
    state = torchvision_state["mobilenet_v2"]
    without = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    loaded = load_state(find_network("mobilenet_v2"), without, source="test").state_dict()
    assert torch.equal(loaded["features.0.0.weight"], state["features.0.0.weight"])


_KEY = "features.0.0.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({_KEY: None}, f"old.pt does not fit mobilenet_v2: it lacks {_KEY}; give"),
        ({"extra": torch.zeros(1)}, "it has an unknown extra; give"),
        (
            {_KEY: torch.zeros(16, 3, 3, 3)},
            f"it has {_KEY} of shape (16, 3, 3, 3), not (32, 3, 3, 3); give",
        ),
        (
            {_KEY: None, "one": torch.zeros(1), "two": torch.zeros(1)},
            f"it lacks {_KEY} (and 2 more such differences); give a state dict of torchvision's "
            "mobilenet_v2",
        ),
    ],
)
def test_a_state_dict_that_does_not_fit_is_a_model_error(
    change: dict[str, torch.Tensor | None], message: str, torchvision_state: dict[str, State]
) -> None:
    changed = torchvision_state["mobilenet_v2"] | change
    state = {key: value for key, value in changed.items() if value is not None}
    with pytest.raises(ModelError) as caught:
        load_state(find_network("mobilenet_v2"), state, source="old.pt")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_weights_of_another_network_are_a_model_error(
    torchvision_state: dict[str, State],
) -> None:
    with pytest.raises(ModelError, match="does not fit inception_v3"):
        build(find_network("inception_v3"), torchvision_state["mobilenet_v2"], source="test")


# The export


def test_an_exported_network_takes_uint8_images_in_any_number(model: Model) -> None:
    size, dim = model.network.input_size, model.network.dim
    graph = onnx.load(model.onnx).graph
    (pixels,), (embedding,) = graph.input, graph.output
    assert (pixels.name, embedding.name) == ("pixels", "embedding")
    assert pixels.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert embedding.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    batch, *shape = pixels.type.tensor_type.shape.dim
    assert batch.dim_param
    assert [each.dim_value for each in shape] == [size, size, 3]
    runtime = OnnxRuntime(model.onnx)
    for count in (1, 3):
        rows = runtime.embed(np.zeros((count, size, size, 3), np.uint8))
        assert rows.shape == (count, dim)
        assert rows.dtype == np.float32


def test_an_exported_network_is_run_without_a_question(model: Model) -> None:
    found = check_model(model.onnx.read_bytes())
    assert found == Shapes(model.network.input_size, model.network.dim)


def test_the_feature_map_of_an_exported_network_pools_to_the_embedding(
    model: Model, photographs: Callable[[int], Pixels]
) -> None:
    runtime = OnnxRuntime(model.onnx, maps=True)
    pixels = photographs(model.network.input_size)[:2]
    maps = runtime.maps(pixels)
    cells = {"mobilenet_v2": 7, "inception_v3": 8}[model.network.name]
    assert maps.shape == (2, cells, cells, model.network.dim)
    means = maps.mean(axis=(1, 2))
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(means, OnnxRuntime(model.onnx).embed(pixels), atol=1e-5)
    entry = Entry(1, "hit", 0, None, b"")
    explained = explain(entry, maps, None)
    for contributions in (explained.query_map, explained.hit_map):
        assert contributions.sum() == pytest.approx(float(means[0] @ means[1]), abs=1e-5)


def test_an_embedding_has_length_one(model: Model, photographs: Callable[[int], Pixels]) -> None:
    rows = OnnxRuntime(model.onnx).embed(photographs(model.network.input_size))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_an_exported_network_is_valid_and_holds_no_path_of_this_machine(model: Model) -> None:
    onnx.checker.check_model(str(model.onnx), full_check=True)
    content = model.onnx.read_bytes()
    here = [
        Path(__file__).parents[2],
        Path(torch.__file__).parents[1],
        Path.home(),
        Path(sys.prefix),
    ]
    for path in here:
        assert len(str(path)) < 4 or str(path).encode() not in content
    for word in (b"site-packages", b'.py"', b"/torch/", b"/home/", b"/tmp/"):
        assert word not in content


@pytest.mark.whole("test_onnx_runtime_and_torch_agree")
def test_building_exporting_and_loading_print_nothing_and_warn_of_nothing(
    torchvision_state: dict[str, State], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    network = find_network("mobilenet_v2")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        module = build(network, torchvision_state["mobilenet_v2"], source="test")
        (tmp_path / "model.onnx").write_bytes(export_onnx(module, network))
        OnnxRuntime(tmp_path / "model.onnx")
    assert [str(each.message) for each in caught] == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.whole("test_onnx_runtime_and_torch_agree")
def test_an_export_is_the_same_each_time(mobilenet: Model) -> None:
    assert export_onnx(mobilenet.module, mobilenet.network) == mobilenet.onnx.read_bytes()
