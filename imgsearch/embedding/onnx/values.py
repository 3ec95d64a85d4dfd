"""What an operation of a model is given, while shapes stand for values, and what it costs."""

from __future__ import annotations

from math import prod
from typing import NamedTuple, TypeAlias

from imgsearch.embedding.onnx.graph import Node, Tensor
from imgsearch.embedding.onnx.protobuf import ForeignError

__all__ = ["WINDOWS", "Call", "Cost", "Shape", "Value", "stored"]

#: What one run of a batch may cost: of Inception v3, it takes 52 million values in between, 11,500
#: million multiplications, and 12 million values in the windows of a convolution.
VALUES = 250_000_000
PRODUCTS = 50_000_000_000
WINDOWS = 100_000_000

Shape: TypeAlias = tuple[int, ...]


class Value(NamedTuple):
    """A tensor while the model runs; `known` are its values where they follow from the file."""

    kind: int
    shape: Shape
    known: tuple[int, ...] | None = None


class Cost:
    """What the nodes cost so far; more than is allowed raises `ForeignError`."""

    def __init__(self) -> None:
        self._values = 0
        self._products = 0

    def add_values(self, shape: Shape) -> None:
        """Add a tensor of a shape."""
        self._values += prod(shape)
        if self._values > VALUES:
            raise ForeignError(f"more than {VALUES:,} values in between")

    def add_products(self, products: int) -> None:
        """Add multiplications."""
        self._products += products
        if self._products > PRODUCTS:
            raise ForeignError(f"more than {PRODUCTS:,} multiplications")


class Call(NamedTuple):
    """A node with what it is given."""

    node: Node
    given: list[Value | None]
    cost: Cost

    def foreign(self) -> ForeignError:
        """Return the error that the node is not one of ours."""
        return ForeignError(f"the operator {self.node.operator} on inputs that ours never have")

    def take(self, *kinds: int) -> list[Value]:
        """Return the inputs, which have to be there, of these element types and no others."""
        values = [value for value in self.given if value is not None]
        if tuple(value.kind for value in values) != kinds or len(values) != len(self.given):
            raise self.foreign()
        return values

    def number(self, name: str, otherwise: int | None = None) -> int:
        """Return an attribute that is a number."""
        value = self.node.attributes.get(name, otherwise)
        if not isinstance(value, int):
            raise self.foreign()
        return value

    def numbers(self, name: str, count: int, otherwise: Shape | None = None) -> Shape:
        """Return an attribute that is so many numbers."""
        value = self.node.attributes.get(name, otherwise)
        if not isinstance(value, tuple) or isinstance(value, Tensor) or len(value) != count:
            raise self.foreign()
        return value

    def axis(self, number: int, rank: int) -> int:
        """Return the axis that a number stands for, counted from the end if it is negative."""
        if not -rank <= number < rank:
            raise self.foreign()
        return number % rank

    def known(self, value: Value) -> tuple[int, ...]:
        """Return the numbers of an input that is a list of them, or one, if the file has them."""
        if value.known is None or len(value.shape) > 1:
            raise self.foreign()
        return value.known


def stored(tensor: Tensor) -> Value:
    """Return a tensor of the file as a value."""
    return Value(tensor.kind, tensor.shape, tensor.values)
