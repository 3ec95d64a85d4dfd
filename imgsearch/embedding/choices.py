"""List the networks that a collection can be made with, and whether their weights are here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np

from imgsearch.embedding import clip, pretrained
from imgsearch.embedding.export import export
from imgsearch.embedding.models import MODELS, OPEN_CLIP, TIMM, TORCHVISION, find_network
from imgsearch.embedding.runtime import OnnxRuntime
from imgsearch.embedding.weights import Source, source_of
from imgsearch.embedding.zoo import names
from imgsearch.errors import ModelError, is_installed

__all__ = ["Choice", "choices", "timed"]

_BATCH = 8  # images that are embedded at once
_SECONDS = 1.0  # for which a network is timed, after a first batch


@dataclass(frozen=True, slots=True)
class Choice:
    """A network with its default weights.

    Attributes:
        name: Name of the network.
        dim: Length of an embedding.
        input_size: Edge in pixels of the square that an image is squashed to.
        weights: Name of the weights.
        source: Origin of the weights.
        images_per_second: Speed on the CPU of this machine; None unless it was measured.
    """

    name: str
    dim: int
    input_size: int
    weights: str
    source: Source
    images_per_second: float | None = None


def choices(beginning: str = "") -> Iterator[Choice]:
    """Yield the networks that can be used: those of a library only if it is installed.

    Args:
        beginning: What their names begin with. The networks of timm, which has hundreds, are listed
            only for a beginning that no others have.
    """
    there = is_installed("torch") and is_installed("torchvision")
    torchvisions = [f"{TORCHVISION}{each}" for each in (names() if there else ())]
    open_clips = is_installed("open_clip") and is_installed("torch")
    worded = [f"{OPEN_CLIP}{each}" for each in (clip.names() if open_clips else ())]
    timms = []
    if beginning.startswith(TIMM):
        timms = [f"{TIMM}{each}" for each in pretrained.names()]
    for name in [*MODELS, *torchvisions, *worded, *timms]:
        if not name.startswith(beginning):
            continue
        try:
            network = find_network(name)
        except ModelError:  # It is too large.
            continue
        shapes = network.dim, network.input_size
        yield Choice(network.name, *shapes, network.weights, source_of(network))


def timed(choice: Choice) -> Choice:
    """Return a network with its speed: of ONNX Runtime on all cores, without decoding of images.

    A network whose weights are not here is returned as it is: nothing is downloaded.

    Raises:
        ModelError: If its weights are unusable.
        PackageError: If a package is needed to export it, but not installed.
    """
    if not choice.source.is_here:
        return choice
    exported = export(choice.name, None, progress=False)
    with TemporaryDirectory(prefix="imgsearch-") as folder:
        path = Path(folder, "model.onnx")
        path.write_bytes(exported.onnx)
        runtime = OnnxRuntime(path)
        size = runtime.input_size
        pixels = np.random.default_rng(0).integers(0, 256, (_BATCH, size, size, 3), np.uint8)
        runtime.embed(pixels)
        count, started = 0, perf_counter()
        while (seconds := perf_counter() - started) < _SECONDS:
            runtime.embed(pixels)
            count += _BATCH
    return replace(choice, images_per_second=count / seconds)
