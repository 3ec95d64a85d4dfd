"""The operators of exported models: their shapes are those that ONNX Runtime computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from imgsearch.embedding.onnx.check import BATCH
from imgsearch.embedding.onnx.graph import UINT8, read_graph
from imgsearch.embedding.onnx.operators import output_shape
from imgsearch.embedding.onnx.protobuf import ForeignError
from imgsearch.embedding.runtime import run_once

SIZE = 6  # of the images, whose values are called `x`, of the shape [BATCH, SIZE, SIZE, 3]

FINE: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("Einsum", [np.ones((4, 6, 3))], {"equation": "n h w c, d w c -> n d h"}),
    ("Gemm", [np.ones((5, 3)), np.ones(5)], {"transB": 1, "alpha": 0.5}),
    ("Gemm", [np.ones((3, 5))], {}),
    ("LayerNormalization", [np.ones(3), np.ones(3)], {"axis": -1, "epsilon": 1e-6}),
    ("MatMul", [np.ones((3, 4))], {}),
    ("MatMul", [np.ones((2, 6, 3, 4))], {}),
    ("Pad", [np.array([0, 1, 0, 0, 0, 0, 2, 0])], {"mode": "constant"}),
    ("Pad", [np.array([0, 1, 0, 0, 0, 0, 2, 0]), np.float32(1)], {}),
    ("ReduceMean", [], {"axes": [1, -2], "keepdims": 0}),
    ("ReduceMean", [], {"axes": [2]}),
    ("Slice", [np.array([1]), np.array([2**62]), np.array([1]), np.array([2])], {}),
    ("Slice", [np.array([-3, 0]), np.array([-1, 2]), np.array([1, -1])], {}),
    ("Softmax", [], {"axis": 1}),
    ("Sigmoid", [], {}),
    ("HardSigmoid", [], {"alpha": 0.2}),
]

WRONG: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("Einsum", [np.ones((4, 6, 3))], {"equation": "nhwc,dcw->ndh"}),
    ("Einsum", [np.ones((4, 6, 3))], {"equation": "nhwc,dwc->nz"}),
    ("Einsum", [np.ones((4, 6, 3))], {"equation": "...c,dwc->..."}),
    ("Gemm", [np.ones((5, 4))], {}),
    ("Gemm", [np.ones((3, 5)), np.ones(4)], {}),
    ("LayerNormalization", [np.ones(4), np.ones(3)], {"axis": -1}),
    ("MatMul", [np.ones((4, 3))], {}),
    ("MatMul", [np.ones((2, 5, 3, 4))], {}),
    ("Pad", [np.array([0, -1, 0, 0, 0, 0, 2, 0])], {}),
    ("Pad", [np.array([0, 1, 0, 0, 0, 0, 2, 0])], {"mode": "wrap"}),
    ("Pad", [np.array([0, 1])], {}),
    ("Pad", [np.array([0, 1, 0, 0, 0, 0, 2, 0]), np.ones(2, np.float32)], {}),
    ("ReduceMean", [], {"axes": [4]}),
    ("ReduceMean", [], {"axes": [1, 1]}),
    ("Slice", [np.array([1]), np.array([5]), np.array([1]), np.array([0])], {}),
    ("Slice", [np.array([5]), np.array([5]), np.array([1])], {}),
    ("Slice", [np.array([1]), np.array([5])], {}),
    ("Softmax", [], {"axis": 4}),
    ("Split", [np.array([3, 2])], {"axis": 1}),
    ("Split", [np.array([7])], {"axis": 1}),
    ("Split", [], {"axis": 4}),
    ("Squeeze", [np.array([1])], {}),
]


def _graph(operator: str, inputs: list[Any], attributes: dict[str, Any]) -> bytes:
    constants = [
        numpy_helper.from_array(each.astype(np.float32) if each.dtype == float else each, f"c{n}")
        for n, each in enumerate(inputs)
    ]
    flat = "Gemm" if operator == "Gemm" else ""
    nodes = [
        helper.make_node("Cast", ["pixels"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["x", "rows"], ["flat"]),
        helper.make_node(
            operator,
            ["flat" if flat else "x", *(each.name for each in constants)],
            ["embedding"],
            **attributes,
        ),
    ]
    constants.append(numpy_helper.from_array(np.array([-1, 3]), "rows"))
    graph = helper.make_graph(
        nodes,
        "one operator",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", SIZE, SIZE, 3])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, None)],
        constants,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    serialised: bytes = made.SerializeToString()
    return serialised


def _shape(model: bytes) -> tuple[int, ...]:
    return output_shape(read_graph(model), {"pixels": (UINT8, (BATCH, SIZE, SIZE, 3))})


@pytest.mark.parametrize(("operator", "inputs", "attributes"), FINE)
def test_a_shape_is_the_one_that_is_computed(
    operator: str, inputs: list[Any], attributes: dict[str, Any]
) -> None:
    model = _graph(operator, inputs, attributes)
    assert _shape(model) == run_once(model, ["embedding"], BATCH)[0].shape


@pytest.mark.parametrize(("operator", "inputs", "attributes"), WRONG)
def test_an_operator_on_other_inputs_is_foreign(
    operator: str, inputs: list[Any], attributes: dict[str, Any]
) -> None:
    with pytest.raises(ForeignError):
        _shape(_graph(operator, inputs, attributes))


def _model(nodes: list[Any], stored: list[Any]) -> bytes:
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", SIZE, SIZE, 3])
    embedding = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, None)
    first = helper.make_node("Cast", ["pixels"], ["x"], to=TensorProto.FLOAT)
    graph = helper.make_graph([first, *nodes], "several", [pixels], [embedding], stored)
    opset = [helper.make_opsetid("", 17)]
    made = helper.make_model(graph, opset_imports=opset, ir_version=8)
    serialised: bytes = made.SerializeToString()
    return serialised


@pytest.mark.parametrize(("at", "parts"), [([2, 4], 2), ([1, 2, 3], 3), (None, 3)])
def test_the_parts_of_a_split_have_the_shapes_that_are_computed(
    at: list[int] | None, parts: int
) -> None:
    made = [f"part {number}" for number in range(parts)]
    nodes = [
        helper.make_node("Split", ["x", *(["at"] if at else [])], made, axis=1),
        helper.make_node("Concat", [*made[1:], made[-1]], ["embedding"], axis=1),
    ]
    model = _model(nodes, [numpy_helper.from_array(np.array(at), "at")] if at else [])
    assert _shape(model) == run_once(model, ["embedding"], BATCH)[0].shape


def test_a_node_with_more_outputs_than_it_makes_is_foreign() -> None:
    with pytest.raises(ForeignError, match="a node with 2 outputs"):
        _shape(_model([helper.make_node("Relu", ["x"], ["embedding", "other"])], []))
