"""The networks of torchvision by name, with random weights: none can be downloaded here."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from imgsearch.embedding.export import export
from imgsearch.embedding.models import Network, build, export_onnx, find_network, names_same
from imgsearch.embedding.onnx.check import check_model
from imgsearch.embedding.runtime import Embeddings, OnnxRuntime
from imgsearch.embedding.weights import find_weights, read_state
from imgsearch.embedding.zoo import head_of, load_state, names
from imgsearch.errors import ModelError, PackageError
from tests.support.commands import Run
from tests.support.image_files import photo

#: Each of them is made in another way than the others.
DIFFERENT = ("shufflenet_v2_x0_5", "mobilenet_v3_small", "squeezenet1_1")
LARGE = 30_000_000  # weights, from which on a network is left to `make test-slow`

FITTED = 4  # photos that the batch normalisation of random weights is fitted to
CLOSE = 1e-4  # what is close enough in a value of an embedding
TOO_LARGE = ("regnet_y_128gf", "vit_h_14")  # for an ONNX file
ALL = names()


def _weights(builder: str) -> Any:
    return torchvision.models.get_model_weights(builder).DEFAULT


def _is_large(builder: str) -> bool:
    weights = _weights(builder)
    is_large = weights.meta["num_params"] > LARGE or weights.transforms().crop_size[0] > 300
    return bool(is_large) and builder not in TOO_LARGE


def _module(builder: str) -> torch.nn.Module:
    """Return torchvision's network with seeded random weights, which tells photos apart.

    Its batch normalisation is fitted to some, as training does; else deep networks have nearly the
    same embedding for all images, or one that hangs on the last bits of their pixels.
    """
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the initialisation of Inception
        torch.manual_seed(0)
        made: torch.nn.Module = torchvision.models.get_model(builder, weights=None)
    if hasattr(made, "transform_input"):
        made.transform_input = True  # type: ignore[assignment]  # as with torchvision's weights
    made.train()
    for each in made.modules():
        if isinstance(each, torch.nn.Dropout | torchvision.ops.StochasticDepth):
            each.eval()
        elif isinstance(each, torch.nn.BatchNorm2d):
            each.momentum = None  # the mean of all, here of one batch
    with torch.no_grad():
        made(_inputs(builder, _pixels(_weights(builder).transforms().crop_size[0], FITTED)))
    return made.eval()


def _inputs(builder: str, pixels: Any) -> torch.Tensor:
    """Return what a network of torchvision takes, as its own preprocessing has it."""
    transforms = _weights(builder).transforms()
    normalised: torch.Tensor = torchvision.transforms.functional.normalize(
        torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255, transforms.mean, transforms.std
    )
    return normalised


def _pixels(size: int, count: int = 3) -> Any:
    return np.stack([np.asarray(photo(size, size, seed=seed)) for seed in range(count)])


def _expected(module: torch.nn.Module, network: Network, pixels: Any) -> Embeddings:
    """Return what the last layer of a network is given."""
    taken: list[torch.Tensor] = []
    head = module.get_submodule(head_of(module)[0])
    hook = head.register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0]))
    with torch.inference_mode():
        module(_inputs(network.builder, pixels))
    hook.remove()
    values = taken[-1].mean(dim=(2, 3)) if taken[-1].ndim == 4 else taken[-1]
    result: Embeddings = torch.nn.functional.normalize(values, dim=1).numpy()
    return result


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the folder in which torchvision keeps what it has downloaded, empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    before = torch.hub.get_dir()
    torch.hub.set_dir(tmp_path / "hub")
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    yield folder
    torch.hub.set_dir(before)


def _save(cache: Path, builder: str, module: torch.nn.Module) -> Path:
    path = cache / str(_weights(builder).url).rsplit("/", 1)[-1]
    torch.save(module.state_dict(), path)
    return path


# All of them


@pytest.mark.parametrize("builder", DIFFERENT)
def test_a_network_of_torchvision_embeds_as_torchvisions_own(builder: str, tmp_path: Path) -> None:
    _check_parity(builder, tmp_path)


@pytest.mark.whole("test_a_network_of_torchvision_embeds_as_torchvisions_own")
@pytest.mark.parametrize(
    "builder",
    [
        pytest.param(builder, marks=pytest.mark.heavy) if _is_large(builder) else builder
        for builder in ALL
        if builder not in DIFFERENT
    ],
)
def test_every_network_of_torchvision_does(builder: str, tmp_path: Path) -> None:
    if builder in TOO_LARGE:
        with pytest.raises(ModelError, match=r"million weights, and an ONNX file holds 500 mill"):
            find_network(f"torchvision:{builder}")
        return
    _check_parity(builder, tmp_path)


def _check_parity(builder: str, tmp_path: Path) -> None:
    network = find_network(f"torchvision:{builder}")
    theirs = _module(builder)
    module = build(network, theirs.state_dict(), source="test")
    onnx_file = tmp_path / "model.onnx"
    onnx_file.write_bytes(export_onnx(module, network))
    assert check_model(onnx_file.read_bytes()) == (network.input_size, network.dim)
    runtime, pixels = OnnxRuntime(onnx_file), _pixels(network.input_size)
    expected = _expected(theirs, network, pixels)
    assert min(np.linalg.norm(expected[[0, 1, 2]] - expected[[1, 2, 0]], axis=1)) > 100 * CLOSE
    for count in (1, 2, 3):
        rows = runtime.embed(pixels[:count])
        np.testing.assert_allclose(rows, expected[:count], rtol=0, atol=CLOSE)


# Names and weights


def test_a_name_means_the_default_weights_which_become_part_of_it() -> None:
    network = find_network("torchvision:resnet18")
    assert (network.name, network.weights) == (
        "torchvision:resnet18/IMAGENET1K_V1",
        "IMAGENET1K_V1",
    )
    assert find_network(network.name) == network
    assert names_same("torchvision:resnet18", network.name)
    assert names_same(network.name, network.name)
    for other in ("torchvision:resnet1", "torchvision:resnet18/IMAGENET1K_V2", "mobilenet_v2"):
        assert not names_same(other, network.name)


def test_the_weights_decide_on_the_input() -> None:
    sizes = {
        weights: find_network(f"torchvision:vit_b_16/{weights}").input_size
        for weights in ("IMAGENET1K_V1", "IMAGENET1K_SWAG_E2E_V1")
    }
    assert sizes == {"IMAGENET1K_V1": 224, "IMAGENET1K_SWAG_E2E_V1": 384}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("resnet5", "no network 'resnet5'; did you mean torchvision:resnet50"),
        ("fcn_resnet50", "no network 'fcn_resnet50'"),  # one for segmentation
        ("Resnet 50", "no network 'Resnet 50'"),
        ("resnet50/V9", "no weights 'V9' of resnet50; there are IMAGENET1K_V1, IMAGENET1K_V2"),
    ],
)
def test_what_torchvision_does_not_have_is_a_setting_error(name: str, told: str) -> None:
    with pytest.raises(ModelError) as caught:
        find_network(f"torchvision:{name}")
    assert f"torchvision has {told}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_torchvision_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(PackageError, match="the network torchvision:resnet18 needs torchvision"):
        find_network("torchvision:resnet18")


def test_the_weights_of_a_name_are_those_that_torchvision_downloads(cache: Path) -> None:
    network = find_network("torchvision:shufflenet_v2_x0_5")
    path = _save(cache, network.builder, _module(network.builder))
    found = find_weights(network)
    assert (found.name, found.path) == ("IMAGENET1K_V1", path)
    with pytest.raises(ModelError, match=r"no weights 'IMAGENET1K_V9' .* names are IMAGENET1K_V1$"):
        find_weights(network, "IMAGENET1K_V9")


# What the builders of torchvision know of their files


def test_tensors_may_have_the_names_that_torchvisions_older_files_give_them() -> None:
    network = find_network("torchvision:densenet121")
    state = _module("densenet121").state_dict()
    older = {
        re.sub(r"(norm|conv)([12])\.", r"\1.\2.", key): value
        for key, value in state.items()
        if not key.endswith("num_batches_tracked")
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in older
    loaded = load_state(network, older, source="test").state_dict()
    assert torch.equal(loaded["features.denseblock1.denselayer1.norm1.weight"], torch.ones(64))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_may_say_nothing_of_the_versions_of_modules(suffix: str, tmp_path: Path) -> None:
    network = find_network("torchvision:mnasnet0_5")  # which asks for its own
    state, path = _module("mnasnet0_5").state_dict(), tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(dict(state), path)
    read = read_state(network, find_weights(network, str(path)))
    loaded = load_state(network, read, source="test").state_dict()
    assert torch.equal(loaded["layers.0.weight"], state["layers.0.weight"])


def test_values_that_are_not_finite_are_refused(cache: Path) -> None:
    module = _module("shufflenet_v2_x0_5")
    module.conv5[0].weight.data.fill_(torch.nan)  # type: ignore[index, union-attr]
    path = _save(cache, "shufflenet_v2_x0_5", module)
    with pytest.raises(ModelError) as caught:
        export("torchvision:shufflenet_v2_x0_5", None, progress=False)
    assert str(caught.value) == (
        f"{path} makes no embeddings: torchvision:shufflenet_v2_x0_5/IMAGENET1K_V1 gives values "
        "with it that are not finite; choose other weights"
    )


# The whole way


#: Hides torch and torchvision from a process.
WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["torchvision"] = None
"""


