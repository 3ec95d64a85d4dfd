"""Export a network: one whose weights a package carries from its template, any other by torch.

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

from imgsearch.embedding.clip import export_words
from imgsearch.embedding.models import (
    MODELS,
    ONNX,
    Network,
    Shapes,
    build,
    check_name,
    export_onnx,
    find_network,
    is_file,
)
from imgsearch.embedding.own import path_of
from imgsearch.embedding.process import command, environment
from imgsearch.embedding.weights import (
    Weights,
    are_packaged,
    find_weights,
    read_arrays,
    read_state,
)
from imgsearch.embedding.wire import raise_error, receive, send, send_error
from imgsearch.errors import ImgsearchError, ModelError, PackageError, check_installed

__all__ = ["Exported", "export"]


@dataclass(frozen=True, slots=True, eq=False)
class Exported:
    """A network as ONNX, its name and shapes, and the name and SHA-256 (hex) of its weights.

    `words` is its text tower as ONNX, None unless it has one.
    """

    onnx: bytes
    name: str
    shapes: Shapes
    weights: str
    weights_sha256: str
    words: bytes | None = None


def export(
    model: str, weights: str | None, *, progress: bool, known: Exported | None = None
) -> Exported:
    """Find the weights of a network and export it with them.

    A network with the weights of a package is exported without torch, torchvision or onnx, in a
    fraction of a second.

    Args:
        model: Name of the network.
        weights: Source of the weights (see `imgsearch.embedding.weights`); None for the
            network's default.
        progress: Whether to show a download on stderr.
        known: What was exported earlier under these names. It is returned if the weights are still
            the same, or cannot be found because a package is not installed.

    Raises:
        ModelError: If there is no such network, the weights are unavailable, do not fit the
            network or make no embeddings of it, or if the network is too large.
        PackageError: If torch is needed, but not installed.
    """
    check_name(model)
    network = MODELS.get(model)
    if network is not None and are_packaged(network, weights):
        return _filled(network, find_weights(network, weights))
    if is_file(model):
        check_installed(f"reading {model}", "onnx")
        # A collection records the name of the file, and its path as that of the weights.
        model, weights = f"{ONNX}{path_of(weights or model)}", None
    else:
        try:
            check_installed(f"exporting {model}", "torch", "torchvision", "onnx")
        except PackageError:
            if known is not None:
                return known
            raise
    arguments = [model, "progress" if progress else "quiet"]
    arguments += ["" if known is None else known.weights_sha256, *([weights] if weights else [])]
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
            f"the export of {model} ended with exit status {done.returncode}, see above"
        ) from None
    try:
        raise_error(message)
    except PackageError:
        if known is not None:
            return known
        raise
    if known is not None and message["is_known"]:
        return known
    shapes = Shapes(message["input_size"], message["dim"])
    size = message["onnx_bytes"]
    facts = message["name"], shapes, message["weights"], message["sha256"]
    return Exported(onnx[:size], *facts, onnx[size:] or None)


def _filled(network: Network, weights: Weights) -> Exported:
    """Fill the template of a network with the weights of a package."""
    from imgsearch.embedding.onnx.template import fill_template

    try:
        onnx = fill_template(network.name, list(read_arrays(weights).values()))
    except ValueError as error:
        raise ModelError(f"{weights.path} does not fit {network.name}") from error
    shapes = Shapes(network.input_size, network.dim)
    return Exported(onnx, network.name, shapes, weights.name, weights.sha256)


def _checked(onnx: bytes, network: Network, source: str) -> bytes:
    """Return a model that has just been exported, unless it cannot be run, or has no use."""
    import numpy as np

    from imgsearch.embedding.onnx.check import check_model
    from imgsearch.embedding.onnx.protobuf import ForeignError
    from imgsearch.embedding.runtime import run_once

    try:
        shapes = check_model(onnx)
    except ForeignError as error:
        if network.library == "onnx":
            raise ModelError(
                f"{source} has {error}, and so cannot be checked before it is run "
                "(docs/security.md); choose another network"
            ) from error
        raise ModelError(
            f"{network.name} cannot be run: it has {error}; choose another network"
        ) from error
    if shapes != (network.input_size, network.dim):
        raise ModelError(f"{network.name} has embeddings of {shapes.dim}, not {network.dim} values")
    (rows,) = run_once(onnx, ["embedding"], 1)
    if not np.isfinite(rows).all():
        raise ModelError(
            f"{source} makes no embeddings: {network.name} gives values with it that are not "
            "finite; choose other weights"
        )
    return onnx


def _checked_words(onnx: bytes, network: Network, source: str) -> bytes:
    """Return a text tower that has just been exported, unless it cannot be run, or has no use."""
    import numpy as np

    from imgsearch.embedding.onnx.check import check_words
    from imgsearch.embedding.onnx.protobuf import ForeignError
    from imgsearch.embedding.runtime import run_words

    try:
        _, dim = check_words(onnx)
    except ForeignError as error:
        raise ModelError(f"the text tower of {network.name} has {error}; choose another") from error
    if dim != network.dim:
        raise ModelError(f"the text tower of {network.name} makes {dim}, not {network.dim} values")
    (rows,) = run_words(onnx, ["embedding"])
    if not np.isfinite(rows).all():
        raise ModelError(
            f"{source} makes no embeddings of words: {network.name} gives values with it that are "
            "not finite; choose other weights"
        )
    return onnx


def main() -> None:
    """Carry out the export that `export` requests."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # The parent reports Ctrl-C.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # Keep libraries' output out of the answer.
    try:
        name, progress, known, *weights = sys.argv[1:]
        if is_file(name):
            made: Exported | None = _read_own(name)
        else:
            made = _made(name, weights, known, progress=progress == "progress")
    except ImgsearchError as error:
        send_error(answers, error)
    else:
        with suppress(BrokenPipeError):  # The parent was killed.
            if made is None:
                send(answers, {"is_known": True}, b"")
                return
            said = {"name": made.name, **made.shapes._asdict(), "weights": made.weights}
            said |= {"sha256": made.weights_sha256, "onnx_bytes": len(made.onnx)}
            send(answers, {**said, "is_known": False}, made.onnx + (made.words or b""))


def _made(name: str, given: list[str], known: str, *, progress: bool) -> Exported | None:
    """Build a network with weights, and export it by torch; None if their SHA-256 is known."""
    network = find_network(name)
    found = find_weights(network, *given, progress=progress)
    if found.sha256 == known:
        return None
    state, source = read_state(network, found), str(found.path)
    onnx = _checked(export_onnx(build(network, state, source=source), network), network, source)
    words = None
    if network.library == "open_clip":
        words = export_words(network, state, source=source)
        words = _checked_words(words, network, source)
    shapes = Shapes(network.input_size, network.dim)
    return Exported(onnx, network.name, shapes, found.name, found.sha256, words)


def _read_own(name: str) -> Exported:
    """Make one of our networks of a user's own."""
    from imgsearch.embedding.own import load

    path = path_of(name)
    network, onnx, sha256 = load(path)
    shapes = Shapes(network.input_size, network.dim)
    checked = _checked(onnx, network, str(path))
    return Exported(checked, network.name, shapes, str(path), sha256)


if __name__ == "__main__":
    main()
