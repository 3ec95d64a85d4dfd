"""Export a network in its own process, which gives back torch's 800 MB when it ends.

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
from imgsearch.embedding.wire import raise_error, receive, send, send_error
from imgsearch.errors import ImgsearchError, ModelError

__all__ = ["Exported", "export"]


@dataclass(frozen=True, slots=True, eq=False)
class Exported:
    """A network as ONNX, with the name and the SHA-256 (hex) of its weights."""

    onnx: bytes
    weights: str
    weights_sha256: str


def export(network: Network, weights: str | None, *, progress: bool) -> Exported:
    """Find the weights of a network, build it with them and export it.

    Args:
        network: Row of the registry.
        weights: Source of the weights (see `imgsearch.embedding.weights`); None for the
            network's default.
        progress: Whether to show a download on stderr.

    Raises:
        ModelError: If the weights are unavailable or do not fit the network.
    """
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


def main() -> None:
    """Carry out the export that `export` requests."""
    from imgsearch.embedding.weights import find_weights, read_state

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
