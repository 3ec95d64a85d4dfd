"""Read a state dict that `torch.save` wrote, with numpy instead of torch, and without trusting it.

The file has the older of torch's two formats: five pickles (a magic number, the version of the
format, facts about the machine, the state dict, the keys of its storages), followed by the
storages in the order of the keys, each as the number of its elements (int64) and their bytes. In
the state dict, a tensor is a call of `torch._utils._rebuild_tensor_v2` on a part of a storage.

A pickle is a program, which the unpickler of the standard library runs. Here, it is interpreted
instead, and only the opcodes for numbers, strings, tuples, lists and dicts are known. Nothing is
imported or called, whatever the pickle names, and the arrays are views of the file.
"""

from __future__ import annotations

import io
import pickle  # For the names of its opcodes.
from math import prod
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["Arrays", "StateDictError", "read_state_dict"]

_T = TypeVar("_T")

Arrays: TypeAlias = dict[str, npt.NDArray[Any]]

OPCODES = 50_000  # Maximum opcodes of one file; MobileNetV2 has 11,809.

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_MOST = 1 << 40  # Maximum elements of a storage, and length of an axis.
_AXES = 8  # Maximum axes of a tensor.
_LONGEST = 80  # Maximum length of a name.

_TUPLES = (pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3)

_DICT = "collections.OrderedDict"
_TENSOR = "torch._utils._rebuild_tensor_v2"
_TYPES: dict[str, np.dtype[Any]] = {
    "torch.FloatStorage": np.dtype("<f4"),
    "torch.LongStorage": np.dtype("<i8"),
}


class StateDictError(Exception):
    """The bytes are not such a state dict, as the text says of them."""


class _Global(NamedTuple):
    """A class or function that a pickle names."""

    name: str


class _Storage(NamedTuple):
    """A reference to one of the storages behind the pickles."""

    key: str
    dtype: np.dtype[Any]
    length: int


class _Tensor(NamedTuple):
    """A contiguous part of a storage, whose axes may be in another order than in memory.

    `order` names the axes in the order in which they are in memory.
    """

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    order: tuple[int, ...]


def read_state_dict(content: bytes) -> Arrays:
    """Return the tensors of a state dict by name, in its order.

    Args:
        content: The whole file. The arrays are read-only views of it.

    Raises:
        StateDictError: If the bytes are not a state dict in that format, or if it holds anything
            other than contiguous tensors of float32 and int64.
    """
    pickles = _Pickles(content)
    try:
        if (pickles.value(), pickles.value()) != (_MAGIC, _VERSION):
            raise StateDictError("is not in the format of torch.save")
        if pickles.value()["little_endian"] is not True:
            raise StateDictError("holds numbers that are not little-endian")
        tensors, keys = pickles.value(), pickles.value()
        if not all(isinstance(tensor, _Tensor) for tensor in tensors.values()):
            raise StateDictError("holds more than tensors")
        storages = _storages(content, pickles.position, keys, tensors)
        return {name: _array(tensor, storages) for name, tensor in tensors.items()}
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
        raise StateDictError("is damaged or cut off") from error


def _storages(
    content: bytes, position: int, keys: list[str], tensors: dict[str, _Tensor]
) -> dict[_Storage, npt.NDArray[Any]]:
    """Return the storages, which start at a position, and which the tensors must describe."""
    described = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    found = {}
    for key in keys:
        storage = described[_checked(key, str)]
        if int.from_bytes(content[position : position + 8], "little") != storage.length:
            raise ValueError(key)
        found[storage] = np.frombuffer(content, storage.dtype, storage.length, position + 8)
        position += 8 + found[storage].nbytes
    if position != len(content):
        raise ValueError(position)
    return found


