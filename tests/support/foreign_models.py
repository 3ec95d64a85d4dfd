"""Models that imgsearch did not export: what a hostile `model.onnx` may hold, by name."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from imgsearch.storage.layout import Layout
from imgsearch.storage.seal import seal
from tests.support.small_network import DIM, INPUT_SIZE, small_network

__all__ = ["FOREIGN", "foreign_model", "harmless_model", "put_model", "relus"]

Edges = list[str | int | None]


def put_model(directory: Path, model: bytes) -> None:
    """Make a model that of a collection, as its hostile maker would."""
    (directory / "model.onnx").write_bytes(model)
    digest = hashlib.sha256(model).hexdigest()
    with closing(sqlite3.connect(directory / "catalog.sqlite", isolation_level=None)) as catalog:
        catalog.execute("UPDATE model SET onnx_sha256 = ?", (digest,))
    seal(Layout(directory))


def _model(
    nodes: Sequence[onnx.NodeProto],
    tensors: Sequence[onnx.TensorProto] = (),
    *,
    opset: int = 17,
    names: tuple[str, str] = ("pixels", "embedding"),
    edges: Edges | None = None,
    **more: Any,
) -> onnx.ModelProto:
    edges = ["n", INPUT_SIZE, INPUT_SIZE, 3] if edges is None else edges
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info(names[0], TensorProto.UINT8, edges)],
        [helper.make_tensor_value_info(names[1], TensorProto.FLOAT, ["n", DIM])],
        tensors,
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, **more)


def _constant(name: str, values: Any) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values), name)


def _ours() -> onnx.ModelProto:
    return onnx.load_model_from_string(small_network())


def _outside(location: str, name: str = "secret") -> onnx.TensorProto:
    """Return a tensor whose data is in another file."""
    tensor = onnx.TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[1, DIM])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(4 * DIM))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def _added(tensor: onnx.TensorProto) -> onnx.ModelProto:
    """Return our network with a tensor that is added to every embedding."""
    model = _ours()
    model.graph.initializer.append(tensor)
    model.graph.node[-1].output[0] = "before"
    model.graph.node.append(helper.make_node("Add", ["before", tensor.name], ["embedding"]))
    return model


def _in_a_constant(location: str) -> onnx.ModelProto:
    model = _added(_constant("secret", np.zeros((1, DIM), np.float32)))
    del model.graph.initializer[-1]
    constant = helper.make_node("Constant", [], ["secret"], value=_outside(location))
    model.graph.node.insert(0, constant)
    return model


def _in_a_branch(location: str) -> onnx.ModelProto:
    embedding = helper.make_tensor_value_info("chosen", TensorProto.FLOAT, [1, DIM])
    node = helper.make_node("Identity", ["secret"], ["chosen"])
    branch = helper.make_graph([node], "branch", [], [embedding], [_outside(location)])
    choice = helper.make_node("If", ["yes"], ["embedding"], then_branch=branch, else_branch=branch)
    return _model([choice], [_constant("yes", True)])


def _in_a_function(location: str) -> onnx.ModelProto:
    constant = helper.make_node("Constant", [], ["y"], value=_outside(location))
    opsets = [helper.make_opsetid("", 17)]
    function = helper.make_function("mine", "Read", [], ["y"], [constant], opsets)
    model = _model([helper.make_node("Read", [], ["embedding"], domain="mine")])
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("mine", 1))
    return model


def _in_a_sparse_tensor(location: str) -> onnx.ModelProto:
    model = _ours()
    sparse = model.graph.sparse_initializer.add(dims=[1, DIM])
    sparse.values.CopyFrom(_outside(location))
    sparse.indices.CopyFrom(_constant("", np.zeros(DIM, np.int64)))
    return model


def _loop() -> onnx.ModelProto:
    number, go = (
        helper.make_tensor_value_info(name, kind, [])
        for name, kind in (("i", TensorProto.INT64), ("c", TensorProto.BOOL))
    )
    value, next_go, next_value = (
        helper.make_tensor_value_info(name, kind, None)
        for name, kind in (
            ("v", TensorProto.FLOAT),
            ("d", TensorProto.BOOL),
            ("w", TensorProto.FLOAT),
        )
    )
    nodes = [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Sin", ["v"], ["w"])]
    body = helper.make_graph(nodes, "body", [number, go, value], [next_go, next_value])
    loop = helper.make_node("Loop", ["often", "yes", "first"], ["embedding"], body=body)
    tensors = [
        _constant("often", np.int64(2**62)),
        _constant("yes", True),
        _constant("first", np.ones((1, DIM), np.float32)),
    ]
    return _model([loop], tensors)


def _scan() -> onnx.ModelProto:
    edge = helper.make_tensor_value_info("x", TensorProto.FLOAT, [DIM])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [DIM])
    body = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "body", [edge], [out])
    node = helper.make_node("Scan", ["first"], ["embedding"], body=body, num_scan_inputs=1)
    return _model([node], [_constant("first", np.ones((1, DIM), np.float32))])


def _reshaped(nodes: Sequence[onnx.NodeProto], *tensors: onnx.TensorProto) -> onnx.ModelProto:
    """Return a model that makes something huge, named "big", and takes a little of it."""
    end = [
        helper.make_node("ReduceMean", ["big"], ["one"], axes=[0]),
        helper.make_node("Expand", ["one", "shape"], ["embedding"]),
    ]
    return _model([*nodes, *end], [*tensors, _constant("shape", np.array([1, DIM]))])


def _huge_constant() -> onnx.ModelProto:
    node = helper.make_node("ConstantOfShape", ["many"], ["big"])
    return _reshaped([node], _constant("many", np.array([15_000_000_000])))


def _huge_tile() -> onnx.ModelProto:
    node = helper.make_node("Tile", ["few", "often"], ["big"])
    few = _constant("few", np.ones(1000, np.float32))
    return _reshaped([node], few, _constant("often", np.array([15_000_000])))


def _huge_expand() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Expand", ["one", "many"], ["big"]),
        helper.make_node("Flatten", ["big"], ["embedding"], axis=1),
    ]
    tensors = _constant("one", np.float32(1)), _constant("many", np.array([2, 7_500_000_000]))
    return _model(nodes, tensors)


def _expanded_by_pixels() -> onnx.ModelProto:
    """A model in which the pixels of an image say how much memory it takes."""
    nodes = [
        helper.make_node("Flatten", ["pixels"], ["flat"], axis=0),
        helper.make_node("Cast", ["flat"], ["shape"], to=TensorProto.INT64),
        helper.make_node("Expand", ["one", "shape"], ["embedding"]),
    ]
    return _model(nodes, [_constant("one", np.float32(1))])


def _huge_convolution() -> onnx.ModelProto:
    """A convolution of few bytes whose padding makes its output huge."""
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node(
            "Conv", ["planes", "kernel"], ["wide"], kernel_shape=[1, 1], pads=[60_000] * 4
        ),
        helper.make_node("Flatten", ["wide"], ["embedding"], axis=1),
    ]
    return _model(nodes, [_constant("kernel", np.ones((1, 3, 1, 1), np.float32))])


def _many_multiplications() -> onnx.ModelProto:
    """Convolutions that take no room and hours."""
    kernel = _constant("kernel", np.ones((3, 3, 299, 299), np.float32))
    pads = [149] * 4
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["x0"], perm=[0, 3, 1, 2]),
    ]
    nodes += [
        helper.make_node(
            "Conv", [f"x{n}", "kernel"], [f"x{n + 1}"], kernel_shape=[299, 299], pads=pads
        )
        for n in range(100)
    ]
    nodes.append(helper.make_node("Flatten", ["x100"], ["embedding"], axis=1))
    return _model(nodes, [kernel], edges=["n", 299, 299, 3])


def relus(*, apart: bool) -> bytes:
    """Return 600 ReLUs of an image of 299 x 299: each of the one before, or all of the first."""
    nodes = [
        helper.make_node("Cast", ["pixels"], ["r0"], to=TensorProto.FLOAT),
        *(
            helper.make_node("Relu", ["r0" if apart else f"r{n}"], [f"r{n + 1}"])
            for n in range(600)
        ),
        helper.make_node("Add", ["r600", "r600"], ["s600"]),
        *(
            helper.make_node("Add", [f"s{n + 1}", f"r{n}" if apart else f"s{n + 1}"], [f"s{n}"])
            for n in reversed(range(600))
        ),
        helper.make_node("Flatten", ["s0"], ["embedding"], axis=1),
    ]
    return _serialised(_model(nodes, edges=["n", 299, 299, 3]))


def _nodes(count: int) -> onnx.ModelProto:
    model = _ours()
    model.graph.node[-1].output[0] = "x0"
    model.graph.node.extend(
        helper.make_node("Relu", [f"x{n}"], [f"x{n + 1}"]) for n in range(count)
    )
    model.graph.node.append(helper.make_node("Identity", [f"x{count}"], ["embedding"]))
    return model


def _of_the_domain(domain: str) -> onnx.ModelProto:
    model = _ours()
    model.graph.node[0].domain = domain
    model.opset_import.append(helper.make_opsetid(domain, 1))
    return model


def _renamed() -> onnx.ModelProto:
    model = _ours()
    model.graph.input[0].name = "image"
    model.graph.node[0].input[0] = "image"
    return model


def _with_a_second_input() -> onnx.ModelProto:
    model = _ours()
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
    return model


def _of_strings() -> onnx.ModelProto:
    model = _ours()
    model.graph.initializer.append(numpy_helper.from_array(np.array(["a"], object), "words"))
    return model


def _with_a_short_tensor() -> onnx.ModelProto:
    model = _ours()
    model.graph.initializer[1].dims.extend([1_000_000, 1_000_000])
    return model


def _with_training() -> onnx.ModelProto:
    model = _ours()
    model.training_info.add().algorithm.name = "again"
    return model


def _computed_twice() -> onnx.ModelProto:
    model = _ours()
    model.graph.node.append(helper.make_node("Identity", ["flat"], ["centred"]))
    return model


def _merged() -> bytes:
    """Return our network twice: protocol buffers merge the two graphs into one."""
    return small_network() + small_network()


def _atan() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["floats"], ["flat"], axis=1),
        helper.make_node("Sub", ["flat", "middle"], ["centred"]),
        helper.make_node("Atan", ["centred"], ["bent"]),
        helper.make_node("LpNormalization", ["bent"], ["embedding"], axis=1, p=2),
    ]
    return _model(nodes, [_constant("middle", np.float32(127.5))])


_MAKERS: dict[str, Callable[[], onnx.ModelProto | bytes]] = {
    "a convolution of huge padding": _huge_convolution,
    "a function that reads a file": lambda: _in_a_function("../secret"),
    "a graph that is merged": _merged,
    "a huge Expand": _huge_expand,
    "a huge constant": _huge_constant,
    "a huge tile": _huge_tile,
    "a loop": _loop,
    "a name computed twice": _computed_twice,
    "a name that is not pixels": _renamed,
    "a scan": _scan,
    "a second input": _with_a_second_input,
    "a tensor of strings": _of_strings,
    "a tensor shorter than its shape": _with_a_short_tensor,
    "another version of the operators": lambda: _model(_ours().graph.node, opset=13),
    "data in a branch": lambda: _in_a_branch("secret"),
    "data in a constant": lambda: _in_a_constant("../secret"),
    "data in a file above": lambda: _added(_outside("../../secret")),
    "data in a file beside": lambda: _added(_outside("secret")),
    "data in a file by its path": lambda: _added(_outside("/etc/passwd")),
    "data in a sparse tensor": lambda: _in_a_sparse_tensor("/etc/passwd"),
    "hours of multiplications": _many_multiplications,
    "many values at once": lambda: relus(apart=True),
    "operators of Microsoft": lambda: _of_the_domain("com.microsoft"),
    "operators of nobody": lambda: _of_the_domain("mine"),
    "pixels that say how much memory": _expanded_by_pixels,
    "too many nodes": lambda: _nodes(100_000),
    "training": _with_training,
}


def _serialised(model: onnx.ModelProto | bytes) -> bytes:
    return model if isinstance(model, bytes) else model.SerializeToString()


#: The hostile models; `foreign_model` makes one.
FOREIGN = tuple(_MAKERS)


def foreign_model(name: str) -> bytes:
    """Return a model of `FOREIGN`."""
    return _serialised(_MAKERS[name]())


def harmless_model() -> bytes:
    """Return a model that imgsearch did not export and that works: one with an `Atan`."""
    return _serialised(_atan())
