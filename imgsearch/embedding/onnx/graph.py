"""Read an ONNX file into plain values, accepting only what imgsearch's own models contain.

ONNX is a protocol buffer. This module reads the few messages and fields that torch's exporter
writes. Anything else in a file, which ONNX Runtime may well act on, makes it a foreign one, which
is refused before any other code sees it: graphs inside nodes, functions, sparse tensors, tensors
whose data is in another file.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple, TypeAlias, TypeVar

from imgsearch.embedding.onnx.protobuf import (
    Field,
    ForeignError,
    MalformedError,
    Message,
    passed_over,
    read,
)

__all__ = [
    "FLOAT",
    "INT64",
    "UINT8",
    "Edge",
    "Graph",
    "Node",
    "Tensor",
    "read_graph",
]

_T = TypeVar("_T")

FLOAT, UINT8, INT64 = 1, 2, 7  # Element types of onnx.TensorProto.

_EXTERNAL = "a tensor whose data is in another file"

KNOWN = 64  # Maximum integers to read of a tensor: a shape, or indices.
LONGEST = 1 << 40  # Maximum edge of a tensor.

_ITEM = {FLOAT: 4, INT64: 8}  # Bytes per element of a stored tensor.


class Tensor(NamedTuple):
    """A stored tensor: its element type, its shape, and its values if they are few integers."""

    kind: int
    shape: tuple[int, ...]
    values: tuple[int, ...] | None


Attribute: TypeAlias = int | tuple[int, ...] | Tensor | str | None


class Node(NamedTuple):
    """An operation; an omitted input has the name "", and an attribute that is a float None."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Attribute]


class Edge(NamedTuple):
    """An input or output of the graph, whose shape has None for an axis of any length."""

    name: str
    kind: int
    shape: tuple[int | None, ...]


class Graph(NamedTuple):
    """The computation of a model, with the version of ONNX's operators that it uses."""

    opset: int
    inputs: list[Edge]
    outputs: list[Edge]
    tensors: dict[str, Tensor]
    nodes: list[Node]


def read_graph(serialised: bytes) -> Graph:
    """Read a serialised `onnx.ModelProto`.

    Raises:
        MalformedError: If the bytes are not a model.
        ForeignError: If the model contains something that our own models never contain.
    """
    model = read(_MODEL, serialised)
    if "graph" not in model:
        raise MalformedError
    opsets, graph = model.get("opset", []), model["graph"]
    if len(opsets) != 1:
        raise ForeignError(f"{len(opsets)} sets of operators")
    _check_domain(opsets[0])
    tensors = [_tensor(each) for each in graph.get("tensor", [])]
    return Graph(
        opset=opsets[0].get("version", 0),
        inputs=[_edge(each) for each in graph.get("input", [])],
        outputs=[_edge(each) for each in graph.get("output", [])],
        tensors=_by_name(tensors),
        nodes=[_node(each) for each in graph.get("node", [])],
    )


def _tensor(found: dict[str, Any]) -> tuple[str, Tensor]:
    kind, shape = found.get("kind", 0), tuple(found.get("shape", ()))
    if kind not in _ITEM:
        raise ForeignError("a tensor of a type that exported models do not have")
    if found.get("elsewhere"):
        raise ForeignError(_EXTERNAL)
    if not all(0 < edge < LONGEST for edge in shape):
        raise ForeignError("a tensor without a size, or with an impossible one")
    floats, ints, raw = found.get("floats", 0), found.get("ints", []), found.get("raw")
    stored = {FLOAT: 4 * floats, INT64: 8 * len(ints)}
    if raw is not None:
        stored[kind] += len(raw)
    size = prod(shape)
    if sum(stored.values()) != stored[kind] or stored[kind] != size * _ITEM[kind]:
        raise ForeignError("a tensor whose content does not fit its shape")
    values = None
    if kind == INT64 and size <= KNOWN:
        values = tuple(ints) if raw is None else tuple(raw.cast("q"))
    return found.get("name", ""), Tensor(kind, shape, values)


