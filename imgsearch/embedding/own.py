"""A user's own network: an ONNX file that maps an image to a vector, made into one of ours.

What the file does not say of itself, a TOML file of the same name beside it says, or the value of
`imgsearch` in its metadata: see `_Preparation`. Then pixels are prepared, and the vector is
L2-normalised, in the same graph, as in the networks that imgsearch exports.

The package onnx is imported inside functions. They run in the process of
`imgsearch.embedding.export`, and only when a collection is made.
"""

from __future__ import annotations

import hashlib
import os
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from imgsearch.embedding.models import ONNX, Network
from imgsearch.embedding.onnx.check import MOST_BYTES
from imgsearch.embedding.onnx.folding import fold_shapes
from imgsearch.embedding.onnx.protobuf import ForeignError, MalformedError
from imgsearch.embedding.onnx.trusted import check_no_files
from imgsearch.embedding.runtime import run_once
from imgsearch.errors import ModelError, reason_of

if TYPE_CHECKING:
    import onnx

__all__ = ["digest_of", "load", "path_of"]

_OPSET = 17
_METADATA = "imgsearch"
_PREFIX = "own/"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Preparation:
    """How to prepare pixels for a network, and where to: the keys of the TOML file.

    Attributes:
        mean, std: What values of each channel, from 0 to 1, are reduced and then divided by.
        size: Edge of the input in pixels, if the file leaves it open.
        order: Order of the channels, "RGB" or "BGR".
        layout: "NCHW" or "NHWC", if the file leaves open which axis the channels are on.
        input, output: Names of the input and the output, if there are several.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: int | None = None
    order: str = "RGB"
    layout: str | None = None
    input: str | None = None
    output: str | None = None


def path_of(name: str) -> Path:
    """Return the absolute path of the file that `onnx:FILE` names."""
    return Path(os.path.abspath(os.path.expanduser(name.removeprefix(ONNX))))


def digest_of(path: Path) -> str:
    """Return the SHA-256 (hex) of a network's file, and of the TOML file beside it if there is one.

    Raises:
        ModelError: If the file cannot be read.
    """
    content, beside = _read(path)
    return hashlib.sha256(content + beside).hexdigest()


def load(path: Path) -> tuple[Network, bytes, str]:
    """Return the network of a file, its ONNX as `export_onnx` makes it, and `digest_of` the file.

    Raises:
        ModelError: If the file cannot be read, is not an ONNX file, or not one of a network that
            maps images to vectors.
    """
    import onnx

    content, beside = _read(path)
    digest = hashlib.sha256(content + beside).hexdigest()
    try:
        check_no_files(content)
        model = onnx.load_model_from_string(content)
    except MalformedError as error:
        raise ModelError(f"{path} is not an ONNX file") from error
    except ForeignError as error:
        raise ModelError(f"{path} has {error}; save the network as one file") from error
    preparation = _preparation_of(path, model, beside)
    model, size, vector = _prepared(path, _of_our_opset(path, model), preparation)
    try:
        made = fold_shapes(model.SerializeToString(), run_once, always=True)
        rows, vectors = run_once(_with_output(made, vector), ["embedding", vector], 2)
        (row,) = run_once(made, ["embedding"], 1)
    except Exception as error:  # ONNX Runtime's have no common base
        raise ModelError(
            f"{path} cannot be run on several images: {reason_of(error)[:200]}; export it with a "
            "number of images that is not fixed (dynamic_axes)"
        ) from error
    if vectors.shape[2:] not in ((), (1, 1)) or len(vectors) != 2:
        raise ModelError(
            f"{path} makes {list(vectors.shape)} of two images, not a vector of each; export it "
            f"with a pooling, or name another output in {path.with_suffix('.toml').name}"
        )
    if not np.allclose(rows[:1], row, atol=1e-3, equal_nan=True):
        raise ModelError(f"{path} makes another vector of an image if there is another image")
    network = Network(
        name=f"{ONNX}{path.name}",
        builder=path.name,
        input_size=size,
        dim=rows.shape[1],
        weights=str(path),
        library="onnx",
        mean=preparation.mean or (0.0, 0.0, 0.0),
        std=preparation.std or (1.0, 1.0, 1.0),
    )
    return network, _with_dim(made, network.dim), digest


def _read(path: Path) -> tuple[bytes, bytes]:
    """Return the content of a network's file, and that of the TOML file beside it."""
    toml = path.with_suffix(".toml")
    try:
        contents = [
            file.read_bytes() if file == path or file.is_file() else b"" for file in (path, toml)
        ]
    except OSError as error:
        raise ModelError(
            f"cannot read {error.filename}: {reason_of(error)}; name an ONNX file, as in "
            f"{ONNX}resnet.onnx"
        ) from error
    if len(contents[0]) > MOST_BYTES:
        raise ModelError(f"{path} is larger than 2 GiB, which no ONNX file can be")
    return contents[0], contents[1]


