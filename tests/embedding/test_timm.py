"""The networks of timm."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import timm.data.config
import torch
from safetensors.torch import save

from imgsearch.embedding import pretrained
from imgsearch.embedding.models import build, export_onnx, find_network, names_same
from imgsearch.embedding.onnx.check import check_model
from imgsearch.embedding.runtime import OnnxRuntime
from imgsearch.embedding.weights import find_weights, read_state, source_of
from imgsearch.errors import ModelError, PackageError
from imgsearch.images.decode import Pixels
from tests.support.commands import Run

CLOSE = 1e-4  # what is close enough in a value of an embedding

#: A network of each kind: plain, with a pooling of its own, attention, and attention in windows.
NETWORKS = [
    "mobilenetv3_small_050.lamb_in1k",
    "resnet18.a1_in1k",
    "convnext_atto.d2_in1k",
    "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "swin_tiny_patch4_window7_224.ms_in1k",
    "levit_128s.fb_dist_in1k",
]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of huggingface_hub, empty, where no network can be asked."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "home" / "hub"


def make(name: str) -> Any:
    """Return a network of timm with its classifier and seeded random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return timm.create_model(name, pretrained=False).eval()


def place(hub: Path, name: str, state: dict[str, torch.Tensor]) -> Path:
    """Put weights where huggingface_hub keeps what it has downloaded; return their path."""
    content = save({key: value.contiguous() for key, value in state.items()})
    folder = hub / f"models--timm--{name}"
    revision, blob = "0" * 40, hashlib.sha256(content).hexdigest()
    for part in ("refs", "blobs", f"snapshots/{revision}"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(revision)
    (folder / "blobs" / blob).write_bytes(content)
    path = folder / "snapshots" / revision / "model.safetensors"
    path.symlink_to(f"../../blobs/{blob}")
    return path


@pytest.mark.few(1)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_timm_embeds_as_timms_own(
    name: str, hub: Path, photographs: Callable[[int], Pixels], tmp_path: Path
) -> None:
    theirs = make(name)
    place(hub, name, theirs.state_dict())
    network = find_network(f"timm:{name}")
    state = read_state(network, find_weights(network))
    onnx = export_onnx(build(network, state, source="test"), network)
    assert check_model(onnx) == (network.input_size, network.dim)
    (tmp_path / "model.onnx").write_bytes(onnx)
    pixels = photographs(network.input_size)
    rows = OnnxRuntime(tmp_path / "model.onnx").embed(pixels)
    config = timm.data.config.resolve_model_data_config(theirs)  # type: ignore[no-untyped-call]
    assert config["input_size"] == (3, network.input_size, network.input_size)
    theirs.reset_classifier(0)
    inputs = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(config[each]).view(1, 3, 1, 1) for each in ("mean", "std"))
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(theirs((inputs - mean) / std)).numpy()
    np.testing.assert_allclose(rows, expected, rtol=0, atol=CLOSE)
    assert np.abs(expected[:-1] - expected[1:]).max(axis=1).min() > 10 * CLOSE


def test_a_name_without_weights_means_the_default_ones() -> None:
    network = find_network("timm:resnet18")
    assert (network.name, network.weights, network.dim) == (
        "timm:resnet18.a1_in1k",
        "a1_in1k",
        512,
    )
    assert names_same("timm:resnet18", network.name)
    assert names_same(network.name, network.name)
    assert not names_same("timm:resnet18.tv_in1k", network.name)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("resnet9", "no network 'resnet9'; did you mean timm:resnet50 or .*`imgsearch models t"),
        ("resnet18.no", "no weights 'no' of resnet18; there are a1_in1k, "),
        ("vit_tiny_patch16_384.augreg_in21k", "no weights 'augreg_in21k' of vit_tiny_patch16_384"),
    ],
)
def test_what_timm_does_not_have_is_a_model_error(name: str, told: str) -> None:
    with pytest.raises(ModelError, match=told) as caught:
        find_network(f"timm:{name}")
    assert "\n" not in str(caught.value)


def test_without_timm_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "is_installed", lambda name: name != "timm")
    with pytest.raises(PackageError, match=r"needs timm, which is not installed; .*\.\[timm\]"):
        find_network("timm:resnet18")


@pytest.mark.usefixtures("hub")
def test_weights_that_cannot_be_fetched_are_told_with_the_remedy() -> None:
    network = find_network("timm:resnet18")
    with pytest.raises(ModelError, match=r"cannot fetch the weights a1_in1k .*--weights FILE"):
        find_weights(network)
    source = source_of(network)
    place_of_it = "https://huggingface.co/timm/resnet18.a1_in1k"
    assert (source.place, source.is_here, source.licence) == (place_of_it, False, "apache-2.0")


def test_weights_of_another_network_do_not_fit() -> None:
    network = find_network("timm:mobilenetv3_small_050")
    with pytest.raises(ModelError, match=r"test does not fit .*: it lacks .*give a state dict"):
        build(network, make("resnet18").state_dict(), source="test")


@pytest.mark.processes
@pytest.mark.whole("test_a_network_of_timm_embeds_as_timms_own")
def test_a_collection_keeps_its_network_and_needs_no_timm(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    name = "mobilenetv3_small_050.lamb_in1k"
    place(home / "hub", name, make(name).state_dict())
    env = {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    model = "--model", "timm:mobilenetv3_small_050"
    made = run("-c", "here", "index", photos, *model, cwd=tmp_path, env=env)
    assert made.code == 0, made.err
    shutil.rmtree(home)
    shutil.copytree(tmp_path / "here", tmp_path / "elsewhere")
    hidden = "sys.modules['timm'] = sys.modules['torch'] = sys.modules['torchvision'] = None"
    (tmp_path / "sitecustomize.py").write_text(f"import sys\n{hidden}\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    run_there = partial(run, "-c", "elsewhere", cwd=tmp_path, env={"PYTHONPATH": path})
    told = json.loads(run_there("info", "--json").out)["model"]
    assert (told["name"], told["dim"]) == (f"timm:{name}", 1024)
    photo = min(photos.glob("*.png"))
    found = run_there("query", photo, "--include-self", "--paths")
    assert found.out.splitlines()[0] == str(photo), found.err
    again = run_there("index", photos, *model, "--rehash")
    assert again.code == 0, again.err
    assert run_there("verify").code == 0