def _array(tensor: _Tensor, storages: dict[_Storage, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    end = tensor.offset + prod(tensor.shape)
    if end > tensor.storage.length:
        raise ValueError(tensor)
    in_memory = [tensor.shape[axis] for axis in tensor.order]
    array = storages[tensor.storage][tensor.offset : end].reshape(in_memory)
    return array.transpose([tensor.order.index(axis) for axis in range(len(tensor.order))])


class _Pickles:
    """The values of the pickles at the start of a file, one after another."""

    def __init__(self, content: bytes) -> None:
        self._stream = io.BytesIO(content)
        self._left = OPCODES

    @property
    def position(self) -> int:
        """The position after the pickle that was read last."""
        return self._stream.tell()

    def value(self) -> Any:
        """Interpret the next pickle, and return its value."""
        stack: list[Any] = []
        marks: list[int] = []
        memo: dict[int, Any] = {}

        def pop_to(length: int) -> tuple[Any, ...]:
            popped = tuple(stack[length:])
            del stack[length:]
            return popped

        while (code := self._code()) != pickle.STOP:
            match code:
                case pickle.PROTO:
                    self._number(1)
                case pickle.NONE:
                    stack.append(None)
                case pickle.NEWTRUE | pickle.NEWFALSE:
                    stack.append(code == pickle.NEWTRUE)
                case pickle.BININT1 | pickle.BININT2:
                    stack.append(self._number(1 if code == pickle.BININT1 else 2))
                case pickle.BININT | pickle.LONG1:
                    size = 4 if code == pickle.BININT else self._number(1)
                    stack.append(self._number(size, signed=True))
                case pickle.BINUNICODE:
                    stack.append(self._read(self._number(4)).decode())
                case pickle.EMPTY_TUPLE:
                    stack.append(())
                case pickle.EMPTY_LIST:
                    stack.append([])
                case pickle.EMPTY_DICT:
                    stack.append({})
                case pickle.MARK:
                    marks.append(len(stack))
                case pickle.TUPLE:
                    stack.append(pop_to(marks.pop()))
                case pickle.TUPLE1 | pickle.TUPLE2 | pickle.TUPLE3:
                    stack.append(pop_to(-1 - _TUPLES.index(code)))
                case pickle.APPEND | pickle.APPENDS:
                    items = pop_to(-1 if code == pickle.APPEND else marks.pop())
                    _checked(stack[-1], list).extend(items)
                case pickle.SETITEM | pickle.SETITEMS:
                    items = pop_to(-2 if code == pickle.SETITEM else marks.pop())
                    names = [_checked(name, str) for name in items[::2]]
                    _checked(stack[-1], dict).update(zip(names, items[1::2], strict=True))
                case pickle.BINPUT | pickle.LONG_BINPUT:
                    memo[self._number(1 if code == pickle.BINPUT else 4)] = stack[-1]
                case pickle.BINGET | pickle.LONG_BINGET:
                    stack.append(memo[self._number(1 if code == pickle.BINGET else 4)])
                case pickle.GLOBAL:
                    stack.append(_named(self._line(), self._line()))
                case pickle.BINPERSID:
                    stack.append(_storage(*stack.pop()))
                case pickle.REDUCE:
                    function, arguments = pop_to(-2)
                    stack.append(_called(function, *arguments))
                case pickle.BUILD:  # Versions of the modules, as an attribute of an ordered dict.
                    _checked(stack[-2], dict)
                    stack.pop()
                case _:
                    raise StateDictError(f"has the opcode {code!r}, which a state dict never has")
        (value,) = stack
        return value

    def _code(self) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise StateDictError(f"has more than {OPCODES:,} opcodes")
        return self._read(1)

    def _read(self, size: int) -> bytes:
        found = self._stream.read(size)
        if len(found) != size:
            raise ValueError(size)
        return found

    def _number(self, size: int, *, signed: bool = False) -> int:
        return int.from_bytes(self._read(size), "little", signed=signed)

    def _line(self) -> str:
        return self._stream.readline(_LONGEST).decode("ascii").removesuffix("\n")


def _named(module: str, name: str) -> _Global:
    if (full := f"{module}.{name}") not in (_DICT, _TENSOR, *_TYPES):
        raise StateDictError(f"names {full!r}, which a state dict never does")
    return _Global(full)


def _storage(kind: str, type_: _Global, key: str, device: str, length: int, view: None) -> _Storage:
    """Return what the persistent id of a storage says."""
    if (kind, device, view) != ("storage", "cpu", None):
        raise ValueError(kind)
    return _Storage(_checked(key, str), _TYPES[_checked(type_, _Global).name], _length(length))


def _called(function: _Global, *arguments: Any) -> dict[str, Any] | _Tensor:
    """Return what a call of a function means; it is not called."""
    match _checked(function, _Global).name:
        case name if name == _DICT:
            () = arguments
            return {}
        case name if name == _TENSOR:
            storage, offset, shape, strides, _gradient, _hooks = arguments
            shape = tuple(map(_length, _checked(shape, tuple)))
            if len(shape) > _AXES:
                raise ValueError(len(shape))
            order = _order(shape, tuple(map(_length, _checked(strides, tuple))))
            return _Tensor(_checked(storage, _Storage), _length(offset), shape, order)
        case name:
            raise StateDictError(f"calls {name!r}, which a state dict never does")


def _order(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, ...]:
    """Return the axes of a tensor in the order in which they are in memory."""
    if len(shape) != len(strides):
        raise ValueError(strides)
    # The stride of an axis of length 1 means nothing.
    order = sorted(range(len(shape)), key=lambda axis: (shape[axis] > 1, -strides[axis]))
    for place, axis in enumerate(order):
        if shape[axis] > 1 and strides[axis] != prod(shape[after] for after in order[place + 1 :]):
            raise StateDictError("holds a tensor that is not contiguous")
    return tuple(order)


def _length(number: Any) -> int:
    if type(number) is not int or not 0 <= number < _MOST:
        raise ValueError(number)
    return number


def _checked(value: object, kind: type[_T]) -> _T:
    if type(value) is not kind:
        raise TypeError(kind)
    return value
