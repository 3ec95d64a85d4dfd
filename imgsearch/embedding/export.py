"""Export a network: the default one from its template, any other one by torch.

torch runs in its own process, which gives back its 800 MB when it ends:
``python -m imgsearch.embedding.export MODEL PROGRESS [WEIGHTS]`` answers on stdout with one
message of `imgsearch.embedding.wire`.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass

from imgsearch.embedding.models import Network, build, export_onnx, find_network
from imgsearch.embedding.process import command, environment
from imgsearch.embedding.weights import (
    Weights,
    are_packaged,
    find_weights,
    read_arrays,
    read_state,
)
from imgsearch.embedding.wire import raise_error, receive, send, send_error
from imgsearch.errors import ImgsearchError, ModelError, check_installed

__all__ = ["Exported", "export"]


@dataclass(frozen=True, slots=True, eq=False)
class Exported:
    """A network as ONNX, with the name and the SHA-256 (hex) of its weights."""

    onnx: bytes
    weights: str
    weights_sha256: str


def export(network: Network, weights: str | None, *, progress: bool) -> Exported:
    """Find the weights of a network and export it with them.

    The default network with the weights of the package is exported without torch, torchvision or
    onnx, in a fraction of a second.

    Args:
        network: Row of the registry.
        weights: Source of the weights (see `imgsearch.embedding.weights`); None for the
            network's default.
        progress: Whether to show a download on stderr.

    Raises:
        ModelError: If the weights are unavailable or do not fit the network.
        PackageError: If torch is needed, but not installed.
    """
    if are_packaged(network, weights):
        return _filled(find_weights(network, weights))
    check_installed(f"exporting {network.name}", "torch", "torchvision", "onnx")
    arguments = [network.name, "progress" if progress else "quiet", *([weights] if weights else [])]
    done = subprocess.run(
        command("export", *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=environment(),
        check=False,
    )
    try:
        message, onnx = receive(io.BytesIO(done.stdout))
    except EOFError:
        raise ModelError(
            f"the export of {network.name} ended with exit status {done.returncode}, see above"
        ) from None
    raise_error(message)
    return Exported(onnx, message["weights"], message["sha256"])


def _filled(weights: Weights) -> Exported:
    """Fill the template of MobileNetV2 with the weights of the package."""
    from imgsearch.embedding.onnx.template import fill_template

    try:
        onnx = fill_template(list(read_arrays(weights).values()))
    except ValueError as error:
        raise ModelError(f"{weights.path} does not fit mobilenet_v2") from error
    return Exported(onnx, weights.name, weights.sha256)


def main() -> None:
    """Carry out the export that `export` requests."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # The parent reports Ctrl-C.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # Keep libraries' output out of the answer.
    network = find_network(sys.argv[1])
    try:
        progress = sys.argv[2] == "progress"
        found = find_weights(network, *sys.argv[3:], progress=progress)
        module = build(network, read_state(network, found), source=str(found.path))
        onnx = export_onnx(module, network)
    except ImgsearchError as error:
        send_error(answers, error)
    else:
        with suppress(BrokenPipeError):  # The parent was killed.
            send(answers, {"weights": found.name, "sha256": found.sha256}, onnx)


if __name__ == "__main__":
    main()
