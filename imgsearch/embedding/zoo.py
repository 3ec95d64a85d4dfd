"""The networks that torchvision lists, each with its own weights, input and normalisation.

Nothing here names one of them: what differs from one to another is asked of torchvision, or of the
network itself once it is built. Importing this module is fast; its functions import torchvision.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from imgsearch.embedding.models import TORCHVISION, Network
from imgsearch.errors import ModelError, check_installed, reason_of

if TYPE_CHECKING:
    import torch

__all__ = [
    "differences",
    "find",
    "head_of",
    "load_state",
    "misfit",
    "names",
    "skeleton",
    "weights_of",
]

_COUNTER = "num_batches_tracked"  # Needed for training only.
_MOST_WEIGHTS = 500_000_000  # float32: ONNX files, which are protocol buffers, end at 2 GiB.


def names() -> list[str]:
    """Return the names of all classification networks of torchvision, in alphabetical order."""
    import torchvision

    found: list[str] = torchvision.models.list_models(module=torchvision.models)
    return found


def find(name: str) -> Network:
    """Return the network called `torchvision:NAME` or `torchvision:NAME/WEIGHTS`.

    Its own name includes its weights, which decide on its input; the default ones are those that
    torchvision calls `DEFAULT`.

    Raises:
        ModelError: If torchvision has no such network, or no such weights for it, or if it is too
            large for an ONNX file.
        PackageError: If torchvision is not installed.
    """
    from difflib import get_close_matches

    check_installed(f"the network {name}", "torch", "torchvision")
    builder, _, weights = name.removeprefix(TORCHVISION).partition("/")
    if builder not in names():
        near = [f"{TORCHVISION}{each}" for each in get_close_matches(builder, names())]
        meant = f"did you mean {' or '.join(near)}? " if near else ""
        raise ModelError(
            f"torchvision has no network {builder!r}; {meant}`imgsearch models` lists them"
        )
    rows = weights_of(builder)
    if (weights or "DEFAULT") not in rows.__members__:
        raise ModelError(
            f"torchvision has no weights {weights!r} of {builder}; "
            f"there are {', '.join(row.name for row in rows)}"
        )
    row = rows[weights or "DEFAULT"]
    full = f"{TORCHVISION}{builder}/{row.name}"
    if row.meta["num_params"] > _MOST_WEIGHTS:
        raise ModelError(
            f"{full} has {row.meta['num_params'] / 1e6:,.0f} million weights, and an ONNX file "
            f"holds {_MOST_WEIGHTS / 1e6:,.0f} million; choose a smaller network"
        )
    transforms = row.transforms()
    return Network(
        name=full,
        builder=builder,
        input_size=transforms.crop_size[0],
        dim=head_of(skeleton(builder))[1],
        weights=row.name,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )


def weights_of(builder: str) -> Any:
    """Return torchvision's enumeration of the weights of a network."""
    import torchvision

    return torchvision.models.get_model_weights(builder)


def skeleton(builder: str) -> torch.nn.Module:
    """Return a network of torchvision whose weights have shapes, but neither values nor memory."""
    import torch
    import torchvision
    from torch.nn.modules.module import register_module_parameter_registration_hook

    def without_values(
        _module: torch.nn.Module, _name: str, parameter: torch.nn.Parameter | None
    ) -> torch.nn.Parameter | None:
        return None if parameter is None else torch.nn.Parameter(parameter.to("meta"))

    hook = register_module_parameter_registration_hook(without_values)  # type: ignore[arg-type]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # About the initialisation of what has no values.
            module: torch.nn.Module = torchvision.models.get_model(builder, weights=None)
    finally:
        hook.remove()
    return module


def head_of(module: torch.nn.Module) -> tuple[str, int]:
    """Return the name of the last layer of a classifier, and the number of values it takes.

    It is the last module that is a fully connected layer or a convolution. What follows it (an
    activation, a pooling) has no weights, and stays.
    """
    import torch

    kinds = torch.nn.Linear, torch.nn.Conv2d
    layers = [(name, each) for name, each in module.named_modules() if isinstance(each, kinds)]
    name, last = layers[-1]
    return name, last.in_features if isinstance(last, torch.nn.Linear) else last.in_channels


def load_state(network: Network, state: dict[str, torch.Tensor], *, source: str) -> torch.nn.Module:
    """Build torchvision's network with the weights `state` but without its classifier.

    torchvision's own builder loads them, because it knows what its older files call a tensor. Those
    of the classifier, and of auxiliary ones, are optional.

    Args:
        network: The network.
        state: A torchvision state dict, to which missing tensors may be added.
        source: Origin of `state`, for messages.

    Raises:
        ModelError: If tensors are missing, unknown or of the wrong shape.
    """
    import torch
    import torchvision

    rows = weights_of(network.builder)
    row = rows[network.weights if network.weights in rows.__members__ else "DEFAULT"]
    bare = skeleton(network.builder)
    head, _ = head_of(bare)
    wanted = bare.state_dict()
    given = OrderedDict(state)
    # The versions of the modules, which files of `torch.save` state, and others do not.
    given._metadata = getattr(state, "_metadata", wanted._metadata)  # type: ignore[attr-defined]
    for key, value in wanted.items():
        lacking = key not in given and (key.lower().startswith("aux") or key.endswith(_COUNTER))
        if lacking or key.startswith(f"{head}."):
            given[key] = torch.zeros(value.shape, dtype=value.dtype)
    try:
        with _downloaded(row, given):
            module: torch.nn.Module = torchvision.models.get_model(network.builder, weights=row)
    except (KeyError, RuntimeError, ValueError) as error:
        wrong = [*differences(wanted, given), reason_of(error)[:200]]
        raise misfit(network, source, wrong[:-1] or wrong) from error
    for name in (head, *network.left_out):
        module.set_submodule(name, torch.nn.Identity())
    return module.eval()


@contextmanager
def _downloaded(row: Any, state: dict[str, torch.Tensor]) -> Iterator[None]:
    """Have torchvision's builders get a state dict where they would download weights."""
    rows = type(row)
    rows.get_state_dict = lambda *_, **__: state
    try:
        yield
    finally:
        del rows.get_state_dict  # The one of all weights is used again.


def misfit(network: Network, source: str, wrong: list[str]) -> ModelError:
    """Return an error for a state dict that has something wrong, in words that follow "it"."""
    more = f" (and {len(wrong) - 1} more such differences)" if len(wrong) > 1 else ""
    return ModelError(
        f"{source} does not fit {network.name}: it {wrong[0]}{more}; "
        f"give a state dict of {network.library}'s {network.builder}"
    )


def differences(wanted: dict[str, torch.Tensor], given: dict[str, torch.Tensor]) -> list[str]:
    """Return what is wrong with a state dict, each in words that follow "it"."""
    return [
        *(f"lacks {key}" for key in sorted(wanted.keys() - given.keys())),
        *(f"has an unknown {key}" for key in sorted(given.keys() - wanted.keys())),
        *(
            f"has {key} of shape {tuple(given[key].shape)}, not {tuple(wanted[key].shape)}"
            for key in sorted(given.keys() & wanted.keys())
            if given[key].shape != wanted[key].shape
        ),
    ]
