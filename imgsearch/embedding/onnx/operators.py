"""Traverse a graph as ONNX Runtime would run it, with shapes in place of values.

The accepted operations are those that torch's exporter writes for the networks of
`imgsearch.embedding.models`, with the same inputs and attributes, and `Sub` and `LpNormalization`,
which are just as harmless. For each operation, this module knows the shape of
the output and the cost.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import NamedTuple, TypeAlias

from imgsearch.embedding.onnx.graph import FLOAT, INT64, Graph, Node, Tensor
from imgsearch.embedding.onnx.protobuf import ForeignError

__all__ = ["Shape", "output_shape"]

#: Maximum cost of one run of a batch: intermediate values in memory at once, and in total,
#: multiplications, and values in the windows of a convolution. Inception v3 takes 52 million values
#: in total, 11,500 million multiplications, and 12 million values in windows.
AT_ONCE = 250_000_000
VALUES = 2_500_000_000
PRODUCTS = 200_000_000_000
WINDOWS = 150_000_000

Shape: TypeAlias = tuple[int, ...]


class _Value(NamedTuple):
    """A tensor while the model runs; `known` holds its values if they follow from the file."""

    kind: int
    shape: Shape
    known: tuple[int, ...] | None = None


class _Cost:
    """The cost of the nodes so far; exceeding a limit raises `ForeignError`."""

    def __init__(self) -> None:
        self._kept = 0
        self._at_once = 0
        self._values = 0
        self._products = 0

    def add_values(self, shape: Shape, *, kept: bool) -> None:
        """Add the values of a tensor, which may be kept for as long as the model is loaded."""
        values = prod(shape)
        self._values += values
        if kept:
            self._kept += values
        else:
            self._at_once += values
        if self._values > VALUES:
            raise ForeignError(f"more than {VALUES:,} intermediate values")
        if self._kept + self._at_once > AT_ONCE:
            raise ForeignError(f"more than {AT_ONCE:,} intermediate values at once")

    def free_others(self, shapes: list[Shape]) -> None:
        """Note that tensors of these shapes are the only ones that are still needed."""
        self._at_once = sum(map(prod, shapes))

    def add_products(self, products: int) -> None:
        """Add this many multiplications."""
        self._products += products
        if self._products > PRODUCTS:
            raise ForeignError(f"more than {PRODUCTS:,} multiplications")


class _Call(NamedTuple):
    """A node with its inputs."""

    node: Node
    given: list[_Value | None]
    cost: _Cost

    def foreign(self) -> ForeignError:
        """Return an error that says that the node is not one of ours."""
        return ForeignError(
            f"the operator {self.node.operator} on inputs that it never has in exported models"
        )

    def take(self, *kinds: int) -> list[_Value]:
        """Return the inputs, all of which must be present and have exactly these element types."""
        values = [value for value in self.given if value is not None]
        if tuple(value.kind for value in values) != kinds or len(values) != len(self.given):
            raise self.foreign()
        return values

    def number(self, name: str, otherwise: int | None = None) -> int:
        """Return an attribute that is a single number."""
        value = self.node.attributes.get(name, otherwise)
        if not isinstance(value, int):
            raise self.foreign()
        return value

    def numbers(self, name: str, count: int, otherwise: Shape | None = None) -> Shape:
        """Return an attribute that consists of `count` numbers."""
        value = self.node.attributes.get(name, otherwise)
        if not isinstance(value, tuple) or isinstance(value, Tensor) or len(value) != count:
            raise self.foreign()
        return value

    def axis(self, number: int, rank: int) -> int:
        """Return the axis of a number, which counts from the end if it is negative."""
        if not -rank <= number < rank:
            raise self.foreign()
        return number % rank

    def known(self, value: _Value) -> tuple[int, ...]:
        """Return the numbers of an input that is one number or a list, if they are in the file."""
        if value.known is None or len(value.shape) > 1:
            raise self.foreign()
        return value.known


def _stored(tensor: Tensor) -> _Value:
    """Return a tensor of the file as a value."""
    return _Value(tensor.kind, tensor.shape, tensor.values)


def output_shape(graph: Graph, inputs: dict[str, tuple[int, Shape]]) -> Shape:
    """Return the shape of the embeddings of a graph for inputs of given types and shapes, by name.

    Raises:
        ForeignError: If an operation is not one of ours, or the total cost is too high.
    """
    return _Walk(graph, inputs).output()


class _Walk:
    """A single traversal of a graph for inputs of given shapes.

    ONNX Runtime may run the nodes in another order than that of the file, and keeps what follows
    from the file alone. The rest is in memory at once at most from one *bottleneck* to the next: a
    tensor after which no earlier one is used, so that in any order, all nodes before it come first.
    """

    def __init__(self, graph: Graph, inputs: dict[str, tuple[int, Shape]]) -> None:
        self._graph = graph
        self._values = {name: _stored(tensor) for name, tensor in graph.tensors.items()}
        self._cost = _Cost()
        self._last_uses = {
            name: position for position, node in enumerate(graph.nodes) for name in node.inputs
        }
        self._from_inputs = set(inputs)
        self._latest_use = max(map(self._last_use, inputs))
        for name, (kind, shape) in inputs.items():
            self._add(name, _Value(kind, shape))

    def output(self) -> Shape:
        """Return the shape of the embeddings."""
        for position, node in enumerate(self._graph.nodes):
            given = [self._value(name) for name in node.inputs]
            computed = _compute(node, given, self._cost)
            if len(node.outputs) != len(computed):
                raise ForeignError(f"a node with {len(node.outputs)} outputs")
            from_inputs = not self._from_inputs.isdisjoint(node.inputs)
            if from_inputs and node.operator != "Shape":
                self._from_inputs.update(node.outputs)
            for name, value in zip(node.outputs, computed, strict=True):
                self._add(name, value)
            if self._from_inputs.issuperset(node.outputs):
                if self._latest_use <= position:
                    self._cost.free_others([value.shape for value in computed])
                self._latest_use = max(self._latest_use, *map(self._last_use, node.outputs))
        embedding = self._value("embedding")
        if embedding is None or embedding.kind != FLOAT:
            raise ForeignError("an output of another type")
        return embedding.shape

    def _last_use(self, name: str) -> int:
        """Return the position of the last node that takes a tensor; unused ones are never freed."""
        return self._last_uses.get(name, len(self._graph.nodes))

    def _value(self, name: str) -> _Value | None:
        if not name:
            return None
        if name not in self._values:
            raise ForeignError("a node whose input is not computed before it")
        return self._values[name]

    def _add(self, name: str, value: _Value) -> None:
        if not name or name in self._values:
            raise ForeignError("two values of the same name")
        self._cost.add_values(value.shape, kept=name not in self._from_inputs)
        self._values[name] = value


def _compute(node: Node, given: list[_Value | None], cost: _Cost) -> list[_Value]:
    """Return the outputs of a node and add its cost.

    Args:
        node: The operation.
        given: Inputs of the node, None for an omitted one.
        cost: Total to which the cost of the node is added.

    Raises:
        ForeignError: If the operation is not one of ours, or not with these inputs, or if the total
            cost is too high.
    """
    if node.operator not in _OPERATORS:
        raise ForeignError(f"the operator {node.operator[:40]!r}")
    operator, attributes = _OPERATORS[node.operator]
    unknown = node.attributes.keys() - set(attributes)
    if unknown:
        raise ForeignError(f"the operator {node.operator} with the attribute {min(unknown)[:40]!r}")
    made = operator(_Call(node, given, cost))
    return made if isinstance(made, list) else [made]


def _constant(call: _Call) -> _Value:
    call.take()
    value = call.node.attributes.get("value")
    if not isinstance(value, Tensor):
        raise call.foreign()
    return _stored(value)


def _identity(call: _Call) -> _Value:
    (value,) = call.given if len(call.given) == 1 else (None,)
    if value is None:
        raise call.foreign()
    return value


def _cast(call: _Call) -> _Value:
    value, to = _identity(call), call.number("to")
    if to != FLOAT:
        raise call.foreign()
    return _Value(FLOAT, value.shape)


def _transpose(call: _Call) -> _Value:
    value = _identity(call)
    order = call.numbers("perm", len(value.shape))
    if sorted(order) != list(range(len(order))):
        raise call.foreign()
    return _Value(value.kind, tuple(value.shape[axis] for axis in order))


def _element_wise(call: _Call) -> _Value:
    left, right = call.take(FLOAT, FLOAT)
    return _Value(FLOAT, _broadcast(call, left.shape, right.shape))


def _broadcast(call: _Call, left: Shape, right: Shape) -> Shape:
    rank = max(len(left), len(right))
    shape = []
    for one, other in zip(_filled(left, rank), _filled(right, rank), strict=True):
        if one != other and 1 not in (one, other):
            raise call.foreign()
        shape.append(max(one, other))
    return tuple(shape)


def _filled(shape: Shape, rank: int) -> Shape:
    return (1,) * (rank - len(shape)) + shape


def _each(call: _Call) -> _Value:
    (value,) = call.take(FLOAT)
    return _Value(FLOAT, value.shape)


def _softmax(call: _Call) -> _Value:
    (value,) = call.take(FLOAT)
    call.axis(call.number("axis", -1), len(value.shape))
    return _Value(FLOAT, value.shape)


def _batch_normalised(call: _Call) -> _Value:
    value, *by = call.take(*[FLOAT] * 5)
    if call.number("training_mode", 0) or len(value.shape) < 2:
        raise call.foreign()
    if {each.shape for each in by} != {value.shape[1:2]}:
        raise call.foreign()
    return _Value(FLOAT, value.shape)


def _layer_normalised(call: _Call) -> _Value:
    value, *by = call.take(*[FLOAT] * len(call.given))
    axis = call.axis(call.number("axis", -1), len(value.shape))
    if len(by) not in (1, 2) or {each.shape for each in by} != {value.shape[axis:]}:
        raise call.foreign()
    if call.number("stash_type", 1) != 1:
        raise call.foreign()
    return _Value(FLOAT, value.shape)


def _matmul(call: _Call) -> _Value:
    left, right = call.take(FLOAT, FLOAT)
    if min(len(left.shape), len(right.shape)) < 2 or left.shape[-1] != right.shape[-2]:
        raise call.foreign()
    stack = _broadcast(call, left.shape[:-2], right.shape[:-2])
    shape = *stack, left.shape[-2], right.shape[-1]
    call.cost.add_products(prod(shape) * left.shape[-1])
    return _Value(FLOAT, shape)


def _gemm(call: _Call) -> _Value:
    left, right, *bias = call.take(*[FLOAT] * len(call.given))
    turned = call.number("transA", 0), call.number("transB", 0)
    if {len(left.shape), len(right.shape)} != {2} or not set(turned) <= {0, 1} or len(bias) > 1:
        raise call.foreign()
    one = left.shape[::-1] if turned[0] else left.shape
    other = right.shape[::-1] if turned[1] else right.shape
    shape = one[0], other[1]
    if one[1] != other[0] or (bias and _broadcast(call, shape, bias[0].shape) != shape):
        raise call.foreign()
    call.cost.add_products(prod(shape) * one[1])
    return _Value(FLOAT, shape)


def _einsum(call: _Call) -> _Value:
    equation = call.node.attributes.get("equation")
    if not isinstance(equation, str):
        raise call.foreign()
    given, _, made = equation.replace(" ", "").partition("->")
    terms, values = given.split(","), call.take(*[FLOAT] * len(call.given))
    lengths: dict[str, int] = {}
    if len(terms) != len(values) or not (given.replace(",", "") + made).isalpha():
        raise call.foreign()
    for term, value in zip(terms, values, strict=True):
        if len(term) != len(value.shape) or len(set(term)) != len(term):
            raise call.foreign()
        for letter, length in zip(term, value.shape, strict=True):
            if lengths.setdefault(letter, length) != length:
                raise call.foreign()
    if len(set(made)) != len(made) or not set(made) <= lengths.keys():
        raise call.foreign()
    call.cost.add_products(prod(lengths.values()))
    return _Value(FLOAT, tuple(lengths[letter] for letter in made))


def _clip(call: _Call) -> _Value:
    value, *bounds = call.given
    if value is None or value.kind != FLOAT or len(bounds) > 2:
        raise call.foreign()
    for bound in bounds:
        if bound is not None and (bound.kind, bound.shape) != (FLOAT, ()):
            raise call.foreign()
    return _Value(FLOAT, value.shape)


def _conv(call: _Call) -> _Value:
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
        raise ForeignError("a convolution with a huge window")
    call.cost.add_products(products)
    return _Value(FLOAT, shape)


def _pool(call: _Call) -> _Value:
    (value,) = call.take(FLOAT)
    if len(value.shape) != 4:
        raise call.foreign()
    shape = *value.shape[:2], *_slid(call, value.shape[2:])
    call.cost.add_products(prod(shape) * prod(call.numbers("kernel_shape", 2)))
    return _Value(FLOAT, shape)


def _slid(call: _Call, shape: Shape) -> Shape:
    """Return the height and width of the output of a window that slides over an image."""
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


def _global_pool(call: _Call) -> _Value:
    (value,) = call.take(FLOAT)
    if len(value.shape) != 4:
        raise call.foreign()
    return _Value(FLOAT, (*value.shape[:2], 1, 1))


def _flatten(call: _Call) -> _Value:
    value = _identity(call)
    axis = call.axis(call.number("axis", 1), len(value.shape))
    return _Value(value.kind, (prod(value.shape[:axis]), prod(value.shape[axis:])))


def _reduced(call: _Call) -> _Value:
    (value,) = call.take(FLOAT)
    given = call.node.attributes.get("axes")
    axes = call.numbers("axes", len(given) if isinstance(given, tuple) else 1)
    reduced = {call.axis(axis, len(value.shape)) for axis in axes}
    keep = call.number("keepdims", 1)
    if keep not in (0, 1) or len(reduced) != len(axes):
        raise call.foreign()
    edges = [
        1 if axis in reduced else edge
        for axis, edge in enumerate(value.shape)
        if keep or axis not in reduced
    ]
    return _Value(FLOAT, tuple(edges))


def _normalised(call: _Call) -> _Value:
    (value,) = call.take(FLOAT)
    call.axis(call.number("axis", -1), len(value.shape))
    if call.number("p", 2) not in (1, 2):
        raise call.foreign()
    return _Value(FLOAT, value.shape)


def _shape(call: _Call) -> _Value:
    shape = _identity(call).shape
    start, end = call.number("start", 0), call.number("end", len(shape))
    if not 0 <= start < end <= len(shape):
        raise call.foreign()
    return _Value(INT64, (end - start,), shape[start:end])


def _slice(call: _Call) -> _Value:
    if len(call.given) not in (4, 5):
        raise call.foreign()
    value, *where = call.take(FLOAT, *[INT64] * (len(call.given) - 1))
    starts, ends, axes, *steps = map(call.known, where)
    shape, strides = list(value.shape), steps[0] if steps else (1,) * len(axes)
    if not len(starts) == len(ends) == len(axes) == len(strides):
        raise call.foreign()
    for start, end, axis, stride in zip(starts, ends, axes, strides, strict=True):
        at = call.axis(axis, len(shape))
        kept = len(range(shape[at])[start:end:stride]) if stride > 0 else 0
        if not kept:
            raise call.foreign()
        shape[at] = kept
    return _Value(FLOAT, tuple(shape))


def _split(call: _Call) -> list[_Value]:
    if len(call.given) not in (1, 2):
        raise call.foreign()
    value, *at = call.take(FLOAT, *[INT64] * (len(call.given) - 1))
    axis, count = call.axis(call.number("axis", 0), len(value.shape)), len(call.node.outputs)
    length = value.shape[axis]
    parts = call.known(at[0]) if at else (length // max(1, count),) * count
    if len(parts) != count or sum(parts) != length or min(parts, default=0) < 1:
        raise call.foreign()
    before, after = value.shape[:axis], value.shape[axis + 1 :]
    return [_Value(FLOAT, (*before, part, *after)) for part in parts]


def _pad(call: _Call) -> _Value:
    value, by, *fill = call.given
    if value is None or by is None or (value.kind, by.kind) != (FLOAT, INT64) or len(fill) > 1:
        raise call.foreign()
    if any(each is not None and (each.kind, each.shape) != (FLOAT, ()) for each in fill):
        raise call.foreign()
    pads, rank = call.known(by), len(value.shape)
    if len(pads) != 2 * rank or min(pads, default=0) < 0:
        raise call.foreign()
    if call.node.attributes.get("mode", "constant") != "constant":
        raise call.foreign()
    edges = zip(value.shape, pads[:rank], pads[rank:], strict=True)
    return _Value(FLOAT, tuple(before + edge + after for edge, before, after in edges))


def _expand(call: _Call) -> _Value:
    value, to = call.take(FLOAT, INT64)
    known = call.known(to)
    if min(known, default=1) < 1:
        raise call.foreign()
    return _Value(FLOAT, _broadcast(call, value.shape, known))


def _reshape(call: _Call) -> _Value:
    value, to = call.take(FLOAT, INT64)
    known = call.known(to)
    rest = prod(length for length in known if length != -1)
    if known.count(-1) > 1 or rest < 1 or min(known, default=1) < -1:
        raise call.foreign()
    size = prod(value.shape)
    shape = tuple(size // rest if length == -1 else length for length in known)
    if prod(shape) != size or call.number("allowzero", 0) not in (0, 1):
        raise call.foreign()
    return _Value(FLOAT, shape)


def _gather(call: _Call) -> _Value:
    value, at = call.take(FLOAT, INT64)
    axis = call.axis(call.number("axis", 0), len(value.shape))
    length = value.shape[axis]
    # ONNX Runtime itself refuses to gather beyond the end by what a graph is given, as tokens are.
    if at.known is not None and not all(-length <= index < length for index in call.known(at)):
        raise call.foreign()
    return _Value(FLOAT, (*value.shape[:axis], *at.shape, *value.shape[axis + 1 :]))


def _unsqueeze(call: _Call) -> _Value:
    value, at = call.take(FLOAT, INT64)
    axes = call.known(at)
    if len(axes) != 1 or len(value.shape) > 4:
        raise call.foreign()
    axis = call.axis(axes[0], len(value.shape) + 1)
    return _Value(FLOAT, (*value.shape[:axis], 1, *value.shape[axis:]))


def _squeeze(call: _Call) -> _Value:
    value, at = call.take(FLOAT, INT64)
    axes = {call.axis(axis, len(value.shape)) for axis in call.known(at)}
    if any(value.shape[axis] != 1 for axis in axes):
        raise call.foreign()
    return _Value(FLOAT, tuple(edge for axis, edge in enumerate(value.shape) if axis not in axes))


def _concat(call: _Call) -> _Value:
    if call.given and call.given[0] is not None and call.given[0].kind == INT64:
        return _new_shape(call)
    values = call.take(*[FLOAT] * len(call.given))
    if not values:
        raise call.foreign()
    axis = call.axis(call.number("axis"), len(values[0].shape))
    others = {(*value.shape[:axis], *value.shape[axis + 1 :]) for value in values}
    if len(others) != 1 or len({len(value.shape) for value in values}) != 1:
        raise call.foreign()
    length = sum(value.shape[axis] for value in values)
    return _Value(FLOAT, (*values[0].shape[:axis], length, *values[0].shape[axis + 1 :]))


def _new_shape(call: _Call) -> _Value:
    """Return the shape that the number of images and other lengths make: it grows with them."""
    values = call.take(*[INT64] * len(call.given))
    lengths = tuple(length for value in values for length in call.known(value))
    if call.number("axis") != 0 or any(len(value.shape) != 1 for value in values):
        raise call.foreign()
    return _Value(INT64, (len(lengths),), lengths)


_SLIDING = ("kernel_shape", "strides", "pads", "dilations")

#: For each operator, the function that computes the output, or a list if there may be several, and
#: the accepted attributes.
_OPERATORS: dict[str, tuple[Callable[[_Call], _Value | list[_Value]], tuple[str, ...]]] = {
    "Add": (_element_wise, ()),
    "AveragePool": (_pool, (*_SLIDING, "ceil_mode", "count_include_pad")),
    "BatchNormalization": (_batch_normalised, ("epsilon", "momentum", "training_mode")),
    "Cast": (_cast, ("to",)),
    "Clip": (_clip, ()),
    "Concat": (_concat, ("axis",)),
    "Constant": (_constant, ("value",)),
    "Conv": (_conv, (*_SLIDING, "group")),
    "Div": (_element_wise, ()),
    "Einsum": (_einsum, ("equation",)),
    "Erf": (_each, ()),
    "Expand": (_expand, ()),
    "Flatten": (_flatten, ("axis",)),
    "Gather": (_gather, ("axis",)),
    "Gemm": (_gemm, ("alpha", "beta", "transA", "transB")),
    "GlobalAveragePool": (_global_pool, ()),
    "HardSigmoid": (_each, ("alpha", "beta")),
    "HardSwish": (_each, ()),
    "Identity": (_identity, ()),
    "LayerNormalization": (_layer_normalised, ("axis", "epsilon", "stash_type")),
    "LpNormalization": (_normalised, ("axis", "p")),
    "MatMul": (_matmul, ()),
    "MaxPool": (_pool, (*_SLIDING, "ceil_mode")),
    "Mul": (_element_wise, ()),
    "Neg": (_each, ()),
    "Pad": (_pad, ("mode",)),
    "ReduceL2": (_reduced, ("axes", "keepdims")),
    "ReduceMean": (_reduced, ("axes", "keepdims")),
    "Relu": (_each, ()),
    "Reshape": (_reshape, ("allowzero",)),
    "Shape": (_shape, ("start", "end")),
    "Sigmoid": (_each, ()),
    "Slice": (_slice, ()),
    "Softmax": (_softmax, ("axis",)),
    "Split": (_split, ("axis",)),
    "Squeeze": (_squeeze, ()),
    "Sub": (_element_wise, ()),
    "Tanh": (_each, ()),
    "Transpose": (_transpose, ("perm",)),
    "Unsqueeze": (_unsqueeze, ()),
}
