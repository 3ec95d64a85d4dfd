"""Models that are built once a session, photographs, and worker processes that misbehave."""

from __future__ import annotations

import os
import textwrap
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from imgsearch.embedding.models import Network, Shapes, build, export_onnx, find_network
from imgsearch.embedding.pipeline import Outcome, embed_files
from imgsearch.embedding.weights import find_weights, read_state
from imgsearch.images.decode import Pixels, read
from imgsearch.images.limits import Limits
from tests.support.image_files import photo
from tests.support.processes import started_here

if TYPE_CHECKING:
    import torch

#: The input size and the dimension of `tiny_model`.
TINY_SIZE = 8
TINY_DIM = TINY_SIZE * TINY_SIZE * 3

Embed: TypeAlias = Callable[..., Iterator[Outcome]]
Fault: TypeAlias = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Model:
    """A network as torch runs it and as ONNX Runtime does."""

    network: Network
    module: torch.nn.Module
    onnx: Path


@pytest.fixture(scope="session")
def torchvision_state() -> dict[str, dict[str, torch.Tensor]]:
    """Return whole torchvision state dicts, head and auxiliary classifier included, seeded.

    Batch normalisation is fitted to a few pictures: with its initial values the random weights
    would make the same embedding of every image, and agreement would mean nothing.
    """
    import torch
    import torchvision

    networks: dict[str, Callable[[], torch.nn.Module]] = {
        "mobilenet_v2": torchvision.models.mobilenet_v2,
        "inception_v3": lambda: torchvision.models.inception_v3(init_weights=False),
    }
    states = {}
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(0)
        for name, make in networks.items():
            network = make().train()
            for layer in network.modules():
                if isinstance(layer, torch.nn.BatchNorm2d):
                    layer.momentum = None  # the average of all that it sees
            size = find_network(name).input_size
            pictures = np.stack([np.asarray(photo(size, size, seed=seed)) for seed in range(3)])
            network(torch.from_numpy(pictures).permute(0, 3, 1, 2) / 128 - 1)
            states[name] = {key: value.clone() for key, value in network.state_dict().items()}
    return states


@pytest.fixture
def cached_weights(
    torchvision_state: dict[str, dict[str, torch.Tensor]], tmp_path: Path
) -> Iterator[dict[str, Any]]:
    """Put random weights where torchvision keeps what it has downloaded; return their rows."""
    import torch
    import torchvision

    before = torch.hub.get_dir()
    torch.hub.set_dir(tmp_path / "hub")
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    rows = {}
    for name, state in torchvision_state.items():
        rows[name] = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
        torch.save(state, tmp_path / "hub" / "checkpoints" / rows[name].url.rsplit("/", 1)[-1])
    yield rows
    torch.hub.set_dir(before)


@pytest.fixture(scope="session")
def mobilenet(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Return the default network with its default weights."""
    network = find_network("mobilenet_v2")
    state = read_state(network, find_weights(network))
    return _export(network, state, tmp_path_factory.mktemp("mobilenet_v2"))


@pytest.fixture(scope="session")
def inception(
    torchvision_state: dict[str, dict[str, torch.Tensor]], tmp_path_factory: pytest.TempPathFactory
) -> Model:
    """Return Inception v3 with random weights: its real ones have to be downloaded."""
    folder = tmp_path_factory.mktemp("inception_v3")
    return _export(find_network("inception_v3"), torchvision_state["inception_v3"], folder)


def _export(network: Network, state: dict[str, torch.Tensor], folder: Path) -> Model:
    module = build(network, state, source="test")
    path = folder / "model.onnx"
    path.write_bytes(export_onnx(module, network))
    return Model(network, module, path)


@pytest.fixture(scope="session", params=["mobilenet", "inception"])
def model(request: pytest.FixtureRequest) -> Model:
    """Return each network in turn."""
    found: Model = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model with the inputs and outputs of a real one, whose embedding is the image."""
    pixels = helper.make_tensor_value_info(
        "pixels", TensorProto.UINT8, ["n", TINY_SIZE, TINY_SIZE, 3]
    )
    embedding = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", TINY_DIM])
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["floats", "one"], ["positive"]),
            helper.make_node("Flatten", ["positive"], ["flat"]),
            helper.make_node("LpNormalization", ["flat"], ["embedding"], axis=1, p=2),
        ],
        "tiny",
        [pixels],
        [embedding],
        [helper.make_tensor("one", TensorProto.FLOAT, [], [1.0])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path_factory.mktemp("tiny") / "model.onnx"
    onnx.save(made, path)
    return path


@pytest.fixture(scope="session")
def photographs() -> Callable[[int], Pixels]:
    """Return a function from an input size to a few images: real photographs if they are there."""
    folder = Path(os.environ.get("IMGSEARCH_DATA", "/nonexistent"), "corel1k", "queries")
    files = sorted(folder.glob("*.jpg"))[:90:30]

    def pixels(size: int) -> Pixels:
        if files:
            return np.stack([read(str(file), size).pixels for file in files])
        return np.stack([np.asarray(photo(size, size, seed=seed)) for seed in range(3)])

    return pixels


@pytest.fixture
def embed(tiny_model: Path) -> Iterator[Embed]:
    """Return `embed_files` with defaults, and check that it leaves neither process nor thread."""
    before = threading.active_count()
    started = []

    def start(paths: Iterable[str], **options: Any) -> Iterator[Outcome]:
        defaults = {
            "wanted": lambda path, digest: True,  # noqa: ARG005 - it is called so
            "model": tiny_model,
            "shapes": Shapes(TINY_SIZE, TINY_DIM),
            "workers": 2,
            "limits": Limits(time_limit=30.0),
        }
        outcomes = embed_files(paths, **{**defaults, **options})
        started.append(outcomes)
        return outcomes

    yield start
    for outcomes in started:
        outcomes.close()
    assert started_here() == []
    assert threading.active_count() == before


@pytest.fixture
def fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fault:
    """Return a function that makes every worker process run Python code before anything else.

    The code finds `when_opened(name_start, action)`, which calls `action()` when Pillow is given a
    file whose name starts so: a decoder that hangs or crashes; and `when_hashed`, which does it
    before such a file is hashed; and `when_sent(marker, action)`, which does it when a decoder is
    given content that ends with these bytes.
    """
    folder = tmp_path / "fault"
    folder.mkdir()

    def install(code: str) -> None:
        (folder / "sitecustomize.py").write_text(_FAULTS + textwrap.dedent(code))
        monkeypatch.syspath_prepend(folder)

    return install


_FAULTS = """\
import os, signal, sys, time

def when_opened(start, action):
    from PIL.ImageFile import ImageFile
    plain = ImageFile.__init__

    def init(self, file, *args, **kwargs):
        if os.path.basename(getattr(file, "name", "")).startswith(start):
            action()
        plain(self, file, *args, **kwargs)

    ImageFile.__init__ = init

def when_sent(marker, action):
    from PIL.ImageFile import ImageFile
    plain = ImageFile.__init__

    def init(self, file, *args, **kwargs):
        if hasattr(file, "getvalue") and file.getvalue().endswith(marker):
            action()
        plain(self, file, *args, **kwargs)

    ImageFile.__init__ = init

def when_hashed(start, action):
    import hashlib
    plain = hashlib.file_digest

    def file_digest(file, *args):
        if os.path.basename(file.name).startswith(start):
            action()
        return plain(file, *args)

    hashlib.file_digest = file_digest

"""
