"""The operations that there may be in a model of our own: the shapes they give, and their cost.

They are what torch's exporter writes of the networks of `imgsearch.embedding.models`, on the inputs
and with the attributes that it gives them, and `Sub`, `Reshape` and `LpNormalization`, which can do
as little harm.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from imgsearch.embedding.onnx.graph import FLOAT, INT64, Node, Tensor
from imgsearch.embedding.onnx.protobuf import ForeignError
from imgsearch.embedding.onnx.values import WINDOWS, Call, Cost, Shape, Value, stored

__all__ = ["compute"]


def compute(node: Node, given: list[Value | None], cost: Cost) -> Value:
    """Return the output of a node.

    Args:
        node: the operation.
        given: its inputs, None for one that is left out.
        cost: what the node costs is added to it.

    Raises:
        ForeignError: it is none of ours, not on these inputs, or it costs too much.
    """
    if node.operator not in _OPERATORS:
        raise ForeignError(f"the operator {node.operator[:40]!r}")
    operator, attributes = _OPERATORS[node.operator]
    unknown = node.attributes.keys() - set(attributes)
    if unknown:
        raise ForeignError(f"the operator {node.operator} with the attribute {min(unknown)[:40]!r}")
    return operator(Call(node, given, cost))


def _constant(call: Call) -> Value:
    call.take()
    value = call.node.attributes.get("value")
    if not isinstance(value, Tensor):
        raise call.foreign()
    return stored(value)


def _identity(call: Call) -> Value:
    (value,) = call.given if len(call.given) == 1 else (None,)
    if value is None:
        raise call.foreign()
    return value


def _cast(call: Call) -> Value:
    value, to = _identity(call), call.number("to")
    if to != FLOAT:
        raise call.foreign()
    return Value(FLOAT, value.shape)


def _transpose(call: Call) -> Value:
    value = _identity(call)
    order = call.numbers("perm", len(value.shape))
    if sorted(order) != list(range(len(order))):
        raise call.foreign()
    return Value(value.kind, tuple(value.shape[axis] for axis in order))


def _element_wise(call: Call) -> Value:
    left, right = call.take(FLOAT, FLOAT)
    return Value(FLOAT, _broadcast(call, left.shape, right.shape))


def _broadcast(call: Call, left: Shape, right: Shape) -> Shape:
    rank = max(len(left), len(right))
    shape = []
    for one, other in zip(_filled(left, rank), _filled(right, rank), strict=True):
        if one != other and 1 not in (one, other):
            raise call.foreign()
        shape.append(max(one, other))
    return tuple(shape)


def _filled(shape: Shape, rank: int) -> Shape:
    return (1,) * (rank - len(shape)) + shape


def _relu(call: Call) -> Value:
    (value,) = call.take(FLOAT)
    return Value(FLOAT, value.shape)


def _clip(call: Call) -> Value:
    value, *bounds = call.given
    if value is None or value.kind != FLOAT or len(bounds) > 2:
        raise call.foreign()
    for bound in bounds:
        if bound is not None and (bound.kind, bound.shape) != (FLOAT, ()):
            raise call.foreign()
    return Value(FLOAT, value.shape)


def _conv(call: Call) -> Value:
    value, kernel, *bias = call.take(*[FLOAT] * len(call.given))
    if len(value.shape) != 4 or len(kernel.shape) != 4 or len(bias) > 1:
        raise call.foreign()
    images, channels, *_ = value.shape
    given, taken, *window = kernel.shape
    groups = call.number("group", 1)
    if groups < 1 or channels != taken * groups or given % groups:
        raise call.foreign()
    if bias and bias[0].shape != (given,):
        raise call.foreign()
    if call.numbers("kernel_shape", 2) != tuple(window):
        raise call.foreign()
    shape = images, given, *_slid(call, value.shape[2:])
    products = prod(shape) * prod(window) * taken
    if products // given * groups > WINDOWS:
        raise ForeignError("a convolution of a huge window")
    call.cost.add_products(products)
    return Value(FLOAT, shape)


def _pool(call: Call) -> Value:
    (value,) = call.take(FLOAT)
    if len(value.shape) != 4:
        raise call.foreign()
    shape = *value.shape[:2], *_slid(call, value.shape[2:])
    call.cost.add_products(prod(shape) * prod(call.numbers("kernel_shape", 2)))
    return Value(FLOAT, shape)


def _slid(call: Call, shape: Shape) -> Shape:
    """Return the height and width of what a window gives that slides over an image."""
    window = call.numbers("kernel_shape", 2)
    strides = call.numbers("strides", 2, (1, 1))
    steps = call.numbers("dilations", 2, (1, 1))
    pads = call.numbers("pads", 4, (0, 0, 0, 0))
    if call.number("ceil_mode", 0) not in (0, 1) or call.number("count_include_pad", 0) not in (
        0,
        1,
    ):
        raise call.foreign()
    found = []
    for axis in (0, 1):
        reach = (window[axis] - 1) * steps[axis] + 1
        before, after = pads[axis], pads[axis + 2]
        if min(window[axis], strides[axis], steps[axis]) < 1:
            raise call.foreign()
        if not (0 <= before < reach and 0 <= after < reach):
            raise call.foreign()
        room = shape[axis] + before + after - reach
        if room < 0:
            raise call.foreign()
        rounded_up = call.number("ceil_mode", 0) * (strides[axis] - 1)
        found.append((room + rounded_up) // strides[axis] + 1)
    return tuple(found)


def _global_pool(call: Call) -> Value:
    (value,) = call.take(FLOAT)
    if len(value.shape) != 4:
        raise call.foreign()
    return Value(FLOAT, (*value.shape[:2], 1, 1))


def _flatten(call: Call) -> Value:
    value = _identity(call)
    axis = call.axis(call.number("axis", 1), len(value.shape))
    return Value(value.kind, (prod(value.shape[:axis]), prod(value.shape[axis:])))


def _length(call: Call) -> Value:
    (value,) = call.take(FLOAT)
    (axis,) = call.numbers("axes", 1)
    axis = call.axis(axis, len(value.shape))
    if call.number("keepdims", 1) != 1:
        raise call.foreign()
    return Value(FLOAT, (*value.shape[:axis], 1, *value.shape[axis + 1 :]))


def _normalised(call: Call) -> Value:
    (value,) = call.take(FLOAT)
    call.axis(call.number("axis", -1), len(value.shape))
    if call.number("p", 2) not in (1, 2):
        raise call.foreign()
    return Value(FLOAT, value.shape)


def _shape(call: Call) -> Value:
    shape = _identity(call).shape
    return Value(INT64, (len(shape),), shape)


def _expand(call: Call) -> Value:
    value, to = call.take(FLOAT, INT64)
    known = call.known(to)
    if min(known, default=1) < 1:
        raise call.foreign()
    return Value(FLOAT, _broadcast(call, value.shape, known))


def _reshape(call: Call) -> Value:
    value, to = call.take(FLOAT, INT64)
    known = call.known(to)
    rest = prod(length for length in known if length != -1)
    if known.count(-1) > 1 or rest < 1 or min(known, default=1) < -1:
        raise call.foreign()
    size = prod(value.shape)
    shape = tuple(size // rest if length == -1 else length for length in known)
    if prod(shape) != size:
        raise call.foreign()
    return Value(FLOAT, shape)


def _gather(call: Call) -> Value:
    value, at = call.take(FLOAT, INT64)
    axis = call.axis(call.number("axis", 0), len(value.shape))
    length = value.shape[axis]
    if not all(-length <= index < length for index in call.known(at)):
        raise call.foreign()
    return Value(FLOAT, (*value.shape[:axis], *at.shape, *value.shape[axis + 1 :]))


def _unsqueeze(call: Call) -> Value:
    value, at = call.take(FLOAT, INT64)
    axes = call.known(at)
    if len(axes) != 1 or len(value.shape) > 4:
        raise call.foreign()
    axis = call.axis(axes[0], len(value.shape) + 1)
    return Value(FLOAT, (*value.shape[:axis], 1, *value.shape[axis:]))


def _concat(call: Call) -> Value:
    values = call.take(*[FLOAT] * len(call.given))
    if not values:
        raise call.foreign()
    axis = call.axis(call.number("axis"), len(values[0].shape))
    others = {(*value.shape[:axis], *value.shape[axis + 1 :]) for value in values}
    if len(others) != 1 or len({len(value.shape) for value in values}) != 1:
        raise call.foreign()
    length = sum(value.shape[axis] for value in values)
    return Value(FLOAT, (*values[0].shape[:axis], length, *values[0].shape[axis + 1 :]))


_SLIDING = ("kernel_shape", "strides", "pads", "dilations")

#: How the shape of each follows, and the attributes that it may have.
_OPERATORS: dict[str, tuple[Callable[[Call], Value], tuple[str, ...]]] = {
    "Add": (_element_wise, ()),
    "AveragePool": (_pool, (*_SLIDING, "ceil_mode", "count_include_pad")),
    "Cast": (_cast, ("to",)),
    "Clip": (_clip, ()),
    "Concat": (_concat, ("axis",)),
    "Constant": (_constant, ("value",)),
    "Conv": (_conv, (*_SLIDING, "group")),
    "Div": (_element_wise, ()),
    "Expand": (_expand, ()),
    "Flatten": (_flatten, ("axis",)),
    "Gather": (_gather, ("axis",)),
    "GlobalAveragePool": (_global_pool, ()),
    "Identity": (_identity, ()),
    "LpNormalization": (_normalised, ("axis", "p")),
    "MaxPool": (_pool, (*_SLIDING, "ceil_mode")),
    "Mul": (_element_wise, ()),
    "ReduceL2": (_length, ("axes", "keepdims")),
    "Relu": (_relu, ()),
    "Reshape": (_reshape, ()),
    "Shape": (_shape, ()),
    "Sub": (_element_wise, ()),
    "Transpose": (_transpose, ("perm",)),
    "Unsqueeze": (_unsqueeze, ()),
}