def _preparation_of(path: Path, model: onnx.ModelProto, beside: bytes) -> _Preparation:
    """Read how to prepare pixels; what stands beside the file outranks what is in it."""
    inside = next((each.value for each in model.metadata_props if each.key == _METADATA), "")
    where = path.with_suffix(".toml") if beside else f"the metadata of {path}"
    try:
        given = tomllib.loads(beside.decode() if beside else inside)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ModelError(f"{where} is not TOML: {reason_of(error)}") from error
    names = [field.name for field in fields(_Preparation)]
    for name, value in given.items():
        if name not in names:
            raise ModelError(f"{where} has an unknown {name}; there are {', '.join(names)}")
        if not _is_right(name, value):
            raise ModelError(f"{where}: {name} is {value!r}, but must be {_RIGHT[name]}")
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in given.items()
    }
    return _Preparation(**values)


_RIGHT = {
    "mean": "three numbers",
    "std": "three numbers above 0",
    "size": "a number of pixels",
    "order": '"RGB" or "BGR"',
    "layout": '"NCHW" or "NHWC"',
    "input": "the name of an input",
    "output": "the name of an output",
}


def _is_right(name: str, value: Any) -> bool:
    if name in ("mean", "std"):
        numbers = isinstance(value, list) and all(type(each) in (int, float) for each in value)
        return numbers and len(value) == 3 and (name == "mean" or min(value) > 0)
    if name == "size":
        return type(value) is int and value > 0
    choices = {"order": ("RGB", "BGR"), "layout": ("NCHW", "NHWC")}.get(name)
    return isinstance(value, str) and (choices is None or value in choices)


