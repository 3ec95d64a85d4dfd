"""Networks of the user's own, as ONNX files."""

from __future__ import annotations

import io
import json
import os
import shutil
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from imgsearch.embedding.export import export
from imgsearch.embedding.onnx.check import check_model
from imgsearch.embedding.own import load
from imgsearch.embedding.runtime import OnnxRuntime
from imgsearch.errors import ModelError
from tests.support.commands import Run

SIZE, DIM = 16, 24
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
NORMALISED = f"mean = {list(MEAN)}\nstd = {list(STD)}\n"

Pixels = npt.NDArray[np.uint8]


class Backbone(torch.nn.Module):
    """A small network that asks for shapes as real ones do."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Conv2d(3, 16, 3, stride=2)
        self.second = torch.nn.Conv2d(16, DIM, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        made = self.second(torch.relu(self.first(images)))
        pooled: torch.Tensor = made.reshape(made.shape[0], made.shape[1], -1).mean(2)
        return pooled


class ChannelsLast(Backbone):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images.permute(0, 3, 1, 2))


class FromBytes(Backbone):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        mean, std = (torch.tensor(each).view(3, 1, 1) for each in (MEAN, STD))
        return super().forward((images.float() / 255 - mean) / std)


class Unpooled(Backbone):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.second(torch.relu(self.first(images)))
        return made


class Pair(Backbone):
    def forward(self, images: torch.Tensor) -> Any:
        made = super().forward(images)
        return made, made * 2


class OfNaN(Backbone):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) * float("nan")


def save(
    path: Path,
    module: torch.nn.Module,
    example: torch.Tensor | None = None,
    *,
    free: bool = True,
    **options: Any,
) -> Path:
    """Export a network as its user would, with names of its own."""
    example = torch.zeros(1, 3, SIZE, SIZE) if example is None else example
    buffer = io.BytesIO()
    given: dict[str, Any] = {"opset_version": 17, "input_names": ["image"], "dynamo": False}
    if free:
        given["dynamic_axes"] = {"image": {0: "batch"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            (example,),
            buffer,  # type: ignore[arg-type]  # the exporter writes to it, its annotation lags
            **given | options,
        )
    path.write_bytes(buffer.getvalue())
    return path


@pytest.fixture
def pixels() -> Pixels:
    return np.random.default_rng(1).integers(0, 256, (5, SIZE, SIZE, 3), np.uint8)


def expected(pixels: Pixels) -> npt.NDArray[np.float32]:
    """Return what the small network makes of images that are normalised for it."""
    mean, std = (np.array(each, np.float32) for each in (MEAN, STD))
    values = (pixels.astype(np.float32) / 255 - mean) / std
    with torch.no_grad():
        made = Backbone().eval()(torch.from_numpy(values).permute(0, 3, 1, 2)).numpy()
    rows: npt.NDArray[np.float32] = made / np.linalg.norm(made, axis=1, keepdims=True)
    return rows


def embedded(path: Path, pixels: Pixels) -> npt.NDArray[np.float32]:
    """Return the embeddings of the network that is made of a file."""
    network, made, _ = load(path)
    assert check_model(made) == (network.input_size, network.dim) == (SIZE, DIM)
    exported = path.with_name("exported.onnx")
    exported.write_bytes(made)
    return OnnxRuntime(exported).embed(pixels)


def test_it_embeds_as_the_network_does_on_normalised_pixels(tmp_path: Path, pixels: Pixels) -> None:
    path = save(tmp_path / "net.onnx", Backbone())
    (tmp_path / "net.toml").write_text(NORMALISED)
    found = embedded(path, pixels)
    assert abs(found - expected(pixels)).max() < 1e-5
    assert abs(found[0] - found[1]).max() > 1e-2  # they differ at all


@pytest.mark.parametrize("version", [13, 18])
def test_a_file_with_other_operators_versions_is_converted(
    version: int, tmp_path: Path, pixels: Pixels
) -> None:
    path = save(tmp_path / "net.onnx", Backbone(), opset_version=version)
    (tmp_path / "net.toml").write_text(NORMALISED)
    assert abs(embedded(path, pixels) - expected(pixels)).max() < 1e-5


def test_the_metadata_of_the_file_may_say_how_to_prepare_pixels_and_a_file_beside_it_outranks_it(
    tmp_path: Path, pixels: Pixels
) -> None:
    path = save(tmp_path / "net.onnx", Backbone())
    model = onnx.load(path)
    model.metadata_props.add(key="imgsearch", value=NORMALISED)
    onnx.save(model, path)
    assert abs(embedded(path, pixels) - expected(pixels)).max() < 1e-5
    (tmp_path / "net.toml").write_text("mean = [0, 0, 0]\nstd = [1, 1, 1]\n")
    assert abs(embedded(path, pixels) - expected(pixels)).max() > 1e-2


def test_channels_may_be_last_and_reversed_and_pixels_taken_as_they_are(
    tmp_path: Path, pixels: Pixels
) -> None:
    last = save(tmp_path / "last.onnx", ChannelsLast(), torch.zeros(1, SIZE, SIZE, 3))
    (tmp_path / "last.toml").write_text(NORMALISED)
    assert abs(embedded(last, pixels) - expected(pixels)).max() < 1e-5
    backwards = f"mean = {list(MEAN)}\nstd = {list(STD)}\norder = 'BGR'\n"
    (tmp_path / "last.toml").write_text(backwards)
    turned = np.ascontiguousarray(pixels[..., ::-1])
    assert abs(embedded(last, turned) - expected(pixels)).max() < 1e-5
    given = torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8)
    as_they_are = save(tmp_path / "bytes.onnx", FromBytes(), given)
    assert abs(embedded(as_they_are, pixels) - expected(pixels)).max() < 1e-5


def test_one_of_several_outputs_and_a_size_that_is_left_open_are_named(
    tmp_path: Path, pixels: Pixels
) -> None:
    axes = {"image": {0: "batch", 2: "height", 3: "width"}}
    path = save(
        tmp_path / "net.onnx", Pair(), free=False, dynamic_axes=axes, output_names=["a", "b"]
    )
    (tmp_path / "net.toml").write_text(f"{NORMALISED}size = {SIZE}\noutput = 'b'\n")
    assert abs(embedded(path, pixels) - expected(pixels)).max() < 1e-5


def _unknown(path: Path) -> Path:
    """Write a network with an operator that does not follow from the file alone."""
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["x"], ["pooled"], axes=[2, 3], keepdims=0),
            helper.make_node("Mod", ["pooled", "two"], ["y"], fmod=1),
        ],
        "unknown",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(np.array(2, np.float32), "two")],
    )
    opset = [helper.make_opsetid("", 17)]
    path.write_bytes(
        helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    )
    return path


def _unsquare(path: Path) -> Path:
    return save(path, Backbone(), torch.zeros(1, 3, SIZE, SIZE + 4))


def _grey(path: Path) -> Path:
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Flatten())
    return save(path, module, torch.zeros(1, 1, SIZE, SIZE))


def _elsewhere(path: Path) -> Path:
    saved = onnx.load(save(path, Backbone()))
    onnx.save_model(saved, path, save_as_external_data=True, location="data", size_threshold=0)
    return path


@pytest.mark.parametrize(
    ("make", "toml", "told"),
    [
        (lambda path: path, NORMALISED, "cannot read .*net.onnx: No such file .*; name an ONNX"),
        (lambda path: path.write_bytes(b"no"), NORMALISED, "net.onnx is not an ONNX file"),
        (partial(save, module=Backbone()), "", "not say how pixels are normalised; write .*net.to"),
        (partial(save, module=Backbone()), "mean = 3", "mean is 3, but must be three numbers"),
        (partial(save, module=Backbone()), "means = 3", "unknown means; there are mean, std, size"),
        (partial(save, module=Backbone()), "mean =", "net.toml is not TOML: "),
        (partial(save, module=Pair()), NORMALISED, "has 2 outputs: .*; name one in net.toml"),
        (partial(save, module=Backbone()), f"{NORMALISED}output = 'z'", "has no output 'z': there"),
        (partial(save, module=Unpooled()), NORMALISED, "not a vector of each; export it with a po"),
        (partial(save, module=Backbone(), free=False), f"{NORMALISED}size = 32", "makes squares"),
        (_unsquare, NORMALISED, r"takes \[\?, 3, 16, 20\], and imgsearch makes squares"),
        (_grey, NORMALISED, "images of 1 channels, not of 3"),
        (_unknown, NORMALISED, "has the operator 'Mod', and so cannot be checked before it is run"),
        (_elsewhere, NORMALISED, "data is in another file; save the network as one file"),
        (partial(save, module=OfNaN()), NORMALISED, "makes no embeddings: .* not finite"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line_with_the_remedy(
    make: Any, toml: str, told: str, tmp_path: Path
) -> None:
    make(tmp_path / "net.onnx")
    if toml:
        (tmp_path / "net.toml").write_text(toml)
    with pytest.raises(ModelError, match=told) as caught:
        export(f"onnx:{tmp_path / 'net.onnx'}", None, progress=False)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 6


@pytest.mark.processes
def test_a_collection_keeps_its_network_and_needs_neither_the_file_nor_onnx(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    save(tmp_path / "net.onnx", Backbone())
    (tmp_path / "net.toml").write_text(NORMALISED)
    model = "--model", "onnx:net.onnx"
    made = run("-c", "here", "index", photos, *model, cwd=tmp_path)
    assert made.code == 0, made.err
    assert run("-c", "here", "index", *model, cwd=tmp_path).err.startswith("40 found: 0 indexed")
    assert run("-c", "here", "verify", cwd=tmp_path).code == 0
    (tmp_path / "here" / "model.onnx").unlink()
    assert run("-c", "here", "verify", "--repair", cwd=tmp_path).code == 8
    assert run("-c", "here", "verify", cwd=tmp_path).code == 0
    shutil.copytree(tmp_path / "here", tmp_path / "elsewhere")
    for name in ("net.onnx", "net.toml"):
        (tmp_path / name).unlink()
    without = (
        "import sys\nfor name in ('onnx', 'torch', 'torchvision'):\n    sys.modules[name] = None\n"
    )
    (tmp_path / "sitecustomize.py").write_text(without)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    run_there = partial(run, "-c", "elsewhere", cwd=tmp_path, env={"PYTHONPATH": path})
    told = json.loads(run_there("info", "--json").out)["model"]
    assert (told["name"], told["dim"], told["input_size"]) == ("onnx:net.onnx", DIM, SIZE)
    photo = min(photos.glob("*.png"))
    found = run_there("query", photo, "--include-self", "--paths")
    assert found.out.splitlines()[0] == str(photo), found.err
    assert run_there("index", photos, "--rehash").code == 0
    assert run_there("export", "--to", tmp_path / "out.npz").code == 0
    assert np.load(tmp_path / "out.npz")["embeddings"].shape == (40, DIM)


@pytest.mark.processes
def test_another_file_of_the_same_name_is_another_network(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    save(tmp_path / "net.onnx", Backbone())
    (tmp_path / "net.toml").write_text(NORMALISED)
    model = "--model", "onnx:net.onnx"
    assert run("-c", "here", "index", photos, *model, cwd=tmp_path).code == 0
    (tmp_path / "net.toml").write_text("mean = [0, 0, 0]\nstd = [1, 1, 1]\n")
    switched = run("-c", "here", "index", *model, cwd=tmp_path)
    assert switched.code == 0, switched.err
    assert "made with another onnx:net.onnx, not onnx:net.onnx" in switched.err
    assert "switched from onnx:net.onnx to onnx:net.onnx: 40 images" in switched.err
    assert "switched" not in run("-c", "here", "index", *model, cwd=tmp_path).err
