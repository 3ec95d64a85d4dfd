"""Reading a state dict without torch, whatever the file holds."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from imgsearch.embedding.models import find_network
from imgsearch.embedding.state_dict import StateDictError, read_state_dict
from imgsearch.embedding.weights import find_weights
from tests.support.depth import Harm

BASE = torch.arange(6, dtype=torch.float32)
TENSORS = OrderedDict(matrix=BASE.reshape(2, 3), part=BASE[2:5], number=torch.tensor(7))

CUBE = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4, 1)
TRANSPOSED = [BASE.reshape(2, 3).T, *(CUBE.permute(axes) for axes in permutations(range(4)))]


def _saved(value: Any, *, zipped: bool = False) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


SAVED = _saved(TENSORS)
START = b"".join(  # What comes before the state dict.
    pickle.dumps(value, 2)
    for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True, "protocol_version": 1001})
)
STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0kX\x03\0\0\0cpu%sNtQ"
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE + b"%s\x89}tR"
KEYS = b"\x80\x02](X\x01\0\0\0ke."
DATA = (2).to_bytes(8, "little") + bytes(8)


def _file(state: bytes, rest: bytes = KEYS + DATA) -> bytes:
    """Return a file with the opcodes of a state dict, and what follows them."""
    return START + b"\x80\x02" + state + b"." + rest


def _one(length: bytes = b"K\x02", part: bytes = b"K\0K\x02\x85K\x01\x85") -> bytes:
    """Return the opcodes of a state dict of one tensor: its length, its offset, shape, strides."""
    return b"}X\x01\0\0\0t" + TENSOR % (length, part) + b"s"


def test_the_tensors_are_those_that_torch_reads() -> None:
    path = find_weights(find_network("mobilenet_v2")).path
    for content, expected in [
        (SAVED, TENSORS),
        (_saved({"a": BASE}), {"a": BASE}),
        *((_saved({"a": each}), {"a": each}) for each in TRANSPOSED),
        (_file(_one()), {"t": torch.zeros(2)}),
        (path.read_bytes(), torch.load(path, weights_only=True)),
    ]:
        found = read_state_dict(content)
        assert list(found) == list(expected)
        for name, tensor in expected.items():
            assert found[name].dtype == tensor.numpy().dtype
            np.testing.assert_array_equal(found[name], tensor.numpy())


BOMB = b")" + b"q\0h\0\x86" * 200  # A tuple of two tuples of two tuples: 2 ** 200 in all.
HUGE = b"\x8a\x08" + b"\xff" * 7 + b"\x7f"  # 2 ** 63 - 1

HOSTILE = {
    "nothing": b"",
    "one byte": b"\x80",
    "not a pickle": b"weights",
    "the newer format, a zip": _saved(TENSORS, zipped=True),
    "another pickle": pickle.dumps(dict.fromkeys("abc"), 2),
    "a newer protocol": START + pickle.dumps({}, 5),
    "big-endian numbers": b"".join(
        pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": False})
    ),
    "cut off in a pickle": SAVED[: len(START) + 40],
    "cut off in a storage": SAVED[:-1],
    "more behind it": SAVED + b"\0",
    "a list": _saved([BASE]),
    "a tensor by itself": _saved(BASE),
    "more than tensors": _saved({"a": BASE, "epoch": 3}),
    "a checkpoint": _saved({"state_dict": TENSORS}),
    "half precision": _saved({"a": BASE.half()}),
    "a tensor that is not contiguous": _saved({"a": BASE[::2]}),
    "a module": _saved(torch.nn.Linear(1, 1)),
    "a call of the system": _file(b"cposix\nsystem\n(X\x0a\0\0\0touch heretR"),
    "a call by the protocol 4": _file(b"\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R"),
    "an instance": _file(b"(cposix\nsystem\nX\x04\0\0\0trueo"),
    "an object of the old protocol": _file(b"(iposix\nsystem\n"),
    "an extension": _file(b"\x82\x01"),
    "a call of a string": _file(b"X\x01\0\0\0a)R"),
    "a call of a storage": _file(b"ctorch\nFloatStorage\n)R"),
    "a call of a tensor": _file(TENSOR % (b"K\x02", b"K\0K\x02\x85K\x01\x85") + b")R"),
    "a dict with arguments": _file(b"ccollections\nOrderedDict\n](X\x01\0\0\0aK\0\x86e\x85R"),
    "attributes of a function": _file(b"ctorch._utils\n_rebuild_tensor_v2\n}b"),
    "attributes of a string": _file(b"X\x01\0\0\0a}b"),
    "a place of the memo beyond all memory": _file(b"}r\xff\xff\xff\xff0"),
    "a place of the memo that is empty": _file(b"h\x07"),
    "a tuple that takes for ever to hash": _file(b"}" + BOMB + b"Ns"),
    "keys that take for ever to hash": _file(_one(), b"\x80\x02](" + BOMB + b"e." + DATA),
    "a key that is a list": _file(b"}]Ns"),
    "half a pair": _file(b"}(X\x01\0\0\0au"),
    "items of no dict": _file(b"](X\x01\0\0\0aNu"),
    "a stack that is empty": _file(b"\x87"),
    "a mark that is not there": _file(b"t"),
    "two values": _file(b"}}"),
    "a number of a gigabyte": _file(b"\x8b\0\0\0\x40"),
    "a string of 2 ** 62 bytes": _file(b"\x8d" + (1 << 62).to_bytes(8, "little")),
    "more opcodes than a network has": _file(b"}" + b"N0" * 50_000),
    "a million empty tuples": _file(b"}" + b")" * 1_000_000),
    "a storage of another length": _file(_one(length=b"K\x03")),
    "a storage of a negative length": _file(_one(length=b"J\xff\xff\xff\xff")),
    "a storage of a huge length": _file(
        _one(length=HUGE), KEYS + ((1 << 63) - 1).to_bytes(8, "little")
    ),
    "a storage of another device": _file(_one().replace(b"cpu", b"gpu")),
    "a storage that is not listed": _file(_one(), NO_KEYS := pickle.dumps([], 2)),
    "a storage that no tensor has": _file(b"}", KEYS + DATA),
    "a storage listed twice": _file(_one(), KEYS[:-2] + KEYS[4:] + DATA),
    "no storages": _file(_one(), NO_KEYS),
    "a tensor behind its storage": _file(_one(part=b"K\x01K\x02\x85K\x01\x85")),
    "a tensor before its storage": _file(_one(part=b"J\xff\xff\xff\xffK\x02\x85K\x01\x85")),
    "a tensor larger than its storage": _file(_one(part=b"K\0K\x03\x85K\x01\x85")),
    "a tensor of a huge shape": _file(_one(part=b"K\0" + HUGE + b"\x85K\x01\x85")),
    "a tensor of a negative shape": _file(_one(part=b"K\0J\xff\xff\xff\xff\x85K\x01\x85")),
    "a tensor of a thousand axes": _file(
        _one(part=b"K\0(" + b"K\x01" * 1000 + b"t(" + b"K\x01" * 1000 + b"t")
    ),
    "a tensor whose rows overlap": _file(_one(part=b"K\0K\x02K\x02\x86K\0K\x01\x86")),
    "a shape that is true": _file(_one(part=b"K\0\x88\x85K\x01\x85")),
}


@pytest.mark.few(len(HOSTILE))  # They take a millisecond each.
@pytest.mark.parametrize("name", HOSTILE)
def test_any_other_file_is_refused_and_nothing_is_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StateDictError) as caught:
        read_state_dict(HOSTILE[name])
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [SAVED, _file(_one())], ids=["three tensors", "one tensor"])
def test_a_changed_file_is_refused_or_holds_arrays_of_its_own_bytes(
    content: bytes, harm: Harm
) -> None:
    random = np.random.default_rng(0)
    for _ in range(times := harm.times(2_000, 100_000, fast=500)):
        changed = bytearray(content)
        for _ in range(random.integers(1, 4)):
            start = int(random.integers(len(changed)))
            changed[start : start + int(random.integers(3))] = random.bytes(int(random.integers(3)))
        try:
            found = read_state_dict(bytes(changed))
        except StateDictError:
            continue
        assert all(array.nbytes <= len(changed) for array in found.values())
        assert all(array.dtype in (np.float32, np.int64) for array in found.values())
    harm.done("state dicts", times)