def _of_our_opset(path: Path, model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model with the version of the operators that imgsearch runs."""
    from onnx import version_converter

    versions = {each.domain or "ai.onnx": each.version for each in model.opset_import}
    version = versions.pop("ai.onnx", 0)
    used = {node.domain for node in model.graph.node} & versions.keys()
    if used:
        raise ModelError(f"{path} has operators of {', '.join(sorted(used))}, which are not run")
    if version != _OPSET:
        try:
            model = version_converter.convert_version(model, _OPSET)
        except Exception as error:  # of a library in C++
            raise ModelError(
                f"{path} uses version {version} of the operators, and cannot be converted to "
                f"version {_OPSET}; export it with opset_version={_OPSET}"
            ) from error
    del model.opset_import[:]
    model.opset_import.add(domain="", version=_OPSET)
    return model


def _prepared(
    path: Path, model: onnx.ModelProto, wanted: _Preparation
) -> tuple[onnx.ModelProto, int, str]:
    """Return a model with pixels as its input and an embedding as its output.

    Also return the edge of its input in pixels, and the name of the vector that is normalised.
    """
    from onnx import TensorProto, compose, helper, numpy_helper

    stored = {each.name for each in model.graph.initializer}
    given = [each for each in model.graph.input if each.name not in stored]
    taken = _one(path, given, wanted.input, "input")
    made = _one(path, list(model.graph.output), wanted.output, "output")
    if len(given) > 1:
        raise ModelError(f"{path} has {len(given)} inputs; a network for images has one")
    channels_last, size = _shape_of(path, taken, wanted)
    kind = taken.type.tensor_type.elem_type
    if kind not in (TensorProto.FLOAT, TensorProto.UINT8):
        raise ModelError(f"{path} takes neither float32 nor uint8; export it in float32")
    if kind == TensorProto.FLOAT and (wanted.mean is None or wanted.std is None):
        toml = path.with_suffix(".toml")
        raise ModelError(
            f"{path} does not say how pixels are normalised; write {toml} with the lines "
            "mean = [0.485, 0.456, 0.406] and std = [0.229, 0.224, 0.225], if that is how the "
            "network was trained"
        )
    model = compose.add_prefix(model, _PREFIX)
    graph, now, nodes = model.graph, "pixels", []
    if kind == TensorProto.FLOAT:
        nodes.append(helper.make_node("Cast", [now], ["values"], to=TensorProto.FLOAT))
        mean, std = (np.array(each, np.float32) for each in (wanted.mean, wanted.std))
        scale, shift = 1 / (255 * std), -mean / std
        if wanted.order == "BGR":  # whose mean and std are in that order
            scale, shift = scale[::-1].copy(), shift[::-1].copy()
        graph.initializer.append(numpy_helper.from_array(scale, "scale"))
        graph.initializer.append(numpy_helper.from_array(shift, "shift"))
        nodes.append(helper.make_node("Mul", ["values", "scale"], ["scaled"]))
        nodes.append(helper.make_node("Add", ["scaled", "shift"], ["normalised"]))
        now = "normalised"
    if wanted.order == "BGR":
        graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0]), "reversed"))
        nodes.append(helper.make_node("Gather", [now, "reversed"], ["ordered"], axis=3))
        now = "ordered"
    if not channels_last:
        nodes.append(helper.make_node("Transpose", [now], ["planes"], perm=[0, 3, 1, 2]))
        now = "planes"
    nodes.append(helper.make_node("Identity", [now], [f"{_PREFIX}{taken.name}"]))
    last = [
        helper.make_node("Flatten", [f"{_PREFIX}{made.name}"], ["flat"], axis=1),
        helper.make_node("LpNormalization", ["flat"], ["embedding"], axis=1, p=2),
    ]
    everything = [*nodes, *graph.node, *last]
    del graph.node[:]
    graph.node.extend(everything)
    edges: list[str | int | None] = ["n", size, size, 3]
    for place, edge in (
        (graph.input, helper.make_tensor_value_info("pixels", TensorProto.UINT8, edges)),
        (graph.output, helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", "d"])),
    ):
        del place[:]
        place.append(edge)
    del graph.value_info[:]
    del model.metadata_props[:]
    return model, size, f"{_PREFIX}{made.name}"


def _with_output(serialised: bytes, name: str) -> bytes:
    """Return a model with another tensor as an output."""
    import onnx

    model = onnx.load_model_from_string(serialised)
    model.graph.output.append(onnx.ValueInfoProto(name=name))
    result: bytes = model.SerializeToString()
    return result


def _one(
    path: Path, edges: list[onnx.ValueInfoProto], name: str | None, what: str
) -> onnx.ValueInfoProto:
    """Return the input or output with a name, or the only one."""
    names = [edge.name for edge in edges]
    if name is None and len(edges) == 1:
        return edges[0]
    if name in names:
        return edges[names.index(name)]
    toml = path.with_suffix(".toml").name
    has = f"has no {what} {name!r}" if name is not None else f"has {len(edges)} {what}s"
    raise ModelError(
        f"{path} {has}: there are {', '.join(names) or 'none'}; name one in {toml}, as in "
        f'{what} = "NAME"'
    )


def _shape_of(path: Path, taken: onnx.ValueInfoProto, wanted: _Preparation) -> tuple[bool, int]:
    """Tell whether the channels of the input are its last axis, and return its edge in pixels."""
    dims = taken.type.tensor_type.shape.dim
    shape = [each.dim_value if each.HasField("dim_value") else None for each in dims]
    told = f"[{', '.join(str(length or '?') for length in shape)}]"
    if len(shape) != 4:
        raise ModelError(f"{path} takes {told}, not images: [n, 3, height, width]")
    last = wanted.layout == "NHWC" if wanted.layout else (shape[1] != 3 and shape[3] == 3)
    channels, edges = (shape[3], shape[1:3]) if last else (shape[1], shape[2:])
    if channels not in (3, None):
        raise ModelError(f"{path} takes {told}: images of {channels} channels, not of 3")
    known = {edge for edge in edges if edge} | ({wanted.size} if wanted.size else set())
    if len(known) > 1:
        raise ModelError(
            f"{path} takes {told}, and imgsearch makes squares; choose another network"
        )
    if not known:
        toml = path.with_suffix(".toml").name
        raise ModelError(
            f"{path} takes images of any size; write one into {toml}, as in size = 224"
        )
    (size,) = known
    return last, size


def _with_dim(serialised: bytes, dim: int) -> bytes:
    """Return a model whose output has the length of an embedding."""
    import onnx

    model = onnx.load_model_from_string(serialised)
    axis = model.graph.output[0].type.tensor_type.shape.dim[1]
    axis.dim_value = dim
    result: bytes = model.SerializeToString()
    return result