@pytest.mark.processes
@pytest.mark.whole("test_a_network_of_torchvision_embeds_as_torchvisions_own")
def test_a_collection_keeps_its_network_and_needs_no_torchvision(
    run: Run, cache: Path, photos: Path, tmp_path: Path
) -> None:
    _save(cache, "shufflenet_v2_x0_5", _module("shufflenet_v2_x0_5"))
    model = "--model", "torchvision:shufflenet_v2_x0_5"
    env = {"TORCH_HOME": str(tmp_path)}
    assert run("-c", "here", "index", photos, *model, cwd=tmp_path, env=env).code == 0
    shutil.rmtree(cache)
    shutil.copytree(tmp_path / "here", tmp_path / "elsewhere")
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_TORCH)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    run_there = partial(run, "-c", "elsewhere", cwd=tmp_path, env={"PYTHONPATH": path})
    told = json.loads(run_there("info", "--json").out)
    assert told["model"]["name"] == "torchvision:shufflenet_v2_x0_5/IMAGENET1K_V1"
    photo = min(photos.glob("*.png"))
    found = run(
        "-c", "elsewhere", "query", photo, "--include-self", "--paths", cwd=tmp_path, env=env
    )
    assert found.out.splitlines()[0] == str(photo)
    again = run_there("index", photos, *model, "--rehash")
    assert again.code == 0, again.err
    assert run_there("verify").code == 0
    other = run_there("index", "--model", "torchvision:resnet18")
    assert other.code == 6
    assert "with torchvision:shufflenet_v2_x0_5/IMAGENET1K_V1, not torchvision:resnet" in other.err
    refused = "torchvision:resnet18 needs torch, torchvision, which are not installed"
    assert refused in other.err.splitlines()[-1]
    assert run_there("verify").code == 0


