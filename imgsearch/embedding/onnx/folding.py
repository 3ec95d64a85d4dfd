"""Replace what a graph computes from shapes by constants, except for the number of images.

torch's exporter writes a network that reshapes its tensors as a program that asks for their shapes
and computes with them: thousands of nodes for Swin. But all of that follows from the file and the
number of images. The model is therefore run once with each of two numbers of images. Results that
agree become constants; where they differ, the number of images is the difference.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnx

__all__ = ["Run", "fold_shapes"]

#: A function that runs a serialised model on a number of images, and returns the named outputs.
Run: TypeAlias = Callable[[bytes, list[str], int], list[npt.NDArray[Any]]]

_FEW, _MORE = 2, 3  # Numbers of images: not 1, which is broadcast.
_NEW, _REST = "shape of ", "rest"  # In the names of tensors.


def fold_shapes(serialised: bytes, run: Run, *, always: bool = False) -> bytes:
    """Return an equivalent model that computes with no shape but the number of images.

    Args:
        serialised: A model with the input `pixels` and the output `embedding`.
        run: See `Run`.
        always: Whether not to leave a model as it is that asks for one shape at most, and fills no
            tensor of a given shape: of what our own networks then do, all is known.

    Raises:
        ValueError: If the number of images is used for anything but the first axis of a tensor, or
            one axis of a new shape.
    """
    import onnx

    model = onnx.load_model_from_string(serialised)
    graph = model.graph
    used = [node.op_type for node in graph.node]
    if not always and used.count("Shape") < 2 and "ConstantOfShape" not in used:
        return serialised
    _broadcast(graph)
    _drop_unused(graph)
    _name_new_shapes(graph)
    names = _known(graph)
    few, more = (_values(model, names, run, count) for count in (_FEW, _MORE))
    _replace(graph, dict(zip(names, zip(few, more, strict=True), strict=True)))
    _drop_unused(graph)
    folded: bytes = model.SerializeToString()
    return folded


def _broadcast(graph: onnx.GraphProto) -> None:
    """Divide by a norm as it is, instead of expanding it to the shape of what it divides."""
    made = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        expand = made.get(node.input[1]) if node.op_type == "Div" else None
        if expand is not None and expand.op_type == "Expand":
            shape = made.get(expand.input[1])
            if shape is not None and (shape.op_type, shape.input[0]) == ("Shape", node.input[0]):
                node.input[1] = expand.input[0]


def _name_new_shapes(graph: onnx.GraphProto) -> None:
    """Have each `Reshape` whose shape is computed make the shape that its output turns out to have.

    Unlike the shape that it is given, this one never has a -1, and no other node uses it.
    """
    from onnx import helper

    stored = {tensor.name for tensor in graph.initializer}
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        graph.node.append(node)
        if node.op_type == "Reshape" and node.input[1] not in stored:
            (output,) = node.output
            graph.node.append(helper.make_node("Shape", [output], [f"{_NEW}{output}"]))


def _known(graph: onnx.GraphProto) -> list[str]:
    """Return the tensors that follow from shapes and are needed by nodes that do not."""
    known = {"", *(tensor.name for tensor in graph.initializer)}
    computed, needed = [], set()
    for node in graph.node:
        if node.op_type == "Shape" or known.issuperset(node.input):
            known.update(node.output)
            computed += node.output
        elif node.op_type == "Reshape":
            needed.add(f"{_NEW}{node.output[0]}")
            needed.add(node.input[0])
        else:
            needed.update(node.input)
    return [name for name in computed if name in needed]


def _values(
    model: onnx.ModelProto, names: list[str], run: Run, count: int
) -> list[npt.NDArray[Any]]:
    """Return the values of tensors for a number of images."""
    import onnx

    if not names:  # for which ONNX Runtime would return all outputs
        return []
    asked = onnx.ModelProto()
    asked.CopyFrom(model)
    asked.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return run(asked.SerializeToString(), names, count)


def _replace(
    graph: onnx.GraphProto, values: dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]]
) -> None:
    """Make constants of tensors, or simple functions of the number of images."""
    from onnx import numpy_helper

    nodes = [node for node in graph.node if values.keys().isdisjoint(node.output)]
    del graph.node[:]
    for name, (few, more) in values.items():
        if name.startswith(_NEW):
            few = more = np.where(few == more, few, -1)
            if (few < 0).sum() > 1:
                raise ValueError(f"two axes of {name} depend on the number of images")
        if not np.array_equal(few, more, equal_nan=True):
            few = _per_image(graph, name, few, more)
            name = f"{name} {_REST}"
        graph.initializer.append(numpy_helper.from_array(few, name))
    for node in nodes:
        if node.op_type == "Reshape" and f"{_NEW}{node.output[0]}" in values:
            node.input[1] = f"{_NEW}{node.output[0]}"
    graph.node.extend(nodes)


def _per_image(
    graph: onnx.GraphProto, name: str, few: npt.NDArray[Any], more: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    """Add nodes that compute a tensor from the number of images and a constant; return that."""
    from onnx import helper, numpy_helper

    images, rest = f"{name} images", f"{name} {_REST}"
    graph.node.append(helper.make_node("Shape", ["pixels"], [images], start=0, end=1))
    if few.ndim == 1 and (few[0], more[0]) == (_FEW, _MORE) and np.array_equal(few[1:], more[1:]):
        graph.node.append(helper.make_node("Concat", [images, rest], [name], axis=0))
        return few[1:]
    one = few[:1]
    repeats = [
        np.array_equal(each, one.repeat(len(each), 0), equal_nan=True) for each in (few, more)
    ]
    if (len(few), len(more)) != (_FEW, _MORE) or not all(repeats):
        raise ValueError(f"{name} depends on the number of images")
    shape, edges = f"{name} shape", f"{name} edges"
    graph.initializer.append(numpy_helper.from_array(np.array(one.shape[1:]), edges))
    graph.node.append(helper.make_node("Concat", [images, edges], [shape], axis=0))
    graph.node.append(helper.make_node("Expand", [rest, shape], [name]))
    return one


def _drop_unused(graph: onnx.GraphProto) -> None:
    needed = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if not needed.isdisjoint(node.output):
            needed.update(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    stored = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(stored)
    del graph.value_info[:]
