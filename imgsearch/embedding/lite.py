"""The EfficientNet-Lites, built by the package `efficientnet-lite-pytorch`.

The package is needed for other weights than those that packages carry, and on a GPU: the default
ones fill a template (`imgsearch.embedding.onnx.template`). Importing this module is fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imgsearch.embedding.models import Network
from imgsearch.embedding.zoo import differences, misfit
from imgsearch.errors import PackageError, is_installed

if TYPE_CHECKING:
    import torch

__all__ = ["load_state"]

_COUNTER = "num_batches_tracked"  # Needed for training only.


def load_state(network: Network, state: dict[str, torch.Tensor], *, source: str) -> torch.nn.Module:
    """Build an EfficientNet-Lite with the weights `state` but without its classifier.

    Args:
        network: The network.
        state: A state dict of `efficientnet_lite_pytorch`, which may lack the classifier.
        source: Origin of `state`, for messages.

    Raises:
        ModelError: If tensors are missing, unknown or of the wrong shape.
        PackageError: If the package is not installed.
    """
    if not is_installed(network.library):
        raise PackageError(
            f"building {network.name} needs efficientnet-lite-pytorch, which is not installed",
            "lite",
        )
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    whole = EfficientNet.from_name(network.builder)
    wanted = whole.state_dict()
    given = {key: value for key, value in state.items() if not key.startswith("_fc.")}
    for key, value in wanted.items():
        if key.startswith("_fc.") or (key.endswith(_COUNTER) and key not in given):
            given[key] = value
    if wrong := differences(wanted, given):
        raise misfit(network, source, wrong)
    whole.load_state_dict(given)

    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.whole = whole
            del whole._fc

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            features = self.whole.extract_features(inputs)
            return torch.flatten(self.whole._avg_pooling(features), 1)

    return Pooled().eval()
