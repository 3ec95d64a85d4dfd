"""Make the templates of the networks that need no torch from torch's export: `python -m
tests.embedding.make_template`.

They are made again when a network or its export changes, as a test says.
"""

from __future__ import annotations

import onnx

from imgsearch.embedding.models import build, export_onnx, find_network
from imgsearch.embedding.onnx.template import TEMPLATES, template
from imgsearch.embedding.weights import find_weights, read_state


def make_template(name: str, exported: bytes) -> bytes:
    """Return the graph of a model that torch exported, without what it is filled with.

    Names are short and numbered in the order of the nodes: torch's tell how torchvision's modules
    are nested, and some change with each release.
    """
    graph = onnx.load_model_from_string(exported).graph
    kept = {"pixels", "embedding", "scale", "shift", ""}
    names = {name: name for name in kept}
    filled: list[str] = []
    stored = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Conv":
            _, weight, bias = node.input
            number = len(filled) // 2
            names[weight], names[bias] = f"weight{number}", f"bias{number}"
            filled += weight, bias
        for tensor in (*sorted(stored.intersection(node.input)), *node.output):
            names.setdefault(tensor, f"t{len(names)}")
        node.input[:] = [names[name] for name in node.input]
        node.output[:] = [names[name] for name in node.output]
        node.ClearField("name")
    left = [tensor for tensor in graph.initializer if tensor.name not in filled]
    for tensor in left:
        tensor.name = names[tensor.name]
    del graph.initializer[:]
    graph.initializer.extend(left)
    graph.name = name
    serialised: bytes = graph.SerializeToString(deterministic=True)
    return serialised


def main() -> None:
    """Write the templates into the package."""
    for name in TEMPLATES:
        network = find_network(name)
        weights = find_weights(network)
        module = build(network, read_state(network, weights), source=str(weights.path))
        template(name).write_bytes(make_template(name, export_onnx(module, network)))


if __name__ == "__main__":
    main()