@pytest.mark.processes
@pytest.mark.whole("test_a_network_of_torchvision_embeds_as_torchvisions_own")
def test_a_network_is_exported_once_and_then_without_torch(
    run: Run, cache: Path, photos: Path, tmp_path: Path
) -> None:
    module = _module("shufflenet_v2_x0_5")
    _save(cache, "shufflenet_v2_x0_5", module)
    model = "--model", "torchvision:shufflenet_v2_x0_5"
    env = {"TORCH_HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "kept")}
    assert run("-c", "first", "index", photos, *model, cwd=tmp_path, env=env).code == 0
    (kept,) = (tmp_path / "kept" / "imgsearch" / "networks").iterdir()
    before = kept.stat().st_mtime_ns
    assert run("-c", "second", "index", photos, *model, cwd=tmp_path, env=env).code == 0
    assert kept.stat().st_mtime_ns == before
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_TORCH)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    without = env | {"PYTHONPATH": path}
    third = run("-c", "third", "index", photos, *model, cwd=tmp_path, env=without)
    assert third.code == 0, third.err
    models = {(tmp_path / each / "model.onnx").read_bytes() for each in ("first", "third")}
    assert len(models) == 1
    kept.write_bytes(kept.read_bytes()[:-1])  # damaged
    assert run("-c", "fourth", "index", photos, *model, cwd=tmp_path, env=without).code == 6
    (tmp_path / "sitecustomize.py").unlink()
    with torch.no_grad():
        next(iter(module.parameters())).mul_(2)
    _save(cache, "shufflenet_v2_x0_5", module)  # other weights: what is kept is not theirs
    assert run("-c", "fourth", "index", photos, *model, cwd=tmp_path, env=env).code == 0
    assert (tmp_path / "fourth" / "model.onnx").read_bytes() not in models
