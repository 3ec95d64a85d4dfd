"""The networks that timm lists, each with its own weights, input and normalisation.

Nothing here names one of them: timm says what they consist of, and where their weights are.
Importing this module is fast; its functions import timm, and none of them runs for a query.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgsearch.embedding.models import TIMM, Network
from imgsearch.embedding.zoo import differences, misfit
from imgsearch.errors import ModelError, PackageError, is_installed

if TYPE_CHECKING:
    import torch

__all__ = ["fetch", "find", "licence", "load_state", "names", "whereabouts"]

_COUNTER = "num_batches_tracked"  # Needed for training only.
_FILES = "model.safetensors", "pytorch_model.bin"  # as timm itself looks for them


def _timm(what: str) -> Any:
    if not (is_installed("timm") and is_installed("torch")):
        raise PackageError(f"{what} needs timm, which is not installed", "timm")
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # read when timm imports huggingface_hub
    import timm

    return timm


def names() -> list[str]:
    """Return the names of all networks that timm has weights of, each with the name of these."""
    found: list[str] = _timm("listing the networks of timm").list_pretrained()
    return found


def find(name: str) -> Network:
    """Return the network called `timm:NAME` or `timm:NAME.WEIGHTS`.

    Its own name includes its weights, which decide on its input; the default ones are those that
    timm lists first.

    Raises:
        ModelError: If timm has no such network, or no such weights for it, or takes no squares.
        PackageError: If timm is not installed.
    """
    from difflib import get_close_matches

    library = _timm(f"the network {name}")
    asked = name.removeprefix(TIMM)
    builder, _, tag = asked.partition(".")
    if not library.models.is_model(builder):
        near = [f"{TIMM}{each}" for each in get_close_matches(builder, library.list_models())]
        meant = f"did you mean {' or '.join(near)}? " if near else ""
        raise ModelError(
            f"timm has no network {builder!r}; {meant}`imgsearch models {TIMM}` lists them"
        )
    there = [each.partition(".")[2] for each in library.list_pretrained(f"{builder}.*")]
    if tag not in there if tag else not there:
        named = f"weights {tag!r}" if tag else "weights"
        told = f"there are {', '.join(there)}" if there else "choose another network"
        raise ModelError(f"timm has no {named} of {builder}; {told}")
    config = library.models.get_pretrained_cfg(asked)
    if not config.hf_hub_id:
        raise ModelError(f"the weights of {name} are not on the Hugging Face Hub; choose others")
    _, height, width = config.input_size
    if height != width:
        raise ModelError(f"{name} takes images that are not square; choose another network")
    return Network(
        name=f"{TIMM}{builder}.{config.tag}",
        builder=f"{builder}.{config.tag}",
        input_size=height,
        dim=_dim(_skeleton(f"{builder}.{config.tag}")),
        weights=config.tag,
        library="timm",
        mean=tuple(config.mean),
        std=tuple(config.std),
    )


def _built(builder: str) -> Any:
    """Return a network of timm without its classifier, and with random weights."""
    library = _timm(f"the network {TIMM}{builder}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # `exportable`: attention is that which ONNX has operators for.
        return library.create_model(builder, pretrained=False, num_classes=0, exportable=True)


def _skeleton(builder: str) -> Any:
    """Return a network whose weights have shapes, but neither values nor memory."""
    import torch

    with torch.device("meta"):
        return _built(builder)


def _dim(module: Any) -> int:
    return int(getattr(module, "head_hidden_size", None) or module.num_features)


def whereabouts(network: Network) -> tuple[Path | None, str]:
    """Return the file with the weights of a network, None unless it is here, and its URL."""
    library = _timm(f"the network {network.name}")
    from huggingface_hub import try_to_load_from_cache

    config = library.models.get_pretrained_cfg(network.builder)
    for file in _files(config):
        if isinstance(found := try_to_load_from_cache(config.hf_hub_id, file), str):
            return Path(found), f"https://huggingface.co/{config.hf_hub_id}"
    return None, f"https://huggingface.co/{config.hf_hub_id}"


def _files(config: Any) -> tuple[str, ...]:
    return (config.hf_hub_filename,) if config.hf_hub_filename else _FILES


def licence(network: Network) -> str:
    """Return the licence of the weights of a network, as timm states it."""
    config = _timm(f"the network {network.name}").models.get_pretrained_cfg(network.builder)
    return config.license or "none stated"


def fetch(network: Network) -> Path:
    """Download the weights of a network, and return their file.

    Raises:
        OSError, RuntimeError, ValueError: If that is impossible.
        PackageError: If timm is not installed.
    """
    library = _timm(f"the network {network.name}")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    config = library.models.get_pretrained_cfg(network.builder)
    first, *others = _files(config)
    try:
        return Path(hf_hub_download(config.hf_hub_id, first))
    except EntryNotFoundError:
        if not others:
            raise
        return Path(hf_hub_download(config.hf_hub_id, others[0]))


def load_state(network: Network, state: dict[str, torch.Tensor], *, source: str) -> torch.nn.Module:
    """Build timm's network with the weights `state` but without its classifier.

    Args:
        network: The network.
        state: A state dict of timm's network, which may lack the classifier.
        source: Origin of `state`, for messages.

    Raises:
        ModelError: If tensors are missing, unknown or of the wrong shape.
        PackageError: If timm is not installed.
    """
    module: torch.nn.Module = _built(network.builder)
    wanted = module.state_dict()
    given = {key: value for key, value in state.items() if key in wanted}
    for key, value in wanted.items():
        if key.endswith(_COUNTER):
            given.setdefault(key, value)
    config = _timm(f"the network {network.name}").models.get_pretrained_cfg(network.builder)
    heads = (config.classifier,) if isinstance(config.classifier, str) else config.classifier or ()
    left_out = tuple(head.partition(".")[0] for head in heads)
    others = (key for key in state.keys() - wanted.keys() if not key.startswith(left_out))
    given |= {key: state[key] for key in others}
    if wrong := differences(wanted, given):
        raise misfit(network, source, wrong)
    module.load_state_dict(given)
    return module.eval()
