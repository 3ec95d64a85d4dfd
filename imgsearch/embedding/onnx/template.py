"""Fill the template of a network with weights, without torch and its exporter.

A template, a `.graph` in this folder, is the `onnx.GraphProto` that torch exports, with short
names, and without the weights and biases of its convolutions; `python -m
tests.embedding.make_template` makes them. The fields of a protocol buffer may be in any order, so
that the weights are simply appended.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from imgsearch.embedding.onnx.graph import FLOAT
from imgsearch.embedding.onnx.protobuf import field

__all__ = ["TEMPLATES", "fill_template", "template"]


class _Template(NamedTuple):
    """What a template takes of a state dict.

    Attributes:
        convolutions: Number of convolutions. Their weights and biases are called weight0, bias0,
            weight1, and so on.
        tensors: Number of tensors in the state dict, of which those of the convolutions come first.
        epsilon: What the batch normalisation adds to the variance.
    """

    convolutions: int
    tensors: int
    epsilon: float


_TENSORS = 6  # For each convolution, and the normalisation that follows it.
_LINEAR = 2  # For a fully connected layer.

#: The networks that have a template.
TEMPLATES = {
    "mobilenet_v2": _Template(52, 52 * _TENSORS, 1e-5),
    "mobilenet_v2_320": _Template(51, 52 * _TENSORS, 1e-5),
    "efficientnet_lite0": _Template(49, 49 * _TENSORS + _LINEAR, 1e-3),
    "efficientnet_lite2": _Template(64, 64 * _TENSORS + _LINEAR, 1e-3),
}
IR_VERSION, OPSET = 8, 17  # Versions of the format and of its operators.

# Fields of ModelProto, OperatorSetIdProto, GraphProto and TensorProto.
_IR_VERSION, _GRAPH, _OPSET, _VERSION, _INITIALIZER = 1, 7, 8, 2, 5
_DIMS, _DATA_TYPE, _NAME, _RAW_DATA = 1, 2, 8, 9


def template(name: str) -> Path:
    """Return the path of the template of a network."""
    return Path(__file__).with_name(f"{name}.graph")


def fill_template(name: str, tensors: Sequence[npt.NDArray[Any]]) -> bytes:
    """Return a network as an ONNX model, as `imgsearch.embedding.models.export_onnx` does.

    Each batch normalisation is folded into the convolution before it, with the operations of
    torch's exporter, in single precision. The result is the same on every machine, whereas torch's
    differs in the last bit, because its square root does.

    Args:
        name: A network in `TEMPLATES`.
        tensors: The state dict that the package with its weights carries, in its order: the weights
            of each convolution, followed by the weight, bias, mean, variance and number of batches
            of its normalisation; then the classifier, if it has one.

    Raises:
        ValueError: If the tensors are others.
    """
    graph = template(name).read_bytes()
    opset = field(_VERSION, OPSET)
    weights = b"".join(field(_INITIALIZER, tensor) for tensor in _initializers(name, tensors))
    return field(_IR_VERSION, IR_VERSION) + field(_OPSET, opset) + field(_GRAPH, graph + weights)


def _initializers(name: str, tensors: Sequence[npt.NDArray[Any]]) -> Iterator[bytes]:
    wanted = TEMPLATES[name]
    epsilon = np.float32(wanted.epsilon)
    if len(tensors) != wanted.tensors:
        raise ValueError(f"{len(tensors)} tensors")
    for number in range(wanted.convolutions):
        weight, *normalisation, _ = tensors[number * _TENSORS : (number + 1) * _TENSORS]
        if weight.ndim != 4 or {each.shape for each in normalisation} != {weight.shape[:1]}:
            raise ValueError(f"tensors of other shapes for convolution {number}")
        gamma, beta, mean, variance = normalisation
        scale = gamma / np.sqrt(variance + epsilon)
        yield _tensor(f"weight{number}", weight * scale.reshape(-1, 1, 1, 1))
        yield _tensor(f"bias{number}", beta - mean * scale)


def _tensor(name: str, values: npt.NDArray[Any]) -> bytes:
    shape = b"".join(field(_DIMS, edge) for edge in values.shape)
    kind, data = field(_DATA_TYPE, FLOAT), values.astype("<f4").tobytes()
    return shape + kind + field(_NAME, name.encode()) + field(_RAW_DATA, data)