def _edge(found: dict[str, Any]) -> Edge:
    of_tensor = found.get("type", {}).get("tensor", {})
    lengths = of_tensor.get("shape", {}).get("lengths", [])
    shape = tuple(each.get("length") for each in lengths)
    return Edge(found.get("name", ""), of_tensor.get("kind", 0), shape)


def _node(found: dict[str, Any]) -> Node:
    _check_domain(found)
    attributes = [(each.get("name", ""), _attribute(each)) for each in found.get("attribute", [])]
    return Node(
        found.get("operator", ""),
        tuple(found.get("input", ())),
        tuple(found.get("output", ())),
        _by_name(attributes),
    )


def _attribute(found: dict[str, Any]) -> Attribute:
    values: list[Attribute] = []
    if "int" in found:
        values.append(found["int"])
    if "ints" in found:
        values.append(tuple(found["ints"]))
    if "tensor" in found:
        values.append(_tensor(found["tensor"])[1])
    if "text" in found:
        values.append(found["text"])
    if "float" in found:
        values.append(None)
    if len(values) != 1:
        raise ForeignError("an attribute with no value, or with two")
    return values[0]


def _by_name(pairs: list[tuple[str, _T]]) -> dict[str, _T]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ForeignError("two values of the same name")
    return found


def _check_domain(found: dict[str, Any]) -> None:
    if found.get("domain", "") not in ("", "ai.onnx"):
        raise ForeignError(f"operators of {found['domain'][:40]!r}")


_TENSOR = Message(
    "tensor",
    Field(1, "shape", "ints", many=True),
    Field(2, "kind", "int"),
    Field(4, "floats", "floats", many=True),
    Field(7, "ints", "ints", many=True),
    Field(8, "name", "text"),
    Field(9, "raw", "bytes"),
    Field(14, "elsewhere", "int"),
    *passed_over(12, 16),  # Notes.
    called={13: _EXTERNAL},
)
_ATTRIBUTE = Message(
    "attribute",
    Field(1, "name", "text"),
    Field(2, "float", "floats"),
    Field(3, "int", "int"),
    Field(4, "text", "text"),
    Field(5, "tensor", _TENSOR),
    Field(8, "ints", "ints", many=True),
    *passed_over(13, 20),  # A note, and the type, which the value shows.
    called={6: "a graph inside a node", 11: "graphs inside a node"},
)
_NODE = Message(
    "node",
    Field(1, "input", "text", many=True),
    Field(2, "output", "text", many=True),
    Field(4, "operator", "text"),
    Field(5, "attribute", _ATTRIBUTE, many=True),
    Field(7, "domain", "text"),
    *passed_over(3, 6, 9),  # A name and notes.
)
_LENGTH = Message("shape", Field(1, "length", "int"), *passed_over(2, 3))  # Names.
_SHAPE = Message("shape", Field(1, "lengths", _LENGTH, many=True))
_TENSOR_TYPE = Message("type", Field(1, "kind", "int"), Field(2, "shape", _SHAPE))
_TYPE = Message("type", Field(1, "tensor", _TENSOR_TYPE), *passed_over(6))
_EDGE = Message("input", Field(1, "name", "text"), Field(2, "type", _TYPE), *passed_over(3, 4))
_GRAPH = Message(
    "graph",
    Field(1, "node", _NODE, many=True),
    Field(5, "tensor", _TENSOR, many=True),
    Field(11, "input", _EDGE, many=True),
    Field(12, "output", _EDGE, many=True),
    *passed_over(2, 10, 13, 16),  # A name, notes, and shapes that ONNX Runtime infers as well.
    called={15: "sparse tensors"},
)
_OPSET = Message("opset", Field(1, "domain", "text"), Field(2, "version", "int"))
_MODEL = Message(
    "model",
    Field(7, "graph", _GRAPH),
    Field(8, "opset", _OPSET, many=True),
    *passed_over(1, 2, 3, 4, 5, 6, 14),  # The version of the format, its producer, and notes.
    called={20: "training", 25: "functions"},
)
