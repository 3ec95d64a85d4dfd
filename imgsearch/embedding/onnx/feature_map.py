"""Expose the feature map of a model: the tensor that its global average pooling takes.

The model file stays as it is. In memory, an output that names the tensor is appended: a second
field `graph` of an `onnx.ModelProto` is merged with the first one (Protocol Buffers, "Last One
Wins"), so that no other byte has to change.
"""

from __future__ import annotations

from imgsearch.embedding.onnx.graph import read_graph
from imgsearch.embedding.onnx.protobuf import ForeignError, field

__all__ = ["with_feature_map"]

_GRAPH, _OUTPUT, _NAME = 7, 12, 1  # Fields of ModelProto, GraphProto and ValueInfoProto.


def with_feature_map(serialised: bytes) -> tuple[bytes, str]:
    """Return a model with its feature map as another output, and the name of that output.

    Args:
        serialised: A model that `imgsearch.embedding.onnx.check.check_model` accepts.

    Raises:
        MalformedError: If the bytes are not an ONNX model.
        ForeignError: If the model does not have exactly one global average pooling.
    """
    pools = [node for node in read_graph(serialised).nodes if node.operator == "GlobalAveragePool"]
    if len(pools) != 1:
        raise ForeignError(f"{len(pools)} global average poolings")
    (name,) = pools[0].inputs
    output = field(_OUTPUT, field(_NAME, name.encode()))
    return serialised + field(_GRAPH, output), name
