"""Tell models that imgsearch exported from foreign ones, by the operations they consist of.

A model is run in this process, without limits, only if none of its operations can take long, use
much memory or touch a file. To check this, the model is traversed as ONNX Runtime would run it,
with shapes in place of values: each operation must be one that the exporter writes
(`imgsearch.embedding.models`), on tensors whose shapes follow from the file alone, and the total
cost is bounded.

Every query waits for this check, so all its values are named tuples: a dataclass takes six times as
long to define.
"""

from __future__ import annotations

from imgsearch.embedding.models import Shapes
from imgsearch.embedding.onnx.graph import FLOAT, INT64, UINT8, Edge, Graph, read_graph
from imgsearch.embedding.onnx.operators import output_shape
from imgsearch.embedding.onnx.protobuf import ForeignError

__all__ = ["BATCH", "MOST_BYTES", "check_model", "check_words"]

MOST_BYTES = (2 << 30) - 1  # Maximum size of a protocol buffer.

BATCH = 2  # Images that a worker runs at once; one image costs less.

OPSETS = (17,)
NODES = 2_000  # Inception v3 has 333, EfficientNetV2-L 1,334.
MOST_TOKENS = 1_000  # CLIP has 77.


def check_model(serialised: bytes) -> Shapes:
    """Check that a model is one that imgsearch could have exported.

    Raises:
        MalformedError: If the bytes are not an ONNX model.
        ForeignError: If the model is a foreign one, or costs more to run than ours do.
    """
    graph = _read(serialised)
    size = _input_size(graph)
    return Shapes(size, _dim(graph, {"pixels": (UINT8, (BATCH, size, size, 3))}, BATCH))


def check_words(serialised: bytes) -> tuple[int, int]:
    """Check that a text tower is one that imgsearch could have exported.

    Returns:
        The number of tokens that it takes, and the length of an embedding.

    Raises:
        MalformedError: If the bytes are not an ONNX model.
        ForeignError: If the model is a foreign one, or costs more to run than ours do.
    """
    graph = _read(serialised)
    match graph.inputs, graph.outputs:
        case (
            [Edge("tokens", kind, (1, int(length))), Edge("end", other, (1,))],
            [Edge("embedding", made, (1, _))],
        ) if (kind, other, made) == (INT64, INT64, FLOAT) and 0 < length <= MOST_TOKENS:
            return length, _dim(graph, {"tokens": (INT64, (1, length)), "end": (INT64, (1,))}, 1)
    raise ForeignError("inputs and outputs that no text tower has")


def _read(serialised: bytes) -> Graph:
    graph = read_graph(serialised)
    if graph.opset not in OPSETS:
        raise ForeignError(f"version {graph.opset} of the operators")
    if len(graph.nodes) > NODES:
        raise ForeignError(f"{len(graph.nodes):,} nodes")
    return graph


def _dim(graph: Graph, inputs: dict[str, tuple[int, tuple[int, ...]]], count: int) -> int:
    """Return the length of each of `count` embeddings that a graph makes of inputs."""
    match output_shape(graph, inputs):
        case (found, dim) if found == count:
            return dim
        case shape:
            raise ForeignError(f"an output of the shape {list(shape)}")


def _input_size(graph: Graph) -> int:
    names = [edge.name for edge in graph.inputs], [edge.name for edge in graph.outputs]
    if names != (["pixels"], ["embedding"]):
        raise ForeignError("inputs and outputs with other names")
    (pixels,), (embedding,) = graph.inputs, graph.outputs
    match pixels.shape:
        case (None, int(height), int(width), 3) if height == width > 0:
            pass
        case _:
            raise ForeignError(f"an input of the shape {list(pixels.shape)}")
    if (pixels.kind, embedding.kind) != (UINT8, FLOAT) or len(embedding.shape) != 2:
        raise ForeignError("inputs and outputs with other types")
    return height
